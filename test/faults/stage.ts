// A stage for one scenario: what it starts is ended with it, and its load, drain and check are the same for all.

import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import postgres from "postgres";
import { type FaultProxy, startFaultProxy } from "../faultProxy.ts";
import { type Cluster, type ClusterOptions, type Machine, startCluster } from "../postgres.ts";
import type { Rules } from "./check.ts";
import { type Client, createClient } from "./client.ts";
import { type Creation, type Edge, queueEdge } from "./edges.ts";
import { type History, historyFile, now_ms } from "./history.ts";
import { createRandom, type Random } from "./random.ts";
import { checkCap, checkRest, checkStored, depthsOf, heldIn } from "./rest.ts";
import { createServer, type ServerProcess, sourceProgram } from "./servers.ts";
import { exhume, type Load, quick_work, startLoad, type Work } from "./workload.ts";

export type Settings = {
  seed: number;
  /** 1: all of what the plan asks for. */
  dose: number;
  /** The binary, instead of the source. */
  binary: string | null;
  /** Where the source is: a copy of it, for mutations. */
  root: string;
};

/** What a scenario plays on. */
export type Stage = {
  settings: Settings;
  random: Random;
  history: History;
  client: Client;
  /** So many of `count` as the dose asks for; at least `min`. */
  dose(count: number, min?: number): number;
  /** A migrated database on the cluster that the scenarios share, which runs. */
  database(): Promise<{ cluster: Cluster; url: string }>;
  /** A cluster of its own. */
  cluster(options?: ClusterOptions): Promise<Cluster>;
  /** The command that starts psqlqueue; `preload` is a module that it loads first. */
  program(preload?: string): string[];
  /** A server that runs, here or on `machine`; `preload` is a module that it loads first. */
  server(env: Record<string, string>, preload?: string, machine?: Machine): Promise<ServerProcess>;
  /** A proxy before a port of this machine. */
  proxy(port: number): Promise<FaultProxy>;
  /** Where something is kept that helps to understand the history. */
  file(name: string): string;
  /** Writes down that something was broken now. */
  fault(name: string): void;
  /** For what has no column of its own. */
  note(text: string): void;
  atEnd(work: () => unknown): void;
  /** Runs the load, `act` during it, then drains. What happened is checked when the scenario has ended. */
  play(options: PlayOptions, act: (load: Load) => Promise<void>): Promise<void>;
};

export type PlayOptions = {
  /** Of the servers, or of proxies before them. */
  ports: number[];
  /** The database, where it can be asked; null: the embedded one. */
  url: string | null;
  /** Messages to be published at least, at dose 1. */
  messages: number;
  /** How the load speaks to the servers; else to one queue of v1. */
  edge?(ack_deadline_ms: number): Edge;
  work?: Work;
  rate_max?: number;
  backlog_max?: number;
  lanes?: number;
  ack_deadline_seconds?: number;
  deliveries_max?: number;
  /** Messages under a lease at once; such a queue has priorities too. */
  in_flight_max?: number;
  /** How long a drain may take, beyond the ack deadline. */
  drain_ms_max?: number;
};

export type Outcome = { rules: Rules; notes: string[]; seconds: number };

const warm_messages = 100;
/** Connections to the database: their number has a limit, and they are opened as they are needed. */
const files_slack = 15;
/** Short, so that what a dead consumer held comes back soon. */
const ack_deadline_seconds_usual = 2;

let shared: Promise<Cluster> | undefined;
const templates = new Map<string, Promise<string>>();

/** One for all scenarios of a run, whatever they do to it. It ends with the process. */
function sharedCluster(): Promise<Cluster> {
  shared ??= startCluster();
  return shared;
}

/** Where a 32-bit number would not do any more. */
const beyond_32_bits = 3_000_000_000;

/** Migrates the database that servers reach by `url`, and that is asked at `direct_url`. */
export async function migrate(url: string, direct_url: string, program: string[]): Promise<void> {
  const env = { PATH: process.env["PATH"] ?? "", HOME: "/", PSQLQUEUE_DATABASE_URL: url };
  const child = Bun.spawn([...program, "migrate"], { cwd: "/", env, stdout: "pipe", stderr: "inherit" });
  const output = await new Response(child.stdout).text();
  if ((await child.exited) !== 0) throw new Error(`not migrated: ${output}`);
  const sql = postgres(direct_url, { max: 1, onnotice() {} });
  for (const sequence of ["ordering_seq", "outbox_seq_seq", "stale_keys_seq_seq"]) {
    await sql`select setval(${`psqlqueue.${sequence}`}, ${beyond_32_bits})`;
  }
  await sql.end();
}

