// Processes of a server are killed while it works: is anything lost that was answered, does anything come back that was
// acked, does nobody answer for long? Prints a line of markdown, and ends with 1 where it is so.

import { childrenOf } from "../test/processes.ts";
import { runToEnd } from "./children.ts";
import { openSubject, type Subject } from "./subject.ts";

const kills = 20;
const messages_min = 300_000;
const producers = 8;
const consumers = 24;
const batch = 20;
const backlog_max = 3000;
const pause_ms_min = 500;
const pause_ms_max = 3500;
const probe_every_ms = 20;
/** Nobody answers on a new connection for so long at most. */
const silent_ms_max = 1000;
const lease_seconds = 3;
const quiet_ms = 12_000;

type Seen = {
  published: Set<string>;
  delivered: Set<string>;
  /** When the answer to an ack was there. */
  acked: Map<string, number>;
  returned: string[];
  failures: number;
  /** The longest time in which no new connection was answered. */
  silent_ms: number;
  is_publishing: boolean;
  is_over: boolean;
};

async function call(subject: Subject, method: string, path: string, body?: unknown): Promise<unknown> {
  const init = { method, ...(body !== undefined && { body: JSON.stringify(body) }) };
  const response = await fetch(`${subject.url}/v1/queues${path}`, init);
  if (!response.ok) throw new Error(`${response.status}`);
  return response.status === 204 ? undefined : await response.json();
}

async function produce(subject: Subject, seen: Seen, own: number): Promise<void> {
  for (let n = 0; seen.is_publishing; n++) {
    // Consumers keep up, so that a kill meets every kind of request.
    if (seen.published.size - seen.delivered.size > backlog_max) {
      await Bun.sleep(20);
      continue;
    }
    const bodies = Array.from({ length: batch }, (_, i) => `${own}-${n}-${i}`);
    try {
      await call(subject, "POST", "/kills/messages/batch", { messages: bodies.map((body) => ({ body })) });
      for (const body of bodies) seen.published.add(body);
    } catch {
      // Cut off or refused: it may have happened, and may not.
      seen.failures += 1;
      await Bun.sleep(20);
    }
  }
}

type Delivery = { id: string; body: string; lease_token: string };

async function consume(subject: Subject, seen: Seen): Promise<void> {
  while (!seen.is_over) {
    try {
      const asked_ms = performance.now();
      const answer = await call(subject, "GET", "/kills/messages?limit=10&wait_seconds=1");
      const { data } = answer as { data: Delivery[] };
      for (const { body } of data) if ((seen.acked.get(body) ?? asked_ms) < asked_ms) seen.returned.push(body);
      for (const { body } of data) seen.delivered.add(body);
      if (data.length === 0) continue;
      const items = data.map(({ id, lease_token }) => ({ id, lease_token }));
      const { results } = (await call(subject, "POST", "/kills/ack", { items })) as { results: { status: string }[] };
      const now = performance.now();
      for (const [i, { status }] of results.entries()) if (status === "ok") seen.acked.set(data[i]?.body ?? "", now);
    } catch {
      seen.failures += 1;
      await Bun.sleep(20);
    }
  }
}

/** Asks again and again, each time on a connection of its own. */
async function probe(subject: Subject, seen: Seen): Promise<void> {
  for (let answered_ms = performance.now(); !seen.is_over; ) {
    const answer = await fetch(`${subject.url}/v1/info`, {
      headers: { connection: "close" },
      signal: AbortSignal.timeout(silent_ms_max / 2),
    }).catch(() => undefined);
    const now = performance.now();
    seen.silent_ms = Math.max(seen.silent_ms, now - answered_ms);
    if (answer?.ok) answered_ms = now;
    await Bun.sleep(probe_every_ms);
  }
}

async function run(): Promise<number> {
  const unknown = { url: undefined, database_url: undefined, server_pid: undefined, binary: undefined };
  const subject = await openSubject({ ...unknown, is_embedded: false, workers: 2 });
  const { server_pid = 0, sql } = subject;
  const settings = { ack_deadline_seconds: lease_seconds, message_retention_seconds: 86_400 };
  await call(subject, "POST", "", { id: "kills", ...settings });
  const seen: Seen = {
    published: new Set(),
    delivered: new Set(),
    acked: new Map(),
    returned: [],
    failures: 0,
    silent_ms: 0,
    is_publishing: true,
    is_over: false,
  };
  const producing = Array.from({ length: producers }, (_, own) => produce(subject, seen, own));
  const consuming = Array.from({ length: consumers }, () => consume(subject, seen));
  const probing = probe(subject, seen);
  let killed = 0;
  while (killed < kills || seen.published.size < messages_min) {
    await Bun.sleep(pause_ms_min + Math.random() * (pause_ms_max - pause_ms_min));
    if (killed === kills) continue;
    const all = childrenOf(server_pid);
    const pid = all[Math.floor(Math.random() * all.length)];
    if (pid === undefined) continue;
    process.kill(pid, "SIGKILL");
    killed += 1;
    process.stderr.write(`· ${killed} killed, ${seen.published.size} published, ${seen.acked.size} acked\n`);
  }
  seen.is_publishing = false;
  await Promise.all(producing);
  const missing = () => [...seen.published].filter((body) => !seen.acked.has(body)).length;
  let acked = -1;
  // Leases of those whose delivery was cut off run out first.
  while (missing() > 0 && acked !== seen.acked.size) {
    acked = seen.acked.size;
    await Bun.sleep(quiet_ms);
  }
  seen.is_over = true;
  await Promise.all([...consuming, probing]);
  // An ack whose answer was cut off may have happened: what was published is then neither acked here nor left there.
  const left = await sql?.unsafe("select count(*)::int as count from psqlqueue.messages");
  const found = {
    killed,
    published: seen.published.size,
    acked: seen.acked.size,
    "requests cut off or refused": seen.failures,
    "acks without an answer": missing(),
    "left in the queue": Number(left?.[0]?.["count"] ?? -1),
    "came back after their ack": seen.returned.length,
    "longest without an answer, ms": Math.round(seen.silent_ms),
  };
  console.log(
    Object.entries(found)
      .map(([name, value]) => `${name}: ${value}`)
      .join(" · "),
  );
  const is_whole = seen.returned.length === 0 && found["left in the queue"] === 0;
  return is_whole && seen.silent_ms <= silent_ms_max ? 0 : 1;
}

process.exit(await runToEnd(run));
