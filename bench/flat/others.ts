// Rows about what is not stored: an old snapshot, silence, a lonely client.

import postgres from "postgres";
import { createQueue, createQueues, fillQueues, newQueueId } from "../queues.ts";
import { compare, median } from "../rounds.ts";
import { readCpu } from "../subject.ts";
import { type Bed, createSide, type FlatRow, grouped, label, NeedsDatabase, text } from "./bed.ts";

/** A whole life under a snapshot that somebody holds against none. */
export async function measurePinned(bed: Bed, seconds: number): Promise<FlatRow[]> {
  const { subject } = bed;
  const { sql, database_url } = subject;
  if (sql === undefined || database_url === undefined) throw new NeedsDatabase();
  const queue_id = await createQueue(subject, "pinned");
  const errors = {};
  const side = createSide(bed, errors);
  const segments = async (count: number) => {
    const rates: number[] = [];
    for (let i = 0; i < count; i++)
      rates.push(await side.throughput({ kind: "lifecycle", queues: [queue_id] }, seconds / 6));
    return rates;
  };
  await side.throughput({ kind: "lifecycle", queues: [queue_id] }, 2);
  const before = await segments(3);
  const pin = postgres(database_url, { max: 1, onnotice: () => {} });
  let pinned: number[];
  try {
    pinned = await pin.begin("isolation level repeatable read", async (holder) => {
      await holder`select count(*) from psqlqueue.queues`;
      return await segments(6);
    });
  } finally {
    await pin.end({ timeout: 1 });
  }
  // What the pin kept must not be a burden to the side without it.
  await sql`vacuum (truncate off) psqlqueue.messages`;
  const free = [...before, ...(await segments(3))];
  const mean = (rates: number[]) => rates.reduce((sum, rate) => sum + rate, 0) / rates.length;
  return [
    {
      what: `lifecycle under a snapshot held for ${grouped(seconds)} s / none`,
      unit: "messages/s",
      a: text(mean(free)),
      b: text(mean(pinned)),
      ratio: mean(pinned) / mean(free),
      bar: { min: 0.75 },
      errors,
      note: `its last third ${(mean(pinned.slice(-2)) / mean(free)).toFixed(2)}`,
    },
  ];
}

/** PostgreSQL's counters lag: a session reports at most 10 s after its last statement. */
const settle_seconds = 12;
const idle_seconds = 30;

/** What a server does that nobody asks anything. */
export async function measureIdle(bed: Bed, size: number): Promise<FlatRow[]> {
  const { subject, load, options } = bed;
  const { sql } = subject;
  const queue_ids = Array.from({ length: size }, () => newQueueId("idle"));
  await createQueues(subject, queue_ids);
  await fillQueues(subject, load, { queue_ids, count: 1, body_bytes: options.body_bytes, label });
  // What an earlier measurement left to autovacuum and to the checkpointer is not this server's idling.
  if (subject.is_own && sql !== undefined) {
    await sql`vacuum`;
    await sql`checkpoint`;
  }
  await Bun.sleep(settle_seconds * 1000);
  const read = async () => {
    if (sql === undefined) return undefined;
    const [row] = await sql<{ commits: string }[]>`
      select xact_commit + xact_rollback as commits from pg_stat_database where datname = current_database()`;
    return Number(row?.commits ?? 0);
  };
  const [commits_before, before] = [await read(), readCpu(subject)];
  await Bun.sleep(idle_seconds * 1000);
  const [commits_after, after] = [await read(), readCpu(subject)];
  const rows: FlatRow[] = [];
  const base = { a: "–", errors: {} };
  const what = `idle with ${grouped(size)} queues`;
  if (commits_before !== undefined && commits_after !== undefined) {
    // Our own first look is among them.
    const queries = (commits_after - commits_before - 1) / idle_seconds;
    rows.push({ ...base, what, unit: "queries/s", b: text(queries), ratio: queries, bar: { max: 2 } });
  }
  if (before.server !== undefined && after.server !== undefined) {
    const server = ((after.server - before.server) / idle_seconds) * 100;
    const database = (((after.postgres ?? 0) - (before.postgres ?? 0)) / idle_seconds) * 100;
    const note = `server ${server.toFixed(2)} %, PostgreSQL ${database.toFixed(2)} %`;
    rows.push({
      ...base,
      what,
      unit: "CPU %",
      b: text(server + database),
      ratio: server + database,
      bar: { max: 1 },
      note,
    });
  }
  if (rows.length === 0) throw new NeedsDatabase();
  return rows;
}

/** A lonely publish against the least that the database could do. */
export async function measureSingle(bed: Bed, size: number): Promise<FlatRow[]> {
  const { subject, options } = bed;
  const { sql } = subject;
  if (sql === undefined) throw new NeedsDatabase();
  const queue_id = await createQueue(subject, "single");
  const errors = {};
  const side = createSide(bed, errors);
  await sql`create schema if not exists psqlqueue_bench`;
  const single_rounds = 10;
  const per_round = Math.max(20, Math.round(size / single_rounds));
  const body = "x".repeat(options.body_bytes);
  try {
    await sql`create table if not exists psqlqueue_bench.plain (id text primary key, body text not null)`;
    const insert = async () => {
      const times: number[] = [];
      for (let i = 0; i < per_round; i++) {
        const id = crypto.randomUUID();
        const started_ms = performance.now();
        await sql`insert into psqlqueue_bench.plain (id, body) values (${id}, ${body})`;
        times.push(performance.now() - started_ms);
      }
      return median(times);
    };
    await insert();
    await side.publish([queue_id], per_round);
    const compared = await compare(single_rounds, insert, () => side.publish([queue_id], per_round));
    return [
      {
        what: "publish, one after the other / a prepared INSERT",
        unit: "ms, p50",
        a: text(compared.a),
        b: text(compared.b),
        ratio: compared.ratio,
        bar: { max: 1.3 },
        errors,
      },
    ];
  } finally {
    await sql`drop schema psqlqueue_bench cascade`;
  }
}
