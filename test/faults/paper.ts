// docs/reliability.md: its tables are written by the runs that they tell of.

import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { cellsOf, type Result } from "./scenario.ts";

const file = path.resolve(import.meta.dir, "../../docs/reliability.md");

const heads = {
  scenarios: [
    "scenario",
    "dose",
    "acknowledged",
    "lost",
    "acks undone",
    "doubled",
    "time to recover",
    "seed",
    "commit",
  ],
  mutations: ["mutation", "what is broken", "run against it", "outcome"],
} as const;
export type TableName = keyof typeof heads;

function commitOf(): string {
  const git = (...args: string[]) =>
    Bun.spawnSync(["git", ...args], { cwd: import.meta.dir, stderr: "ignore" })
      .stdout.toString()
      .trim();
  // The program's, not that of the suite or its papers.
  const program = ["--", "../../src", "../../drizzle", "../../patches"];
  const is_changed = git("status", "--porcelain", ...program) !== "";
  return `${git("log", "-1", "--format=%h", ...program)}${is_changed ? " and changes" : ""}`;
}

/** The first cell's first word: F1, m1. Numbers sort as numbers. */
const byId = (a: string, b: string) => a.localeCompare(b, "en", { numeric: true });

/** Puts rows into a table between its marks; rows of the same id are replaced, others stay. */
export function mergeRows(text: string, name: TableName, rows: string[][]): string {
  const [begin, end] = [`<!-- ${name} -->`, `<!-- /${name} -->`];
  const [from, to] = [text.indexOf(begin) + begin.length, text.indexOf(end)];
  if (!text.includes(begin) || to < from) throw new Error(`docs/reliability.md has no table ${name}`);
  const idOf = (line: string) => /^\| (\S+)/.exec(line)?.[1] ?? "";
  const old = text.slice(from, to).trim().split("\n").slice(2);
  const lines = new Map(old.filter((line) => line !== "").map((line) => [idOf(line), line]));
  for (const row of rows) {
    const line = `| ${row.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
    lines.set(idOf(line), line);
  }
  const sorted = [...lines.values()].sort((a, b) => byId(idOf(a), idOf(b)));
  const head = [`| ${heads[name].join(" | ")} |`, `|${"---|".repeat(heads[name].length)}`];
  return `${text.slice(0, from)}\n${[...head, ...sorted].join("\n")}\n${text.slice(to)}`;
}

function write(name: TableName, rows: string[][]): void {
  writeFileSync(file, mergeRows(readFileSync(file, "utf8"), name, rows));
}

/** Writes the rows of results; the rows of scenarios that were not run stay as they are. */
export function writeResults(results: Result[]): void {
  const commit = commitOf();
  write(
    "scenarios",
    results.map((result) => [...cellsOf(result), result.skipped === undefined ? commit : ""]),
  );
}

/** Writes rows of mutations; those that were not run stay as they are. */
export function writeMutations(rows: string[][]): void {
  write("mutations", rows);
}
