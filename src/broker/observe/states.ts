import { type SQL, sql } from "drizzle-orm";
import { ordering_keys } from "../../db/orderingSchema.ts";
import { messages } from "../../db/schema.ts";
import { due_at, is_held } from "../heldRows.ts";
import { levels } from "../levels.ts";
import { value } from "../statement.ts";

/** Beyond the exact count, so many pages of the table are looked at to estimate: a fixed effort, whatever is stored. */
const sample_pages = 4000;

// How the states of messages are counted: parts of the statements of stats.ts.

/** Leased, delayed and backing off, but for those that wait behind another of their ordering key. */
export const hidden_rows = sql`
  select
    count(*)::int as hidden,
    (count(*) filter (where seen.is_leased))::int as leased,
    (count(*) filter (where seen.is_waiting and seen.delivery_attempts = 0))::int as delayed,
    (count(*) filter (where seen.is_waiting and seen.delivery_attempts > 0))::int as backing_off,
    (count(*) filter (where seen.is_dead))::int as dead,
    coalesce(floor(extract(epoch from now() - min(seen.leased_at) filter (where seen.is_leased))), 0)::int as lease_age
  from (
    select lease.is_held as is_leased, not lease.is_held and message.expires_at > now() as is_waiting,
      message.delivery_attempts, message.leased_at,
      message.dead is not null and (lease.is_held or message.expires_at > now()) as is_dead
    from ${levels}
    cross join lateral (
      select *
      from ${messages} as message
      where message.queue_no + 0 = queue.no and message.priority = level.priority and message.visible_at > now()
        and message.visible_at < 'infinity'
      order by message.visible_at, message.id collate "POSIX"
      limit ${value("cap")}
    ) as message
    cross join lateral (
      select ${is_held} as is_held
    ) as lease
    limit ${value("cap")}
  ) as seen`;

/** Pages of the table. */
export const sample_size = sql`(
  select greatest(1, pg_relation_size('psqlqueue.messages') / current_setting('block_size')::int) as pages
)`;
/** The share of them that a sample looks at, in percent. */
export const sample_share = sql`least(100, 100.0 * ${sample_pages} / (select pages from size))`;
/** By which what the sample found is multiplied. */
export const sample_factor = sql`greatest(1, (select pages from size)::float8 / ${sample_pages})::float8 as factor`;

/** Those that wait behind another of their ordering key: ready, when that were all. */
export const parked_rows = sql`
  select
    count(*)::int as parked,
    (count(*) filter (where seen.is_leased))::int as leased,
    (count(*) filter (where seen.is_open and seen.due_at <= now()))::int as ready,
    (count(*) filter (where seen.is_open and seen.due_at > now() and seen.delivery_attempts = 0))::int as delayed,
    (count(*) filter (where seen.is_open and seen.due_at > now() and seen.delivery_attempts > 0))::int as backing_off,
    (count(*) filter (where seen.is_dead and (seen.is_leased or seen.is_open)))::int as dead,
    min(seen.due_at) filter (where seen.is_open and seen.due_at <= now()) as ready_since,
    min(seen.created_at) filter (where seen.is_open and seen.due_at <= now()) as oldest_at
  from (
    select lease.is_held as is_leased, not lease.is_held and message.expires_at > now() as is_open, ${due_at} as due_at,
      message.delivery_attempts, message.created_at, message.dead is not null as is_dead
    from ${levels}
    cross join lateral (
      select *
      from ${messages} as message
      where message.queue_no + 0 = queue.no and message.priority = level.priority and message.visible_at = 'infinity'
      order by message.id collate "POSIX"
      limit ${value("cap")}
    ) as message
    cross join lateral (
      select ${is_held} as is_held
    ) as lease
    limit ${value("cap")}
  ) as seen`;

/** Keys that one request looks at, and messages behind the head of each, for another label. */
export const keys_seen_max = 20_000;
const labels_seen_max = 100;

/** The ready ones of `queue`, from `floor` on, as `seen`. */
export const ready_messages = (floor: SQL) => sql`
  select message.created_at, message.visible_at, message.dead is not null as is_dead
  from ${levels}
  cross join lateral (
    select message.created_at, message.visible_at, message.dead
    from ${messages} as message
    where message.queue_no + 0 = queue.no and message.priority = level.priority and message.visible_at <= now()
      -- Past what has been consumed, vacuumed or not; floors are those of the receives without priorities.
      and message.visible_at >= case when queue.is_governed then '-infinity' else ${floor} end
      and message.expires_at > now()
    order by message.visible_at, message.id collate "POSIX"
    limit ${value("cap")}
  ) as message
  limit ${value("cap")}`;

/** Ordering keys that a dead message keeps closed, and those whose head keeps other labels from being delivered. */
export const key_rows = sql`
  select
    (
      select count(*)
      from (
        select key.dead_id from ${ordering_keys} as key
        where key.queue_no = queue.no and key.blocked_seq is not null
        limit ${value("cap")}
      ) as blocked
    )::int as blocked_keys,
    (
      select count(*)
      from (
        select head.label
        from (
          select key.ordering_group, key.floor_seq
          from ${ordering_keys} as key
          where key.queue_no = queue.no
          order by key.ordering_group
          limit ${keys_seen_max}
        ) as key
        cross join lateral (
          select message.label, message.ordering_seq
          from ${messages} as message
          where message.queue_no + 0 = queue.no and message.ordering_group = key.ordering_group
            and message.ordering_seq >= key.floor_seq and message.visible_at <= now() and message.expires_at > now()
          order by message.ordering_seq
          limit 1
        ) as head
        cross join lateral (
          select next.label
          from (
            select message.label
            from ${messages} as message
            where message.queue_no + 0 = queue.no and message.ordering_group = key.ordering_group
              and message.ordering_seq > head.ordering_seq and message.expires_at > now()
            order by message.ordering_seq
            limit ${labels_seen_max}
          ) as next
          where next.label is distinct from head.label
          limit 1
        ) as other
      ) as jumped
    )::int as blocked_by_label,
    (
      select count(*)
      from (
        select key.queue_no from ${ordering_keys} as key
        where key.queue_no = queue.no
        order by key.ordering_group
        limit ${keys_seen_max}
      ) as seen
    )::int as keys_seen`;

/** The states of the rows of a sample, each to be multiplied by the factor. */
export const sampled_states = sql`
  (count(*) filter (where ${due_at} <= now() and message.expires_at > now()))::int as ready,
  (count(*) filter (where message.visible_at > now() and message.lease_token is not null
    and message.lease_expires_at > now()))::int as leased,
  (count(*) filter (where ${due_at} > now() and message.delivery_attempts = 0
    and message.lease_token is null and message.expires_at > now()))::int as delayed,
  (count(*) filter (where ${due_at} > now() and message.delivery_attempts > 0
    and coalesce(message.lease_expires_at <= now(), true) and message.expires_at > now()))::int as backing_off`;
