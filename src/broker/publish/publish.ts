import { sql } from "drizzle-orm";
import type { Db, Prepared } from "../../db/db.ts";
import { deduplications, messages, publish_batches, queues } from "../../db/schema.ts";
import { BrokerError, completeResults, type Failure } from "../../errors.ts";
import type { OnReady } from "../onReady.ts";
import { column, isInTally, prepare, type Tally, value } from "../statement.ts";
import { deduplicationKey, takesOldKeys } from "./dedup.ts";
import { nextId } from "./ids.ts";

export type PublishItem = {
  queue_id: string;
  /** Made before the first try, so that a repeated statement stores nothing twice. */
  id: string;
  body: string;
  label: string | null;
  /** JSON text of a flat object of strings, or null. */
  attributes: string | null;
};

export type PublishOptions = {
  /** null: the queue's. Not together with deliver_at. */
  delay_seconds: number | null;
  /** RFC 3339; one in the past is now. */
  deliver_at: string | null;
  ttl_seconds: number | null;
  /** RFC 3339. The message ends at the earliest of this, the time to live and the queue's retention. */
  expires_at: string | null;
  /** See deduplicationKey; null: none was given. */
  dedup_key: string | null;
};

export type OptionedItem = PublishItem & PublishOptions;

export type Published = { id: string; deduplicated: boolean };

type Outcome = {
  n: string;
  now: string;
  status: "stored" | "seen" | "closed" | "conflict";
};

/** Remembers the statement by its batch id; empty when it has run before. Every publishing statement begins with it. */
export const guard = (db: Db) =>
  // A statement whose outcome is unknown is sent again. Without this row a message that was stored, received and acked
  // between the two tries would come back.
  db.orm.$with("once").as(
    db.orm
      .insert(publish_batches)
      .values({ id: value("batch_id") })
      .onConflictDoNothing()
      .returning({ id: publish_batches.id }),
  );

/** The plain form, for messages and queues without options: what nearly every publish is. */
function preparePlain(db: Db): Prepared<Tally[]> {
  const once = guard(db);
  // Look-ups are `lateral … limit 1` so that the planner cannot turn the join round, whatever it believes of the sizes.
  const item = db.orm.$with("item", {}).as(sql`
    select given.*, queue.no as queue_no, queue.delivery_delay_seconds, queue.message_retention_seconds
    from unnest(
      ${value("queue_ids")}::text[], ${value("ids")}::text[], ${value("bodies")}::text[], ${value("labels")}::text[],
      ${value("attributes")}::text[]
    ) with ordinality as given (queue_id, id, body, label, attributes, n)
    cross join lateral (select * from ${queues} as queue where queue.id = given.queue_id limit 1) as queue
    where not queue.publish_paused and not queue.content_dedup`);
  const stored = db.orm.$with("stored", {}).as(sql`
    insert into ${messages} (queue_no, id, body, label, attributes, visible_at, expires_at, created_at)
    select
      item.queue_no, item.id, item.body, item.label, item.attributes::jsonb,
      now() + item.delivery_delay_seconds * interval '1 second',
      now() + item.message_retention_seconds * interval '1 second', now()
    from item
    where exists (select from once)
    order by item.n`);
  // One row whatever the number of items: a row per item costs the server more than the statement.
  const answer = db.orm
    .$with("answer", { now: column<string>("now"), count: column<number>("count"), ns: column<string>("ns") })
    .as(sql`select now() as now, count(*)::int as count, string_agg(item.n::text, ',') as ns from item`);
  return db.orm.with(once, item, stored, answer).select().from(answer).prepare("publish");
}

