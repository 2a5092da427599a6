import postgres from "postgres";
import { MigrationError } from "../errors.ts";

/**
 * Startup parameters of every connection. The planner settings make plans independent of statistics: a queue is empty
 * most of the time, and a plan made for an empty table stays in the connection while the backlog grows.
 */
export const sessionSettings = (statement_timeout_ms: number) => ({
  application_name: "psqlqueue",
  ...settingsThatMatter(statement_timeout_ms),
  tcp_keepalives_idle: "15",
  tcp_keepalives_interval: "5",
  tcp_keepalives_count: "3",
  tcp_user_timeout: "10000",
});

const settingsThatMatter = (statement_timeout_ms: number): Record<string, string> => ({
  TimeZone: "UTC",
  plan_cache_mode: "force_generic_plan",
  enable_seqscan: "off",
  enable_bitmapscan: "off",
  jit: "off",
  statement_timeout: String(statement_timeout_ms),
  // Below the other, or that one would always come first.
  lock_timeout: String(Math.min(2000, Math.ceil(statement_timeout_ms / 2))),
  idle_in_transaction_session_timeout: "10000",
});

/** Startup parameters that PgBouncer knows and passes on. */
const tracked = new Set(["application_name", "TimeZone"]);

/** SQLSTATE: what PgBouncer answers to a startup parameter that it does not know. */
const protocol_violation = "08P01";

/**
 * Throws MigrationError, saying what to do, when sessions of the server at `url` do not get our settings: a pooler
 * stands between that refuses or drops them. Statements would have no deadline then, and plans made for empty tables.
 */
export async function checkSession(url: string, statement_timeout_ms: number): Promise<void> {
  const asked = settingsThatMatter(statement_timeout_ms);
  const connection = sessionSettings(statement_timeout_ms);
  const client = postgres(url, { max: 1, connect_timeout: 10, onnotice() {}, connection });
  try {
    const rows = await client`select name, setting from pg_settings where name = any(${Object.keys(asked)})`;
    const actual = new Map(rows.map(({ name, setting }) => [name, setting]));
    const dropped = Object.keys(asked).filter((name) => actual.get(name) !== asked[name]);
    if (dropped.length > 0) throw new MigrationError(advice("drops", asked, dropped));
  } catch (error) {
    const untracked = Object.keys(asked).filter((name) => !tracked.has(name));
    const is_refused = (error as { code?: unknown }).code === protocol_violation;
    throw is_refused ? new MigrationError(advice("refuses", asked, untracked), { cause: error }) : error;
  } finally {
    await client.end({ timeout: 5 });
  }
}

function advice(does: "drops" | "refuses", asked: Record<string, string>, names: string[]): string {
  const ignored = Object.keys(sessionSettings(0)).filter((name) => !tracked.has(name));
  const settings = names.map((name) => `alter role ROLE set ${name} = '${asked[name]}'`).join("; ");
  return (
    `a connection pooler stands before the database and ${does} the settings of our sessions: connect to PostgreSQL ` +
    `itself; or let the pooler pass over them (PgBouncer: ignore_startup_parameters = ${ignored.join(",")}), have the ` +
    `database set them (${settings}), and reload the pooler`
  );
}
