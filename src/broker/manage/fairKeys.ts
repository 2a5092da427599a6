import { sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { queues } from "../../db/schema.ts";
import type { OnReady } from "../onReady.ts";
import { createPages } from "../pages.ts";
import { column, prepare, value } from "../statement.ts";

/** Keys that one statement looks at. */
const page_keys = 500;

type Repaired = { last_key: string | null; checked: number; repaired: number; queue_id: string; now: string };

/**
 * Makes those keys of a shared queue take part again that have messages and were forgotten, a page after `after`
 * (exclusive; null: from the first). `last_key` is null at the end. On a healthy queue it changes nothing.
 */
export type RepairFair = (
  queue_no: number,
  after: string | null,
) => Promise<{ last_key: string | null; checked: number; repaired: number }>;

/** See RepairFair. Waits for a receive of the queue that is going on. Repeatable. */
export function createFairRepair(db: Db, onReady: OnReady): RepairFair {
  const page = db.orm
    .$with("page", {
      last_key: column<string | null>("last_key"),
      checked: column<number>("checked"),
      repaired: column<number>("repaired"),
      queue_id: column<string>("queue_id"),
      now: column<string>("now"),
    })
    .as(sql`
      select own.*, queue.id as queue_id, now() as now
      from ${queues} as queue
      cross join lateral psqlqueue.repair_fair_keys(queue.no, ${value("after")}::text, ${value("limit")}::int) as own
      where queue.no = ${value("queue_no")}::int`);
  const statement = prepare<Repaired>(db.orm.with(page).select().from(page), "repair_fair_keys");
  const pages = createPages(page_keys);
  return async (queue_no, after) => {
    const [row] = await pages((limit) =>
      db.run("repair_fair_keys", () => statement.execute({ queue_no, after, limit }), true),
    );
    if (row === undefined) return { last_key: null, checked: 0, repaired: 0 };
    if (row.repaired > 0) onReady(row.queue_id, null, row.now);
    return { last_key: row.last_key, checked: row.checked, repaired: row.repaired };
  };
}
