import { type SQL, sql } from "drizzle-orm";
import { value } from "../statement.ts";

/** What a list shows: ids that begin so, and fit one of these regular expressions. */
export type Visible = { prefix: string; patterns: string[] };

/** All there is. */
export const everything: Visible = { prefix: "", patterns: [""] };

/** The condition of a list; `name` sets its parameters apart from those of another. */
export const isVisible = (id: SQL.Aliased | SQL | { getSQL(): SQL }, name: string): SQL =>
  sql`(starts_with(${id}, ${value(`${name}_prefix`)}::text) and ${id} ~ any(${value(`${name}_patterns`)}::text[]))`;

/** Its parameters. */
export const visibleValues = ({ prefix, patterns }: Visible, name: string): Record<string, unknown> => ({
  [`${name}_prefix`]: prefix,
  [`${name}_patterns`]: patterns,
});
