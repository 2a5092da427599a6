// Processes that others have started, as Linux tells of them.

import { readdirSync, readFileSync } from "node:fs";

/** The processes that one has started, those that have ended and were not asked how left out. */
export const childrenOf = (pid: number): number[] =>
  readdirSync("/proc").flatMap((entry) => {
    if (!/^\d+$/.test(entry)) return [];
    try {
      const text = readFileSync(`/proc/${entry}/stat`, "latin1");
      const [state, parent] = text.slice(text.lastIndexOf(")") + 2).split(" ");
      return Number(parent) === pid && state !== "Z" && state !== "X" ? [Number(entry)] : [];
    } catch {
      return [];
    }
  });

/** Sends a signal to each of them that is still there. */
export function signalAll(pids: number[], signal: NodeJS.Signals): void {
  for (const pid of pids) {
    try {
      process.kill(pid, signal);
    } catch {
      // It has ended meanwhile.
    }
  }
}

/** One that has ended may wait for long until whoever is its parent by then asks how. */
export function isAlive(pid: number): boolean {
  try {
    return !/^State:\s*[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}
