import { type SQL, sql } from "drizzle-orm";
import type { Db, Prepared } from "../../db/db.ts";
import { topic_deduplications } from "../../db/dedupSchema.ts";
import { messages, queues, subscriptions, topics } from "../../db/schema.ts";
import { column, prepare, value } from "../statement.ts";
import { takesOldTopicKeys, topic_window_seconds } from "./dedup.ts";
import { enteredKeys, keyed_arrays, keyed_names, placed } from "./ordered.ts";
import { ending, fairKeyOf, guard } from "./storing.ts";

// The statements of a publish to topics.

/** Was `given` published before? It takes no room then. Asked of those only that would be refused. */
const is_known = sql`coalesce(given.dedup_key is not null and (
  select true
  from ${topic_deduplications} as seen
  where seen.topic_id = given.topic_id and seen.key = given.dedup_key
    and seen.created_at > now() - ${topic_window_seconds} * interval '1 second'
  limit 1
), false)`;

/** One row per topic found and queue it goes to; `queue_id` is null when no subscription matched. */
export type FanOutRow = {
  n: string;
  now: string;
  queue_id: string | null;
  id: string;
  /** `unsealed`: one of the queues wants a form of the body that was not given. */
  status: "stored" | "closed" | "seen" | "too_large" | "uncounted" | "delayed" | "unsealed";
  /** Of a batch that is `delayed`: is it this item that is? */
  delays: boolean;
  /** Does the queue encrypt? */
  encrypts: boolean;
  /** The queues whose quotas are to be looked at first, of this item; of one that is known none. */
  uncounted_ids: string | null;
  delivered_queues: number;
};

/**
 * Stores a copy for each subscription whose filter matches. `is_ordered`: for messages of which some have a key, a
 * priority or a weight; the others are not to pay for it.
 */
