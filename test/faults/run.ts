// The fault suite, for the command line: see `usage`.

import path from "node:path";
import { parseArgs } from "node:util";
import { tryMutations } from "./mutate.ts";
import { mutations } from "./mutations.ts";
import { writeMutations, writeResults } from "./paper.ts";
import { patroniFailovers } from "./patroni.ts";
import { describeResult, type Result, runScenario, type Scenario } from "./scenario.ts";
import { scenarios } from "./scenarios.ts";
import { soak } from "./soak.ts";

const root = path.resolve(import.meta.dir, "../..");

const usage = `usage: bun run faults [options]

what runs
  --quick          the scenarios that are part of the tests, at their small doses
  --full           all scenarios at the doses of the plan: about an hour
  --dose N         all scenarios at this part of the full dose; default 0.1
  --only LIST      only these: F1,F3
  --soak MINUTES   a modest load with faults at random: whether memory, files, sessions, disk and p99 come back; 120 tell much
  --patroni        failovers of a PostgreSQL that Patroni keeps; needs Debian's packages patroni and etcd-server
  --mutations      puts faults into a copy of the source, and runs what must find them; --only m1,m4
what of
  --binary FILE    a built psqlqueue instead of this source
  --seed N         what chance decides; default a new one, which is printed
what for
  --write          puts the results into docs/reliability.md

Exit 0: every promise was kept. 1: one was broken, and what happened is in test/faults/histories. 2: not understood.
`;

function readOptions() {
  const { values } = parseArgs({
    args: Bun.argv.slice(2),
    options: {
      quick: { type: "boolean" },
      full: { type: "boolean" },
      dose: { type: "string" },
      only: { type: "string" },
      binary: { type: "string" },
      seed: { type: "string" },
      soak: { type: "string" },
      write: { type: "boolean" },
      mutations: { type: "boolean" },
      patroni: { type: "boolean" },
      help: { type: "boolean" },
    },
  });
  const number = (name: "dose" | "seed" | "soak", fallback: number) => {
    const value = Number(values[name] ?? fallback);
    if (!(value > 0)) throw new Error(`--${name} ${values[name]} is no positive number`);
    return value;
  };
  const only = values.only?.split(",");
  const unknown = only?.find((id) => [...scenarios, ...mutations].every((one) => one.id !== id));
  if (unknown !== undefined) throw new Error(`there is no ${unknown}`);
  const doseOf = (scenario: Scenario): number | null => {
    if (only !== undefined && !only.includes(scenario.id)) return null;
    if (values.quick) return scenario.quick_dose;
    return values.full || values.soak !== undefined ? 1 : number("dose", 0.1);
  };
  const seed = number("seed", 1 + Math.floor(Math.random() * 1_000_000_000));
  const { binary = null, write: writes = false, help: helps = false, mutations: mutates = false } = values;
  const played =
    values.soak === undefined ? (values.patroni ? [patroniFailovers] : scenarios) : [soak(number("soak", 0))];
  return { seed, doseOf, only, played, binary, writes, helps, mutates };
}

async function mutate({ only, seed, writes }: ReturnType<typeof readOptions>): Promise<number> {
  const verdicts = await tryMutations(root, only, seed, ({ mutation: { id, title }, trial, is_found, outcome }) => {
    console.log(`${is_found ? "ok  " : "FAIL"} ${id} ${title}\n     ${trial}: ${outcome}`);
    if (writes && is_found) writeMutations([[id, title, trial, outcome]]);
  });
  return verdicts.every(({ is_found }) => is_found) ? 0 : 1;
}

async function main(): Promise<number> {
  let options: ReturnType<typeof readOptions>;
  try {
    options = readOptions();
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : error}\n\n${usage}`);
    return 2;
  }
  if (options.helps) {
    console.log(usage);
    return 0;
  }
  if (options.mutates) return await mutate(options);
  const { seed, binary, played } = options;
  const results: Result[] = [];
  for (const scenario of played) {
    const dose = options.doseOf(scenario);
    if (dose === null) continue;
    const result = await runScenario(scenario, { seed, dose, binary, root });
    console.log(describeResult(result));
    results.push(result);
    // At once: the last may take long. One that was broken is no row of a paper, nor is one that was not run.
    if (options.writes && result.failures.length === 0 && result.skipped === undefined) writeResults([result]);
  }
  const failed = results.filter(({ failures }) => failures.length > 0);
  const skipped = results.filter((result) => result.skipped !== undefined);
  const kept = results.length - failed.length - skipped.length;
  console.log(
    `${kept} kept their promises, ${failed.length} did not, ${skipped.length} could not be run; seed ${seed}`,
  );
  return failed.length === 0 ? 0 : 1;
}

// What was started goes with this process.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => process.exit(130));
process.exit(await main());
