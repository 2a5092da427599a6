import { type Leadership, startLeadership } from "../background/leadership.ts";
import { type Job, startLoop } from "../background/loop.ts";
import type { Broker } from "../broker/broker.ts";

/** When each job runs first. One that takes over what another process did before begins at once. */
export const first_ms = 1000;

export type Duties = {
  /** Starts what one process does for all, too. Repeatable. `in_ms`: its first run. */
  lead(in_ms?: number): void;
  isLeading(): boolean;
  /** Resolves when no job runs any more. */
  end(): Promise<void>;
  /** Lets another server lead at once. */
  resign(): Promise<void>;
};

/** The background work of a process: its own jobs, and once it leads also those that one process does for all. */
export function startDuties(broker: Broker, holder: string, own: Job[], leading: Job[]): Duties {
  let leadership: Leadership | undefined;
  let is_ended = false;
  const isLeader = () => leadership?.isLeader() ?? false;
  const start = (job: Job, in_ms: number) => startLoop(job, isLeader, in_ms);
  const ends = own.map((job) => start(job, first_ms));
  return {
    lead(in_ms = 0) {
      if (leadership !== undefined || is_ended) return;
      leadership = startLeadership(broker, holder);
      ends.push(...leading.map((job) => start(job, in_ms)));
    },
    isLeading: () => leadership !== undefined,
    async end() {
      is_ended = true;
      await Promise.all(ends.map((end) => end()));
    },
    resign: async () => await leadership?.stop(),
  };
}
