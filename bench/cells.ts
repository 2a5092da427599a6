// The table's rows: each workload at each number of connections. Throughput and CPU come from a closed loop, latencies
// from open ones at parts of the throughput found.

import type { Load, Measured } from "./load.ts";
import type { Options, WorkloadName } from "./options.ts";
import { createQueue, fillQueues } from "./queues.ts";
import { type Subject, startReference } from "./subject.ts";
import type { Latency } from "./tally.ts";
import type { Workload } from "./workload.ts";
import { runWrk } from "./wrk.ts";

/** One row. Microseconds are per message; undefined where a process is not known. */
export type Row = {
  name: WorkloadName | "publish, wrk";
  connections: number;
  messages_per_second: number;
  /** Requests per second as a part of what the HTTP stack does without a broker. */
  null_ratio: number | undefined;
  half: Latency | undefined;
  most: Latency | undefined;
  server_us: number | undefined;
  postgres_us: number | undefined;
  generator_us: number;
  /** Cores that everything else on the machine kept busy meanwhile: the noise. */
  other_cores: number | undefined;
  errors: Record<string, number>;
  notes: Note[];
};

/** What a reader must know of a row. */
export type Note = "generator" | "late" | "empty";

const label = "my-label";
const limit = 10;
const probe_ms = 500;
/** Part of `seconds` that an open loop takes. */
const open_part = 0.8;
const half_part = 0.5;
const most_part = 0.9;

/** The workload behind a name, on one queue. */
export function workloadOf(name: WorkloadName, queue_id: string, body_bytes: number): Workload {
  const [verb = "", size] = name.split("-");
  const batch = Number(size ?? 1);
  const kind = verb === "receive+ack" ? "receive" : (verb as Workload["kind"]);
  return { kind, queues: [queue_id], body_bytes, label, limit: Math.max(limit, batch), batch, after: "ack" };
}

/** What a row counts: messages published, or finished. */
export const messagesOf = (name: WorkloadName, measured: Measured) =>
  name.startsWith("publish") ? measured.published : measured.settled;

const perMessage = (seconds: number | undefined, messages: number) =>
  seconds === undefined || messages === 0 ? undefined : (seconds / messages) * 1e6;

/** CPU microseconds per message of all three. */
export function costsOf(name: WorkloadName, measured: Measured) {
  const messages = messagesOf(name, measured);
  return {
    server_us: perMessage(measured.server_seconds, messages),
    postgres_us: perMessage(measured.postgres_seconds, messages),
    generator_us: perMessage(measured.cpu_seconds, messages) ?? 0,
  };
}

/** The generator had no time left, and the server had some. */
function isGeneratorBusy(measured: Measured): boolean {
  const share = measured.cpu_seconds / measured.seconds;
  const server_share = (measured.server_seconds ?? 0) / measured.seconds;
  return share > 0.8 && server_share < 0.8;
}

/** The queues of one run, and how many messages each must still hold. */
export async function createBench(subject: Subject, load: Load, options: Pick<Options, "body_bytes">) {
  const published = await createQueue(subject, "publish");
  const lived = await createQueue(subject, "lifecycle");
  let backlog = 0;

  /** Runs one workload; the queue that is published to is the one that is received from. */
  async function run(
    name: WorkloadName,
    connections: number,
    timing: { warmup_ms: number; duration_ms: number; rate?: number },
  ) {
    const is_balanced = name === "lifecycle" || name === "mixed";
    const workload = workloadOf(name, is_balanced ? lived : published, options.body_bytes);
    const measured = await load.run(subject, { connections, workload, ...timing });
    if (!is_balanced) backlog += measured.left;
    return measured;
  }

  return {
    published,
    run,
    /** Makes sure that receiving at the pace of a workload finds messages for so long. */
    async prepare(name: WorkloadName, connections: number, seconds: number): Promise<void> {
      if (!name.startsWith("receive")) return;
      const fill = { queue_ids: [published], body_bytes: options.body_bytes, label };
      const fillTo = async (count: number) => {
        await fillQueues(subject, load, { ...fill, count: count - backlog });
        backlog = Math.max(backlog, count);
      };
      await fillTo(connections * 1000 + 2000);
      const probed = await run(name, connections, { warmup_ms: 0, duration_ms: probe_ms });
      await fillTo(Math.ceil((probed.received / probed.seconds) * seconds * 2.5));
    },
  };
}

/** A run's queues. */
export type Bench = Awaited<ReturnType<typeof createBench>>;

type MeasuredRow = Row & { requests_per_second: number };

