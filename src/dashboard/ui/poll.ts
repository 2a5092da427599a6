import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { reasonOf } from "./api.ts";

export type Polled<T> = {
  /** The latest answer; stays when a later one fails. */
  data: T | undefined;
  /** Why the latest try failed. */
  error: string | undefined;
  /** Asks again now. */
  refresh(): void;
};

/** For what is costly: asked for again after so many times what it took, so that a page is a hundredth of a server. */
export const patience = 100;
const patience_ms_max = 60_000;

/**
 * Asks again and again, `ms` after each answer or later; not while nobody sees the page, and at once when somebody does
 * again. `key` names what is asked: another one starts anew.
 */
export function usePoll<T>(
  key: string,
  work: (signal: AbortSignal) => Promise<T>,
  ms: number,
  times_took = 0,
): Polled<T> {
  const [state, setState] = useState<{ key: string; data: T | undefined; error: string | undefined }>({
    key,
    data: undefined,
    error: undefined,
  });
  const latest = useRef(work);
  latest.current = work;
  const restart = useRef<() => void>(() => {});

  useEffect(() => {
    const controller = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let runs = 0;
    const run = async () => {
      clearTimeout(timer);
      runs += 1;
      const own = runs;
      const started_ms = performance.now();
      let next: { data?: T; error: string | undefined };
      try {
        next = { data: await latest.current(controller.signal), error: undefined };
      } catch (error) {
        next = { error: reasonOf(error) };
      }
      if (controller.signal.aborted || own !== runs) return;
      setState((before) => ({ key, data: before.key === key ? before.data : undefined, ...next }));
      const took_ms = performance.now() - started_ms;
      const delay_ms = Math.max(ms, Math.min(patience_ms_max, times_took * took_ms));
      if (!document.hidden) timer = setTimeout(run, delay_ms);
    };
    const onVisibility = () => {
      if (document.hidden) clearTimeout(timer);
      else void run();
    };
    restart.current = () => void run();
    document.addEventListener("visibilitychange", onVisibility);
    void run();
    return () => {
      controller.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", onVisibility);
    };
  }, [key, ms, times_took]);

  const refresh = useCallback(() => restart.current(), []);
  // What was asked under another name is not this.
  const is_own = state.key === key;
  return { data: is_own ? state.data : undefined, error: is_own ? state.error : undefined, refresh };
}
