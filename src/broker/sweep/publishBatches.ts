import { sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { publish_batches } from "../../db/schema.ts";
import { column, value } from "../statement.ts";
import { untilEmpty } from "./untilEmpty.ts";

/** How long the guard against double publishing must outlive a statement: far longer than any of them runs. */
const batch_guard_minutes = 10;

/** The rows that tell a statement which is sent again that it has run before. */
export function createPublishBatchSweep(db: Db) {
  const { orm } = db;
  // Ids rise with time, so the old ones are at the start of the key: the page ends the scan.
  const swept = orm.$with("swept", {}).as(sql`
    with page as materialized (
      select batch.id, batch.created_at from ${publish_batches} as batch order by batch.id limit ${value("limit")}::int
    )
    delete from ${publish_batches} as batch
    using page
    where batch.id = page.id and page.created_at < now() - ${batch_guard_minutes} * interval '1 minute'
    returning batch.id`);
  const sweptCount = orm
    .$with("swept_count", { count: column<number>("count") })
    .as(sql`select count(*)::int as count from swept`);
  const sweepBatches = orm.with(swept, sweptCount).select().from(sweptCount).prepare("sweep_batches");

  return {
    /** Forgets statements that nobody can repeat any more; answers how many. Repeatable. */
    sweepBatches: (): Promise<number> => untilEmpty(db, "sweep_batches", sweepBatches),
  };
}
