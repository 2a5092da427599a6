// The fault suite: bun run faults [--quick | --full] [--only F1,F3] [--seed N] [--dose 0.1] [--binary FILE] [--write]

import path from "node:path";
import { parseArgs } from "node:util";
import { badNetwork, lostAnswers, unknownCommits } from "./connections.ts";
import { control, crashedDatabase, killedBackends, killedServers } from "./crashes.ts";
import { killedEmbedded, secondProcesses } from "./embedded.ts";
import { leaseRaces, steppedClocks } from "./leases.ts";
import { gracefulStops } from "./restarts.ts";
import { describeResult, runScenario } from "./scenario.ts";

const scenarios = [
  control,
  killedServers,
  crashedDatabase,
  killedBackends,
  unknownCommits,
  badNetwork,
  lostAnswers,
  leaseRaces,
  steppedClocks,
  gracefulStops,
  killedEmbedded,
  secondProcesses,
];
const { values } = parseArgs({
  args: Bun.argv.slice(2),
  options: {
    quick: { type: "boolean" },
    full: { type: "boolean" },
    only: { type: "string" },
    seed: { type: "string" },
    dose: { type: "string" },
    binary: { type: "string" },
    write: { type: "boolean" },
  },
});
const seed = Number(values.seed ?? Math.floor(Math.random() * 1e9));
const only = values.only?.split(",");
for (const scenario of scenarios) {
  if (only && !only.includes(scenario.id)) continue;
  const dose = values.dose !== undefined ? Number(values.dose) : values.quick ? scenario.quick_dose : 1;
  if (dose === null) continue;
  const root = path.resolve(import.meta.dir, "../..");
  const result = await runScenario(scenario, { seed, dose, binary: values.binary ?? null, root });
  console.log(describeResult(result));
  if (result.failures.length > 0) process.exitCode = 1;
}
process.exit();
