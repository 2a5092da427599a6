import { sql } from "drizzle-orm";
import type { Db, Prepared } from "../../db/db.ts";
import { messages, queues, subscriptions, topic_deduplications, topics } from "../../db/schema.ts";
import { BrokerError, completeResults, type Failure } from "../../errors.ts";
import type { OnReady } from "../onReady.ts";
import { column, prepare, value } from "../statement.ts";
import { nextId } from "./ids.ts";
import { guard, type PublishOptions } from "./publish.ts";

/** How long a topic remembers a client's key, in seconds. */
const dedup_window_seconds = 300;

export type FanOutItem = PublishOptions & {
  topic_id: string;
  /** From nextFanOutId. */
  id: string;
  body: string;
  label: string | null;
  /** JSON text of a flat object of strings, or null. */
  attributes: string | null;
};

export type FannedOut = {
  delivered_queues: number;
  deduplicated: boolean;
  /** The copies; none for a duplicate. */
  copies: { queue_id: string; id: string }[];
};

/** One row per topic found and queue it goes to; `queue_id` is null when no subscription matched. */
type Row = {
  n: string;
  now: string;
  queue_id: string | null;
  id: string;
  status: "stored" | "closed" | "seen";
  delivered_queues: number;
};

function prepareFanOut(db: Db): Prepared<Row[]> {
  const { orm } = db;
  const once = guard(db);
  const copy = orm.$with("copy", {}).as(sql`
    select given.*, target.queue_no, target.queue_id, target.delivery_delay_seconds, target.message_retention_seconds,
      row_number() over (partition by given.n order by target.queue_no) as copy_n,
      count(target.queue_no) over (partition by given.n) as delivered_queues,
      -- A queue that takes nothing fails the publish as a whole, and a batch too.
      coalesce(bool_or(target.publish_paused) over (
        partition by case when ${value("is_batch")}::text::boolean then 0 else given.n end
      ), false) as is_closed
    -- Which is the first of its key is told before the copies: afterwards it would be asked of every copy.
    from (
      select item.*, item.n = min(item.n) over (partition by item.topic_id, item.dedup_key) as is_first
      from unnest(
      ${value("topic_ids")}::text[], ${value("ids")}::text[], ${value("bodies")}::text[], ${value("labels")}::text[],
      ${value("attributes")}::text[], ${value("delays")}::int[], ${value("deliver_ats")}::text[]::timestamptz[],
      ${value("ttls")}::int[], ${value("expires_ats")}::text[]::timestamptz[], ${value("dedup_keys")}::text[]
      ) with ordinality as item (
        topic_id, id, body, label, attributes, delay_seconds, deliver_at, ttl_seconds, expires_at, dedup_key, n)
    ) as given
    cross join lateral (select topic.id from ${topics} as topic where topic.id = given.topic_id limit 1) as topic
    left join lateral (
      select queue.no as queue_no, queue.id as queue_id, queue.delivery_delay_seconds, queue.message_retention_seconds,
        queue.publish_paused
      from ${subscriptions} as subscription
      cross join lateral (select * from ${queues} as queue where queue.no = subscription.queue_no limit 1) as queue
      where subscription.topic_id = given.topic_id
        and psqlqueue.filter_matches(subscription.message_filters, given.attributes::jsonb)
    ) as target on true`);
  // Decided once per topic, before the copies: all or none. Of items with one key in a batch, the first.
  const claimed = orm.$with("claimed", {}).as(sql`
    insert into ${topic_deduplications} as seen (topic_id, key, created_at, delivered_queues, id)
    select copy.topic_id, copy.dedup_key, now(), copy.delivered_queues, copy.id
    from copy
    where copy.dedup_key is not null and copy.is_first and copy.copy_n = 1 and not copy.is_closed
      and exists (select from once)
    order by copy.topic_id, copy.dedup_key   -- one lock order for all
    on conflict (topic_id, key) do update
      set created_at = excluded.created_at, delivered_queues = excluded.delivered_queues, id = excluded.id
      where seen.created_at <= now() - ${dedup_window_seconds} * interval '1 second'
    returning seen.topic_id, seen.key`);
  const fresh = orm.$with("fresh", {}).as(sql`
    select copy.*
    from copy
    where exists (select from once) and not copy.is_closed and (
      copy.dedup_key is null
      or copy.is_first and (copy.topic_id, copy.dedup_key) in (select claimed.topic_id, claimed.key from claimed)
    )`);
  const stored = orm.$with("stored", {}).as(sql`
    insert into ${messages} (queue_no, id, body, label, attributes, visible_at, expires_at, has_ttl, created_at)
    select
      fresh.queue_no, psqlqueue.copy_id(fresh.id, fresh.copy_n::int), fresh.body, fresh.label, fresh.attributes::jsonb,
      -- greatest() passes over nulls.
      case
        when fresh.deliver_at is not null then greatest(now(), fresh.deliver_at)
        else now() + coalesce(fresh.delay_seconds, fresh.delivery_delay_seconds) * interval '1 second'
      end,
      least(now() + fresh.message_retention_seconds * interval '1 second', fresh.expires_at,
        now() + fresh.ttl_seconds * interval '1 second'),
      fresh.expires_at is not null or fresh.ttl_seconds is not null, now()
    from fresh
    where fresh.queue_no is not null
    order by fresh.n, fresh.copy_n`);
  const answer = orm
    .$with("answer", {
      n: column<string>("n"),
      now: column<string>("now"),
      queue_id: column<string | null>("queue_id"),
      id: column<string>("id"),
      status: column<Row["status"]>("status"),
      delivered_queues: column<number>("delivered_queues"),
    })
    .as(sql`
      select copy.n, now() as now, copy.queue_id, psqlqueue.copy_id(copy.id, copy.copy_n::int) as id,
        copy.delivered_queues::int as delivered_queues,
        case
          when copy.is_closed then 'closed'
          when copy.dedup_key is null or copy.n in (select fresh.n from fresh) then 'stored'
          -- Its own id: the first try of this very statement, whose answer was lost, stored it.
          when copy.id = (
            select seen.id from ${topic_deduplications} as seen
            where seen.topic_id = copy.topic_id and seen.key = copy.dedup_key
            limit 1
          ) then 'stored'
          else 'seen'
        end as status
      from copy`);
  return prepare<Row>(orm.with(once, copy, claimed, fresh, stored, answer).select().from(answer), "fanout");
}