async function measureRow(
  bench: Bench,
  options: Options,
  name: WorkloadName,
  connections: number,
): Promise<MeasuredRow> {
  const warmup_ms = options.warmup_seconds * 1000;
  const open_ms = options.seconds * 1000 * open_part;
  const open_warmup_ms = warmup_ms / 2;
  const closed_seconds = options.seconds + options.warmup_seconds;
  const open_seconds = ((open_ms + open_warmup_ms) / 1000) * (half_part + most_part);
  await bench.prepare(name, connections, closed_seconds + (options.has_latency ? open_seconds : 0));
  const closed = await bench.run(name, connections, { warmup_ms, duration_ms: options.seconds * 1000 });
  const requests_per_second = closed.requests / closed.seconds;
  const notes = new Set<Note>();
  const errors = { ...closed.errors };
  const measureOpen = async (part: number): Promise<Latency> => {
    const rate = requests_per_second * part;
    const open = await bench.run(name, connections, { warmup_ms: open_warmup_ms, duration_ms: open_ms, rate });
    for (const [error, count] of Object.entries(open.errors)) errors[error] = (errors[error] ?? 0) + count;
    if (open.requests / (open_ms / 1000) < 0.97 * rate) notes.add("late");
    if (open.empty > 0) notes.add("empty");
    return open.latency.all;
  };
  const is_open = options.has_latency && requests_per_second > 0;
  const half = is_open ? await measureOpen(half_part) : undefined;
  const most = is_open ? await measureOpen(most_part) : undefined;
  if (isGeneratorBusy(closed)) notes.add("generator");
  if (name.startsWith("receive") && closed.empty > 0) notes.add("empty");
  return {
    name,
    connections,
    messages_per_second: messagesOf(name, closed) / closed.seconds,
    requests_per_second,
    null_ratio: undefined,
    half,
    most,
    ...costsOf(name, closed),
    other_cores: closed.other_seconds === undefined ? undefined : closed.other_seconds / closed.seconds,
    errors,
    notes: [...notes],
  };
}

async function measureWrk(subject: Subject, bench: Bench, options: Options, connections: number): Promise<MeasuredRow> {
  const result = await runWrk(subject, bench.published, connections, options.seconds, options.body_bytes);
  return {
    name: "publish, wrk",
    connections,
    messages_per_second: result.requests_per_second,
    requests_per_second: result.requests_per_second,
    null_ratio: undefined,
    half: undefined,
    most: undefined,
    server_us: result.server_us,
    postgres_us: undefined,
    generator_us: result.generator_us,
    other_cores: undefined,
    errors: result.errors === 0 ? {} : { failed: result.errors },
    notes: [],
  };
}

/** A reference's rate. */
export type NullRate = { connections: number; requests_per_second: number; server_us: number };

const null_ms = 1000;

/** The HTTP stack without a broker; of several measurements the best, since what disturbs one can only slow it down. */
async function measureNull(load: Load, subject: Subject, options: Options, connections: number): Promise<NullRate> {
  const workload = workloadOf("publish", "null", options.body_bytes);
  const measured = await load.run(subject, { connections, workload, warmup_ms: null_ms / 4, duration_ms: null_ms });
  // Refusals cost more than answers do: every part of it would be flattered.
  const errors = Object.entries(measured.errors);
  if (errors.length > 0) throw new Error(`the reference answered ${errors.map((own) => own.join(" × ")).join(", ")}`);
  return {
    connections,
    requests_per_second: measured.requests / measured.seconds,
    server_us: ((measured.server_seconds ?? 0) / measured.requests) * 1e6,
  };
}

/** All rows, one measurement after the other. `onStep` hears what is measured now. */
export async function measureTable(
  subject: Subject,
  load: Load,
  options: Options,
  onStep: (step: string) => void,
): Promise<{ rows: Row[]; null_rates: NullRate[] }> {
  const reference = await startReference("null.ts");
  const bench = await createBench(subject, load, options);
  const rows: Row[] = [];
  const null_rates: NullRate[] = [];
  // What is published is what is received: at each number of connections one after the other.
  for (const connections of options.connections) {
    // The reference before and after them: it must have met the same machine.
    const before = await measureNull(load, reference, options, connections);
    const found: MeasuredRow[] = [];
    for (const name of options.only) {
      onStep(`${name}, ${connections} connections`);
      if (name === "publish" && options.has_wrk) found.push(await measureWrk(subject, bench, options, connections));
      found.push(await measureRow(bench, options, name, connections));
    }
    const after = await measureNull(load, reference, options, connections);
    const best = after.requests_per_second > before.requests_per_second ? after : before;
    null_rates.push(best);
    for (const row of found) rows.push({ ...row, null_ratio: row.requests_per_second / best.requests_per_second });
  }
  const order = (row: Row) => options.only.findIndex((name) => row.name.startsWith(name));
  return { rows: rows.sort((a, b) => order(a) - order(b) || a.connections - b.connections), null_rates };
}
