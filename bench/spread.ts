// What more processes of one server cost and bring: one process against several, in turn, in one run.

import { costsOf, createBench, messagesOf } from "./cells.ts";
import type { Load, Measured } from "./load.ts";
import type { Options, WorkloadName } from "./options.ts";
import { median } from "./rounds.ts";
import { openSubject } from "./subject.ts";
import { markdown } from "./table.ts";

const connections = 64;
const rounds = 7;
/** Measurements before those that count. */
const warm_rounds = 4;
const workloads: WorkloadName[] = ["publish", "receive+ack"];

type Side = { per_second: number; cpu_us: number; server_us: number; half_p50: number; half_p99: number };

async function openSide(load: Load, options: Options, workers: number) {
  const subject = await openSubject({ ...options, workers });
  const bench = await createBench(subject, load, options);
  const timing = { warmup_ms: options.warmup_seconds * 1000, duration_ms: options.seconds * 1000 };
  return {
    async closed(name: WorkloadName): Promise<Measured> {
      if (name === "receive+ack") await bench.prepare(connections, 2 * (options.seconds + options.warmup_seconds));
      return await bench.run(name, connections, timing);
    },
    open: async (name: WorkloadName, rate: number) => await bench.run(name, connections, { ...timing, rate }),
  };
}

function sideOf(name: WorkloadName, closed: Measured, half: Measured): Side {
  const { server_us = 0, postgres_us = 0 } = costsOf(name, closed);
  return {
    per_second: messagesOf(name, closed) / closed.seconds,
    cpu_us: server_us + postgres_us,
    server_us,
    half_p50: half.latency.all.p50,
    half_p99: half.latency.all.p99,
  };
}

/** Measures both, and answers the table. Half load is half of what one process does. */
export async function measureSpread(
  load: Load,
  options: Options,
  workers: number,
  onStep: (step: string) => void,
): Promise<string> {
  const one = await openSide(load, options, 1);
  const many = await openSide(load, options, workers);
  const rows: string[][] = [];
  for (const name of workloads) {
    // Each process learns its code by itself, and several of them see less of it each.
    for (const side of [one, many]) for (let i = 0; i < warm_rounds; i++) await side.closed(name);
    const found: { one: Side; many: Side }[] = [];
    for (let round = 0; round < rounds; round++) {
      onStep(`${name}, round ${round + 1} of ${rounds}`);
      const is_turned = round % 2 === 1;
      const early = is_turned ? await many.closed(name) : undefined;
      const closed = await one.closed(name);
      const closed_many = early ?? (await many.closed(name));
      const rate = closed.requests / closed.seconds / 2;
      const early_half = is_turned ? await many.open(name, rate) : undefined;
      const half = await one.open(name, rate);
      const half_many = early_half ?? (await many.open(name, rate));
      found.push({ one: sideOf(name, closed, half), many: sideOf(name, closed_many, half_many) });
    }
    const cells = (member: keyof Side, digits: number) => {
      const ones = found.map((round) => round.one[member]);
      const manies = found.map((round) => round.many[member]);
      const ratio = median(manies.map((value, i) => value / (ones[i] ?? value)));
      return [median(ones).toFixed(digits), median(manies).toFixed(digits), ratio.toFixed(2)];
    };
    rows.push([name, "messages/s", ...cells("per_second", 0)]);
    rows.push([name, "CPU µs per message, server and PostgreSQL", ...cells("cpu_us", 1)]);
    rows.push([name, "CPU µs per message, server", ...cells("server_us", 1)]);
    rows.push([name, "ms at half load, p50", ...cells("half_p50", 2)]);
    rows.push([name, "ms at half load, p99", ...cells("half_p99", 2)]);
  }
  return markdown(
    [`${connections} connections`, "median of rounds", "1 process", `${workers} processes`, "ratio"],
    rows,
  );
}
