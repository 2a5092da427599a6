import { PsqlqueueError } from "./errors.ts";

const first_ms = 100;
const most_ms = 30_000;

/**
 * Milliseconds to wait after so many failures in a row: doubling, with jitter, so that many clients do not come back
 * together; never less than the server asks for.
 */
export function backoffMs(failures: number, error?: unknown): number {
  const asked_ms = error instanceof PsqlqueueError ? (error.retry_after_seconds ?? 0) * 1000 : 0;
  const base_ms = Math.min(most_ms, first_ms * 2 ** Math.min(failures - 1, 20));
  return asked_ms + base_ms * (0.5 + Math.random() / 2);
}

/** A receive that waits takes longer than this, unless its server, or the queue, lets nobody wait. */
const at_once_ms = 500;
const idle_ms_max = 3200;

/**
 * Tells how long to pause after an answer to a receive, given its count of messages and how long it took: where empty
 * answers come at once, more and more, as a paused queue would else be asked hundreds of times per second.
 */
export function createIdle(): (count: number, took_ms: number) => number {
  let empties = 0;
  return (count, took_ms) => {
    empties = count === 0 && took_ms < at_once_ms ? empties + 1 : 0;
    if (empties === 0) return 0;
    return Math.min(idle_ms_max, first_ms * 2 ** Math.min(empties - 1, 20)) * (0.5 + Math.random() / 2);
  };
}

/** Waits; at once over when the signal is aborted. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal?.addEventListener("abort", end, { once: true });
  });
}
