import { sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { fair_changes, fair_keys } from "../../db/orderingSchema.ts";
import { queues } from "../../db/schema.ts";
import type { RepairFair } from "../manage/fairKeys.ts";
import { column, value } from "../statement.ts";
import { untilEmpty } from "./untilEmpty.ts";

/** Pages that one sweep looks at; the next one goes on. */
const pages_max = 10;

/** What queues leave behind that are no longer shared, or deleted: see fair_keys. */
function prepareForgetting(db: Db) {
  return [fair_changes, fair_keys].map((table, i) => {
    // One step along the index for each queue, and not one for each row.
    const gone = db.orm.$with("gone", {}).as(sql`
      with recursive known (queue_no) as (
        select min(row.queue_no) from ${table} as row
        union all
        select (select min(row.queue_no) from ${table} as row where row.queue_no > known.queue_no)
        from known
        where known.queue_no is not null
      )
      delete from ${table} as row
      where row.ctid = any (array(
        select left_over.tid
        from known
        cross join lateral (
          select row.ctid as tid from ${table} as row where row.queue_no = known.queue_no limit ${value("limit")}::int
        ) as left_over
        where known.queue_no is not null and not exists (
          select from ${queues} as queue where queue.no = known.queue_no and queue.fair_by is not null
        )
        limit ${value("limit")}::int
      ))
      returning 1`);
    const counted = db.orm
      .$with("counted", { count: column<number>("count") })
      .as(sql`select count(*)::int as count from gone`);
    const name = i === 0 ? "forget_fair_changes" : "forget_fair_keys";
    return { name, statement: db.orm.with(gone, counted).select().from(counted).prepare(name) };
  });
}

/** The safety net of shared queues, and what they leave behind. */
export function createFairSweep(db: Db, repair: RepairFair) {
  const forgetting = prepareForgetting(db);
  const next = db.orm.$with("next", { queue_no: column<number | null>("queue_no") }).as(sql`
    select min(queue.no) as queue_no
    from ${queues} as queue
    where queue.fair_by is not null and queue.no > ${value("queue_no")}::int`);
  const findNext = db.orm.with(next).select().from(next).prepare("find_next_shared_queue");
  /** Where it stands; after null: at the first key of the next queue. */
  let place: { queue_no: number; after: string | null } = { queue_no: -1, after: null };

  /** Looks at one page of keys; false at the end of all queues. */
  async function step(): Promise<{ repaired: number; is_end: boolean }> {
    if (place.after === null) {
      const [row] = await db.run("find_next_shared_queue", () => findNext.execute({ queue_no: place.queue_no }), true);
      place = { queue_no: row?.queue_no ?? -1, after: null };
      if (place.queue_no === -1) return { repaired: 0, is_end: true };
    }
    const { last_key, repaired } = await repair(place.queue_no, place.after);
    place = { ...place, after: last_key };
    return { repaired, is_end: false };
  }

  return {
    /**
     * Repairs some pages of keys, going on where the last call ended, and forgets keys of queues that are not shared;
     * answers how many it repaired or forgot. Repeatable, but not to be run twice at once by one server.
     */
    async sweepFairKeys(): Promise<number> {
      let total = 0;
      for (let pages = 0; pages < pages_max; pages++) {
        const { repaired, is_end } = await step();
        total += repaired;
        if (is_end) break;
      }
      for (const { name, statement } of forgetting) total += await untilEmpty(db, name, statement);
      return total;
    },
  };
}
