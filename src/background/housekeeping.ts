import type { Broker } from "../broker/broker.ts";
import type { Place } from "../broker/overdue.ts";
import { observe } from "../observe.ts";
import type { Job } from "./loop.ts";
import { createSnapshotWatch } from "./snapshots.ts";

const every_ms = 20_000;
const archive_every_ms = 3_600_000;
/** Pages of the walk round the table that one run reads: while it finds nothing, and while it does. */
const idle_pages_max = 5;
const busy_pages_max = 100;
const name = "housekeeping";

/**
 * Archives expired messages, walks round the table for what the quick looks do not see, drops old archive days,
 * forgets old publish batches and client keys, removes what deleted queues left behind, warns of old snapshots. One
 * server of a database does it; another takes over within 30 s when that one falls silent.
 */
export function housekeepingJob(broker: Broker, holder: string): Job & { resign(): Promise<void> } {
  const watchSnapshots = createSnapshotWatch(broker);
  let archived_ms = Number.NEGATIVE_INFINITY;
  /** Where the walk round the table stands; undefined: at its beginning. */
  let place: Place | undefined;

  async function walk(): Promise<number> {
    let total = 0;
    for (let pages = 1; pages <= busy_pages_max; pages++) {
      const { count, next } = await broker.sweepOverdue(place);
      total += count;
      place = next;
      if (next === undefined || (count === 0 && pages >= idle_pages_max)) break;
    }
    return total;
  }

  return {
    name,
    async run() {
      if (!(await broker.lead(name, holder))) return every_ms;
      if (performance.now() - archived_ms >= archive_every_ms) {
        const kept = await broker.keepArchive();
        archived_ms = performance.now();
        if (kept.days_dropped > 0) observe({ kind: "job", job: "archive", details: kept });
      }
      await watchSnapshots();
      const expired = await broker.sweepExpired();
      const overdue = await walk();
      const keys = await broker.sweepDeduplications();
      await broker.forgetTasks();
      const batches = await broker.sweepBatches();
      const queues = await broker.sweepDeletedQueues();
      if (expired + overdue + keys + batches + queues > 0) {
        observe({ kind: "job", job: name, details: { expired, overdue, keys, batches, queues } });
      }
      return every_ms;
    },
    resign: () => broker.resign(name, holder),
  };
}
