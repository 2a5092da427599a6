// F17: the embedded database's disk after a crash at any moment. A load is recorded down to the single write; then the
// directory is made again as a crash after the k-th change would have left it, opened, and compared with what had been
// answered by then. Kills of a process find none of this: the operating system keeps what was written.

import { cpSync, readdirSync, rmSync } from "node:fs";
import path from "node:path";
import { PGlite } from "@electric-sql/pglite";
import postgres from "postgres";
import { type Broker, createBroker } from "../../src/broker/broker.ts";
import type { Limits } from "../../src/broker/limits.ts";
import { openPostgres } from "../../src/db/db.ts";
import { takeBackend } from "../../src/db/embedded/backend.ts";
import { openEmbedded } from "../../src/db/embedded/embedded.ts";
import { serveBackend } from "../../src/db/embedded/server.ts";
import { startParams } from "../../src/db/embedded/startParams.ts";
import { queryMessage } from "../../src/db/embedded/wire.ts";
import { migrateDatabase } from "../../src/db/migrate.ts";
import { Disk, type Survival, survivals } from "./crashImage.ts";
import { type History, hashOf, now_ms } from "./history.ts";
import type { Random } from "./random.ts";
import { type FileChange, RecordedNodeFS } from "./recordedFs.ts";
import type { Scenario } from "./scenario.ts";
import { scratchDirectory } from "./servers.ts";

/** Where the cluster is in a data directory. */
const cluster_name = "postgresql";
const rounds_count = 40;
/** More of them at a higher dose, up to so many. */
const rounds_max = 240;
const at_once_max = 8;
const queue_id = "load";
const limits: Limits = {
  lanes: 2,
  items_max: 500,
  bytes_max: 8_388_608,
  waiting_max: 1000,
  waiting_bytes_max: 268_435_456,
  answer_bytes_max: 67_108_864,
  answers_bytes_max: 67_108_864,
  statement_ms_max: 60_000,
  waiters_max: 100,
  removal_ms_max: 30_000,
};

/** The last change before an answer, and what was answered. */
type Answer = { after: number; verb: "publish" | "ack"; id: string; body: string };
type Recording = { changes: FileChange[]; answers: Answer[]; asked: Set<string>; paths: string[]; base: string };

/** A migrated directory with a queue, closed as it should be. */
async function makeBase(): Promise<string> {
  const data_dir = scratchDirectory("base");
  const embedded = await openEmbedded({ data_dir, fsync: true });
  await migrateDatabase(embedded.connection);
  await embedded.close();
  return data_dir;
}

/** All that is in a directory, relative; directories with a slash at their end. */
function pathsIn(root: string): string[] {
  const entries = readdirSync(root, { recursive: true, withFileTypes: true });
  return entries.map((entry) => {
    const name = path.relative(root, path.join(entry.parentPath, entry.name));
    return entry.isDirectory() ? `${name}/` : name;
  });
}

/** Publishes, receives, acks and nacks, several at once; checkpoints and vacuums in between. */
async function work(
  broker: Broker,
  random: Random,
  history: History,
  recording: Recording,
  rounds: number,
  upkeep: () => Promise<void>,
) {
  const { answers, changes, asked } = recording;
  const bodies = new Map<string, string>();
  const note = (verb: Answer["verb"], id: string) =>
    void answers.push({ after: changes.length, verb, id, body: bodies.get(id) ?? "" });
  const publish = async (message: string) => {
    const body = `${message} ${"x".repeat(random.chance(0.1) ? random.below(40_000) : random.below(400))}`;
    const known = { message, hash: hashOf({ body, label: null, attributes: null, ordering_key: null }) };
    const ordering_key = random.chance(0.3) ? `k${random.below(5)}` : null;
    const none = { delay_seconds: null, deliver_at: null, ttl_seconds: null, expires_at: null, dedup_key: null };
    const options = ordering_key === null ? undefined : { ...none, ordering_key };
    const sent_ms = now_ms();
    const { id } = await broker.publish({ queue_id, body, label: null, attributes: null }, options);
    bodies.set(id, body);
    note("publish", id);
    const none_of_it = { dedup_id: null, ordering_key: null, delay_ms: 0 };
    history.tries.push({
      ...{ kind: "publish", ...known, ...none_of_it, copies: [{ queue: queue_id, id }] },
      ...{ sent_ms, answered_ms: now_ms(), status: 204 },
    });
  };
  const settle = async ({ id, lease_token }: { id: string; lease_token: string }, is_last: boolean) => {
    const item = { queue_id, id, lease_token };
    if (!is_last && random.chance(0.2)) {
      await broker.nack({ ...item, visibility_timeout_seconds: 0, error: "again", dead_letter: false });
      return;
    }
    asked.add(id);
    const sent_ms = now_ms();
    await broker.ack(item);
    note("ack", id);
    const times = { sent_ms, answered_ms: now_ms(), until_ms: 0 };
    history.settles.push({
      kind: "settle",
      verb: "ack",
      id,
      token: lease_token,
      visibility_ms: 0,
      ...times,
      status: 204,
    });
  };
  const consume = async (limit: number, is_last: boolean) => {
    const asking = { queue_id, label: undefined, lease_seconds: undefined, limit, wait_ms: 0, wait_ms_max: 0 };
    const leased = await broker.receive(asking);
    await Promise.all(leased.map((message) => settle(message, is_last)));
    return leased.length;
  };
  for (let round = 0; round < rounds; round++) {
    const count = 1 + random.below(at_once_max);
    await Promise.all([
      ...Array.from({ length: count }, (_, n) => publish(`${round}.${n}`)),
      consume(random.below(at_once_max), false),
    ]);
    if (random.chance(0.15)) await upkeep();
  }
  while ((await consume(50, true)) > 0);
}