/** With delay, time to live and deduplication. One answer per item whose queue exists. */
function prepareOptioned(db: Db): Prepared<Outcome[]> {
  const once = guard(db);
  const item = db.orm.$with("item", {}).as(sql`
    select keyed.*,
      keyed.key is not null and row_number() over (partition by keyed.queue_no, keyed.key order by keyed.n) > 1 as is_repeat,
      -- The same key with another body, where that matters. A scalar sub-select: an exists could be hashed, a full scan.
      keyed.dedup_strict and keyed.key is not null and coalesce((
        select seen.body_hash
        from ${deduplications} as seen
        where seen.queue_no = keyed.queue_no and seen.key = keyed.key
          and seen.created_at > now() - keyed.dedup_window_seconds * interval '1 second'
        limit 1
      ), first_value(keyed.body_hash) over (partition by keyed.queue_no, keyed.key order by keyed.n)) <> keyed.body_hash
        as is_conflict
    from (
      select given.*, queue.no as queue_no, queue.message_retention_seconds, queue.dedup_window_seconds, queue.dedup_strict,
        queue.publish_paused as is_closed,
        case
          when queue.dedup_window_seconds = 0 then null
          when given.dedup_key is not null then given.dedup_key
          when queue.content_dedup then given.body_hash
        end as key,
        -- greatest() passes over nulls.
        case
          when given.deliver_at is not null then greatest(now(), given.deliver_at)
          else now() + coalesce(given.delay_seconds, queue.delivery_delay_seconds) * interval '1 second'
        end as visible_at
      from unnest(
        ${value("queue_ids")}::text[], ${value("ids")}::text[], ${value("bodies")}::text[], ${value("labels")}::text[],
        ${value("attributes")}::text[], ${value("delays")}::int[], ${value("deliver_ats")}::text[]::timestamptz[],
        ${value("ttls")}::int[], ${value("expires_ats")}::text[]::timestamptz[], ${value("dedup_keys")}::text[],
        ${value("body_hashes")}::text[]
      ) with ordinality as given (
        queue_id, id, body, label, attributes, delay_seconds, deliver_at, ttl_seconds, expires_at, dedup_key, body_hash, n)
      cross join lateral (select * from ${queues} as queue where queue.id = given.queue_id limit 1) as queue
    ) as keyed`);
  // All or nothing: one item that cannot be stored keeps the others back.
  const allowed = db.orm.$with("allowed", {}).as(sql`
    select item.*
    from item
    where exists (select from once) and not item.is_closed and not item.is_conflict
      and (
        not ${value("is_atomic")}::text::boolean
        or not exists (select from item as other where other.is_closed or other.is_conflict)
      )`);
  // A unique index decides, not a read: of concurrent duplicates one wins, and the others wait for its commit.
  const claimed = db.orm.$with("claimed", {}).as(sql`
    insert into ${deduplications} as seen (queue_no, key, message_id, body_hash, created_at)
    select allowed.queue_no, allowed.key, allowed.id, allowed.body_hash, now()
    from allowed
    where allowed.key is not null and not allowed.is_repeat
    order by allowed.queue_no, allowed.key   -- one lock order for all
    ${takesOldKeys}`);
  const fresh = db.orm.$with("fresh", {}).as(sql`
    select allowed.*
    from allowed
    where allowed.key is null or allowed.id in (select claimed.message_id from claimed)`);
  const stored = db.orm.$with("stored", {}).as(sql`
    insert into ${messages} (queue_no, id, body, label, attributes, visible_at, expires_at, has_ttl, created_at)
    select
      fresh.queue_no, fresh.id, fresh.body, fresh.label, fresh.attributes::jsonb, fresh.visible_at,
      least(now() + fresh.message_retention_seconds * interval '1 second', fresh.expires_at,
        now() + fresh.ttl_seconds * interval '1 second'),
      fresh.expires_at is not null or fresh.ttl_seconds is not null, now()
    from fresh
    order by fresh.n`);
  const answer = db.orm
    .$with("answer", {
      n: column<string>("n"),
      now: column<string>("now"),
      status: column<Outcome["status"]>("status"),
    })
    .as(sql`
      select item.n, now() as now,
        case
          when item.is_closed then 'closed'
          when item.is_conflict then 'conflict'
          when item.key is null or item.id in (select fresh.id from fresh) then 'stored'
          else 'seen'
        end as status
      from item`);
  return prepare<Outcome>(
    db.orm.with(once, item, allowed, claimed, fresh, stored, answer).select().from(answer),
    "publish_with_options",
  );
}

type Original = { n: string; message_id: string; is_same_body: boolean };

/**
 * Under which id a duplicate's original lives: read after the statement that met it, which could not see its commit.
 */
function prepareOriginals(db: Db): Prepared<Original[]> {
  const original = db.orm
    .$with("original", {
      n: column<string>("n"),
      message_id: column<string>("message_id"),
      is_same_body: column<boolean>("is_same_body"),
    })
    .as(sql`
      select given.n, seen.message_id, seen.body_hash = given.body_hash or not queue.dedup_strict as is_same_body
      from unnest(${value("queue_ids")}::text[], ${value("dedup_keys")}::text[], ${value("body_hashes")}::text[])
        with ordinality as given (queue_id, dedup_key, body_hash, n)
      cross join lateral (select * from ${queues} as queue where queue.id = given.queue_id limit 1) as queue
      cross join lateral (
        select old.message_id, old.body_hash
        from ${deduplications} as old
        where old.queue_no = queue.no and old.key = coalesce(given.dedup_key, given.body_hash)
        limit 1
      ) as seen`);
  return prepare<Original>(db.orm.with(original).select().from(original), "find_originals");
}

/** Why a plain publish left an item out. */
function prepareWhy(db: Db): Prepared<{ n: string; is_closed: boolean }[]> {
  const why = db.orm.$with("why", { n: column<string>("n"), is_closed: column<boolean>("is_closed") }).as(sql`
      select given.n, queue.publish_paused as is_closed
      from unnest(${value("queue_ids")}::text[]) with ordinality as given (queue_id, n)
      cross join lateral (select * from ${queues} as queue where queue.id = given.queue_id limit 1) as queue`);
  return db.orm.with(why).select().from(why).prepare("explain_unpublished");
}

