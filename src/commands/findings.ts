import type { TableHealth } from "../broker/observe/tableHealth.ts";
import type { Diagnosis } from "../db/diagnosis.ts";
import { knownBug } from "../db/versions.ts";

/** One line of the doctor: what was looked at, how it is, and what to do where it is not well. */
export type Finding = { check: string; state: "ok" | "warning" | "problem"; what: string; remedy?: string };

/** Of what is as it should be, of what should be looked at, and of what cannot work. */
export const ok = (check: string, what: string): Finding => ({ check, state: "ok", what });
export const warning = (check: string, what: string, remedy: string): Finding => ({
  check,
  state: "warning",
  what,
  remedy,
});
export const problem = (check: string, what: string, remedy: string): Finding => ({
  check,
  state: "problem",
  what,
  remedy,
});

/** Times of two machines that differ by more are worth a word: logs and `deliver_at` are read with either. */
const clock_ms_max = 2000;
const major_min = 15;
/** A forgotten transaction, as the server's own warning has it. */
const snapshot_seconds_max = 300;
/** Dead rows that vacuum would have removed long ago, had it been able to. */
const dead_rows_max = 100_000;

/** How far another clock is from ours. */
export function clockFinding(check: string, clock_ms: number): Finding {
  const seconds = (clock_ms / 1000).toFixed(1);
  if (Math.abs(clock_ms) <= clock_ms_max) return ok(check, `${seconds} s from this machine's clock`);
  const remedy = "set both by NTP; only the database's clock decides when messages are visible";
  return warning(check, `${seconds} s from this machine's clock`, remedy);
}

function versionFinding({ version, version_num }: Diagnosis): Finding {
  const bug = knownBug(version_num);
  if (Math.floor(version_num / 10_000) < major_min) {
    return problem("postgresql version", version, `update to PostgreSQL ${major_min} or later`);
  }
  if (bug !== undefined) return warning("postgresql version", `${version}: ${bug.what}`, bug.remedy);
  return ok("postgresql version", version);
}

/** Settings of the server: what each must be, and what happens otherwise. */
function settingFindings({ settings }: Diagnosis, connections: number): Finding[] {
  const number = (name: string) => Number(settings.get(name) ?? Number.NaN);
  const set = (name: string, value: string, restarts = false) =>
    `alter system set ${name} = '${value}'; ${restarts ? "restart the server" : "select pg_reload_conf()"}`;
  const found: Finding[] = [];
  if (settings.get("fsync") === "off") {
    found.push(problem("fsync", "off: what was answered can be lost with the power", set("fsync", "on")));
  }
  if (settings.get("full_page_writes") === "off") {
    found.push(problem("full_page_writes", "off: a crash may break pages", set("full_page_writes", "on")));
  }
  if (settings.get("autovacuum") === "off") {
    found.push(problem("autovacuum", "off: dead rows are never removed", set("autovacuum", "on")));
  }
  if (settings.get("data_checksums") === "off") {
    const remedy = "pg_checksums --enable, while the server is stopped";
    found.push(warning("data_checksums", "off: a disk that corrupts data is not noticed", remedy));
  }
  if (number("max_wal_size") < 4096) {
    const what = `${number("max_wal_size")} MB: checkpoints come often under load`;
    found.push(warning("max_wal_size", what, set("max_wal_size", "4GB")));
  }
  if (number("log_parameter_max_length") !== 0) {
    const what = "message bodies may reach PostgreSQL's log";
    found.push(warning("log_parameter_max_length", what, set("log_parameter_max_length", "0")));
  }
  if (connections + 3 > number("max_connections")) {
    const what = `${number("max_connections")}, and one server of these settings takes up to ${connections + 2}`;
    found.push(warning("max_connections", what, "lower PSQLQUEUE_DATABASE_MAX_CONNS, or raise max_connections"));
  }
  return found.length > 0 ? found : [ok("postgresql settings", "as they should be")];
}

/** All that a PostgreSQL told of itself. */
export function diagnosisFindings(diagnosis: Diagnosis, connections: number): Finding[] {
  const standby = diagnosis.is_standby
    ? [problem("postgresql role", "a standby: it takes no writes", "name its primary, or all its hosts")]
    : [];
  return [
    versionFinding(diagnosis),
    ...standby,
    ...settingFindings(diagnosis, connections),
    clockFinding("postgresql clock", diagnosis.clock_ms),
  ];
}

/** Snapshots that hold up vacuum, and what it has left. */
export function healthFindings({ oldest_snapshot: held, tables }: TableHealth): Finding[] {
  const age = Math.round(held?.age_seconds ?? 0);
  const found: Finding[] = [];
  if (held !== null && age > snapshot_seconds_max) {
    const who = `${held.application_name || "a session"} of ${held.user} (${held.state})`;
    const remedy =
      held.pid === null ? "commit or roll back the prepared transaction" : `select pg_terminate_backend(${held.pid})`;
    found.push(warning("snapshots", `${who} holds one for ${age} s: vacuum cannot remove dead rows`, remedy));
  } else found.push(ok("snapshots", held === null ? "none is held" : `the oldest is ${age} s old`));
  const bloated = tables.filter((own) => own.dead_rows > dead_rows_max && own.dead_rows > own.live_rows);
  for (const { name, dead_rows, live_rows } of bloated) {
    const what = `${name}: ${dead_rows} dead rows beside ${live_rows} live ones`;
    found.push(warning("bloat", what, `vacuum (analyze) psqlqueue.${name}, once no old snapshot is held`));
  }
  const bytes = tables.reduce((sum, own) => sum + own.table_bytes + own.index_bytes, 0);
  if (bloated.length === 0) found.push(ok("bloat", `none; all tables together ${Math.ceil(bytes / 1_048_576)} MB`));
  return found;
}

/** Keys that sign and whose secrets the master keys of these settings do not decrypt. */
export function signingKeysFinding(closed_ids: string[]): Finding {
  const check = "signing keys";
  if (closed_ids.length === 0) return ok(check, "none is without its master key");
  const what = `PSQLQUEUE_MASTER_KEY does not decrypt the secrets of ${closed_ids.join(", ")}: what they sign is refused`;
  return warning(check, what, "add the master key that encrypted them, behind the others, or make these keys anew");
}
