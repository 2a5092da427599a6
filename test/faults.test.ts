// The quick run of the fault suite; `bun run faults` has all of it. What it finds is in test/faults/histories.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import path from "node:path";
import { mutatedText } from "./faults/mutate.ts";
import { mutations } from "./faults/mutations.ts";
import { mergeRows } from "./faults/paper.ts";
import { describeResult, runScenario } from "./faults/scenario.ts";
import { scenarios } from "./faults/scenarios.ts";

setDefaultTimeout(90_000);

const root = path.resolve(import.meta.dir, "..");
const seed = Number(process.env["PSQLQUEUE_TEST_SEED"] ?? 1 + Math.floor(Math.random() * 1_000_000_000));

describe("no acknowledged message is lost, no ack undone, nothing stored twice", () => {
  for (const scenario of scenarios) {
    const { id, title, quick_dose } = scenario;
    if (quick_dose === null) continue;
    test(`${id}: ${title}`, async () => {
      const result = await runScenario(scenario, { seed, dose: quick_dose, binary: null, root });
      if (result.failures.length > 0) console.error(describeResult(result));
      expect(result).toMatchObject({ failures: [], lost: 0, undone: 0, doubled: 0 });
      expect(result.acknowledged).toBeGreaterThan(100);
    }, 120_000);
  }
});

test("every fault that the suite must find still has its place in the source", () => {
  for (const { edits } of mutations) {
    for (const edit of edits) expect(mutatedText(root, edit)).toContain(edit.replace);
  }
});

test("a row of the paper's tables is replaced by a newer one of the same scenario, and the others stay", () => {
  const table = (...rows: string[]) => ["a", "<!-- mutations -->", ...rows, "<!-- /mutations -->", "b"].join("\n");
  const head = ["| mutation | what is broken | run against it | outcome |", "|---|---|---|---|"];
  const first = mergeRows(table(), "mutations", [
    ["m10 x", "y", "F1", "red"],
    ["m2 x", "y", "F2", "red"],
  ]);
  expect(first).toBe(table(...head, "| m2 x | y | F2 | red |", "| m10 x | y | F1 | red |"));
  const second = mergeRows(first, "mutations", [["m2 z", "y", "F2", "red"]]);
  expect(second).toBe(table(...head, "| m2 z | y | F2 | red |", "| m10 x | y | F1 | red |"));
  expect(() => mergeRows("", "mutations", [])).toThrow("has no table");
});
