// Puts one fault after the other into a copy of the source, and runs against it what must find it.

import { cpSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import path from "node:path";
import { type Mutation, mutations } from "./mutations.ts";
import { runScenario } from "./scenario.ts";
import { scenarios } from "./scenarios.ts";
import { scratchDirectory } from "./servers.ts";

const copied = ["src", "drizzle", "client", "patches", "test", "package.json", "bunfig.toml", "tsconfig.json"];

/** A copy of the source at `root` with the mutation in it. Throws when a text to be replaced is not there once. */
export function mutatedCopy(root: string, { id, edits }: Mutation): string {
  const copy = scratchDirectory(`mutation-${id}`);
  for (const name of copied) cpSync(path.join(root, name), path.join(copy, name), { recursive: true });
  symlinkSync(path.join(root, "node_modules"), path.join(copy, "node_modules"));
  for (const { file, search, replace } of edits) {
    const place = path.join(copy, file);
    const parts = readFileSync(place, "utf8").split(search);
    if (parts.length !== 2) throw new Error(`${id}: ${file} has ${parts.length - 1} times: ${search}`);
    writeFileSync(place, parts.join(replace));
  }
  return copy;
}

export type Verdict = {
  mutation: Mutation;
  /** What was run. */
  trial: string;
  is_found: boolean;
  /** The first failure, or why there can be none. */
  outcome: string;
};

async function tryTest(copy: string, test: string, is_embedded: boolean): Promise<string | undefined> {
  const env = { ...process.env, ...(is_embedded && { PSQLQUEUE_TEST_STORE: "embedded" }) };
  const child = Bun.spawn([process.execPath, "test", "--timeout", "30000", test], {
    cwd: copy,
    env,
    stdout: "ignore",
    stderr: "pipe",
  });
  const output = await new Response(child.stderr).text();
  if ((await child.exited) === 0) return undefined;
  return /^\(fail\) (.*?)( \[.*)?$/m.exec(output)?.[1] ?? "it does not run";
}

async function tryMutation(root: string, mutation: Mutation, seed: number): Promise<Verdict> {
  const { trial } = mutation;
  if ("undetectable" in trial)
    return { mutation, trial: "–", is_found: true, outcome: `not found: ${trial.undetectable}` };
  const copy = mutatedCopy(root, mutation);
  if ("test" in trial) {
    const failure = await tryTest(copy, trial.test, trial.is_embedded ?? false);
    const outcome = failure === undefined ? "green: NOT FOUND" : `red: ${failure}`;
    return { mutation, trial: trial.test, is_found: failure !== undefined, outcome };
  }
  const scenario = scenarios.find(({ id }) => id === trial.scenario);
  if (scenario === undefined) throw new Error(`there is no scenario ${trial.scenario}`);
  const { failures } = await runScenario(scenario, { seed, dose: trial.dose, binary: null, root: copy });
  const [failure] = failures;
  const outcome = failure === undefined ? "green: NOT FOUND" : `red: ${shorten(failure)}`;
  return { mutation, trial: `${trial.scenario}, dose ${trial.dose}`, is_found: failure !== undefined, outcome };
}

/** One line, without what differs from run to run. */
function shorten(failure: string): string {
  const line = failure.split("\n")[0] ?? "";
  const reason = /"error":"([^"]*)"/.exec(failure)?.[1];
  return reason !== undefined ? reason.slice(0, 150) : (line.split(", as ")[0] ?? "").slice(0, 200);
}

/** Runs the trials of all mutations, or of those named, one after the other. */
export async function tryMutations(
  root: string,
  only: string[] | undefined,
  seed: number,
  tell: (verdict: Verdict) => void,
): Promise<Verdict[]> {
  const verdicts: Verdict[] = [];
  for (const mutation of mutations) {
    if (only !== undefined && !only.includes(mutation.id)) continue;
    const verdict = await tryMutation(root, mutation, seed);
    tell(verdict);
    verdicts.push(verdict);
  }
  return verdicts;
}
