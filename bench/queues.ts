// Queues and messages for a measurement, by SQL where there is a way to the database, else over HTTP.

import { encodeTime } from "ulidx";
import type { Load } from "./load.ts";
import type { Subject } from "./subject.ts";
import type { Workload } from "./workload.ts";

/** A name for a queue that no other run uses. */
export function newQueueId(purpose: string): string {
  return `bench-${purpose}-${crypto.randomUUID().slice(0, 8)}`;
}

const created_at_once = 32;

/** Creates queues whose leases outlive the run; throws when one is refused. */
export async function createQueues(subject: Subject, ids: string[], ack_deadline_seconds = 3600): Promise<void> {
  const left = [...ids];
  const work = async () => {
    for (let id = left.pop(); id !== undefined; id = left.pop()) {
      const body = JSON.stringify({ id, ack_deadline_seconds, message_retention_seconds: 86_400 });
      const response = await fetch(`${subject.url}/v1/queues`, { method: "POST", body });
      if (response.status !== 201) throw new Error(`queue ${id}: ${response.status} ${await response.text()}`);
    }
  };
  await Promise.all(Array.from({ length: created_at_once }, work));
}

/** Creates one queue with a name of its own. */
export async function createQueue(subject: Subject, purpose: string): Promise<string> {
  const id = newQueueId(purpose);
  await createQueues(subject, [id]);
  return id;
}

const rows_of_statement = 50_000;

/** What to store. */
export type Fill = {
  queue_ids: string[];
  /** Messages of each queue; over HTTP, where the queues are drawn, of each on average. */
  count: number;
  body_bytes: number;
  label: string | null;
};

type Sql = NonNullable<Subject["sql"]>;

function insertReady(sql: Sql, fill: Fill, queue_ids: string[], count: number) {
  const attributes = fill.label === null ? null : '{"attribute1": "attribute1"}';
  // Unique and ascending, as the server makes them: 10 characters of time, 8 of the count, 8 random ones. Readiness a
  // microsecond apart, from the start of the transaction on: a server that knows how far a queue has been read does not
  // look for older messages at once.
  return sql`
    insert into psqlqueue.messages (queue_no, id, body, label, attributes, visible_at, expires_at, created_at)
    select
      queue.no,
      ${encodeTime(Date.now(), 10)} || upper(lpad(to_hex(n), 8, '0') || substr(md5(random()::text), 1, 8)),
      ${"x".repeat(fill.body_bytes)}, ${fill.label}, ${attributes}::text::jsonb,
      now() + n * interval '1 microsecond', now() + interval '1 day', now() + n * interval '1 microsecond'
    from psqlqueue.queues as queue
    cross join generate_series(1, ${count}::int) as n
    where queue.id = any(${queue_ids}::text[])
    order by n`;
}

async function fillBySql(sql: Sql, fill: Fill): Promise<void> {
  const queues_at_once = Math.max(1, Math.floor(rows_of_statement / fill.count));
  for (let at = 0; at < fill.queue_ids.length; at += queues_at_once) {
    const queue_ids = fill.queue_ids.slice(at, at + queues_at_once);
    for (let done = 0; done < fill.count; done += rows_of_statement) {
      await insertReady(sql, fill, queue_ids, Math.min(rows_of_statement, fill.count - done));
    }
  }
}

const fill_ms_max = 900_000;
const connections = 64;

function workload(kind: Workload["kind"], fill: Fill, after: Workload["after"]): Workload {
  return { kind, queues: fill.queue_ids, body_bytes: fill.body_bytes, label: fill.label, limit: 10, batch: 1, after };
}

function checkComplete(done: number, wanted: number, errors: Record<string, number>): void {
  if (done < wanted)
    throw new Error(`${done} of ${wanted} messages after ${fill_ms_max} ms: ${JSON.stringify(errors)}`);
}

/** Stores ready messages, over HTTP at the server's own pace. */
export async function fillQueues(subject: Subject, load: Load, fill: Fill): Promise<void> {
  if (fill.count <= 0) return;
  if (subject.sql !== undefined) return await fillBySql(subject.sql, fill);
  const messages_max = fill.count * fill.queue_ids.length;
  const own = workload("publish", fill, "leave");
  const result = await load.run(subject, {
    connections,
    workload: own,
    warmup_ms: 0,
    duration_ms: fill_ms_max,
    messages_max,
  });
  checkComplete(result.published, messages_max, result.errors);
}

/** Stores messages and leases them for an hour. */
export async function fillInFlight(subject: Subject, load: Load, fill: Fill): Promise<void> {
  await fillQueues(subject, load, fill);
  if (subject.sql !== undefined) {
    await subject.sql`
      update psqlqueue.messages as message
      set visible_at = now() + interval '1 hour', lease_token = 1, delivery_attempts = 1
      from psqlqueue.queues as queue
      where queue.id = any(${fill.queue_ids}::text[]) and message.queue_no = queue.no`;
    return;
  }
  const messages_max = fill.count * fill.queue_ids.length;
  const own = workload("receive", fill, "leave");
  const result = await load.run(subject, {
    connections,
    workload: own,
    warmup_ms: 0,
    duration_ms: fill_ms_max,
    messages_max,
  });
  checkComplete(result.received, messages_max, result.errors);
}
