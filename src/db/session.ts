import type postgres from "postgres";
import { MigrationError } from "../errors.ts";

type Settings = Record<string, string>;

/**
 * PostgreSQL's own defaults, said aloud: a database or a role may carry others (`alter role … set …`), and our
 * statements must mean the same everywhere. Some would change what is stored or answered (DateStyle, array_nulls), some
 * how it fails (serializable transactions), some what a 2xx promises (synchronous_commit).
 */
const usual: Settings = {
  DateStyle: "ISO, MDY",
  IntervalStyle: "postgres",
  extra_float_digits: "1",
  bytea_output: "hex",
  default_transaction_isolation: "read committed",
  default_transaction_deferrable: "off",
  synchronous_commit: "on",
  idle_session_timeout: "0",
  array_nulls: "on",
  standard_conforming_strings: "on",
  backslash_quote: "safe_encoding",
  transform_null_equals: "off",
  xmloption: "content",
  row_security: "on",
  // The warning that a write is not replicated must arrive.
  client_min_messages: "notice",
  enable_indexscan: "on",
  enable_indexonlyscan: "on",
  enable_nestloop: "on",
  enable_tidscan: "on",
  enable_sort: "on",
  join_collapse_limit: "8",
  from_collapse_limit: "8",
};

/** Without these, statements have no deadline, times no fixed form, and plans are made for empty tables. */
const settingsThatMatter = (statement_timeout_ms: number): Settings => ({
  TimeZone: "UTC",
  plan_cache_mode: "force_generic_plan",
  enable_seqscan: "off",
  enable_bitmapscan: "off",
  jit: "off",
  statement_timeout: String(statement_timeout_ms),
  // Below the other, or that one would always come first.
  lock_timeout: String(Math.min(2000, Math.ceil(statement_timeout_ms / 2))),
  idle_in_transaction_session_timeout: "10000",
  ...usual,
});

/**
 * Startup parameters of every connection. The planner settings make plans independent of statistics: a queue is empty
 * most of the time, and a plan made for an empty table stays in the connection while the backlog grows.
 */
export const sessionSettings = (statement_timeout_ms: number): Settings => ({
  application_name: "psqlqueue",
  ...settingsThatMatter(statement_timeout_ms),
  // Our statements name schemas; nothing of the users' own may stand before an operator or function.
  search_path: "pg_catalog",
  tcp_keepalives_idle: "15",
  tcp_keepalives_interval: "5",
  tcp_keepalives_count: "3",
  tcp_user_timeout: "10000",
});

/** PgBouncer passes on only a few startup parameters, these among ours. */
const isPassedOn = (name: string) => name === "application_name" || name === "TimeZone";

/** SQLSTATE: what PgBouncer answers to a startup parameter that it does not know. */
const protocol_violation = "08P01";
/** SQLSTATE: a prepared statement that the session does not know. */
const invalid_statement_name = "26000";

/**
 * Throws MigrationError, saying what to do, when sessions of a pool opened with `sessionSettings` do not get them, or
 * do not keep their prepared statements: a pooler stands between that refuses or drops them.
 */
export async function checkSession(client: postgres.Sql, statement_timeout_ms: number): Promise<void> {
  // The connection string may hold more.
  const settings: Settings = { ...sessionSettings(statement_timeout_ms), ...(client.options.connection as Settings) };
  const names = Object.keys(settingsThatMatter(statement_timeout_ms));
  try {
    const rows = await client`select name, setting from pg_settings where name = any(${names})`;
    const actual = new Map(rows.map(({ name, setting }) => [name, setting]));
    const dropped = names.filter((name) => actual.get(name) !== settings[name]);
    if (dropped.length > 0) throw new MigrationError(advice("drops", settings, dropped));
  } catch (error) {
    if ((error as { code?: unknown }).code !== protocol_violation) throw error;
    const refused = names.filter((name) => !isPassedOn(name));
    throw new MigrationError(advice("refuses", settings, refused), { cause: error });
  }
  if (await losesStatements(client)) throw new MigrationError(lost_statements);
}

const lost_statements =
  "a connection pooler stands before the database and gives each transaction another session, which does not know the " +
  "statements that we have prepared: connect to PostgreSQL itself; or let the pooler keep a session for each connection " +
  "(PgBouncer, pool_mode = session); or let it carry prepared statements along (PgBouncer 1.21 and newer, " +
  "max_prepared_statements = 200); or add ?prepare=false to the database's URL, which has each statement planned anew";

/**
 * Does a connection get another session while somebody else is in a transaction on that which it had, and not its
 * prepared statements with it? A pooler hands out the session that was used last. The driver prepares the statement
 * again by itself, which helps only while nobody else does anything: `retried` says that it had to.
 */
async function losesStatements(client: postgres.Sql): Promise<boolean> {
  if (!client.options.prepare || client.options.max < 2) return false;
  const own = await client.reserve();
  const probe = () => own`select 1 as probe`;
  try {
    await probe();
    return await client.begin(async () => {
      const again = probe();
      await again;
      return (again as { retried?: unknown }).retried !== undefined;
    });
  } catch (error) {
    if ((error as { code?: unknown }).code === invalid_statement_name) return true;
    throw error;
  } finally {
    own.release();
  }
}

function advice(does: "drops" | "refuses", settings: Settings, missing: string[]): string {
  const ignored = Object.keys(settings).filter((name) => !isPassedOn(name));
  const remedy = missing.map((name) => `alter role ROLE set ${name} = '${settings[name]}'`).join("; ");
  return (
    `a connection pooler stands before the database and ${does} the settings of our sessions: connect to PostgreSQL ` +
    `itself; or let the pooler pass over them (PgBouncer: ignore_startup_parameters = ${ignored.join(",")}), have the ` +
    `database set them (${remedy}), and reload the pooler`
  );
}
