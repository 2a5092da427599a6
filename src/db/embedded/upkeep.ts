// What a PostgreSQL server does in the background and PGlite does not: vacuum, checkpoints, freezing.
//
// There is one connection and one thread, so every step stands in the way of the requests behind it. Steps are
// therefore small, one per run, and followed by a pause in proportion to what they took.
import type { Sql } from "postgres";

/**
 * A table with this many dead rows, plus this share of its live rows, is vacuumed: a vacuum reads the indexes as a
 * whole.
 */
const dead_rows_min = 10_000;
const dead_rows_share = 0.2;
/** The same while nobody writes: then a vacuum stands in nobody's way. */
const idle_dead_rows_min = 1_000;
const idle_dead_rows_share = 0.02;
/** How many looks without a change make "nobody writes". */
const idle_looks_min = 2;
/** A checkpoint after this much write-ahead log: it bounds the disk that log takes, and the time to replay it. */
const wal_bytes_max = 48 * 1024 * 1024;
/** And after this long, when anything was written at all. */
const checkpoint_seconds_max = 300;
/** Tables whose oldest transaction is this far back are frozen. At two billion PostgreSQL would stop to write. */
const transaction_age_max = 100_000_000;
/** A table this large that is almost empty is rewritten, so that a drained backlog gives its disk back. */
const shrink_bytes_min = 64 * 1024 * 1024;
/** "Almost empty": each of its rows would have to be this large. The rewrite reads the table once and is over. */
const shrink_bytes_per_row = 16 * 1024;
/** Rows may really be that large. A table is rewritten again only when it grew by this factor since. */
const shrink_growth = 4;

/** Between two looks while there is work, and while there is none. */
const look_ms_min = 250;
const look_ms_max = 5_000;
/**
 * A step is followed by a pause of this many times its duration, up to a bound: write-ahead log keeps coming meanwhile.
 */
const pause_factor = 4;
const pause_ms_max = 1_000;

/** One step of upkeep. Requests waited for `duration_ms`. */
export type UpkeepStep =
  | { name: "upkeep_vacuumed" | "upkeep_frozen" | "upkeep_shrunk"; table: string; duration_ms: number }
  | { name: "upkeep_checkpointed"; wal_bytes: number; duration_ms: number };

export type UpkeepOptions = {
  observe?: (step: UpkeepStep) => void;
  /** For tests; see `transaction_age_max`. */
  transaction_age_max?: number;
};

export type EmbeddedUpkeep = {
  /**
   * Looks around, takes at most one step, and returns after how many milliseconds it wants to run again. Not
   * concurrently. Throws what the driver throws; run again then.
   */
  run(): Promise<number>;
};

type Table = { name: string; rows_max: number; bytes: number; age: number };
type Look = { wal_position: number; wal_bytes: number; checkpoint_seconds: number; tables: Table[] };

/** Upkeep of the embedded database over its one connection. Useless on a server, which has its own. */
export function embeddedUpkeep(sql: Sql, options: UpkeepOptions = {}): EmbeddedUpkeep {
  const observe = options.observe ?? (() => {});
  const age_max = options.transaction_age_max ?? transaction_age_max;
  /** Sizes right after the last rewrite. One entry per table at most. */
  const shrunk_bytes = new Map<string, number>();
  let last_position = -1;
  let idle_looks = 0;

  async function timed(statement: string): Promise<number> {
    const started = performance.now();
    // Simple queries, each alone: vacuum refuses to run together with anything.
    await sql.unsafe(statement);
    return performance.now() - started;
  }

  async function size(table: string): Promise<number> {
    const [row] = await sql<{ bytes: number }[]>`select pg_total_relation_size(${table}::regclass)::float8 as bytes`;
    return row?.bytes ?? 0;
  }

  async function step(look: Look): Promise<number | null> {
    if (look.wal_bytes >= wal_bytes_max || (look.checkpoint_seconds >= checkpoint_seconds_max && look.wal_bytes > 0)) {
      const duration_ms = await timed("checkpoint");
      observe({ name: "upkeep_checkpointed", wal_bytes: look.wal_bytes, duration_ms });
      return duration_ms;
    }
    const [table] = look.tables;
    if (table === undefined) return null;
    if (table.age >= age_max) {
      const duration_ms = await timed(`vacuum (freeze, truncate off, parallel 0) ${table.name}`);
      observe({ name: "upkeep_frozen", table: table.name, duration_ms });
      return duration_ms;
    }
    if (
      table.bytes >= Math.max(shrink_bytes_min, shrink_growth * (shrunk_bytes.get(table.name) ?? 0)) &&
      table.bytes > (table.rows_max + 1000) * shrink_bytes_per_row
    ) {
      const duration_ms = await timed(`vacuum (full) ${table.name}`);
      shrunk_bytes.set(table.name, await size(table.name));
      observe({ name: "upkeep_shrunk", table: table.name, duration_ms });
      return duration_ms;
    }
    const duration_ms = await timed(`vacuum (truncate off, parallel 0) ${table.name}`);
    observe({ name: "upkeep_vacuumed", table: table.name, duration_ms });
    return duration_ms;
  }

  return {
    async run() {
      const look = await lookAround(sql, age_max, idle_looks >= idle_looks_min);
      const duration_ms = await step(look);
      const is_idle = duration_ms === null && look.wal_position === last_position;
      last_position = look.wal_position;
      idle_looks = is_idle ? idle_looks + 1 : 0;
      if (duration_ms !== null) {
        return Math.min(pause_ms_max, Math.max(look_ms_min, Math.ceil(duration_ms * pause_factor)));
      }
      return Math.min(look_ms_max, look_ms_min * 2 ** Math.min(idle_looks, 10));
    },
  };
}

async function lookAround(sql: Sql, age_max: number, is_idle: boolean): Promise<Look> {
  const rows_min = is_idle ? idle_dead_rows_min : dead_rows_min;
  const rows_share = is_idle ? idle_dead_rows_share : dead_rows_share;
  // Otherwise the counters are up to a second old, in which tens of thousands of rows can die.
  await sql.unsafe("select pg_stat_force_next_flush()");
  const [wal] = await sql<{ wal_position: number; wal_bytes: number; checkpoint_seconds: number }[]>`
    select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8 as wal_position,
      pg_wal_lsn_diff(pg_current_wal_insert_lsn(), redo_lsn)::float8 as wal_bytes,
      extract(epoch from now() - checkpoint_time)::float8 as checkpoint_seconds
    from pg_control_checkpoint()`;
  if (wal === undefined) throw new Error("pg_control_checkpoint() returned nothing");
  const tables = await sql<Table[]>`
    select relid::regclass::text as name, 
      -- After a crash the first forgets what there was; before its first vacuum the second does not know it.
      greatest(n_live_tup, case when reltuples < 0 then 'infinity' else reltuples end)::float8 as rows_max,
      pg_total_relation_size(relid)::float8 as bytes, age(class.relfrozenxid)::float8 as age
    from pg_stat_all_tables as table_stats
    join pg_class as class on class.oid = table_stats.relid
    where class.relkind in ('r', 't', 'm') and class.relpersistence = 'p'
      and (n_dead_tup >= ${rows_min}::float8 + ${rows_share}::float8 * n_live_tup
        or age(class.relfrozenxid) >= ${age_max}::float8)
    order by n_dead_tup desc, age(class.relfrozenxid) desc
    limit 1`;
  return { ...wal, tables: [...tables] };
}
