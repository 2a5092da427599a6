import { sql } from "drizzle-orm";
import type { Db, Prepared } from "../db/db.ts";
import { deduplications, messages, outbox, queues, tasks } from "../db/schema.ts";
import { takesOldKeys } from "./publish.ts";
import type { OnReady } from "./settle.ts";
import { column, value } from "./sql.ts";

const channel = "psqlqueue_outbox";
const chunk_rows = 500;

type Moved = { queue_id: string | null; label: string | null; count: number; now: string };

/** Moves committed rows of the outbox to their queues; rows of transactions still open are not seen, and wait. */
function prepareMove(db: Db): Prepared<Moved[]> {
  const taken = db.orm.$with("taken", {}).as(sql`
    delete from ${outbox} as row
    where row.seq = any (array(
      select waiting.seq from ${outbox} as waiting order by waiting.seq limit ${value("limit")} for update skip locked
    ))
    returning row.*`);
  const item = db.orm.$with("item", {}).as(sql`
    select taken.*, queue.id as queue_id, queue.delivery_delay_seconds, queue.message_retention_seconds,
      keyed.key, row_number() over (partition by taken.queue_no, keyed.key order by taken.seq) as nth
    from taken
    left join lateral (select * from ${queues} as queue where queue.no = taken.queue_no limit 1) as queue on true
    cross join lateral (
      select case
        when queue.dedup_window_seconds = 0 then null
        when taken.dedup_key is not null then taken.dedup_key
        when queue.content_dedup then taken.body_hash
      end as key
    ) as keyed`);
  const claimed = db.orm.$with("claimed", {}).as(sql`
    insert into ${deduplications} as seen (queue_no, key, message_id, body_hash, created_at)
    select item.queue_no, item.key, item.id, item.body_hash, now()
    from item
    where item.key is not null and item.nth = 1 and item.queue_id is not null
    order by item.queue_no, item.key
    ${takesOldKeys}`);
  const stored = db.orm.$with("stored", {}).as(sql`
    insert into ${messages} (queue_no, id, body, label, attributes, visible_at, expires_at, has_ttl, created_at)
    select item.queue_no, item.id, item.body, item.label, item.attributes,
      case
        when item.deliver_at is not null then greatest(now(), item.deliver_at)
        else now() + coalesce(item.delay_seconds, item.delivery_delay_seconds) * interval '1 second'
      end,
      least(now() + item.message_retention_seconds * interval '1 second', item.expires_at,
        now() + item.ttl_seconds * interval '1 second'),
      item.expires_at is not null or item.ttl_seconds is not null, now()
    from item
    where item.queue_id is not null and (item.key is null or item.id in (select claimed.message_id from claimed))
    order by item.seq`);
  const answer = db.orm
    .$with("answer", {
      queue_id: column<string | null>("queue_id"),
      label: column<string | null>("label"),
      count: column<number>("count"),
      now: column<string>("now"),
    })
    .as(
      sql`select item.queue_id, item.label, count(*)::int as count, now() as now from item group by item.queue_id, item.label`,
    );
  return db.orm
    .with(taken, item, claimed, stored, answer)
    .select()
    .from(answer)
    .prepare("move_outbox") as unknown as Prepared<Moved[]>;
}

/** Messages that users published by SQL inside their own transactions. Servers may share the work. */
export function createOutbox(db: Db, onReady: OnReady) {
  const move = prepareMove(db);
  const work = db.orm
    .$with("work", { has_outbox: column<boolean>("has_outbox"), has_tasks: column<boolean>("has_tasks") })
    .as(sql`
      select exists (select from ${outbox}) as has_outbox,
        exists (select from ${tasks} as task where task.state = 'running') as has_tasks`);
  const findWork = db.orm.with(work).select().from(work).prepare("find_work");

  return {
    /** Is there anything in the outbox, or a running task? One cheap look for both. */
    async findWork(): Promise<{ has_outbox: boolean; has_tasks: boolean }> {
      const [row] = await db.run("find_work", () => findWork.execute(), true);
      return row ?? { has_outbox: false, has_tasks: false };
    },

    /** Moves what is committed, in order of the calls; answers how many, and how many had lost their queue. */
    async moveOutbox(): Promise<{ moved: number; dropped: number }> {
      let moved = 0;
      let dropped = 0;
      for (;;) {
        const rows = await db.run("move_outbox", () => move.execute({ limit: chunk_rows }));
        let count = 0;
        for (const row of rows) {
          count += row.count;
          if (row.queue_id === null) dropped += row.count;
          else {
            moved += row.count;
            onReady(row.queue_id, row.label, row.now);
          }
        }
        if (count < chunk_rows) return { moved, dropped };
      }
    },

    /** Calls when somebody's transaction with a publish commits. Rejects where LISTEN is not to be had. */
    listenToOutbox: (onCommit: () => void) => db.listen(channel, onCommit, onCommit),
  };
}
