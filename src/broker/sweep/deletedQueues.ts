import { eq, lte, sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { deleted_queues } from "../../db/schema.ts";
import { type Removals, removalOfQueue } from "../manage/removal.ts";
import { value } from "../statement.ts";

/** A publish that saw a queue before its deletion has committed long before this. */
const deleted_queue_seconds = 60;
/** How long one deleted queue may hold up the next in a run; the next run goes on. */
const removal_ms_max = 2000;

/** What queues leave behind whose deletion was interrupted, or that were still published to. */
export function createDeletedQueueSweep(db: Db, removals: Removals) {
  const { orm } = db;
  const doomed = orm
    .select({ no: deleted_queues.no })
    .from(deleted_queues)
    .where(lte(deleted_queues.deleted_at, sql`now() - ${deleted_queue_seconds} * interval '1 second'`))
    .prepare("list_deleted_queues");
  const forget = orm
    .delete(deleted_queues)
    .where(eq(deleted_queues.no, value("no")))
    .prepare("forget_deleted_queue");

  return {
    /** Removes what is left of deleted queues, for a bounded time each; answers how many were looked at. */
    async sweepDeletedQueues(): Promise<number> {
      const rows = await db.run("list_deleted_queues", () => doomed.execute(), true);
      for (const { no } of rows) {
        const { is_done } = await removals.proceed(removalOfQueue(no), removal_ms_max);
        if (is_done) await db.run("forget_deleted_queue", () => forget.execute({ no }), true);
      }
      return rows.length;
    },
  };
}
