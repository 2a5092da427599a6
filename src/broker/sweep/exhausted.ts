import { sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { messages, queues } from "../../db/schema.ts";
import { levels } from "../levels.ts";
import type { Settle } from "../settle/settle.ts";
import { column, value } from "../statement.ts";

/** Messages that one run dead-letters per queue. */
const rows_max = 5000;

/** Dead-letters messages that have used up their deliveries, so that an idle queue does so too. */
export function createExhaustedSweep(db: Db, settle: Settle) {
  // Those whose last lease ran out a moment ago: bounded by time, not by backlog.
  const exhausted = db.orm
    .$with("exhausted", { queue_id: column<string>("queue_id"), id: column<string>("id") })
    .as(sql`
      select queue.id as queue_id, message.id
      from ${queues} as queue
      cross join ${levels}
      cross join lateral (
        select message.id
        from ${messages} as message
        where message.queue_no + 0 = queue.no and message.priority = level.priority
          and message.visible_at > now() - ${value("seconds")}::int * interval '1 second' and message.visible_at <= now()
          and message.delivery_attempts >= queue.message_max_deliveries and message.lease_token is not null
        order by message.visible_at, message.id collate "POSIX"
        limit ${rows_max}
      ) as message
      where queue.message_max_deliveries is not null`);
  const findExhausted = db.orm.with(exhausted).select().from(exhausted).prepare("find_exhausted");

  return {
    /** Dead-letters messages whose last lease ended within `seconds` and which nobody has; answers how many. */
    async sweepExhausted(seconds: number): Promise<number> {
      const rows = await db.run("find_exhausted", () => findExhausted.execute({ seconds }), true);
      let total = 0;
      const failures: unknown[] = [];
      for (const [queue_id, own] of Map.groupBy(rows, (row) => row.queue_id)) {
        const exhausted = own.map(({ id }) => ({ id, lease_token: null }));
        try {
          total += await settle.deadLetter(queue_id, exhausted, "max_deliveries");
        } catch (error) {
          failures.push(error);
        }
      }
      // A queue that fails holds up no other.
      if (failures.length > 0) throw failures[0];
      return total;
    },
  };
}
