// What a scenario is, how one is run, and how its result is told.

import path from "node:path";
import { check, failuresOf, type Rules } from "./check.ts";
import { createHistory, historyFile, saveHistory } from "./history.ts";
import { onStage, type Settings, type Stage } from "./stage.ts";

export type Scenario = {
  /** As in the plan: F0, F1, … */
  id: string;
  title: string;
  /** Whether it is part of the quick run, and its dose there. */
  quick_dose: number | null;
  /** Why it cannot be run here or so; undefined: it can. */
  skipped?(settings: Settings): string | undefined;
  perform(stage: Stage): Promise<void>;
};

export type Result = {
  id: string;
  title: string;
  seed: number;
  /** What was broken, how often. */
  dose: string;
  attempted: number;
  acknowledged: number;
  lost: number;
  undone: number;
  doubled: number;
  redelivered: number;
  fenced: number;
  unavailable: number;
  unanswered: number;
  recover_ms: number | null;
  seconds: number;
  failures: string[];
  notes: string[];
  /** Why it was not run. */
  skipped?: string;
};

/** Runs one scenario. Never rejects: what went wrong is a failure of the result, and its history is saved. */
export async function runScenario(scenario: Scenario, settings: Settings): Promise<Result> {
  const { id, title } = scenario;
  const nothing = {
    attempted: 0,
    acknowledged: 0,
    lost: 0,
    undone: 0,
    doubled: 0,
    redelivered: 0,
    fenced: 0,
    unavailable: 0,
    unanswered: 0,
  };
  const result: Result = {
    ...{ id, title, seed: settings.seed, dose: "", ...nothing },
    ...{ recover_ms: null, seconds: 0, failures: [], notes: [] },
  };
  const skipped = scenario.skipped?.(settings);
  if (skipped !== undefined) return { ...result, skipped };
  const history = createHistory();
  let rules: Rules | undefined;
  try {
    const outcome = await onStage(settings, history, scenario.perform);
    Object.assign(result, { notes: outcome.notes, seconds: outcome.seconds });
    rules = outcome.rules;
  } catch (error) {
    result.failures.push(`it could not be played to its end: ${error instanceof Error ? error.stack : error}`);
    result.failures.push(...history.problems);
  }
  // Of one that was not played to its end the counts tell no more than how far it came.
  const findings = check(history, rules ?? { deliveries_max: null });
  if (rules !== undefined) result.failures.push(...failuresOf(findings));
  const { broken, ...counts } = findings;
  const { lost, undone, doubled } = broken;
  Object.assign(result, counts, { lost: lost.length, undone: undone.length, doubled: doubled.length });
  const by_name = Map.groupBy(history.faults, ({ name }) => name);
  result.dose = [...by_name].map(([name, faults]) => `${faults.length} × ${name}`).join(", ") || "none";
  if (result.failures.length > 0) result.notes.push(`history: ${save(history, result, settings)}`);
  return result;
}

function save(history: ReturnType<typeof createHistory>, result: Result, settings: Settings): string {
  const file = historyFile(`${result.id}-${settings.seed}.jsonl`);
  saveHistory(history, file, { ...result, settings });
  return path.relative(process.cwd(), file);
}

const shown_ms = (ms: number | null) =>
  ms === null ? "–" : ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;

/** The cells of a result's row: scenario, dose, counts, time to recover. */
export function cellsOf(result: Result): string[] {
  const { id, title, dose, acknowledged, lost, undone, doubled, recover_ms, seed, skipped } = result;
  if (skipped !== undefined) return [`${id} ${title}`, `skipped: ${skipped}`, "", "", "", "", "", ""];
  const counts = [acknowledged, lost, undone, doubled].map((count) => count.toLocaleString("en").replaceAll(",", " "));
  return [`${id} ${title}`, dose, ...counts, shown_ms(recover_ms), String(seed)];
}

/** A result in a few lines for the terminal. */
export function describeResult(result: Result): string {
  const { id, title, skipped, failures, seconds, notes, attempted, redelivered, fenced, unavailable, unanswered } =
    result;
  if (skipped !== undefined) return `skip ${id} ${title}: ${skipped}`;
  const [, dose, acknowledged, lost, undone, doubled, recover] = cellsOf(result);
  const lines = [
    `${failures.length === 0 ? "ok  " : "FAIL"} ${id} ${title} (${seconds.toFixed(1)} s, seed ${result.seed})`,
    `     dose ${dose}; acknowledged ${acknowledged} of ${attempted}, lost ${lost}, acks undone ${undone}, doubled ${doubled}`,
    `     time to recover ${recover}, redelivered ${redelivered}, stale tokens refused ${fenced}`,
    `     answered 503 ${unavailable}, not answered ${unanswered}`,
    ...notes.map((note) => `     ${note}`),
    ...failures.map((failure) => `     ${failure}`),
  ];
  return lines.join("\n");
}
