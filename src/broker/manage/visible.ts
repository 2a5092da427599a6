import { type SQL, sql } from "drizzle-orm";
import { value } from "../statement.ts";

/** What a list shows: ids that begin so, and fit one of these patterns of `like`. */
export type Visible = { prefix: string; patterns: string[] };

/** All there is. */
export const everything: Visible = { prefix: "", patterns: ["%"] };

/**
 * The condition of a list; `name` sets its parameters apart from those of another. `like` and no regular expressions:
 * PostgreSQL keeps 32 of those, and would compile the patterns of a key with more for each row again.
 */
export const isVisible = (id: SQL.Aliased | SQL | { getSQL(): SQL }, name: string): SQL =>
  sql`(starts_with(${id}, ${value(`${name}_prefix`)}::text) and ${id} like any(${value(`${name}_patterns`)}::text[]))`;

/** Its parameters. */
export const visibleValues = ({ prefix, patterns }: Visible, name: string): Record<string, unknown> => ({
  [`${name}_prefix`]: prefix,
  [`${name}_patterns`]: patterns,
});
