import { sql } from "drizzle-orm";
import type { Db } from "../db/db.ts";
import { archived_messages, messages, queues } from "../db/schema.ts";
import { column, value } from "./sql.ts";

// Never one giant delete: it would hold back vacuum for everybody and run into the statement timeout.
const page_rows = 1000;

export type Housekeeping = {
  /** Archives expired messages of a queue in the order of publication, until a page holds none; answers how many. */
  expireOldest(queue_no: number): Promise<number>;
};

/** Ends expired messages in bounded pages, each a statement of its own. May run concurrently with anything. */
export function createHousekeeping(db: Db): Housekeeping {
  const { orm } = db;
  // One page of a walk in publish order. Whoever holds a live lease may still ack, so those rows stay.
  const seen = orm
    .$with("seen", {
      last_id: column<string | null>("last_id"),
      count: column<number>("count"),
      is_last: column<boolean>("is_last"),
    })
    .as(sql`
      with page as materialized (
        select message.id, message.expires_at
        from ${messages} as message
        where message.queue_no = ${value("queue_no")} and message.id > ${value("after")}
        order by message.id
        limit ${value("limit")}
      )
      select max(page.id) as last_id, (count(*) filter (where page.expires_at <= now()))::int as count,
        count(*) < ${value("limit")}::int as is_last
      from page`);
  const ended = orm.$with("ended", {}).as(sql`
    delete from ${messages} as message
    where message.queue_no = ${value("queue_no")} and message.id > ${value("after")}
      and message.id <= (select last_id from seen)
      and message.expires_at <= now() and coalesce(message.lease_expires_at <= now(), true)
    returning message.*`);
  const archived = orm.$with("archived", {}).as(sql`
    insert into ${archived_messages} (
      queue_no, id, body, label, attributes, priority, delivery_attempts, created_at, last_error, dead, outcome, expires_at)
    select ended.queue_no, ended.id, ended.body, ended.label, ended.attributes, ended.priority, ended.delivery_attempts,
      ended.created_at, ended.last_error, ended.dead, 'expired', now() + queue.kept_seconds * interval '1 second'
    from ended
    cross join lateral (
      select coalesce(queue.archive_retention_seconds, queue.message_retention_seconds) as kept_seconds
      from ${queues} as queue
      where queue.no = ended.queue_no
      limit 1
    ) as queue
    where queue.kept_seconds > 0`);
  const archivePage = orm.with(seen, ended, archived).select().from(seen).prepare("archive_expired_page");

  return {
    async expireOldest(queue_no) {
      let count = 0;
      for (let after = ""; ; ) {
        const values = { queue_no, after, limit: page_rows };
        const [page] = await db.run("archive_expired_page", () => archivePage.execute(values), true);
        count += page?.count ?? 0;
        // Retention makes the expired ones the oldest: a page without any is the end.
        if (page?.last_id == null || page.is_last || page.count === 0) return count;
        after = page.last_id;
      }
    },
  };
}
