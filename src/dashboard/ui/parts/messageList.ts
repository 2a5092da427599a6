import { useEffect, useRef, useState } from "preact/hooks";
import { ask, query, queuePath, reasonOf } from "../api.ts";
import type { Filter, Message, Peeked } from "../shapes.ts";

const page_rows = 50;
const preview_characters = 240;
const asked_ms = 5000;
/** Calls that one search makes before it stops and says so: each looks at a thousand messages. */
const calls_max = 20;

export type MessageList = {
  rows: Message[] | undefined;
  error: string | undefined;
  /** There may be more. */
  has_more: boolean;
  /** The search gave up before it had a page: there may be more that it did not look at. */
  stopped_early: boolean;
  is_loading: boolean;
  more(): void;
  refresh(): void;
};

type Found = { rows: Message[]; next: string | undefined; calls: number; stopped_early: boolean };

/** A page of what matches: call after call until it is full, there is no more, or enough was looked at. */
async function findPage(
  queue_id: string,
  filter: Filter,
  from: string | undefined,
  signal: AbortSignal,
): Promise<Found> {
  const rows: Message[] = [];
  let after = from;
  let calls = 0;
  while (calls < calls_max) {
    const asked = { ...filter, after, limit: page_rows - rows.length, body_characters_max: preview_characters };
    const path = `${queuePath(queue_id, "messages", "peek")}${query(asked)}`;
    const page = await ask<Peeked>("GET", path, undefined, signal);
    rows.push(...page.data);
    after = page.next;
    calls += 1;
    if (after === undefined || rows.length >= page_rows) return { rows, next: after, calls, stopped_early: false };
  }
  return { rows, next: after, calls, stopped_early: true };
}

/**
 * The messages that match a filter. The first page is kept up to date while nothing else is loaded and `is_still` is
 * false; further pages are added when asked for.
 */
export function useMessageList(queue_id: string, filter: Filter, is_still: boolean): MessageList {
  const [found, setFound] = useState<(Found & { key: string; pages: number }) | undefined>();
  const [error, setError] = useState<string>();
  const [is_loading, setIsLoading] = useState(false);
  const [asked, setAsked] = useState(0);
  const key = JSON.stringify([queue_id, filter]);
  const own = found?.key === key ? found : undefined;
  const controller = useRef(new AbortController());
  const pages = own?.pages ?? 0;
  const calls = own?.calls ?? 0;

  const load = async (after: string | undefined): Promise<void> => {
    controller.current.abort();
    const current = new AbortController();
    controller.current = current;
    setIsLoading(true);
    try {
      const next = await findPage(queue_id, filter, after, current.signal);
      if (current.signal.aborted) return;
      setError(undefined);
      setFound((before) => {
        const kept = after !== undefined && before?.key === key ? before : undefined;
        return { ...next, key, pages: (kept?.pages ?? 0) + 1, rows: [...(kept?.rows ?? []), ...next.rows] };
      });
    } catch (cause) {
      if (!current.signal.aborted) setError(reasonOf(cause));
    }
    if (!current.signal.aborted) setIsLoading(false);
  };

  // The key says what is asked for.
  useEffect(() => {
    void load(undefined);
    return () => controller.current.abort();
  }, [key, asked]);

  // Load asks for what the key says.
  useEffect(() => {
    // What is found only by looking at many messages is looked for when somebody asks.
    if (is_still || pages > 1 || calls > 1) return;
    const timer = setInterval(() => {
      if (!document.hidden) void load(undefined);
    }, asked_ms);
    return () => clearInterval(timer);
  }, [key, is_still, pages, calls]);

  return {
    rows: own?.rows,
    error,
    has_more: own?.next !== undefined,
    stopped_early: own?.stopped_early ?? false,
    is_loading,
    more: () => void load(own?.next),
    refresh: () => setAsked((before) => before + 1),
  };
}
