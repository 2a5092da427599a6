// Two servers measured in turn, in one run: one process against several, or another checkout against this one.

import { costsOf, createBench, messagesOf } from "./cells.ts";
import type { Load, Measured } from "./load.ts";
import type { Options, WorkloadName } from "./options.ts";
import { median } from "./rounds.ts";
import { openSubject, type SubjectOptions } from "./subject.ts";
import { markdown } from "./table.ts";

const connections = 64;
const rounds = 7;
/** Measurements before those that count: each process learns its code by itself. */
const warm_rounds = 4;
const half_part = 0.5;

/** What is compared. */
export type Sides = [Side, Side];
type Side = { name: string; options: SubjectOptions };
type Found = Record<(typeof measures)[number]["member"], number>;

const measures = [
  { member: "per_second", name: "messages/s", digits: 0 },
  { member: "cpu_us", name: "CPU µs per message, server and PostgreSQL", digits: 1 },
  { member: "server_us", name: "CPU µs per message, server", digits: 1 },
  { member: "half_p50", name: "ms at half load, p50", digits: 2 },
  { member: "half_p99", name: "ms at half load, p99", digits: 2 },
  { member: "single_p50", name: "ms at 1 connection, p50", digits: 3 },
] as const;

/** The servers that the options ask to compare; undefined: none. */
export function sidesOf(options: Options): Sides | undefined {
  const { spread, against } = options;
  if (spread !== undefined) {
    return [
      { name: "1 process", options: { ...options, workers: 1 } },
      { name: `${spread} processes`, options: { ...options, workers: spread } },
    ];
  }
  if (against === undefined) return undefined;
  return [
    { name: against, options: { ...options, checkout: against } },
    { name: "this one", options },
  ];
}

async function openSide(load: Load, asked: SubjectOptions, options: Options) {
  const subject = await openSubject(asked);
  const bench = await createBench(subject, load, options);
  const timing = { warmup_ms: options.warmup_seconds * 1000, duration_ms: options.seconds * 1000 };
  return {
    async closed(name: WorkloadName, count = connections): Promise<Measured> {
      await bench.prepare(name, count, 2 * (options.seconds + options.warmup_seconds));
      return await bench.run(name, count, timing);
    },
    open: async (name: WorkloadName, rate: number) => await bench.run(name, connections, { ...timing, rate }),
  };
}

type Measurement = { closed: Measured; half: Measured; single: Measured };

function foundIn(name: WorkloadName, { closed, half, single }: Measurement): Found {
  const { server_us = 0, postgres_us = 0 } = costsOf(name, closed);
  return {
    per_second: messagesOf(name, closed) / closed.seconds,
    cpu_us: server_us + postgres_us,
    server_us,
    half_p50: half.latency.all.p50,
    half_p99: half.latency.all.p99,
    single_p50: single.latency.all.p50,
  };
}

/** Measures both, and answers the table. Half load, for both, is half of what the first does. */
export async function measureSides(
  load: Load,
  options: Options,
  [first, second]: Sides,
  onStep: (step: string) => void,
): Promise<string> {
  const sides = [await openSide(load, first.options, options), await openSide(load, second.options, options)] as const;
  const rows: string[][] = [];
  for (const name of options.only) {
    for (const side of sides) for (let i = 0; i < warm_rounds; i++) await side.closed(name);
    const found: [Found[], Found[]] = [[], []];
    for (let round = 0; round < rounds; round++) {
      onStep(`${name}, round ${round + 1} of ${rounds}`);
      // Who comes first changes, so that what one leaves behind does not always meet the other.
      const order = round % 2 === 0 ? ([0, 1] as const) : ([1, 0] as const);
      const closed: Measured[] = [];
      for (const n of order) closed[n] = await sides[n].closed(name);
      const rate = ((closed[0]?.requests ?? 0) / (closed[0]?.seconds ?? 1)) * half_part;
      for (const n of order) {
        const half = await sides[n].open(name, rate);
        const single = await sides[n].closed(name, 1);
        found[n].push(foundIn(name, { closed: closed[n] as Measured, half, single }));
      }
    }
    for (const { member, name: measure, digits } of measures) {
      const [ones, others] = found.map((own) => own.map((values) => values[member])) as [number[], number[]];
      const ratio = median(others.map((value, i) => value / (ones[i] ?? value)));
      rows.push([name, measure, median(ones).toFixed(digits), median(others).toFixed(digits), ratio.toFixed(2)]);
    }
  }
  return markdown([`${connections} connections`, `median of ${rounds} rounds`, first.name, second.name, "ratio"], rows);
}