/** What the first publish with a key answered: read after the statement that met it. */
function prepareOriginals(db: Db): Prepared<{ n: string; delivered_queues: number }[]> {
  const original = db.orm
    .$with("original", { n: column<string>("n"), delivered_queues: column<number>("delivered_queues") })
    .as(sql`
      select given.n, seen.delivered_queues
      from unnest(${value("topic_ids")}::text[], ${value("dedup_keys")}::text[]) with ordinality
        as given (topic_id, dedup_key, n)
      cross join lateral (
        select old.delivered_queues
        from ${topic_deduplications} as old
        where old.topic_id = given.topic_id and old.key = given.dedup_key
        limit 1
      ) as seen`);
  return db.orm.with(original).select().from(original).prepare("find_topic_originals");
}

/**
 * Publishing to topics on one database: one copy for each subscription whose filter matches, all in one statement and
 * one snapshot. `is_batch`: one item that is refused keeps all back. Item i of the answer says where it went, or
 * `topic_not_found`, `queue_closed`. Safe to repeat inside, as publish.
 */
export function createFanOut(
  db: Db,
  onReady: OnReady,
): (items: FanOutItem[], is_batch?: boolean) => Promise<(FannedOut | Failure)[]> {
  const statement = prepareFanOut(db);
  const originals = prepareOriginals(db);

  async function repeatAnswers(items: FanOutItem[], results: (FannedOut | Failure)[], seen: number[]): Promise<void> {
    const asked = {
      topic_ids: seen.map((i) => items[i]?.topic_id),
      dedup_keys: seen.map((i) => items[i]?.dedup_key),
    };
    for (const row of await db.run("find_topic_originals", () => originals.execute(asked), true)) {
      const i = seen[Number(row.n) - 1] as number;
      results[i] = { delivered_queues: row.delivered_queues, deduplicated: true, copies: [] };
    }
  }

  return async (items, is_batch = false) => {
    const values = {
      is_batch: String(is_batch),
      batch_id: nextId(),
      topic_ids: items.map((item) => item.topic_id),
      ids: items.map((item) => item.id),
      bodies: items.map((item) => item.body),
      labels: items.map((item) => item.label),
      attributes: items.map((item) => item.attributes),
      delays: items.map((item) => item.delay_seconds),
      deliver_ats: items.map((item) => item.deliver_at),
      ttls: items.map((item) => item.ttl_seconds),
      expires_ats: items.map((item) => item.expires_at),
      dedup_keys: items.map((item) => item.dedup_key),
    };
    const rows = await db.run("fanout", () => statement.execute(values), true);
    const results: (FannedOut | Failure)[] = items.map(() => new BrokerError("topic_not_found"));
    const seen = new Set<number>();
    for (const row of rows) {
      const i = Number(row.n) - 1;
      if (row.status === "closed") results[i] = new BrokerError("queue_closed");
      else if (row.status === "seen") seen.add(i);
      else {
        let result = results[i];
        if (result === undefined || result instanceof Error) {
          result = { delivered_queues: row.delivered_queues, deduplicated: false, copies: [] };
          results[i] = result;
        }
        if (row.queue_id === null) continue;
        result.copies.push({ queue_id: row.queue_id, id: row.id });
        onReady(row.queue_id, items[i]?.label ?? null, row.now);
      }
    }
    if (seen.size > 0) await completeResults(results, seen, () => repeatAnswers(items, results, [...seen]));
    return results;
  };
}
