import { getTableColumns, type SQL, sql } from "drizzle-orm";
import { archived_messages } from "../../db/schema.ts";

/** What the archive knows and the message did not: how and when it ended, by which token, and when it is forgotten. */
const of_the_end = ["archived_at", "expires_at", "lease_token", "outcome"];

// Of the table itself: a column that the archive gets is one that no statement forgets.
const kept = Object.keys(getTableColumns(archived_messages)).filter((name) => !of_the_end.includes(name));
const columns = kept.map((name) => sql.identifier(name));

/** The columns of a message that the archive keeps, of the row `row`: for what deletes it. */
export const keptOf = (row: "message" | "gone"): SQL =>
  sql.join(
    columns.map((name) => sql`${sql.identifier(row)}.${name}`),
    sql`, `,
  );

/**
 * Archives the rows of the CTE `gone`, which has what `keptOf` names and `kept_seconds`; none of a queue that keeps
 * nothing. `used_token`: with which a repeated ack is a success.
 */
export const archive = ({ outcome, used_token, where }: { outcome: SQL; used_token: SQL; where: SQL }): SQL => sql`
  insert into ${archived_messages} (${sql.join(columns, sql`, `)}, lease_token, outcome, expires_at)
  select ${keptOf("gone")}, ${used_token}, ${outcome}, now() + gone.kept_seconds * interval '1 second'
  from gone
  where gone.kept_seconds > 0 and ${where}`;
