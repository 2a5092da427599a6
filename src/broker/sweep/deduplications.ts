import { sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { queues } from "../../db/schema.ts";
import { column, value } from "../statement.ts";
import { untilEmpty } from "./untilEmpty.ts";

/** Client keys that no queue's window holds any more. */
export function createDeduplicationSweep(db: Db) {
  // Kept for the longest window of any queue; how long a key counts is decided when it is met.
  const longest_ago = sql`now() - (
    select greatest(300, coalesce(max(queue.dedup_window_seconds), 0)) from ${queues} as queue
  ) * interval '1 second'`;
  const sweepKeys = (["deduplications", "topic_deduplications"] as const).map((table) => {
    const name = sql.identifier(table);
    const gone = db.orm.$with("gone", {}).as(sql`
      delete from psqlqueue.${name} as seen
      where seen.ctid = any (array(
        select old.ctid
        from psqlqueue.${name} as old
        where old.created_at < ${longest_ago}
        order by old.created_at
        limit ${value("limit")}::int
      )) and seen.created_at < ${longest_ago}   -- not one that was taken anew meanwhile
      returning 1`);
    const counted = db.orm
      .$with("counted", { count: column<number>("count") })
      .as(sql`select count(*)::int as count from gone`);
    return {
      name: `sweep_${table}`,
      statement: db.orm.with(gone, counted).select().from(counted).prepare(`sweep_${table}`),
    };
  });

  return {
    /** Forgets client keys that no queue's window holds any more; answers how many. Repeatable. */
    async sweepDeduplications(): Promise<number> {
      let total = 0;
      for (const { name, statement } of sweepKeys) total += await untilEmpty(db, name, statement);
      return total;
    },
  };
}
