// A modest load for hours, and faults of every kind at random times in the middle of them: what is held before must be
// what is held afterwards.

import { readdirSync, readFileSync } from "node:fs";
import postgres from "postgres";
import { childrenOf } from "../processes.ts";
import { type Behind, cutAll, serversBehind, statements } from "./connections.ts";
import { type Edge, queueEdge } from "./edges.ts";
import { now_ms, type PublishTry } from "./history.ts";
import { standStill } from "./pressure.ts";
import type { Scenario } from "./scenario.ts";
import type { Stage } from "./stage.ts";

/** Messages a second: a fraction of what two cores do, so that a queue never grows by itself. */
const rate = 100;
const fault_pause_ms = 20_000;
/** Parts of the time: what is opened and cached at the start; quiet; faults; healing. The rest is quiet again. */
const phases = { warm: 0.1, quiet: 0.15, broken: 0.5, healing: 0.1 };
const samples_min = 40;
const minute_ms = 60_000;

type Sample = { at_ms: number; memory: number; files: number; sessions: number; disk: number; p99: number };
type Measure = Exclude<keyof Sample, "at_ms">;

/**
 * By how much each may end above where it began: a part of that, or what it differs by from sample to sample. Memory is
 * that of two processes, each with a heap that grows between collections, and one of them perhaps younger.
 */
const measures: Record<Measure, { title: string; part: number; slack: number }> = {
  memory: { title: "memory of the servers, MB", part: 0.1, slack: 40 },
  files: { title: "files without clients' connections", part: 0.1, slack: 4 },
  sessions: { title: "sessions at PostgreSQL", part: 0.1, slack: 2 },
  disk: { title: "tables without the archive, MB", part: 0.1, slack: 10 },
  p99: { title: "p99 of a publish, ms", part: 0.1, slack: 15 },
};

const sum = (values: number[]) => values.reduce((total, value) => total + value, 0);
const quantile = (values: number[], part: number) =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * part))] ?? 0;

const memoryOf = (pid: number) => (Number(readFileSync(`/proc/${pid}/statm`, "utf8").split(" ")[1]) * 4096) / 1e6;
const filesOf = (pid: number) => readdirSync(`/proc/${pid}/fd`).length;

/** Milliseconds of the publishes that were sent since then and answered. */
function durationsSince(tries: PublishTry[], since_ms: number): number[] {
  const durations: number[] = [];
  for (let at = tries.length - 1; at >= 0; at--) {
    const { sent_ms, answered_ms, status } = tries[at] as PublishTry;
    if (sent_ms < since_ms) break;
    if (status >= 200 && status < 300) durations.push(answered_ms - sent_ms);
  }
  return durations;
}

/** Dedup ids are kept for seconds, so that their number comes to rest. */
function shortMemory(ack_deadline_ms: number): Edge {
  const edge = queueEdge("load", ack_deadline_ms);
  const short = { dedup_window_seconds: 30 };
  return { ...edge, creations: (settings) => edge.creations({ ...settings, ...short }) };
}

/** The table, and what ends too high. */
function judge(first: Sample[], last: Sample[]): { lines: string[]; problems: string[] } {
  const lines = [
    `${" ".repeat(36)}${["first quiet phase", "last quiet phase", "may be"].map((head) => head.padStart(17)).join("  ")}`,
  ];
  const problems: string[] = [];
  for (const [name, { title, part, slack }] of Object.entries(measures) as [Measure, (typeof measures)[Measure]][]) {
    const [before, after] = [first, last].map((samples) =>
      quantile(
        samples.map((sample) => sample[name]),
        0.5,
      ),
    ) as [number, number];
    const most = Math.max(before * (1 + part), before + slack);
    const cells = [before, after, most].map((value) => value.toFixed(0).padStart(17));
    lines.push(`${title.padEnd(36)}${cells.join("  ")}`);
    if (after > most) problems.push(`I12 ${title}: ${before.toFixed(0)} before, ${after.toFixed(0)} afterwards`);
  }
  return { lines, problems };
}