export function prepareFanOut(db: Db, name: string, is_ordered: boolean): Prepared<FanOutRow[]> {
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
      coalesce(target.encrypt, false) as encrypts,
      coalesce(bool_or(case when target.encrypt then given.sealed_body is null else given.body is null end) filter (
        where target.queue_no is not null
      ) over whole, false) as is_unsealed,
      coalesce(bool_or(case when given.bytes > target.max_message_bytes then not ${is_known} end) over whole, false)
        as is_too_large,
      ${ordered(sql`
        psqlqueue.ordering_group(target.ordering_scope, given.ordering_key, given.label) as ordering_group,
        -- A queue that knows no priorities ignores it.
        case when target.priority_enabled then given.priority else 0 end as own_priority,
        coalesce(bool_or(given.ordering_key is not null and not target.allow_delayed_ordering
          and (given.delay_seconds is not null or given.deliver_at is not null)) over whole, false) as is_delayed,
        given.ordering_key is not null and (given.delay_seconds is not null or given.deliver_at is not null)
          and bool_or(not target.allow_delayed_ordering) over (partition by given.n) as delays,
      `)}
      coalesce(bool_or(case when target.is_uncounted then not ${is_known} end) over whole, false) as is_uncounted,
      -- The queues with quotas that nobody has looked at.
      string_agg(target.queue_id, ',') filter (where case when target.is_uncounted then not ${is_known} end)
        over (partition by given.n) as uncounted_ids
    from unnest(
      ${value("topic_ids")}::text[], ${value("ids")}::text[], ${value("bodies")}::text[], ${value("labels")}::text[],
      ${value("attributes")}::text[], ${value("delays")}::int[], ${value("deliver_ats")}::text[]::timestamptz[],
      ${value("ttls")}::int[], ${value("expires_ats")}::text[]::timestamptz[], ${value("dedup_keys")}::text[],
      ${value("bytes")}::text[]::bigint[], ${value("sealed_bodies")}::text[]
      ${ordered(sql`, ${keyed_arrays}`)}
    ) with ordinality as given (
      topic_id, id, body, label, attributes, delay_seconds, deliver_at, ttl_seconds, expires_at, dedup_key, bytes,
      sealed_body, ${ordered(sql`${keyed_names},`)} n)
    cross join lateral (select topic.id from ${topics} as topic where topic.id = given.topic_id limit 1) as topic
    left join lateral (
      select queue.no as queue_no, queue.id as queue_id, queue.delivery_delay_seconds, queue.message_retention_seconds,
        queue.publish_paused, queue.max_message_bytes, queue.encrypt, queue.fair_by,
        ${ordered(sql`queue.ordering_scope, queue.allow_delayed_ordering, queue.priority_enabled,`)}
        num_nonnulls(queue.max_depth, queue.max_bytes) > 0
          and queue.id <> all (${value("counted_ids")}::text[]) as is_uncounted
      from ${subscriptions} as subscription
      cross join lateral (select * from ${queues} as queue where queue.no = subscription.queue_no limit 1) as queue
      where subscription.topic_id = given.topic_id
        and psqlqueue.filter_matches(subscription.message_filters, given.attributes::jsonb)
    ) as target on true
    window whole as (partition by case when ${value("is_batch")}::text::boolean then 0 else given.n end)`);
  // Decided once per topic, before the copies: all or none. Of items with one key, the first that is not refused.
  const claimed = orm.$with("claimed", {}).as(sql`
    insert into ${topic_deduplications} as seen (topic_id, key, created_at, delivered_queues, id)
    select distinct on (copy.topic_id, copy.dedup_key)
      copy.topic_id, copy.dedup_key, now(), copy.delivered_queues, copy.id
    from copy
    where copy.dedup_key is not null and copy.copy_n = 1 and not copy.is_closed
      and not copy.is_unsealed and not copy.is_too_large and not copy.is_uncounted
      ${ordered(sql`and not copy.is_delayed`)}
      and exists (select from once)
    order by copy.topic_id, copy.dedup_key, copy.n   -- one lock order for all
${takesOldTopicKeys}`);
  const fresh = orm.$with("fresh", {}).as(sql`
    select copy.*
    from copy
    where exists (select from once) and not copy.is_closed and not copy.is_unsealed and not copy.is_too_large
      and not copy.is_uncounted
      ${ordered(sql`and not copy.is_delayed`)} 
      and (copy.dedup_key is null or copy.id in (select claimed.id from claimed))`);
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
      fresh.queue_no, psqlqueue.copy_id(fresh.id, fresh.copy_n::int),
      -- A queue gets the body in the form that it wants.
      case when fresh.encrypts then fresh.sealed_body else fresh.body end, fresh.label, fresh.attributes::jsonb,
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
      status: column<FanOutRow["status"]>("status"),
      delivered_queues: column<number>("delivered_queues"),
      uncounted_ids: column<string | null>("uncounted_ids"),
      encrypts: column<boolean>("encrypts"),
      delays: column<boolean>("delays"),
    })
    .as(sql`
      select copy.n, copy.uncounted_ids, ${ordered(sql`coalesce(copy.delays, false)`, sql`false`)} as delays, now() as now,
        copy.queue_id, psqlqueue.copy_id(copy.id, copy.copy_n::int) as id,
        copy.delivered_queues::int as delivered_queues, copy.encrypts,
        case
          when copy.is_closed then 'closed'
          when copy.is_unsealed then 'unsealed'
          when copy.is_too_large then 'too_large'
          ${ordered(sql`when copy.is_delayed then 'delayed'`)}
          when copy.is_uncounted then 'uncounted'
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
  return prepare<FanOutRow>(
    orm
      .with(once, copy, claimed, fresh, ...steps, answer)
      .select()
      .from(answer),
    name,
  );
}

/** What the first publish with a key answered: read after what met it. `is_any`: also when its time is over since. */
export function prepareOriginals(db: Db): Prepared<{ n: string; delivered_queues: number }[]> {
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
          and (${value("is_any")}::text::boolean
            or old.created_at > now() - ${topic_window_seconds} * interval '1 second')
        limit 1
      ) as seen`);
  return db.orm.with(original).select().from(original).prepare("find_topic_originals");
}
