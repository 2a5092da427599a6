import type postgres from "postgres";
import { type Counts, format, type Kind, noCounts, TransferError } from "./lines.ts";

/** Rows that are held at once; each may have a body of many megabytes. */
const rows_held = 20;

export type ExportOptions = {
  has_messages: boolean;
  /** Only these, and what subscribes them; undefined: everything. */
  queue_ids: string[] | undefined;
  /** Of this program. */
  version: string;
};

type Query = { kind: Kind; text: string; values: (string | number | string[] | number[])[] };

const wanted = "($1::text[] is null or queue.id = any ($1))";

// A queue stands behind the one that its dead messages go to.
const queues = `
  with recursive depth (no, n) as (
    select queue.no, 0 from psqlqueue.queues as queue where queue.dead_queue_no is null
    union all
    select queue.no, depth.n + 1 from depth join psqlqueue.queues as queue on queue.dead_queue_no = depth.no
  )
  select (
    to_jsonb(queue) - '{no,dead_queue_no,is_governed}'::text[] || jsonb_build_object('kind', 'queue', 'dead_queue_id', dead.id)
  )::text as line
  from psqlqueue.queues as queue
  join depth on depth.no = queue.no
  left join psqlqueue.queues as dead on dead.no = queue.dead_queue_no
  where ${wanted}
  order by depth.n, queue.id`;
const topics = `
  select (to_jsonb(topic) || '{"kind":"topic"}')::text as line
  from psqlqueue.topics as topic
  where $1::text[] is null or exists (
    select from psqlqueue.subscriptions as subscription
    join psqlqueue.queues as queue on queue.no = subscription.queue_no
    where subscription.topic_id = topic.id and ${wanted}
  )
  order by topic.id`;
const subscriptions = `
  select (
    to_jsonb(subscription) - 'queue_no' || jsonb_build_object('kind', 'subscription', 'queue_id', queue.id)
  )::text as line
  from psqlqueue.subscriptions as subscription
  join psqlqueue.queues as queue on queue.no = subscription.queue_no
  where ${wanted}
  order by subscription.id`;

// A lease ends with the time it was given: whoever holds one knows the database that gave it.
const lineOf = (queue_id: string, more = "") => `(
    -- Most columns of most messages are null. Null inside one of them is somebody's.
    (select jsonb_object_agg(own.key, own.value) from jsonb_each(to_jsonb(message)) as own where own.value <> 'null')
    - '{queue_no,lease_token,leased_at,lease_expires_at,slot_key,fair_key,ordering_seq,ordering_group}'::text[]
    || jsonb_build_object('kind', 'message', 'queue_id', ${queue_id}, 'state', case
      when message.lease_token is not null and message.lease_expires_at > now() then 'leased'
      when message.visible_at <= now() then 'ready'
      else 'waiting'
    end)
    ${more}
  )::text as line`;
const is_there = "(message.expires_at > now() or message.lease_expires_at > now())";
// In the order of an index.
const unordered = `
  select ${lineOf("$2::text")}
  from psqlqueue.messages as message
  where message.queue_no + 0 = $1::int and message.ordering_seq is null and ${is_there}
  order by message.priority, message.visible_at, message.id collate "POSIX"`;
// An import gives numbers anew, in the order of the lines: those of a queue and of its dead-letter queue stand as one.
// Places are sorted without the bodies.
const of_order = `
    || jsonb_build_object('due_at', greatest(message.due_at, message.lease_expires_at))
    || case
      when message.dead is not null and exists (
        select from psqlqueue.ordering_keys as key
        where key.dead_queue_no = message.queue_no and key.ordering_group = message.ordering_group
          and key.blocked_seq = message.ordering_seq
      ) then jsonb_build_object('is_blocking', true)
      else '{}'
    end`;
const ordered = `
  select ${lineOf("queue.id", of_order)}
  from (
    select message.queue_no, message.id, message.ordering_seq
    from psqlqueue.messages as message
    where message.queue_no + 0 = any ($1::int[]) and message.ordering_seq is not null and ${is_there}
    order by message.ordering_seq
    offset 0
  ) as place
  cross join lateral (
    select * from psqlqueue.messages as message where message.queue_no = place.queue_no and message.id = place.id limit 1
  ) as message
  cross join lateral (select queue.id from psqlqueue.queues as queue where queue.no = place.queue_no limit 1) as queue
  order by place.ordering_seq`;

/**
 * Reads what there is at one moment, as lines, in pages. Only reads; may run beside servers. Throws TransferError for a
 * queue that does not exist.
 */
export async function exportLines(
  client: postgres.Sql,
  { has_messages, queue_ids, version }: ExportOptions,
  write: (text: string, counts: Counts) => Promise<void>,
): Promise<Counts> {
  const counts = noCounts();
  await client.begin("isolation level repeatable read read only", async (transaction) => {
    const run = async ({ kind, text, values }: Query) => {
      for await (const rows of transaction.unsafe(text, values as never[]).cursor(rows_held)) {
        counts[kind] += rows.length;
        await write(rows.map((row) => `${row["line"]}\n`).join(""), counts);
      }
    };
    const known = await transaction`
      select queue.no, queue.id from psqlqueue.queues as queue
      where ${queue_ids ?? null}::text[] is null or queue.id = any (${queue_ids ?? null}::text[])
      order by queue.id`;
    const missing = queue_ids?.find((id) => !known.some((queue) => queue["id"] === id));
    if (missing !== undefined) throw new TransferError(`there is no queue ${missing}`);
    const [moment] = await transaction`select to_jsonb(now()) #>> '{}' as at`;
    const head = { kind: "export", format, version, at: moment?.["at"] as string, has_messages };
    await write(`${JSON.stringify(head)}\n`, counts);
    const only = [(queue_ids ?? null) as string[]];
    await run({ kind: "queue", text: queues, values: only });
    await run({ kind: "topic", text: topics, values: only });
    await run({ kind: "subscription", text: subscriptions, values: only });
    for (const queue of has_messages ? known : []) {
      await run({ kind: "message", text: unordered, values: [queue["no"] as number, queue["id"] as string] });
    }
    if (has_messages)
      await run({ kind: "message", text: ordered, values: [known.map((queue) => queue["no"] as number)] });
    await write(`${JSON.stringify({ kind: "end", ...counts })}\n`, counts);
  });
  return counts;
}
