// CPU per message against a committed baseline: it holds on a noisy machine, where messages per second do not.

import path from "node:path";
import { costsOf, createBench, workloadOf } from "./cells.ts";
import type { Load } from "./load.ts";
import { type Options, OptionsError, table_names } from "./options.ts";
import { type Subject, startReference } from "./subject.ts";
import { markdown } from "./table.ts";

const baseline_file = path.join(import.meta.dir, "baseline.json");
const connections = 64;
const rounds = 5;
/** Part of `seconds` that a measurement takes. */
const measured_part = 0.6;
const tolerance = 0.25;

type Gated = (typeof table_names)[number];
type Cost = { server_us: number; postgres_us: number };
/** `plain_us`: what a request cost a server without any code of ours: tells another machine from another program. */
type Baseline = { machine: string; body_bytes: number; plain_us: number; costs: Record<Gated, Cost> };
type Round = { plain_us: number; costs: Record<Gated, Cost> };

async function measureRounds(subject: Subject, load: Load, options: Options): Promise<Round[]> {
  const plain = await startReference("plain.ts");
  const bench = await createBench(subject, load, options);
  const timing = { warmup_ms: options.warmup_seconds * 1000, duration_ms: options.seconds * 1000 * measured_part };
  const plain_job = {
    connections,
    workload: workloadOf("publish", "plain", options.body_bytes),
    warmup_ms: timing.warmup_ms / 2,
    duration_ms: timing.duration_ms / 2,
  };
  const measureCost = async (name: Gated): Promise<Cost> => {
    await bench.prepare(name, connections, options.seconds + options.warmup_seconds);
    const measured = await bench.run(name, connections, timing);
    const [error] = Object.entries(measured.errors);
    if (error !== undefined) throw new Error(`${name}: ${error[1]} × ${error[0]}`);
    const { server_us, postgres_us } = costsOf(name, measured);
    if (server_us === undefined || postgres_us === undefined) {
      throw new OptionsError("--gate needs the CPU of server and PostgreSQL: --server-pid and --database, or no URL");
    }
    return { server_us, postgres_us };
  };
  const found: Round[] = [];
  for (let round = 0; round < rounds; round++) {
    const measured = await load.run(plain, plain_job);
    found.push({
      plain_us: ((measured.server_seconds ?? 0) / measured.requests) * 1e6,
      costs: {
        publish: await measureCost("publish"),
        "receive+ack": await measureCost("receive+ack"),
        lifecycle: await measureCost("lifecycle"),
      },
    });
  }
  return found;
}

const least = (values: number[]) => Math.round(Math.min(...values) * 10) / 10;

/** The least of the rounds: what else runs on the machine can only add to a cost. */
function summarize(found: Round[]): Pick<Baseline, "plain_us" | "costs"> {
  const both = (name: Gated): Cost => ({
    server_us: least(found.map((round) => round.costs[name].server_us)),
    postgres_us: least(found.map((round) => round.costs[name].postgres_us)),
  });
  return {
    plain_us: least(found.map((round) => round.plain_us)),
    costs: { publish: both("publish"), "receive+ack": both("receive+ack"), lifecycle: both("lifecycle") },
  };
}

type Comparison = { name: string; was: number; is: number; change: number; is_met: boolean };

function compareCosts(was: Baseline["costs"], is: Baseline["costs"]): Comparison[] {
  return table_names.flatMap((workload) =>
    (["server_us", "postgres_us"] as const).map((part) => {
      const change = is[workload][part] / was[workload][part] - 1;
      return {
        name: `${workload}, ${part === "server_us" ? "server" : "PostgreSQL"}`,
        was: was[workload][part],
        is: is[workload][part],
        change,
        is_met: Math.abs(change) <= tolerance,
      };
    }),
  );
}

function print(comparisons: Comparison[], plain: { was: number; is: number }): string {
  const percent = (change: number) => `${change >= 0 ? "+" : "−"}${Math.abs(change * 100).toFixed(0)} %`;
  const rows = comparisons.map(({ name, was, is, change, is_met }) => [
    name,
    was.toFixed(1),
    is.toFixed(1),
    percent(change),
    is_met ? "yes" : "**no**",
  ]);
  rows.push(["plain server", plain.was.toFixed(1), plain.is.toFixed(1), percent(plain.is / plain.was - 1), ""]);
  const title = `CPU µs per message, ${connections} connections`;
  return markdown([title, "baseline", "now", "change", `within ${tolerance * 100} %`], rows);
}

/**
 * Compares with the baseline, or rewrites it. Returns the exit code: 1 when a cost is more than 25 % off, in either
 * direction: a gain that is not written down can be lost without anybody's notice.
 */
export async function runGate(subject: Subject, load: Load, options: Options): Promise<number> {
  const file = Bun.file(baseline_file);
  const is_write = options.gate === "write";
  if (!is_write && !(await file.exists())) throw new OptionsError("no baseline yet: --gate --write makes one");
  const baseline = is_write ? undefined : ((await file.json()) as Baseline);
  if (baseline !== undefined && baseline.body_bytes !== options.body_bytes) {
    throw new OptionsError(`the baseline is for --body-bytes ${baseline.body_bytes}`);
  }
  const found = await measureRounds(subject, load, options);
  const { plain_us, costs } = summarize(found);
  if (baseline === undefined) {
    const machine = `${navigator.hardwareConcurrency} cores`;
    const written: Baseline = { machine, body_bytes: options.body_bytes, plain_us, costs };
    await Bun.write(baseline_file, `${JSON.stringify(written, null, 2)}\n`);
    console.log(`written to ${path.basename(baseline_file)}:\n${JSON.stringify(written, null, 2)}`);
    return 0;
  }
  const comparisons = compareCosts(baseline.costs, costs);
  console.log(print(comparisons, { was: baseline.plain_us, is: plain_us }));
  const is_met = comparisons.every((comparison) => comparison.is_met);
  if (!is_met) console.log("\nBeyond the tolerance. If it is meant so: `bun bench/run.ts --gate --write`.");
  return is_met ? 0 : 1;
}
