import { useEffect, useState } from "preact/hooks";
import { ask, askedForKey, watchKey } from "./api.ts";

export type Right = "publish" | "consume" | "peek" | "manage";

// Until it is known, everything is offered: what the key does not allow is refused in words.
let allowed: ReadonlySet<Right> | undefined;
let latest = new AbortController();
const watchers = new Set<() => void>();

async function learn(): Promise<void> {
  latest.abort();
  latest = new AbortController();
  const { signal } = latest;
  const info = await ask<{ allowed: Right[] }>("GET", "info", undefined, signal).catch(() => undefined);
  if (signal.aborted || info === undefined) return;
  allowed = new Set(info.allowed);
  for (const watch of watchers) watch();
}

/** Asks what the reader's key allows, now and whenever there is another one. For the start of the page. */
export function learnRights(): void {
  watchKey(() => {
    if (askedForKey() === undefined) void learn();
  });
  void learn();
}

/** What may be offered to the reader. */
export function useRights(): (right: Right) => boolean {
  const [, setChanges] = useState(0);
  useEffect(() => {
    const watch = () => setChanges((changes) => changes + 1);
    watchers.add(watch);
    return () => {
      watchers.delete(watch);
    };
  }, []);
  return (right) => allowed === undefined || allowed.has(right);
}
