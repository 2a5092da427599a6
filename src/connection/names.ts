import { nearestOf } from "../nearest.ts";
import { ConnectionError } from "./text.ts";

const words = (text: string) => text.trim().split(/\s+/);

/** Parameters that are read: connection.ts and tls.ts say what for. */
const honoured = words(`
  host hostaddr port user password passfile dbname connect_timeout application_name fallback_application_name options
  keepalives keepalives_idle target_session_attrs load_balance_hosts pool_max_conns pool_min_conns connection_limit
  prepare sslmode ssl sslrootcert sslcert sslkey sslpassword sslnegotiation sslsni sslcertmode sslaccept
  ssl_min_protocol_version ssl_max_protocol_version client_encoding channel_binding gssencmode replication requiressl
  min_protocol_version`);

/** Parameters of drivers, proxies and tools that cannot matter here. */
const ignored = new Set([
  // libpq. Sockets of this program keep the system's interval; one that goes silent is given up by a deadline.
  ...words(`keepalives_interval keepalives_count tcp_user_timeout krbsrvname gsslib gssdelegation sslcompression tty
    max_protocol_version authtype`),
  // pgx: the pool closes connections by rules of its own.
  ...words(`pool_max_conn_lifetime pool_max_conn_lifetime_jitter pool_max_conn_idle_time pool_health_check_period
    pool_ping_timeout pool_min_idle_conns statement_cache_capacity statement_cache_mode default_query_exec_mode
    description_cache_capacity min_read_buffer_size`),
  // Prisma, node-postgres, JDBC, postgres.js. Our tables have a schema of their own.
  ...words(`pgbouncer schema currentSchema pool_timeout socket_timeout statement_cache_size uselibpqcompat
    idle_timeout max_lifetime max_pipeline fetch_types backoff max`),
  // Labels that hosters put in.
  ...words("supa workaround pool"),
]);

/** Settings of the session that this program sets itself, on every connection (src/db/session.ts). */
const set_by_us = new Set(
  words(`timezone plan_cache_mode enable_seqscan enable_bitmapscan jit statement_timeout lock_timeout
    idle_in_transaction_session_timeout datestyle intervalstyle extra_float_digits bytea_output
    default_transaction_isolation default_transaction_deferrable synchronous_commit idle_session_timeout array_nulls
    standard_conforming_strings backslash_quote transform_null_equals xmloption row_security client_min_messages
    enable_indexscan enable_indexonlyscan enable_nestloop enable_tidscan enable_sort join_collapse_limit
    from_collapse_limit search_path tcp_keepalives_idle tcp_keepalives_interval tcp_keepalives_count
    escape_string_warning geqo lc_monetary lc_numeric lc_time default_text_search_config transaction_timeout
    default_with_oids`),
);

/** Settings of PostgreSQL that change neither what statements mean nor what a 2xx promises: passed on. */
const passed_on = new Set(
  words(`role work_mem maintenance_work_mem temp_buffers hash_mem_multiplier logical_decoding_work_mem
    effective_cache_size random_page_cost seq_page_cost effective_io_concurrency maintenance_io_concurrency
    max_parallel_workers_per_gather max_parallel_maintenance_workers default_tablespace temp_tablespaces
    default_table_access_method default_toast_compression lc_messages log_statement log_min_duration_statement
    log_min_error_statement log_min_messages log_duration log_lock_waits log_parameter_max_length
    log_parameter_max_length_on_error track_activities track_io_timing track_functions wal_compression
    client_connection_check_interval compute_query_id vacuum_cost_delay`),
);

const file = "write what it holds into the connection string";
const refused: Record<string, string> = {
  service: `a service file is not read: ${file}`,
  servicefile: `a service file is not read: ${file}`,
  sslcrl: "revocation lists are not checked: leave it out",
  sslcrldir: "revocation lists are not checked: leave it out",
  sslkeylogfile: "keys of connections are not written down: leave it out",
  sslidentity: "PKCS 12 files are not read: convert it, and write sslcert=FILE and sslkey=FILE",
  require_auth: "the way of authentication cannot be restricted here: restrict it in pg_hba.conf, and leave it out",
  requirepeer: "the owner of a socket is not checked: leave it out",
  scram_client_key: "write the password instead",
  scram_server_key: "write the password instead",
  default_transaction_read_only: "psqlqueue writes: leave it out",
  transaction_read_only: "psqlqueue writes: leave it out",
  session_replication_role: "it would switch off rules that our tables rely on: leave it out",
  session_authorization: "connect as that user, or write options=-c role=NAME",
  session_preload_libraries: "set it on the server, and leave it out",
  local_preload_libraries: "set it on the server, and leave it out",
  ignore_checksum_failure: "it would hide damage: leave it out",
  zero_damaged_pages: "it would destroy data: leave it out",
};

/** PostgreSQL's longest. */
const name_characters_max = 63;

const known = new Set([...honoured, ...ignored, ...set_by_us, ...passed_on, ...Object.keys(refused)]);

/** Is it the name of a parameter? Else it may be a part of a password, and is not shown. */
export const isKnown = (name: string): boolean => known.has(name);

/** A parameter's fate: read by us, dropped, or sent to PostgreSQL as a setting of the session. */
export type Fate = "honoured" | "ignored" | "passed_on";

/** What becomes of a parameter. Throws ConnectionError for one that is refused, or that nobody knows. */
export function fateOf(name: string): Fate {
  if (honoured.includes(name)) return "honoured";
  // golang-migrate, which the Go service used, has parameters of its own.
  if (ignored.has(name) || name.startsWith("x-")) return "ignored";
  return settingFateOf(name);
}

/** The same for a setting of PostgreSQL, from `options` too. Names with a dot belong to extensions and users. */
export function settingFateOf(name: string): Fate {
  const setting = name.toLowerCase();
  if (set_by_us.has(setting)) return "ignored";
  if (passed_on.has(setting) || /^[a-z_]\w*\.[a-z_]\w*$/.test(setting)) return "passed_on";
  const reason = Object.hasOwn(refused, setting) ? refused[setting] : undefined;
  if (reason !== undefined) throw new ConnectionError(`${name} cannot be used: ${reason}`);
  if (setting.startsWith("oauth_")) throw new ConnectionError(`${name} cannot be used: write a password instead`);
  // What has other characters may be a part of a password.
  const shown = /^[a-z_]{1,63}$/i.test(name) ? JSON.stringify(name) : "one of its names";
  throw new ConnectionError(
    `${shown} is no parameter that can be set here (the nearest is ${nearestOf(setting, [...known], name_characters_max)}): ` +
      "correct it, or leave it out",
  );
}
