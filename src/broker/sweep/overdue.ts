import { sql } from "drizzle-orm";
import type { Db, Prepared } from "../../db/db.ts";
import { messages, queues } from "../../db/schema.ts";
import type { Settle } from "../settle/settle.ts";
import { column, prepare, value } from "../statement.ts";

/** A place in the table of messages, in the order of its primary key. */
export type Place = { queue_no: number; id: string };

/** One row without a message when there is none; `last_id` is null at the end of the table. */
type Overdue = {
  last_queue_no: number | null;
  last_id: string | null;
  queue_id: string | null;
  id: string | null;
  verdict: "expired" | "dead_expired" | "dead" | null;
};

/** Rows that one page reads. */
const page_rows = 2000;

/** One page of a scan along the primary key: what has expired or used up its deliveries, and nobody holds. */
function prepareFindOverdue(db: Db): Prepared<Overdue[]> {
  const page = db.orm.$with("page", {}).as(sql`
    select message.queue_no, message.id, message.expires_at <= now() as is_expired, message.delivery_attempts,
      message.visible_at <= now() as is_visible, coalesce(message.lease_expires_at <= now(), true) as is_free
    from ${messages} as message
    where (message.queue_no, message.id) > (${value("queue_no")}::int, ${value("id")}::text)
    order by message.queue_no, message.id
    limit ${page_rows}`);
  const overdue = db.orm
    .$with("overdue", {
      last_queue_no: column<number | null>("last_queue_no"),
      last_id: column<string | null>("last_id"),
      queue_id: column<string | null>("queue_id"),
      id: column<string | null>("id"),
      verdict: column<Overdue["verdict"]>("verdict"),
    })
    .as(sql`
      select edge.queue_no as last_queue_no, edge.id as last_id, found.queue_id, found.id, found.verdict
      from (values (1)) as one
      left join (
        select page.queue_no, page.id from page order by page.queue_no desc, page.id desc limit 1
      ) as edge on (select count(*) from page) = ${page_rows}
      left join (
        select queue.id as queue_id, page.id,
          case
            when not page.is_expired then 'dead'
            when queue.dead_letter_on_expiry and queue.dead_queue_no is not null then 'dead_expired'
            else 'expired'
          end as verdict
        from page
        cross join lateral (select * from ${queues} as queue where queue.no = page.queue_no limit 1) as queue
        where page.is_free
          and (page.is_expired or page.is_visible and page.delivery_attempts >= queue.message_max_deliveries)
      ) as found on true`);
  return prepare<Overdue>(db.orm.with(page, overdue).select().from(overdue), "find_overdue");
}

/**
 * Slow scan of the whole table that finds what the other sweeps do not see, which look where such messages usually are:
 * one with a short life may stand behind one with a long life, and no server may have run when a last lease ended.
 */
export function createOverdueSweep(db: Db, settle: Settle) {
  const findOverdue = prepareFindOverdue(db);
  return {
    /**
     * One page, from `from` on: ends and dead-letters what is overdue. `next` is undefined at the end of the table.
     * `failures`: why the messages of some queues are still there; they hold up no others, nor the scan. Repeatable.
     */
    async sweepOverdue(
      from: Place | undefined,
    ): Promise<{ count: number; next: Place | undefined; failures: unknown[] }> {
      const rows = await db.run("find_overdue", () => findOverdue.execute(from ?? { queue_no: 0, id: "" }), true);
      let count = 0;
      const failures: unknown[] = [];
      const overdue = rows.flatMap(({ id, queue_id, verdict }) =>
        id === null
          ? []
          : [{ id, lease_token: null, verdict, group: `${verdict}\n${queue_id}`, queue_id: queue_id ?? "" }],
      );
      for (const own of Map.groupBy(overdue, ({ group }) => group).values()) {
        const { verdict, queue_id } = own[0] as (typeof own)[number];
        try {
          if (verdict === "expired") count += await settle.expire(queue_id, own);
          else count += await settle.deadLetter(queue_id, own, verdict === "dead" ? "max_deliveries" : "expired");
        } catch (error) {
          failures.push(error);
        }
      }
      const [edge] = rows;
      const next = edge?.last_id == null ? undefined : { queue_no: edge.last_queue_no ?? 0, id: edge.last_id };
      return { count, next, failures };
    },
  };
}