/** One fault, of a kind that chance picks; resolves when what was broken runs again. */
async function breakOne(stage: Stage, { proxies, servers, cluster }: Behind, admin: postgres.Sql): Promise<void> {
  const { random } = stage;
  const kinds = [
    async () => {
      const server = random.pick(servers);
      stage.fault("kill -9 of one of two servers");
      await server.kill();
      await server.start();
    },
    async () => {
      stage.fault("pg_terminate_backend of all");
      const ask = () => admin`select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and application_name = 'psqlqueue'`;
      // Its own connection may have gone with the last restart.
      await ask().catch(ask);
    },
    async () => {
      stage.fault("immediate restart of PostgreSQL");
      await cluster.stop("immediate");
      await cluster.start();
    },
    () => cutAll(stage, proxies, 5, 40, statements),
    async () => {
      stage.fault("SIGSTOP of PostgreSQL for 3 s");
      await standStill(cluster, 3000);
    },
  ];
  await random.pick(kinds)();
}

/** Samples are taken all the time, and judged by those of the two quiet phases. */
export const soak = (minutes: number): Scenario => ({
  id: "soak",
  title: `faults at random for ${minutes} minutes`,
  quick_dose: null,
  skipped: () => (process.platform === "linux" ? undefined : "what processes hold is read in /proc"),
  async perform(stage) {
    const total_ms = minutes * minute_ms;
    const every_ms = Math.min(minute_ms, total_ms / samples_min);
    const behind = await serversBehind(stage);
    const { ports, url, servers } = behind;
    const admin = postgres(url, { max: 1, onnotice() {}, connection: { application_name: "faults" } });
    stage.atEnd(() => admin.end({ timeout: 1 }));
    const samples: Sample[] = [];
    // Of the archive all is kept until its day is over.
    async function sample(since_ms: number): Promise<void> {
      const [row] = await admin<{ sessions: number; bytes: string }[]>`select count(*)::int as sessions,
          (select sum(pg_total_relation_size(oid))::text from pg_class
            where relnamespace = 'psqlqueue'::regnamespace and relkind = 'r' and relname not like 'archive%') as bytes
        from pg_stat_activity
        where datname = current_database() and application_name = 'psqlqueue'`;
      const pids = servers.flatMap((server) => server.pid() ?? []).flatMap((pid) => [pid, ...childrenOf(pid)]);
      samples.push({
        at_ms: now_ms(),
        memory: sum(pids.map(memoryOf)),
        files: sum(pids.map(filesOf)) - stage.client.count(),
        sessions: row?.sessions ?? 0,
        disk: Number(row?.bytes ?? 0) / 1e6,
        p99: quantile(durationsSince(stage.history.tries, since_ms), 0.99),
      });
    }
    await stage.play({ ports, url, messages: 1, rate_max: rate, edge: shortMemory }, async () => {
      const start_ms = now_ms();
      const after = (part: number) => start_ms + part * total_ms;
      const quiet_from_ms = after(phases.warm);
      const broken_from_ms = after(phases.warm + phases.quiet);
      const healing_from_ms = after(phases.warm + phases.quiet + phases.broken);
      const last_from_ms = after(phases.warm + phases.quiet + phases.broken + phases.healing);
      const sampling = (async () => {
        for (let since_ms = start_ms; since_ms + every_ms <= start_ms + total_ms; ) {
          await Bun.sleep(every_ms);
          // While something is broken there may be nobody to ask.
          await sample(since_ms).catch(() => {});
          since_ms = now_ms();
        }
      })();
      await Bun.sleep(broken_from_ms - now_ms());
      while (now_ms() < healing_from_ms) {
        await breakOne(stage, behind, admin);
        await Bun.sleep(Math.min(stage.random.exponential(fault_pause_ms), Math.max(0, healing_from_ms - now_ms())));
      }
      await sampling;
      const within = (from_ms: number, to_ms: number) =>
        samples.filter(({ at_ms }) => at_ms >= from_ms && at_ms < to_ms);
      const last = within(last_from_ms + every_ms, Number.POSITIVE_INFINITY);
      const { lines, problems } = judge(within(quiet_from_ms + every_ms, broken_from_ms), last);
      for (const line of lines) stage.note(line);
      stage.history.problems.push(...problems);
    });
  },
});
