import type { NullRate, Row } from "./cells.ts";
import type { FlatRow } from "./flat/bed.ts";
import type { Latency } from "./tally.ts";

/** 12 345. */
export const grouped = (value: number) => Math.round(value).toLocaleString("en-US").replaceAll(",", " ");

/** Three digits at most: 0.43, 5.2, 118. */
export function short(value: number | undefined): string {
  if (value === undefined) return "–";
  return value >= 100 ? grouped(value) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

const latency = (own: Latency | undefined) =>
  own === undefined ? "–" : `${short(own.p50)} / ${short(own.p99)} / ${short(own.p999)}`;

const notes_text = {
  generator: "† the load generator was the limit: its CPU above 80 % of a core, the server's below",
  late: "‡ an open loop did not reach its rate: the machine had less to give then, and requests queued up",
  empty: "§ some receives found the queue empty: the rate is also the preparation's",
} as const;

const marks = { generator: "†", late: "‡", empty: "§" } as const;

/** A markdown table with columns of even width; the first `texts` columns are left-aligned. */
export function markdown(heads: string[], rows: string[][], texts = 1): string {
  const widths = heads.map((head, i) => Math.max(head.length, ...rows.map((row) => row[i]?.length ?? 0), 4));
  const pad = (cell: string, i: number) => (i < texts ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0));
  const line = (cells: string[]) => `| ${cells.map(pad).join(" | ")} |`;
  const rule = widths.map((width, i) => (i < texts ? "-".repeat(width) : `${"-".repeat(width - 1)}:`));
  return [line(heads), line(rule), ...rows.map(line)].join("\n");
}

const errorsText = (errors: Row["errors"]) =>
  Object.entries(errors)
    .map(([name, count]) => `${count} × ${name}`)
    .join(", ") || "0";

/** The table, with its notes below. */
export function printTable(rows: Row[], null_rates: NullRate[]): string {
  const heads = [
    "workload",
    "connections",
    "messages/s",
    "of null",
    "ms at 50 %: p50 / p99 / p99.9",
    "ms at 90 %: p50 / p99 / p99.9",
    "server µs",
    "PostgreSQL µs",
    "generator µs",
    "other cores",
    "errors",
  ];
  const body = rows.map((row) => [
    `${row.name}${row.notes.map((note) => ` ${marks[note]}`).join("")}`,
    String(row.connections),
    grouped(row.messages_per_second),
    row.null_ratio === undefined ? "–" : row.null_ratio.toFixed(2),
    latency(row.half),
    latency(row.most),
    short(row.server_us),
    short(row.postgres_us),
    short(row.generator_us),
    row.other_cores === undefined ? "–" : row.other_cores.toFixed(1),
    errorsText(row.errors),
  ]);
  const nulls = null_rates.map((rate) => [
    "HTTP stack, no broker",
    String(rate.connections),
    grouped(rate.requests_per_second),
    "1.00",
    "–",
    "–",
    short(rate.server_us),
    "–",
    "–",
    "–",
    "0",
  ]);
  const seen = new Set(rows.flatMap((row) => row.notes));
  const notes = [...seen].map((note) => notes_text[note]);
  return [markdown(heads, [...body, ...nulls]), ...notes].join("\n\n");
}

const isMet = ({ ratio, bar }: FlatRow) => ("max" in bar ? ratio <= bar.max : ratio >= bar.min);

/** The flatness rows: B against A, and whether the bar is met. */
export function printFlat(rows: FlatRow[], skipped: string[]): string {
  const heads = ["B / A", "unit", "A", "B", "ratio", "bar", "met", "errors", "note"];
  const body = rows.map((row) => [
    row.what,
    row.unit,
    row.a,
    row.b,
    row.ratio.toFixed(2),
    "max" in row.bar ? `≤ ${row.bar.max}` : `≥ ${row.bar.min}`,
    isMet(row) ? "yes" : "**no**",
    errorsText(row.errors),
    row.note ?? "",
  ]);
  const missing =
    skipped.length === 0 ? [] : [`not measured, for want of a way to the database: ${skipped.join(", ")}`];
  return [markdown(heads, body, 2), ...missing].join("\n\n");
}