async function makeTemplate(cluster: Cluster, name: string, program: string[]): Promise<string> {
  const url = await cluster.createDatabase(name);
  await migrate(url, url, program);
  return name;
}

/** A database of `cluster`, migrated by `program`; the first one is the template of the others. */
export async function migratedDatabase(cluster: Cluster, program: string[]): Promise<string> {
  const name = `template_${Bun.hash.xxHash32(`${cluster.port} ${program.join(" ")}`)}`;
  const template = templates.get(name) ?? makeTemplate(cluster, name, program);
  templates.set(name, template);
  return await cluster.createDatabase(undefined, await template);
}

/** Waits until `condition` holds. Throws after `ms_max` with what was waited for. */
export async function waitUntil(
  what: string,
  ms_max: number,
  condition: () => boolean | Promise<boolean>,
): Promise<void> {
  const end_ms = performance.now() + ms_max;
  while (!(await condition())) {
    if (performance.now() > end_ms) throw new Error(`${what}: not within ${ms_max} ms`);
    await Bun.sleep(10);
  }
}

async function create(client: Client, port: number, { target, body, lines }: Creation): Promise<void> {
  await waitUntil("a queue is created", 30_000, async () => {
    const { status, text } = await client.call(port, "POST", target, body, lines);
    // 409: it was, by a request whose answer was lost.
    if (status > 0 && ![200, 201, 409, 503].includes(status)) throw new Error(`no queue: ${status} ${text}`);
    return [200, 201, 409].includes(status);
  });
}

async function createQueues(client: Client, port: number, edge: Edge, options: PlayOptions): Promise<void> {
  const { ack_deadline_seconds = ack_deadline_seconds_usual, deliveries_max, in_flight_max } = options;
  const retention = { message_retention_seconds: 86_400 };
  await create(client, port, { target: "/v1/queues", body: { id: "dead", ack_deadline_seconds: 60, ...retention } });
  const dying = deliveries_max === undefined ? {} : { dead_queue_id: "dead", message_max_deliveries: deliveries_max };
  const governed = in_flight_max === undefined ? {} : { max_in_flight: in_flight_max, priority_enabled: true };
  const settings = { ack_deadline_seconds, ...retention, ...dying, ...governed };
  for (const creation of edge.creations(settings)) await create(client, port, creation);
}

type Held = { files: number; megabytes: number };

/** What processes hold, by their pid; empty where there is no /proc. */
function heldBy(pids: number[]): Map<number, Held> {
  const held = new Map<number, Held>();
  for (const pid of pids) {
    try {
      const pages = Number(readFileSync(`/proc/${pid}/statm`, "utf8").split(" ")[1]);
      held.set(pid, { files: readdirSync(`/proc/${pid}/fd`).length, megabytes: Math.round((pages * 4096) / 1e6) });
    } catch {
      // No such system, or no such process any more.
    }
  }
  return held;
}

/**
 * I12: of the servers that ran all the time, when their clients have gone. Memory is told and not judged: that needs
 * hours.
 */
async function checkHeld(
  before: Map<number, Held>,
  read: () => Map<number, Held>,
  onProblem: (text: string) => void,
): Promise<string[]> {
  const isMore = (pid: number, { files }: Held) => files > (before.get(pid)?.files ?? files) + files_slack;
  const areFew = () => [...read()].every(([pid, held]) => !isMore(pid, held));
  await waitUntil("I12 files are closed", 5000, areFew).catch((error) => onProblem(String(error)));
  return [...read()].flatMap(([pid, { files, megabytes }]) => {
    const earlier = before.get(pid);
    if (earlier === undefined) return [];
    return [`a server's open files ${earlier.files} → ${files}, memory ${earlier.megabytes} → ${megabytes} MB`];
  });
}

