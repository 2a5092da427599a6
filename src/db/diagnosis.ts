import type postgres from "postgres";

/** What a PostgreSQL says of itself that matters to a queue. */
export type Diagnosis = {
  version: string;
  version_num: number;
  is_standby: boolean;
  /** The server's clock less ours. */
  clock_ms: number;
  /** By name; those that this version does not have are missing. */
  settings: Map<string, string>;
};

const names = [
  "fsync",
  "full_page_writes",
  "autovacuum",
  "data_checksums",
  "max_wal_size",
  "checkpoint_timeout",
  "max_connections",
  "log_parameter_max_length",
  "log_parameter_max_length_on_error",
];

/** Asks a server what it is and how it is set, in the units of pg_settings. Rejects with the driver's error. */
export async function diagnose(client: postgres.Sql): Promise<Diagnosis> {
  const before_ms = Date.now();
  const [row] = await client`select current_setting('server_version') as version,
    current_setting('server_version_num')::int as version_num, pg_is_in_recovery() as is_standby,
    extract(epoch from clock_timestamp())::float8 * 1000 as now_ms`;
  const middle_ms = (before_ms + Date.now()) / 2;
  const rows = await client`select name, setting from pg_settings where name = any(${names})`;
  return {
    version: row?.["version"] as string,
    version_num: row?.["version_num"] as number,
    is_standby: row?.["is_standby"] as boolean,
    clock_ms: Math.round((row?.["now_ms"] as number) - middle_ms),
    settings: new Map(rows.map(({ name, setting }) => [name as string, setting as string])),
  };
}
