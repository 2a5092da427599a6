import { PGlite } from "@electric-sql/pglite";

/** What the embedded PostgreSQL is started with: PGlite's own parameters, and the settings that ours must be. */
export function startParams(fsync: boolean): string[] {
  const settings: Record<string, string> = {
    TimeZone: "UTC",
    log_timezone: "UTC",
    // One client, so the plans of one session are the plans of the service: see the hot statements for why each is
    // needed.
    plan_cache_mode: "force_generic_plan",
    enable_seqscan: "off",
    enable_bitmapscan: "off",
    jit: "off",
    // The wasm memory never shrinks: PGlite's own 128 MB would stay resident.
    shared_buffers: "16MB",
    max_connections: "10",
    // Nothing checkpoints by itself here. These make each checkpoint recycle its WAL files instead of leaving them.
    max_wal_size: "96MB",
    min_wal_size: "64MB",
    wal_recycle: "on",
    // An error message with parameter values would carry message bodies into logs.
    log_parameter_max_length: "0",
    log_parameter_max_length_on_error: "0",
    // The default method ends in a call that does nothing under wasm.
    ...(fsync ? { fsync: "on", full_page_writes: "on", wal_sync_method: "fsync" } : {}),
  };
  const inherited = PGlite.defaultStartParams.filter((param) => param !== "-F" || !fsync);
  return [...inherited, ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`])];
}
