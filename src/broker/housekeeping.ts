import { sql } from "drizzle-orm";
import type { Db } from "../db/db.ts";
import { archived_messages, deduplications, messages, queues } from "../db/schema.ts";
import { BrokerError } from "../errors.ts";
import { column, value } from "./sql.ts";

// Never one giant delete: it would hold back vacuum for everybody and run into the statement timeout.
const page_rows = 1000;

// Sorts after every ULID.
const last_id = "~";

/** `count`: what this page removed, or found expired. */
type Page = { last_id: string | null; count: number; is_last: boolean };

export type Housekeeping = {
  /**
   * Removes every message of the queue that was there at the call, archive and client keys included. Throws
   * `queue_not_found`.
   */
  purge(queue_id: string): Promise<void>;
  /** Removes acked messages, and expired ones that nobody holds under a live lease. Throws `queue_not_found`. */
  cleanup(queue_id: string): Promise<void>;
  /** Removes all messages of a queue number, also of a queue that is gone. Repeatable. */
  purgeNumber(queue_no: number): Promise<void>;
  /** Archives expired messages of a queue in the order of publication, until a page holds none; answers how many. */
  expireOldest(queue_no: number): Promise<number>;
};

/** Bulk work in bounded pages, each a statement of its own. Every call may run concurrently with any other. */
export function createHousekeeping(db: Db): Housekeeping {
  const { orm } = db;
  const page = {
    last_id: column<string | null>("last_id"),
    count: column<number>("count"),
    is_last: column<boolean>("is_last"),
  };
  const is_last = sql`count(*) < ${value("limit")}::int as is_last`;

  const find = orm
    .select({
      no: queues.no,
      now: sql<string>`now()`.as("now"),
      // Where a purge ends, so that it ends under load too. A scalar sub-select: one look at the end of the primary
      // key.
      highest_id: sql<string | null>`(
        select message.id from ${messages} as message where message.queue_no = ${queues.no} order by message.id desc limit 1
      )`,
    })
    .from(queues)
    .where(sql`${queues.id} = ${value("queue_id")}`)
    .prepare("find_queue");

  // By range and not by ctid: a row that is leased meanwhile must go too.
  const purged = orm.$with("purged", page).as(sql`
    with page as materialized (
      select message.id
      from ${messages} as message
      where message.queue_no = ${value("queue_no")} and message.id > ${value("after")} and message.id <= ${value("to")}
      order by message.id
      limit ${value("limit")}
    )
    select max(page.id) as last_id, count(*)::int as count, ${is_last} from page`);
  const gone = orm.$with("gone", {}).as(sql`
    delete from ${messages} as message
    where message.queue_no = ${value("queue_no")} and message.id > ${value("after")}
      and message.id <= (select last_id from purged)`);
  const purgePage = orm.with(purged, gone).select().from(purged).prepare("purge_page");

  const old = orm.$with("old", page).as(sql`
    with page as materialized (
      select past.id
      from ${archived_messages} as past
      where past.queue_no = ${value("queue_no")} and past.id > ${value("after")}
      order by past.id
      limit ${value("limit")}
    )
    select max(page.id) as last_id, count(*)::int as count, ${is_last} from page`);
  const forgotten = orm.$with("forgotten", {}).as(sql`
    delete from ${archived_messages} as past
    where past.queue_no = ${value("queue_no")} and past.id > ${value("after")} and past.id <= (select last_id from old)`);
  const purgeArchivePage = orm.with(old, forgotten).select().from(old).prepare("purge_archive_page");

  const keyed = orm.$with("keyed", page).as(sql`
    with page as materialized (
      select seen.key as id
      from ${deduplications} as seen
      where seen.queue_no = ${value("queue_no")} and seen.key > ${value("after")}
      order by seen.key
      limit ${value("limit")}
    )
    select max(page.id) as last_id, count(*)::int as count, ${is_last} from page`);
  const unkeyed = orm.$with("unkeyed", {}).as(sql`
    delete from ${deduplications} as seen
    where seen.queue_no = ${value("queue_no")} and seen.key > ${value("after")} and seen.key <= (select last_id from keyed)
      and seen.created_at <= ${value("until")}::timestamptz`);
  const purgeKeysPage = orm.with(keyed, unkeyed).select().from(keyed).prepare("purge_keys_page");

  // One page of a walk in publish order. Whoever holds a live lease may still ack, so those rows stay.
  const expirePage = (name: string, archives: boolean) => {
    const seen = orm.$with("seen", page).as(sql`
      with page as materialized (
        select message.id, message.expires_at
        from ${messages} as message
        where message.queue_no = ${value("queue_no")} and message.id > ${value("after")}
        order by message.id
        limit ${value("limit")}
      )
      select max(page.id) as last_id, (count(*) filter (where page.expires_at <= now()))::int as count, ${is_last}
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
    const withs = archives ? orm.with(seen, ended, archived) : orm.with(seen, ended);
    return withs.select().from(seen).prepare(name);
  };
  const removeExpiredPage = expirePage("remove_expired_page", false);
  const archiveExpiredPage = expirePage("archive_expired_page", true);

  /** Runs `step` page after page until nothing is left, or until it says stop. */
  async function walk(
    step: (after: string) => Promise<Page | undefined>,
    stop?: (page: Page) => boolean,
  ): Promise<number> {
    let count = 0;
    for (let after = ""; ; ) {
      const done = await step(after);
      count += done?.count ?? 0;
      if (done?.last_id == null || done.is_last || stop?.(done)) return count;
      after = done.last_id;
    }
  }

  async function findQueue(queue_id: string): Promise<{ no: number; now: string; highest_id: string | null }> {
    const [queue] = await db.run("find_queue", () => find.execute({ queue_id }), true);
    if (queue === undefined) throw new BrokerError("queue_not_found");
    return queue;
  }

  async function purgeMessages(queue_no: number, to: string): Promise<void> {
    await walk(async (after) => {
      const values = { queue_no, after, to, limit: page_rows };
      return (await db.run("purge_page", () => purgePage.execute(values), true))[0];
    });
  }

  async function purgeArchive(queue_no: number): Promise<void> {
    await walk(async (after) => {
      const values = { queue_no, after, limit: page_rows };
      return (await db.run("purge_archive_page", () => purgeArchivePage.execute(values), true))[0];
    });
  }

  /** Forgets the client keys of messages published until then. */
  async function purgeKeys(queue_no: number, until: string): Promise<void> {
    await walk(async (after) => {
      const values = { queue_no, after, until, limit: page_rows };
      return (await db.run("purge_keys_page", () => purgeKeysPage.execute(values), true))[0];
    });
  }

  return {
    async purge(queue_id) {
      const queue = await findQueue(queue_id);
      await purgeKeys(queue.no, queue.now);
      if (queue.highest_id !== null) await purgeMessages(queue.no, queue.highest_id);
      await purgeArchive(queue.no);
    },

    async cleanup(queue_id) {
      const { no: queue_no } = await findQueue(queue_id);
      await walk(async (after) => {
        const values = { queue_no, after, limit: page_rows };
        return (await db.run("remove_expired_page", () => removeExpiredPage.execute(values), true))[0];
      });
      await purgeArchive(queue_no);
    },

    async purgeNumber(queue_no) {
      await purgeKeys(queue_no, "infinity");
      await purgeMessages(queue_no, last_id);
      await purgeArchive(queue_no);
    },

    expireOldest(queue_no) {
      const step = async (after: string) => {
        const values = { queue_no, after, limit: page_rows };
        return (await db.run("archive_expired_page", () => archiveExpiredPage.execute(values), true))[0];
      };
      // Retention makes the expired ones the oldest: a page without any is the end.
      return walk(step, (page) => page.count === 0);
    },
  };
}
