import { type SQL, sql } from "drizzle-orm";
import type { Db, Prepared } from "../../db/db.ts";
import { deduplications } from "../../db/dedupSchema.ts";
import { messages, publish_batches, queues } from "../../db/schema.ts";
import { column, prepare, type Tally, value } from "../statement.ts";
import { differs, heldKey, takesOldKeys } from "./dedup.ts";

// The statements that store messages, and those that explain what they left out.

export type Outcome = {
  n: string;
  now: string;
  /** Of a message with an ordering key. */
  ordering_seq: string | null;
  /**
   * `uncounted`: its queue has a quota, and nobody has looked whether it fits. `delayed`: an order and a delay of its
   * own do not go together in this queue. `unprioritized`: it knows no priorities. `unsealed`: it encrypts, and this
   * was not sealed, or the reverse.
   */
  status:
    | "stored"
    | "seen"
    | "closed"
    | "unsealed"
    | "conflict"
    | "too_large"
    | "uncounted"
    | "delayed"
    | "unprioritized";
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

/**
 * By what a message shares its queue: null, and nothing more to do, where it is not shared. `row`: with `fair_by` of
 * the queue, and the message's label; `is_plain`: it has no keys.
 */
export const fairKeyOf = (row: SQL, is_plain = false) =>
  is_plain
    ? sql`psqlqueue.fair_key(${row}.fair_by, ${row}.label, null, null)`
    : sql`psqlqueue.fair_key(${row}.fair_by, ${row}.label, ${row}.ordering_key, ${row}.fairness_key)`;

/** The plain form, for messages and queues without options: what nearly every publish is. */
export function preparePlain(db: Db): Prepared<Tally[]> {
  const once = guard(db);
  // Look-ups are `lateral … limit 1` so that the planner cannot turn the join round, whatever it believes of the sizes.
  const item = db.orm.$with("item", {}).as(sql`
    select given.*, queue.no as queue_no, queue.delivery_delay_seconds, queue.message_retention_seconds, queue.fair_by
    from unnest(
      ${value("queue_ids")}::text[], ${value("ids")}::text[], ${value("bodies")}::text[], ${value("labels")}::text[],
      ${value("attributes")}::text[], ${value("extras")}::text[]
    ) with ordinality as given (queue_id, id, body, label, attributes, extras, n)
    cross join lateral (
      -- By name: carrying all fifty is a tenth of the statement for one message.
      select no, delivery_delay_seconds, message_retention_seconds, fair_by, publish_paused, content_dedup, encrypt,
        max_message_bytes, max_depth, max_bytes
      from ${queues} as queue
      where queue.id = given.queue_id
      limit 1
    ) as queue
    where not queue.publish_paused and not queue.content_dedup and not queue.encrypt
      and num_nonnulls(queue.max_message_bytes, queue.max_depth, queue.max_bytes) = 0`);
  const stored = db.orm.$with("stored", {}).as(sql`
    insert into ${messages} (
      queue_no, id, body, label, attributes, visible_at, expires_at, created_at, extras, fair_key)
    select
      item.queue_no, item.id, item.body, item.label, item.attributes::jsonb,
      now() + item.delivery_delay_seconds * interval '1 second',
      now() + item.message_retention_seconds * interval '1 second', now(), item.extras::jsonb,
      ${fairKeyOf(sql`item`, true)}
    from item
    where exists (select from once)
    order by item.n`);
  // One row whatever the number of items: a row per item costs the server more than the statement.
  const answer = db.orm
    .$with("answer", { now: column<string>("now"), count: column<number>("count"), ns: column<string>("ns") })
    .as(sql`select now() as now, count(*)::int as count, string_agg(item.n::text, ',') as ns from item`);
  return prepare<Tally>(db.orm.with(once, item, stored, answer).select().from(answer), "publish");
}

/** What a statement that stores with options has more than the usual: see ordered.ts. */
export type Extra = {
  /** Further arrays of the call, and their names. */
  arrays: SQL;
  names: SQL;
  /** Further columns of an item. */
  columns: SQL;
  /** A further reason to refuse it. */
  refused: SQL;
  /** A client's key as it is stored, of `given` and `queue`. */
  keyed: (key: SQL) => SQL;
};

/** What it answers more: a status, and where a message stands in its key. */
export type Answered = { status: SQL; seq: SQL };

/** Of an item whose queue is strict: its key has another body. */
const is_conflict = sql`coalesce(${differs(sql`judged.first_hash`, sql`judged.body_hash`)}, false)`;

/** The items whose queue exists, each with its fate. `is_barred`: whatever was published before. */
const judged = ({ arrays, names, columns, refused, keyed }: Extra) => sql`
  select judged.*, ${is_conflict} as is_conflict, judged.is_barred or ${is_conflict} as is_refused
  from (
  select barred.*,
    -- Of the same key, where that matters. A scalar sub-select: an exists could be hashed, a full scan.
    case when barred.dedup_strict and barred.key is not null then coalesce((
      select seen.body_hash
      from ${deduplications} as seen
      where seen.queue_no = barred.queue_no and seen.key = barred.key
        and seen.created_at > now() - barred.dedup_window_seconds * interval '1 second'
      limit 1
    ), case
      -- The first of its key is the first that is stored: one that is refused leaves nothing to be compared with.
      when not barred.is_barred
        then first_value(barred.body_hash) over (partition by barred.queue_no, barred.key, barred.is_barred order by barred.n)
    end) end as first_hash
  from (
  select keyed.*,
    keyed.exceeds and not known.is_known as is_too_large,
    keyed.lacks_count and not known.is_known as is_uncounted,
    keyed.is_closed or keyed.is_unsealed or (keyed.exceeds or keyed.lacks_count) and not known.is_known ${refused}
      as is_barred
  from (
    select given.*, queue.no as queue_no, queue.message_retention_seconds, queue.dedup_window_seconds, queue.dedup_strict,
      queue.fair_by, queue.publish_paused as is_closed, queue.encrypt <> given.is_sealed as is_unsealed,
      coalesce(given.bytes > queue.max_message_bytes, false) as exceeds,
      not given.is_counted and num_nonnulls(queue.max_depth, queue.max_bytes) > 0 as lacks_count,
      case
        when queue.dedup_window_seconds > 0 and (given.dedup_key is not null or queue.content_dedup)
          -- What is known under its old key keeps it.
          then coalesce(case when given.old_key is not null then ${heldKey(keyed(sql`given.old_key`))} end,
            ${keyed(sql`coalesce(given.dedup_key, given.content_key)`)})
      end as key,
      -- greatest() passes over nulls.
      case
        when given.deliver_at is not null then greatest(now(), given.deliver_at)
        else now() + coalesce(given.delay_seconds, queue.delivery_delay_seconds) * interval '1 second'
      end as visible_at ${columns}
    from unnest(
      ${value("queue_ids")}::text[], ${value("ids")}::text[], ${value("bodies")}::text[], ${value("labels")}::text[],
      ${value("attributes")}::text[], ${value("delays")}::int[], ${value("deliver_ats")}::text[]::timestamptz[],
      ${value("ttls")}::int[], ${value("expires_ats")}::text[]::timestamptz[], ${value("dedup_keys")}::text[],
      ${value("body_hashes")}::text[], ${value("are_counted")}::text[]::boolean[],
      ${value("bytes")}::text[]::bigint[], ${value("extras")}::text[], ${value("are_sealed")}::text[]::boolean[],
      ${value("content_keys")}::text[], ${value("old_keys")}::text[] ${arrays}
    ) with ordinality as given (
      queue_id, id, body, label, attributes, delay_seconds, deliver_at, ttl_seconds, expires_at, dedup_key, body_hash,
      is_counted, bytes, extras, is_sealed, content_key, old_key, ${names} n)
    cross join lateral (select * from ${queues} as queue where queue.id = given.queue_id limit 1) as queue
  ) as keyed
  -- What is stored already takes no room. Asked of those only that would be refused.
  cross join lateral (
    select case
      when keyed.key is not null and (keyed.exceeds or keyed.lacks_count) then coalesce((
        select true
        from ${deduplications} as seen
        where seen.queue_no = keyed.queue_no and seen.key = keyed.key
          and seen.created_at > now() - keyed.dedup_window_seconds * interval '1 second'
        limit 1
      ), false)
      else false
    end as is_known
  ) as known
  ) as barred
  ) as judged`;

/** When a message of `fresh` ends. */
export const ending = sql`
  least(now() + fresh.message_retention_seconds * interval '1 second', fresh.expires_at,
    now() + fresh.ttl_seconds * interval '1 second')`;

/** A statement that judges items, stores those of `fresh` by `stored`, and answers a row per item with a queue. */
export function storing(
  db: Db,
  name: string,
  extra: Extra,
  stored: [name: string, text: SQL][],
  { status, seq }: Answered,
) {
  const once = guard(db);
  const item = db.orm.$with("item", {}).as(judged(extra));
  // All or nothing: one item that cannot be stored keeps the others back.
  const allowed = db.orm.$with("allowed", {}).as(sql`
    select item.*
    from item
    where exists (select from once) and not item.is_refused
      and (not ${value("is_atomic")}::text::boolean or not exists (select from item as other where other.is_refused))`);
  // A unique index decides, not a read: of concurrent duplicates one wins, and the others wait for its commit. Of those
  // in this statement the first that is allowed: one that is refused must not keep the next from being stored.
  const claimed = db.orm.$with("claimed", {}).as(sql`
    insert into ${deduplications} as seen (queue_no, key, message_id, body_hash, created_at)
    select distinct on (allowed.queue_no, allowed.key)
      allowed.queue_no, allowed.key, allowed.id, allowed.body_hash, now()
    from allowed
    where allowed.key is not null
    order by allowed.queue_no, allowed.key, allowed.n   -- one lock order for all
    ${takesOldKeys}`);
  const fresh = db.orm.$with("fresh", {}).as(sql`
    select allowed.*
    from allowed
    where allowed.key is null or allowed.id in (select claimed.message_id from claimed)`);
  const steps = stored.map(([step, text]) => db.orm.$with(step, {}).as(text));
  const answer = db.orm
    .$with("answer", {
      n: column<string>("n"),
      now: column<string>("now"),
      status: column<Outcome["status"]>("status"),
      ordering_seq: column<string | null>("ordering_seq"),
    })
    .as(sql`
      select item.n, now() as now,
        case
          when item.is_closed then 'closed'
          -- Before what depends on its form.
          when item.is_unsealed then 'unsealed'
          when item.is_conflict then 'conflict'
          when item.is_too_large then 'too_large'
          when item.is_uncounted then 'uncounted'
          ${status}
          when item.key is null or item.id in (select fresh.id from fresh) then 'stored'
          else 'seen'
        end as status, ${seq} as ordering_seq
      from item`);
  return prepare<Outcome>(
    db.orm
      .with(once, item, allowed, claimed, fresh, ...steps, answer)
      .select()
      .from(answer),
    name,
  );
}

/** With delay, time to live and deduplication. One answer per item whose queue exists. */
export function prepareOptioned(db: Db): Prepared<Outcome[]> {
  const none = sql``;
  const stored = sql`
    insert into ${messages} (
      queue_no, id, body, label, attributes, visible_at, expires_at, has_ttl, created_at, extras, fair_key)
    select
      fresh.queue_no, fresh.id, fresh.body, fresh.label, fresh.attributes::jsonb, fresh.visible_at, ${ending},
      fresh.expires_at is not null or fresh.ttl_seconds is not null, now(), fresh.extras::jsonb,
      ${fairKeyOf(sql`fresh`, true)}
    from fresh
    order by fresh.n`;
  const extra = { arrays: none, names: none, columns: none, refused: none, keyed: (key: SQL) => key };
  const answered = { status: none, seq: sql`null::text` };
  return storing(db, "publish_with_options", extra, [["stored", stored]], answered);
}

/** Why a plain publish left an item out. */
export function prepareWhy(db: Db): Prepared<{ n: string; is_closed: boolean; encrypts: boolean }[]> {
  const why = db.orm
    .$with("why", {
      n: column<string>("n"),
      is_closed: column<boolean>("is_closed"),
      encrypts: column<boolean>("encrypts"),
    })
    .as(sql`
      select given.n, queue.publish_paused as is_closed, queue.encrypt as encrypts
      from unnest(${value("queue_ids")}::text[]) with ordinality as given (queue_id, n)
      cross join lateral (select * from ${queues} as queue where queue.id = given.queue_id limit 1) as queue`);
  return db.orm.with(why).select().from(why).prepare("explain_unpublished");
}
