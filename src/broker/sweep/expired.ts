import { sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { messages, queues } from "../../db/schema.ts";
import type { NoteMessages } from "../../observe.ts";
import { createPages } from "../pages.ts";
import { archive, keptOf } from "../settle/archiving.ts";
import type { Settle } from "../settle/settle.ts";
import { column, value } from "../statement.ts";

// Never one giant delete: it would hold back vacuum for everybody and run into the statement timeout.
const page_rows = 1000;

/** A page of a scan of one queue in publish order: archives what has expired. */
function prepareArchivePage(db: Db) {
  const { orm } = db;
  // Whoever holds a live lease may still ack, so those rows stay.
  const seen = orm
    .$with("seen", {
      last_id: column<string | null>("last_id"),
      expired: column<number>("expired"),
      ended: column<number>("ended"),
      is_last: column<boolean>("is_last"),
      ordered_ids: column<string | null>("ordered_ids"),
    })
    .as(sql`
      with page as materialized (
        select message.id, message.expires_at, message.ordering_seq, message.lease_expires_at
        from ${messages} as message
        where message.queue_no = ${value("queue_no")} and message.id > ${value("after")}
        order by message.id
        limit ${value("limit")}
      )
      select max(page.id) as last_id, (count(*) filter (where page.expires_at <= now()))::int as expired,
        (count(*) filter (where page.expires_at <= now() and coalesce(page.lease_expires_at <= now(), true)
          and page.ordering_seq is null))::int as ended,
        count(*) < ${value("limit")}::int as is_last,
        -- Those with an ordering key are ended one by one: the next of the key is to be seen then.
        string_agg(page.id, ',') filter (where page.ordering_seq is not null and page.expires_at <= now()
          and coalesce(page.lease_expires_at <= now(), true)) as ordered_ids
      from page`);
  const gone = orm.$with("gone", {}).as(sql`
    delete from ${messages} as message
    where message.queue_no = ${value("queue_no")} and message.id > ${value("after")}
      and message.id <= (select last_id from seen)
      and message.expires_at <= now() and coalesce(message.lease_expires_at <= now(), true)
      and message.ordering_seq is null
    returning ${keptOf("message")}, (
      select coalesce(queue.archive_retention_seconds, queue.message_retention_seconds)
      from ${queues} as queue
      where queue.no = ${value("queue_no")}
      limit 1
    ) as kept_seconds`);
  const archived = orm
    .$with("archived", {})
    .as(archive({ outcome: sql`'expired'`, used_token: sql`null`, where: sql`true` }));
  return orm.with(seen, gone, archived).select().from(seen).prepare("archive_expired_page");
}

/** The queues whose oldest message has expired. */
function prepareFindExpired(db: Db) {
  const oldest = db.orm
    .$with("oldest", {
      no: column<number>("no"),
      queue_id: column<string>("queue_id"),
      is_dead_on_expiry: column<boolean>("is_dead_on_expiry"),
    })
    .as(sql`
    select queue.no, queue.id as queue_id,
      queue.dead_letter_on_expiry and queue.dead_queue_no is not null as is_dead_on_expiry
    from ${queues} as queue
    cross join lateral (
      select message.expires_at from ${messages} as message where message.queue_no = queue.no order by message.id limit 1
    ) as first
    where first.expires_at <= now()`);
  return db.orm.with(oldest).select().from(oldest).prepare("find_queues_with_expired");
}

/** Expired messages of one queue that nobody holds. */
function prepareFindUnclaimed(db: Db) {
  const unclaimed = db.orm.$with("unclaimed", { id: column<string>("id") }).as(sql`
    select message.id
    from ${messages} as message
    where message.queue_no = ${value("no")} and message.id > ${value("after")} and message.expires_at <= now()
      and coalesce(message.lease_expires_at <= now(), true)
    order by message.id
    limit ${page_rows}`);
  return db.orm.with(unclaimed).select().from(unclaimed).prepare("find_expired_unclaimed");
}

/** Ends expired messages that no receive has met, in bounded pages. May run concurrently with anything. */
export function createExpiredSweep(db: Db, settle: Settle, note: NoteMessages) {
  const archivePage = prepareArchivePage(db);
  const pages = createPages(page_rows);
  const findExpired = prepareFindExpired(db);
  const findUnclaimed = prepareFindUnclaimed(db);

  async function archiveOldest(queue_no: number, queue_id: string): Promise<number> {
    let ended = 0;
    let ordered_ended = 0;
    for (let after = ""; ; ) {
      const archive = (limit: number) => archivePage.execute({ queue_no, after, limit });
      const [page] = await pages((limit) => db.run("archive_expired_page", () => archive(limit), true));
      ended += page?.ended ?? 0;
      const ordered = page?.ordered_ids?.split(",").map((id) => ({ id, lease_token: null })) ?? [];
      if (ordered.length > 0) ordered_ended += await settle.expire(queue_id, ordered);
      // Retention makes the expired ones the oldest: a page without any is the end.
      if (page?.last_id == null || page.is_last || page.expired === 0) {
        // The others have been noted as expired.
        if (ended > 0) note("expired", queue_id, ended);
        return ended + ordered_ended;
      }
      after = page.last_id;
    }
  }

  async function deadLetterOldest(no: number, queue_id: string): Promise<number> {
    let total = 0;
    for (let after = ""; ; ) {
      const rows = await db.run("find_expired_unclaimed", () => findUnclaimed.execute({ no, after }), true);
      // Without their tokens: a lease may have been extended since.
      const expired = rows.map(({ id }) => ({ id, lease_token: null }));
      if (rows.length > 0) total += await settle.deadLetter(queue_id, expired, "expired");
      if (rows.length < page_rows) return total;
      after = rows.at(-1)?.id ?? "";
    }
  }

  async function sweepQueue(queue: { no: number; queue_id: string; is_dead_on_expiry: boolean }): Promise<number> {
    if (queue.is_dead_on_expiry) return await deadLetterOldest(queue.no, queue.queue_id);
    return await archiveOldest(queue.no, queue.queue_id);
  }

  return {
    /** Moves expired messages to the archive, or to the dead-letter queue where the queue says so; answers how many. */
    async sweepExpired(): Promise<number> {
      let total = 0;
      const failures: unknown[] = [];
      const found = await db.run("find_queues_with_expired", () => findExpired.execute(), true);
      for (const queue of found) {
        try {
          total += await sweepQueue(queue);
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
