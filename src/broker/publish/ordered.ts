import { type SQL, sql } from "drizzle-orm";
import type { Db, Prepared } from "../../db/db.ts";
import { messages } from "../../db/schema.ts";
import { value } from "../statement.ts";
import { scoped } from "./dedup.ts";
import { ending, fairKeyOf, type Outcome, storing } from "./storing.ts";

// Storing messages with an ordering key or a priority. Only the head of a key is visible (see ordering_keys): the first
// message of a key that held nothing; the others wait at `infinity` until what stands before them has ended.

/** A function of the database, called once for all keys of a statement, sorted and each once: it takes their locks. */
export const enteredKeys = (rows: SQL) => sql`
  select entered.queue_no, entered.ordering_group, entered.is_new
  from (
    select array_agg(key.queue_no) as queue_nos, array_agg(key.ordering_group) as groups
    from (
      select distinct row.queue_no, row.ordering_group collate "C" as ordering_group
      from (${rows}) as row
      where row.ordering_group is not null
      order by 1, 2
    ) as key
  ) as keys
  cross join lateral unnest(keys.queue_nos, keys.groups, psqlqueue.enter_keys(keys.queue_nos, keys.groups))
    as entered (queue_no, ordering_group, is_new)
  where keys.queue_nos is not null`;

/**
 * The rows of `name` with their keys, as `placed`, sorted: numbers are given in this order, and after the locks.
 * `is_head`: nothing of its key stands before it.
 */
export const placed = (name: SQL, order: SQL) => sql`
  select ${name}.*,
    entered.is_new and row_number() over (partition by ${name}.queue_no, ${name}.ordering_group order by ${order}) = 1
      as is_head
  from ${name}
  left join entered on entered.queue_no = ${name}.queue_no and entered.ordering_group = ${name}.ordering_group
  order by ${order}`;

/** What few messages have: see PublishOptions. */
export type Keyed = {
  ordering_key?: string | null;
  priority?: number;
  fairness_key?: string | null;
  weight?: number | null;
};

/** The arrays of these columns in a statement, and their names in its rows. */
export const keyed_arrays = sql`
  ${value("ordering_keys")}::text[], ${value("priorities")}::int[], ${value("fairness_keys")}::text[],
  ${value("weights")}::int[]`;
export const keyed_names = sql`ordering_key, priority, fairness_key, weight`;

/** What items have that few have, as columns. */
export const keysOf = (items: Keyed[]) => ({
  ordering_keys: items.map((item) => item.ordering_key ?? null),
  priorities: items.map((item) => item.priority ?? 0),
  fairness_keys: items.map((item) => item.fairness_key ?? null),
  weights: items.map((item) => item.weight ?? null),
});

/** Like publish_with_options, for items of which some have a key of some kind, a priority or a weight. */
export function prepareKeyed(db: Db): Prepared<Outcome[]> {
  const extra = {
    arrays: sql`, ${keyed_arrays}`,
    names: sql`${keyed_names},`,
    columns: sql`,
      psqlqueue.ordering_group(queue.ordering_scope, given.ordering_key, given.label) as ordering_group,
      given.ordering_key is not null and not queue.allow_delayed_ordering
        and (given.delay_seconds is not null or given.deliver_at is not null) as is_delayed,
      given.priority <> 0 and not queue.priority_enabled as is_unprioritized`,
    refused: sql`or keyed.is_delayed or keyed.is_unprioritized`,
    keyed: (key: SQL) => scoped(key, sql`given.ordering_key`),
  };
  const stored = sql`
    insert into ${messages} (
      queue_no, id, body, label, attributes, priority, visible_at, expires_at, has_ttl, created_at, ordering_seq, due_at,
      ordering_key, ordering_group, extras, fairness_key, weight, fair_key)
    select
      fresh.queue_no, fresh.id, fresh.body, fresh.label, fresh.attributes::jsonb, fresh.priority,
      case
        when fresh.ordering_group is null then fresh.visible_at
        -- At its end it makes room for the next, delayed or not.
        when fresh.is_head then least(fresh.visible_at, ${ending})
        else 'infinity'
      end,
      ${ending}, fresh.expires_at is not null or fresh.ttl_seconds is not null, now(),
      case when fresh.ordering_group is not null then nextval('psqlqueue.ordering_seq') end,
      case when fresh.ordering_group is not null then fresh.visible_at end, fresh.ordering_key, fresh.ordering_group,
      fresh.extras::jsonb, fresh.fairness_key, fresh.weight,
      ${fairKeyOf(sql`fresh`)}
    from (${placed(sql`fresh`, sql`fresh.n`)}) as fresh
    returning id, ordering_seq`;
  const steps: [string, SQL][] = [
    ["entered", enteredKeys(sql`select fresh.queue_no, fresh.ordering_group from fresh`)],
    ["stored", stored],
  ];
  return storing(db, "publish_keyed", extra, steps, {
    status: sql`when item.is_delayed then 'delayed' when item.is_unprioritized then 'unprioritized'`,
    // Gathered once for all items.
    seq: sql`(select jsonb_object_agg(stored.id, stored.ordering_seq) from stored) ->> item.id`,
  });
}
