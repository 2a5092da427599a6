import type { Broker } from "../broker/broker.ts";
import { observe } from "../observe.ts";
import type { Job } from "./loop.ts";

const every_ms = 20_000;
const archive_every_ms = 3_600_000;
const name = "housekeeping";

/**
 * Archives expired messages, drops old archive days, forgets old publish batches and client keys, removes what deleted
 * queues left behind. One server of a database does it; another takes over within 30 s when that one falls silent.
 */
export function housekeepingJob(broker: Broker, holder: string): Job & { resign(): Promise<void> } {
  let archived_ms = Number.NEGATIVE_INFINITY;
  return {
    name,
    async run() {
      if (!(await broker.lead(name, holder))) return every_ms;
      if (performance.now() - archived_ms >= archive_every_ms) {
        const kept = await broker.keepArchive();
        archived_ms = performance.now();
        if (kept.days_dropped > 0) observe({ kind: "job", job: "archive", details: kept });
      }
      const expired = await broker.sweepExpired();
      const keys = await broker.sweepDeduplications();
      await broker.forgetTasks();
      const batches = await broker.sweepBatches();
      const queues = await broker.sweepDeletedQueues();
      if (expired + keys + batches + queues > 0) {
        observe({ kind: "job", job: name, details: { expired, keys, batches, queues } });
      }
      return every_ms;
    },
    resign: () => broker.resign(name, holder),
  };
}
