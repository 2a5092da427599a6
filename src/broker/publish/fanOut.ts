import { type SQL, sql } from "drizzle-orm";
import type { Db, Prepared } from "../../db/db.ts";
import { topic_deduplications } from "../../db/dedupSchema.ts";
import { messages, queues, subscriptions, topics } from "../../db/schema.ts";
import { BrokerError, completeResults, type Failure } from "../../errors.ts";
import type { OnReady } from "../onReady.ts";
import { column, prepare, value } from "../statement.ts";
import { nextId } from "./ids.ts";
import { enteredKeys, keyed_arrays, keyed_names, keysOf, placed } from "./ordered.ts";
import { bytesOf, isDelayed, isKeyed, type PublishOptions, too_large } from "./publish.ts";
import type { Quotas } from "./quotas.ts";
import { ending, fairKeyOf, guard } from "./storing.ts";

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
  status: "stored" | "closed" | "seen" | "too_large" | "uncounted" | "delayed";
  /** The queues whose quotas are to be looked at first. */
  uncounted_ids: string | null;
  delivered_queues: number;
};

/** `is_ordered`: for messages of which some have a key, a priority or a weight; the others are not to pay for it. */
function prepareFanOut(db: Db, name: string, is_ordered: boolean): Prepared<Row[]> {
  const { orm } = db;
  const ordered = (text: SQL, otherwise = sql``) => (is_ordered ? text : otherwise);
  const once = guard(db);
  const copy = orm.$with("copy", {}).as(sql`
    select given.*, target.queue_no, target.queue_id, target.delivery_delay_seconds, target.message_retention_seconds,
      target.fair_by,
      row_number() over (partition by given.n order by target.queue_no) as copy_n,
      count(target.queue_no) over (partition by given.n) as delivered_queues,
      -- A queue that takes nothing, or not this, fails the publish as a whole, and a batch too.
      coalesce(bool_or(target.publish_paused) over whole, false) as is_closed,
      coalesce(bool_or(given.bytes > target.max_message_bytes) over whole, false) as is_too_large,
      ${ordered(sql`
        psqlqueue.ordering_group(target.ordering_scope, given.ordering_key, given.label) as ordering_group,
        -- A queue that knows no priorities ignores it.
        case when target.priority_enabled then given.priority else 0 end as own_priority,
        coalesce(bool_or(given.ordering_key is not null and not target.allow_delayed_ordering
          and (given.delay_seconds is not null or given.deliver_at is not null)) over whole, false) as is_delayed,
      `)}
      -- The queues with quotas that nobody has looked at.
      string_agg(target.queue_id, ',') filter (where target.is_uncounted) over whole as uncounted_ids
    -- Which is the first of its key is told before the copies: afterwards it would be asked of every copy.
    from (
      select item.*, item.n = min(item.n) over (partition by item.topic_id, item.dedup_key) as is_first
      from unnest(
      ${value("topic_ids")}::text[], ${value("ids")}::text[], ${value("bodies")}::text[], ${value("labels")}::text[],
      ${value("attributes")}::text[], ${value("delays")}::int[], ${value("deliver_ats")}::text[]::timestamptz[],
      ${value("ttls")}::int[], ${value("expires_ats")}::text[]::timestamptz[], ${value("dedup_keys")}::text[],
        ${value("bytes")}::text[]::bigint[] ${ordered(sql`, ${keyed_arrays}`)}
      ) with ordinality as item (
        topic_id, id, body, label, attributes, delay_seconds, deliver_at, ttl_seconds, expires_at, dedup_key, bytes,
        ${ordered(sql`${keyed_names},`)} n)
    ) as given
    cross join lateral (select topic.id from ${topics} as topic where topic.id = given.topic_id limit 1) as topic
    left join lateral (
      select queue.no as queue_no, queue.id as queue_id, queue.delivery_delay_seconds, queue.message_retention_seconds,
        queue.publish_paused, queue.max_message_bytes, queue.fair_by,
        ${ordered(sql`queue.ordering_scope, queue.allow_delayed_ordering, queue.priority_enabled,`)}
        num_nonnulls(queue.max_depth, queue.max_bytes) > 0
          and queue.id <> all (${value("counted_ids")}::text[]) as is_uncounted
      from ${subscriptions} as subscription
      cross join lateral (select * from ${queues} as queue where queue.no = subscription.queue_no limit 1) as queue
      where subscription.topic_id = given.topic_id
        and psqlqueue.filter_matches(subscription.message_filters, given.attributes::jsonb)
    ) as target on true
    window whole as (partition by case when ${value("is_batch")}::text::boolean then 0 else given.n end)`);
  // Decided once per topic, before the copies: all or none. Of items with one key in a batch, the first.
  const claimed = orm.$with("claimed", {}).as(sql`
    insert into ${topic_deduplications} as seen (topic_id, key, created_at, delivered_queues, id)
    select copy.topic_id, copy.dedup_key, now(), copy.delivered_queues, copy.id
    from copy
    where copy.dedup_key is not null and copy.is_first and copy.copy_n = 1 and not copy.is_closed
      and not copy.is_too_large and copy.uncounted_ids is null ${ordered(sql`and not copy.is_delayed`)}
      and exists (select from once)
    order by copy.topic_id, copy.dedup_key   -- one lock order for all
    on conflict (topic_id, key) do update
      set created_at = excluded.created_at, delivered_queues = excluded.delivered_queues, id = excluded.id
      where seen.created_at <= now() - ${dedup_window_seconds} * interval '1 second'
    returning seen.topic_id, seen.key`);
  const fresh = orm.$with("fresh", {}).as(sql`
    select copy.*
    from copy
    where exists (select from once) and not copy.is_closed and not copy.is_too_large and copy.uncounted_ids is null
      ${ordered(sql`and not copy.is_delayed`)} and (
      copy.dedup_key is null
      or copy.is_first and (copy.topic_id, copy.dedup_key) in (select claimed.topic_id, claimed.key from claimed)
    )`);
  // greatest() passes over nulls.
  const due_at = sql`case
    when fresh.deliver_at is not null then greatest(now(), fresh.deliver_at)
    else now() + coalesce(fresh.delay_seconds, fresh.delivery_delay_seconds) * interval '1 second'
  end`;
  const order = sql`fresh.n, fresh.copy_n`;
  const entered = orm
    .$with("entered", {})
    .as(enteredKeys(sql`select fresh.queue_no, fresh.ordering_group from fresh where fresh.queue_no is not null`));
  const stored = orm.$with("stored", {}).as(sql`
    insert into ${messages} (
      queue_no, id, body, label, attributes, visible_at, expires_at, has_ttl, created_at, fair_key
      ${ordered(sql`, priority, ordering_seq, due_at, ordering_key, ordering_group, fairness_key, weight`)})
    select
      fresh.queue_no, psqlqueue.copy_id(fresh.id, fresh.copy_n::int), fresh.body, fresh.label, fresh.attributes::jsonb,
      ${ordered(sql`case
        when fresh.ordering_group is null then`)} ${due_at}
      ${ordered(sql`
        when fresh.is_head then least(${due_at}, ${ending})
        else 'infinity'
      end`)},
      ${ending}, fresh.expires_at is not null or fresh.ttl_seconds is not null, now(), ${fairKeyOf(sql`fresh`, !is_ordered)}
      ${ordered(sql`, fresh.own_priority,
        case when fresh.ordering_group is not null then nextval('psqlqueue.ordering_seq') end,
        case when fresh.ordering_group is not null then ${due_at} end, fresh.ordering_key, fresh.ordering_group,
        fresh.fairness_key, fresh.weight`)}
    from ${ordered(sql`(${placed(sql`fresh`, order)}) as fresh`, sql`fresh`)}
    where fresh.queue_no is not null
    order by ${order}`);
  const answer = orm
    .$with("answer", {
      n: column<string>("n"),
      now: column<string>("now"),
      queue_id: column<string | null>("queue_id"),
      id: column<string>("id"),
      status: column<Row["status"]>("status"),
      delivered_queues: column<number>("delivered_queues"),
      uncounted_ids: column<string | null>("uncounted_ids"),
    })
    .as(sql`
      select copy.n, copy.uncounted_ids, now() as now, copy.queue_id, psqlqueue.copy_id(copy.id, copy.copy_n::int) as id,
        copy.delivered_queues::int as delivered_queues,
        case
          when copy.is_closed then 'closed'
          when copy.is_too_large then 'too_large'
          ${ordered(sql`when copy.is_delayed then 'delayed'`)}
          when copy.uncounted_ids is not null then 'uncounted'
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
  const steps = is_ordered ? [entered, stored] : [stored];
  return prepare<Row>(
    orm
      .with(once, copy, claimed, fresh, ...steps, answer)
      .select()
      .from(answer),
    name,
  );
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
  quotas: Quotas,
): (items: FanOutItem[], is_batch?: boolean) => Promise<(FannedOut | Failure)[]> {
  const statement = prepareFanOut(db, "fanout", false);
  const withKeys = prepareFanOut(db, "fanout_keyed", true);
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

  /** Lets the items into the queues with quotas that they go to, each as a whole; those that do not fit are refused. */
  async function admit(items: FanOutItem[], queue_ids: string[][], is_batch: boolean): Promise<boolean[]> {
    const askedOf = (i: number) =>
      (queue_ids[i] ?? []).map((queue_id) => ({ queue_id, bytes: bytesOf(items[i] as FanOutItem) }));
    for (const queue_id of new Set(queue_ids.flat())) quotas.noteLimited(queue_id);
    if (is_batch) {
      const all = await quotas.admit(
        items.flatMap((_, i) => askedOf(i)),
        true,
      );
      return items.map(() => all.every(Boolean));
    }
    const let_in: boolean[] = [];
    for (let i = 0; i < items.length; i++) let_in.push((await quotas.admit(askedOf(i), true)).every(Boolean));
    return let_in;
  }

  /** Again, for those that go to queues with quotas, when they have been let in. */
  async function fanOutCounted(
    items: FanOutItem[],
    results: (FannedOut | Failure)[],
    uncounted: Map<number, string[]>,
    is_batch: boolean,
  ): Promise<void> {
    const places = [...uncounted.keys()];
    const own = places.map((i) => items[i] as FanOutItem);
    const queue_ids = [...uncounted.values()];
    const let_in = await admit(own, queue_ids, is_batch);
    for (const [k, i] of places.entries()) if (!let_in[k]) results[i] = new BrokerError("quota_exceeded");
    const open = places.filter((_, k) => let_in[k]);
    if (open.length === 0) return;
    const counted_ids = [...new Set(queue_ids.flat())];
    let again: (FannedOut | Failure)[] = [];
    try {
      again = await fanOut(
        open.map((i) => items[i] as FanOutItem),
        is_batch,
        counted_ids,
      );
    } finally {
      for (const [k, i] of open.entries()) {
        const result = again[k];
        const bytes = bytesOf(items[i] as FanOutItem);
        for (const queue_id of uncounted.get(i) ?? []) {
          const went_there = result === undefined || (!(result instanceof Error) && result.copies.length > 0);
          quotas.settle({ queue_id, bytes }, went_there);
        }
      }
    }
    for (const [k, i] of open.entries()) results[i] = again[k] as FannedOut | Failure;
  }

  async function fanOut(
    items: FanOutItem[],
    is_batch: boolean,
    counted_ids: string[],
  ): Promise<(FannedOut | Failure)[]> {
    const values = {
      is_batch: String(is_batch),
      counted_ids,
      bytes: items.map((item) => String(bytesOf(item))),
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
    const rows = items.some(isKeyed)
      ? await db.run("fanout_keyed", () => withKeys.execute({ ...values, ...keysOf(items) }), true)
      : await db.run("fanout", () => statement.execute(values), true);
    const results: (FannedOut | Failure)[] = items.map(() => new BrokerError("topic_not_found"));
    const seen = new Set<number>();
    const uncounted = new Map<number, string[]>();
    for (const row of rows) {
      const i = Number(row.n) - 1;
      if (row.status === "closed") results[i] = new BrokerError("queue_closed");
      else if (row.status === "too_large") results[i] = new BrokerError("payload_too_large", too_large);
      else if (row.status === "delayed") results[i] = isDelayed(items[i] as FanOutItem);
      else if (row.status === "uncounted") uncounted.set(i, [...new Set(row.uncounted_ids?.split(","))]);
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
    if (uncounted.size > 0) {
      await completeResults(results, uncounted.keys(), () => fanOutCounted(items, results, uncounted, is_batch));
    }
    return results;
  }

  return (items, is_batch = false) => fanOut(items, is_batch, []);
}