async function record(base: string, random: Random, history: History, rounds: number): Promise<Recording> {
  const data_dir = scratchDirectory("recorded");
  cpSync(base, data_dir, { recursive: true });
  const cluster = path.join(data_dir, cluster_name);
  const paths = pathsIn(path.join(base, cluster_name));
  const recording: Recording = { changes: [], answers: [], asked: new Set(), paths, base };
  const fs = new RecordedNodeFS(cluster, (change) => void recording.changes.push(change));
  const pg = await PGlite.create({ fs, startParams: startParams(true) });
  const backend = takeBackend(pg);
  backend.exec(queryMessage("select 1"));
  const socket = { host: data_dir, path: path.join(data_dir, ".s.PGSQL.5432") };
  const failures: Error[] = [];
  const wire = serveBackend(backend, {
    path: socket.path,
    secret: "secret",
    onRefusal: (refusal) => void failures.push(new Error(`refused: ${refusal}`)),
    onFailure: (failure) => void failures.push(failure),
  });
  const server = { ...socket, user: "postgres", password: "secret", database: "postgres" };
  const db = openPostgres({ server, connections_max: 1, statement_timeout_ms: 60_000 });
  const broker = createBroker(db, limits);
  const settings = { ack_deadline_seconds: 600, message_retention_seconds: 86_400, delivery_delay_seconds: 0 };
  await broker.createQueue(queue_id, settings, {});
  await work(broker, random, history, recording, rounds, async () => {
    await db.client`vacuum psqlqueue.messages`;
    await db.client`checkpoint`;
  });
  await db.close(1);
  wire.close();
  if (failures[0] !== undefined) throw failures[0];
  return recording;
}

/** What does not agree in a database that was opened after a crash with what had been answered before it. */
async function compare(sql: postgres.Sql, answers: Answer[], asked: Set<string>): Promise<string[]> {
  const stored = new Map<string, string>();
  for (const { id, body } of await sql<{ id: string; body: string }[]>`select id, body from psqlqueue.messages`) {
    stored.set(id, body);
  }
  const archive = await sql<{ id: string }[]>`select id from psqlqueue.archived_messages`;
  const archived = new Set(archive.map(({ id }) => id));
  const wrong: string[] = [];
  for (const { verb, id, body } of answers) {
    const is_there = stored.has(id);
    if (verb === "ack" && is_there) wrong.push(`acked ${id} is back`);
    if (verb === "ack" || archived.has(id)) continue;
    if (!is_there && !asked.has(id)) wrong.push(`${id} is lost`);
    else if (!is_there) wrong.push(`${id} is neither stored nor archived`);
    else if (stored.get(id) !== body) wrong.push(`${id} has another body`);
  }
  for (const id of stored.keys()) if (archived.has(id)) wrong.push(`${id} is there twice`);
  return wrong;
}

function restore(base: string, disk: Disk, survival: Survival, random: Random): string {
  const data_dir = scratchDirectory("crashed");
  cpSync(base, data_dir, { recursive: true, filter: (from) => path.basename(from) !== cluster_name });
  disk.restore(path.join(data_dir, cluster_name), survival, random);
  return data_dir;
}

/** What a database says that is opened where a crash was; the directory is removed. */
async function judge(data_dir: string, answers: Answer[], asked: Set<string>): Promise<string[]> {
  try {
    const embedded = await openEmbedded({ data_dir, fsync: false });
    const sql = postgres({ ...embedded.connection, max: 1, onnotice() {} });
    try {
      return await compare(sql, answers, asked);
    } finally {
      await sql.end({ timeout: 1 });
      await embedded.close();
    }
  } catch (error) {
    return [`it could not be opened: ${error}`];
  } finally {
    rmSync(data_dir, { recursive: true, force: true });
  }
}

/** The disk of the embedded database after crashes between any two of its writes. */
export const crashPoints: Scenario = {
  id: "F17",
  title: "crash points of the embedded database",
  quick_dose: 0.01,
  skipped: ({ binary }) => (binary === null ? undefined : "a binary's file system cannot be recorded"),
  async perform(stage) {
    const { random, history } = stage;
    const base = await makeBase();
    const rounds = Math.min(rounds_max, rounds_count + stage.dose(200, 0));
    const { changes, answers, asked, paths } = await record(base, random.fork("load"), history, rounds);
    const disk = new Disk(path.join(base, cluster_name), paths);
    const points = Array.from({ length: stage.dose(2000, 20) }, () => random.below(changes.length)).sort(
      (a, b) => a - b,
    );
    let applied = 0;
    const attempt = async (n: number, point: number): Promise<void> => {
      while (applied < point) disk.apply(changes[applied++] as FileChange);
      const survival = survivals[n % survivals.length] as Survival;
      stage.fault(`crash that leaves what was ${survival}`);
      const known = answers.filter(({ after }) => after <= point);
      const data_dir = restore(base, disk, survival, random.fork(String(n)));
      for (const problem of await judge(data_dir, known, asked)) {
        history.problems.push(`after change ${point} of ${changes.length}, ${survival}: ${problem}`);
      }
    };
    const left = [...points.entries()];
    // Restored in order, opened and compared two at a time.
    const worker = async () => {
      for (let next = left.shift(); next !== undefined; next = left.shift()) await attempt(...next);
    };
    await Promise.all([worker(), worker()]);
    const flushes = changes.filter(({ op }) => op === "sync").length;
    stage.note(`${changes.length} changes of files, ${flushes} of them flushes, ${answers.length} answers`);
  },
};
