import { sql } from "drizzle-orm";
import type { Prepared } from "../db/db.ts";
import { sendDirectly } from "../db/prepared.ts";

/**
 * Prepares a statement under its name, with the rows that its last CTE declares. The builder loses their types over
 * CTEs of raw SQL; this is the one place where they are said again. Rows are given out as the driver makes them.
 */
export const prepare = <Row>(query: { prepare(name: string): unknown }, name: string): Prepared<Row[]> =>
  sendDirectly<Row>(query.prepare(name));

/** A parameter of a prepared statement. Used twice it is two parameters, so each use has its own cast. */
export const value = sql.placeholder;

/** A column of a raw CTE, under the name the outer select refers to it by. */
export const column = <T>(name: string) => sql<T>`${sql.identifier(name)}`.as(name);

/**
 * PostgreSQL's text of a timestamptz in a UTC session (`2026-11-22 16:24:53.9+00`) as RFC 3339 with six fraction
 * digits. Never through a Date: it has milliseconds only.
 */
export function rfc3339(text: string): string {
  const zone = text.lastIndexOf("+");
  const fraction = zone > 19 ? text.slice(20, zone) : "";
  return `${text.slice(0, 10)}T${text.slice(11, 19)}.${fraction.padEnd(6, "0")}Z`;
}

/** What a statement over many items did: the time, and the places (from 1) of the items that it found. */
export type Tally = { now: string; count: number; ns: string | null };

/**
 * Tells for place i (from 0) of `total` items whether the tally names it. Parses the list only when some are missing.
 */
export function isInTally(tally: Tally | undefined, total: number): (i: number) => boolean {
  if (tally?.count === total) return () => true;
  const places = new Set(tally?.ns?.split(",").map(Number));
  return (i) => places.has(i + 1);
}