export type Publish = {
  /** Stores messages without options for any queues, in order. */
  plain(items: PublishItem[]): Promise<(Published | Failure)[]>;
  /** The same with options. `is_atomic`: one item that is refused keeps all back. */
  optioned(items: OptionedItem[], is_atomic?: boolean): Promise<(Published | Failure)[]>;
};

const no_options = { delay_seconds: null, deliver_at: null, ttl_seconds: null, expires_at: null, dedup_key: null };

/**
 * Publishing on one database: many messages in one statement, visible after their queue's delay. Item i of an answer is
 * what was published, or `queue_not_found`, `queue_closed`, `dedup_conflict`, or the DatabaseError that only it met.
 * Answers after commit. Safe to repeat
 * inside: a lost connection is answered by sending the same statement once more.
 */
export function createPublish(db: Db, onReady: OnReady): Publish {
  const plainly = preparePlain(db);
  const withOptions = prepareOptioned(db);
  const originals = prepareOriginals(db);
  const why = prepareWhy(db);

  const columns = (items: PublishItem[]) => ({
    batch_id: nextId(),
    queue_ids: items.map((item) => item.queue_id),
    ids: items.map((item) => item.id),
    bodies: items.map((item) => item.body),
    labels: items.map((item) => item.label),
    attributes: items.map((item) => item.attributes),
  });

  /** Fills in what the plain statement left out: refused, or for a queue that looks at bodies. */
  async function explain(items: PublishItem[], results: (Published | Failure)[], missed: number[]): Promise<void> {
    const queue_ids = missed.map((i) => items[i]?.queue_id);
    const rows = await db.run("explain_unpublished", () => why.execute({ queue_ids }), true);
    const known = new Map(rows.map((row) => [missed[Number(row.n) - 1] as number, row.is_closed]));
    for (const i of missed) results[i] = new BrokerError(known.get(i) ? "queue_closed" : "queue_not_found");
    const again = missed.filter((i) => known.get(i) === false);
    if (again.length === 0) return;
    const optioned = await publishOptioned(
      again.map((i) => ({ ...(items[i] as PublishItem), ...no_options })),
      false,
    );
    for (const [k, i] of again.entries()) results[i] = optioned[k] as Published | Failure;
  }

  async function publishOptioned(items: OptionedItem[], is_atomic: boolean): Promise<(Published | Failure)[]> {
    const body_hashes = items.map((item) => deduplicationKey("body", item.body));
    const dedup_keys = items.map((item) => item.dedup_key);
    const values = {
      ...columns(items),
      delays: items.map((item) => item.delay_seconds),
      deliver_ats: items.map((item) => item.deliver_at),
      ttls: items.map((item) => item.ttl_seconds),
      expires_ats: items.map((item) => item.expires_at),
      dedup_keys,
      body_hashes,
      is_atomic: String(is_atomic),
    };
    const rows = await db.run("publish_with_options", () => withOptions.execute(values), true);
    const results: (Published | Failure)[] = items.map(() => new BrokerError("queue_not_found"));
    const seen: number[] = [];
    for (const { n, now, status } of rows) {
      const i = Number(n) - 1;
      const item = items[i] as OptionedItem;
      if (status === "closed") results[i] = new BrokerError("queue_closed");
      else if (status === "conflict") results[i] = new BrokerError("dedup_conflict");
      else results[i] = { id: item.id, deduplicated: false };
      if (status === "stored") onReady(item.queue_id, item.label, now);
      if (status === "seen") seen.push(i);
    }
    if (seen.length > 0) {
      await completeResults(results, seen, () => resolveOriginals(items, results, seen, dedup_keys, body_hashes));
    }
    return results;
  }

  async function resolveOriginals(
    items: OptionedItem[],
    results: (Published | Failure)[],
    seen: number[],
    dedup_keys: (string | null)[],
    body_hashes: string[],
  ): Promise<void> {
    const asked = {
      queue_ids: seen.map((i) => items[i]?.queue_id),
      dedup_keys: seen.map((i) => dedup_keys[i]),
      body_hashes: seen.map((i) => body_hashes[i]),
    };
    for (const row of await db.run("find_originals", () => originals.execute(asked), true)) {
      const i = seen[Number(row.n) - 1] as number;
      // Its own id: the first try of this very statement stored it.
      const deduplicated = row.message_id !== items[i]?.id;
      results[i] = row.is_same_body ? { id: row.message_id, deduplicated } : new BrokerError("dedup_conflict");
    }
  }

  return {
    async plain(items) {
      const values = columns(items);
      const [tally] = await db.run("publish", () => plainly.execute(values), true);
      const isStored = isInTally(tally, items.length);
      const missed: number[] = [];
      const results: (Published | Failure)[] = items.map((item, i) => {
        if (!isStored(i)) missed.push(i);
        else onReady(item.queue_id, item.label, tally?.now ?? "");
        return { id: item.id, deduplicated: false };
      });
      if (missed.length > 0) await completeResults(results, missed, () => explain(items, results, missed));
      return results;
    },
    optioned: (items, is_atomic = false) => publishOptioned(items, is_atomic),
  };
}