/** Opens a stage, lets `perform` play on it, and ends what it has started. */
export async function onStage(
  settings: Settings,
  history: History,
  perform: (stage: Stage) => Promise<void>,
): Promise<Outcome> {
  const started_ms = performance.now();
  const random = createRandom(settings.seed);
  const client = createClient();
  const ends: (() => unknown)[] = [() => client.close()];
  const notes: string[] = [];
  const atEnd = (work: () => unknown) => void ends.push(work);
  const rules: Rules = { deliveries_max: null };
  const servers: ServerProcess[] = [];
  const pids = () => servers.flatMap((server) => server.pid() ?? []);
  const onProblem = (problem: string) => void history.problems.push(problem);

  async function play(options: PlayOptions, act: (load: Load) => Promise<void>): Promise<void> {
    const {
      ports,
      ack_deadline_seconds = ack_deadline_seconds_usual,
      deliveries_max = null,
      drain_ms_max = 30_000,
    } = options;
    const port = ports[0] as number;
    const { edge: edgeOf = (ms) => queueEdge("load", ms) } = options;
    const edge = edgeOf(ack_deadline_seconds * 1000);
    await createQueues(client, port, edge, options);
    const held = heldBy(pids());
    const load = startLoad(history, client, random.fork("load"), {
      ports,
      edge,
      ack_deadline_ms: ack_deadline_seconds * 1000,
      rate_max: options.rate_max ?? 1500,
      backlog_max: options.backlog_max ?? 2000,
      publishers: 4,
      consumers: 4,
      lanes: options.lanes ?? 4,
      work: options.work ?? quick_work,
      has_priorities: options.in_flight_max !== undefined,
    });
    try {
      await waitUntil("the load has begun", 30_000, () => load.acked() >= warm_messages);
      await act(load);
      const enough = stage.dose(options.messages, 200);
      await waitUntil(`${enough} messages are published`, 600_000, () => load.acknowledged() >= enough);
      await load.stopPublishing();
      const depths = () => Promise.all(edge.queues.map((queue) => depthsOf(client, port, queue)));
      const are_empty = async () => (await depths()).every((own) => own !== undefined && heldIn(own) === 0);
      await waitUntil("I11 the queues are drained", drain_ms_max + ack_deadline_seconds * 1000, are_empty).catch(
        async (error) => onProblem(`${error}: ${JSON.stringify(await depths())}`),
      );
    } finally {
      await load.stopPublishing();
      await load.stopConsuming();
    }
    await exhume(history, client, port, "dead");
    for (const queue of edge.queues) {
      if (options.in_flight_max !== undefined) await checkCap(stage, port, queue, options.in_flight_max);
      await checkRest(stage, port, queue);
    }
    if (options.url !== null) await checkStored(stage, options.url);
    client.close();
    notes.push(...(await checkHeld(held, () => heldBy(pids()), onProblem)));
    rules.deliveries_max = deliveries_max;
  }

  const stage: Stage = {
    settings,
    random,
    history,
    client,
    dose: (count, min = 1) => Math.max(min, Math.round(count * settings.dose)),
    async database() {
      const cluster = await sharedCluster();
      await cluster.start();
      return { cluster, url: await migratedDatabase(cluster, stage.program()) };
    },
    async cluster(options) {
      const cluster = await startCluster(options);
      atEnd(() => cluster.remove());
      return cluster;
    },
    program(preload) {
      const source = sourceProgram(settings.root);
      if (settings.binary !== null) return [path.resolve(settings.binary)];
      return preload === undefined ? source : source.toSpliced(1, 0, "--preload", preload);
    },
    async server(env, preload, machine) {
      const server = await createServer({ program: stage.program(preload), env, machine, onProblem });
      if (machine !== undefined) client.locate(server.port, machine.address);
      servers.push(server);
      atEnd(() => server.kill());
      await server.start();
      return server;
    },
    async proxy(port) {
      const proxy = await startFaultProxy({ host: "127.0.0.1", port });
      atEnd(() => proxy.close());
      return proxy;
    },
    file: (name) => historyFile(`${settings.seed}-${name}`),
    fault: (name) => void history.faults.push({ kind: "fault", name, at_ms: now_ms() }),
    note: (text) => void notes.push(text),
    atEnd,
    play,
  };
  try {
    await perform(stage);
  } finally {
    // One that fails must not keep the others from ending what they have started.
    const failed: unknown[] = [];
    for (const end of ends.reverse()) await Promise.try(end).catch((error) => failed.push(error));
    if (failed.length > 0) onProblem(`not everything could be ended: ${failed.join("; ")}`);
  }
  return { rules, notes, seconds: (performance.now() - started_ms) / 1000 };
}
