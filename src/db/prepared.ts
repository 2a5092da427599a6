import { fillPlaceholders, type Query } from "drizzle-orm";
import type postgres from "postgres";
import { arrayText } from "./arrayText.ts";
import type { Prepared } from "./db.ts";

/** What the builder's `.prepare(name)` makes. */
type Made = { client: postgres.Sql; getQuery(): Query; execute: Prepared<unknown>["execute"] };

/**
 * Hands a prepared statement to the driver directly, and gives its rows out as the driver makes them. The builder's own
 * way goes through four asynchronous functions, for tracing and caching, and maps each column once more: a fifth of
 * what this process does for a publish that is alone. May be executed any number of times at once.
 */
export function sendDirectly<Row>(prepared: unknown): Prepared<Row[]> {
  const made = prepared as Made;
  const { client } = made;
  const { sql: text, params } = made.getQuery();
  made.execute = (values = {}) => {
    const filled = fillPlaceholders(params, values).map((given) =>
      Array.isArray(given) ? (arrayText(given) ?? given) : given,
    );
    return client.unsafe(text, filled as never[], { prepare: true });
  };
  return made as Prepared<Row[]>;
}
