import type postgres from "postgres";

/** A name as SQL takes it. */
export const quoted = (name: string): string => `"${name.replaceAll('"', '""')}"`;

/** The keys that the messages come to, and those that a dead one keeps blocked. */
const groups = `
  select coalesce(array_agg(key.no), '{}') as nos, coalesce(array_agg(key.own_group), '{}') as groups
  from (
    select distinct touched.no, own.own_group
    from unnest($1::text[]) as line (json)
    cross join lateral (select line.json::jsonb as json) as parsed
    join psqlqueue.queues as queue on queue.id = parsed.json ->> 'queue_id'
    cross join lateral (
      select psqlqueue.ordering_group(queue.ordering_scope, parsed.json ->> 'ordering_key', parsed.json ->> 'label')
        collate "C" as own_group
    ) as own
    cross join lateral (
      select queue.no
      union
      select source.no
      from psqlqueue.queues as source
      where source.id = parsed.json #>> '{dead,source_queue_id}' and (parsed.json ->> 'is_blocking')::boolean
    ) as touched
    where parsed.json ->> 'ordering_key' is not null
    order by 1, 2
  ) as key`;
/** Blocks the keys of queues whose dead messages do that, where the other database had it so. */
const block = `
  update psqlqueue.ordering_keys as held
  set blocked_seq = dead.ordering_seq, dead_id = dead.id, dead_queue_no = dead.queue_no,
    blocked_since = (dead.dead ->> 'dead_at')::timestamptz
  from unnest($1::text[]) as line (json)
  cross join lateral (select line.json::jsonb as json) as parsed
  join psqlqueue.queues as queue on queue.id = parsed.json ->> 'queue_id'
  join psqlqueue.queues as source on source.id = parsed.json #>> '{dead,source_queue_id}'
  join psqlqueue.messages as dead on dead.queue_no = queue.no and dead.id = parsed.json ->> 'id'
  where (parsed.json ->> 'is_blocking')::boolean and queue.id || '/' || dead.id = any ($2::text[])
    and source.on_dead = 'block' and held.queue_no = source.no and held.ordering_group = dead.ordering_group
    and held.blocked_seq is null`;

/** Stores messages that are not there yet, under the locks of their keys; answers `queue/id` of those it stored. */
export function prepareMessages(columns: string[]) {
  const computed = ["queue_no", "visible_at", "ordering_seq", "ordering_group", "due_at", "fair_key"];
  const internal = ["lease_token", "leased_at", "lease_expires_at", "slot_key"];
  const plain = columns.filter((name) => !computed.includes(name) && !internal.includes(name));
  // What has no default must be given; what has one may be left out.
  const defaults: Record<string, string> = {
    delivery_attempts: "0",
    has_ttl: "false",
    created_at: "now()",
  };
  // A queue that knows no priorities would not look for it.
  const givenOf = (name: string) =>
    name === "priority"
      ? "case when given.has_priorities then coalesce(given.priority, 0) else 0 end"
      : name in defaults
        ? `coalesce(given.${quoted(name)}, ${defaults[name]})`
        : `given.${quoted(name)}`;
  const text = `
    with given as materialized (
      select row.*, queue.no, queue.id as queue_id, queue.fair_by, queue.has_priorities, line.n,
        psqlqueue.ordering_group(queue.ordering_scope, row.ordering_key, row.label) as own_group
      from unnest($1::text[]) with ordinality as line (json, n)
      cross join lateral (select line.json::jsonb as json) as parsed
      join psqlqueue.queues as queue on queue.id = parsed.json ->> 'queue_id'
      cross join lateral jsonb_populate_record(null::psqlqueue.messages, parsed.json) as row
    ), stored as (
      insert into psqlqueue.messages (${[...plain, ...computed].map(quoted).join(", ")})
      select ${plain.map(givenOf).join(", ")}, given.no,
        -- Never before this transaction: servers look behind the newest that they saw for what is committed late.
        case
          when given.own_group is null then greatest(given.visible_at, now() + given.n * interval '1 microsecond')
          else 'infinity'
        end,
        case when given.own_group is not null then nextval('psqlqueue.ordering_seq') end, given.own_group,
        case when given.own_group is not null then coalesce(given.due_at, now()) end,
        psqlqueue.fair_key(given.fair_by, given.label, given.ordering_key, given.fairness_key)
      from (select * from given order by given.n) as given
      on conflict (queue_no, id) do nothing
      returning queue_no, id
    )
    select given.queue_id || '/' || given.id as name
    from stored join given on given.no = stored.queue_no and given.id = stored.id`;
  return async (transaction: postgres.TransactionSql, batch: { text: string }[]): Promise<Set<string>> => {
    const json = batch.map((line) => line.text);
    const [keys] = await transaction.unsafe(groups, [json]);
    const { nos, groups: own_groups } = keys as unknown as { nos: number[]; groups: string[] };
    const locks =
      nos.length > 0
        ? (await transaction`select psqlqueue.lock_keys(${nos}::int[], ${own_groups}::text[])::text as heads`)[0]
        : undefined;
    const rows = await transaction.unsafe(text, [json]);
    const names = rows.map((row) => row["name"] as string);
    if (locks !== undefined) {
      await transaction.unsafe(block, [json, names]);
      await transaction`
        select from psqlqueue.refresh_keys(${nos}::int[], ${own_groups}::text[], ${locks["heads"]}::text::bigint[])`;
    }
    return new Set(names);
  };
}
