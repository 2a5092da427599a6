// Puts one fault after the other into a copy of the source, and runs against it what must find it.

import { cpSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import path from "node:path";
import { type Edit, type Mutation, mutations } from "./mutations.ts";
import { runScenario } from "./scenario.ts";
import { scenarios } from "./scenarios.ts";
import { scratchDirectory } from "./servers.ts";

const copied = ["src", "drizzle", "client", "patches", "package.json", "bunfig.toml", "tsconfig.json"];

/** The changed text of a file below `root`. Throws when the text to be replaced is not there once. */
export function mutatedText(root: string, { file, search, replace }: Edit): string {
  const parts = readFileSync(path.join(root, file), "utf8").split(search);
  if (parts.length !== 2) throw new Error(`${file} has ${parts.length - 1} times: ${search}`);
  return parts.join(replace);
}

/** A copy of the source at `root` with the mutation in it. */
function mutatedCopy(root: string, { id, edits }: Mutation): string {
  const copy = scratchDirectory(`mutation-${id}`);
  for (const name of copied) cpSync(path.join(root, name), path.join(copy, name), { recursive: true });
  symlinkSync(path.join(root, "node_modules"), path.join(copy, "node_modules"));
  for (const edit of edits) writeFileSync(path.join(copy, edit.file), mutatedText(copy, edit));
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

async function tryMutation(root: string, mutation: Mutation, seed: number): Promise<Verdict> {
  const { trial } = mutation;
  if ("undetectable" in trial) {
    return { mutation, trial: "–", is_found: true, outcome: `not found: ${trial.undetectable}` };
  }
  const copy = mutatedCopy(root, mutation);
  const scenario = scenarios.find(({ id }) => id === trial.scenario);
  if (scenario === undefined) throw new Error(`there is no scenario ${trial.scenario}`);
  const { failures, skipped } = await runScenario(scenario, { seed, dose: trial.dose, binary: null, root: copy });
  const [failure] = failures;
  const green = skipped === undefined ? "green: NOT FOUND" : `not run: ${skipped}`;
  const outcome = failure === undefined ? green : `red: ${shorten(failure)}`;
  return { mutation, trial: `${trial.scenario}, dose ${trial.dose}`, is_found: failure !== undefined, outcome };
}

/** One line, without what differs from run to run. */
function shorten(failure: string): string {
  const line = failure.split("\n")[0] ?? "";
  const reason = /"error":"([^"]*)"/.exec(failure)?.[1];
  return reason !== undefined
    ? reason.replaceAll(/\/\S*psqlqueue-faults\S*/g, "…").slice(0, 150)
    : (line.split(", as ")[0] ?? "").slice(0, 200);
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
