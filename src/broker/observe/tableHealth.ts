import { sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { column, rfc3339 } from "../statement.ts";

/** What keeps vacuum from removing dead rows: the oldest snapshot of the database, and who holds it. */
export type Snapshot = {
  age_seconds: number;
  /** null: a prepared transaction, which has no process. */
  pid: number | null;
  application_name: string;
  user: string;
  /** What its session does at the moment, as pg_stat_activity says it; "prepared" for a prepared transaction. */
  state: string;
};

export type TableState = {
  name: string;
  live_rows: number;
  dead_rows: number;
  table_bytes: number;
  index_bytes: number;
  /** By autovacuum or by hand; null: never, or forgotten in a crash. */
  last_vacuum: string | null;
};

export type TableHealth = { oldest_snapshot: Snapshot | null; tables: TableState[] };

/** What vacuum has to do, and what holds it up. Estimates and catalogues only: no table is read. */
export function createTableHealth(db: Db) {
  const { orm } = db;
  // The horizon of a database is that of its own sessions; an idle session holds none. Sessions of other users show
  // themselves only to members of pg_read_all_stats.
  const oldest = orm
    .$with("oldest", {
      age_seconds: column<number>("age_seconds"),
      pid: column<number | null>("pid"),
      application_name: column<string>("application_name"),
      user: column<string>("user"),
      state: column<string>("state"),
    })
    .as(sql`
      select extract(epoch from clock_timestamp() - held.since)::float8 as age_seconds, held.pid, held.application_name,
        held.owner as "user", held.state
      from (
        select session.xact_start as since, session.pid, coalesce(session.application_name, '') as application_name,
          coalesce(session.usename::text, '') as owner, coalesce(session.state, '') as state
        from pg_stat_activity as session
        where session.datname = current_database() and session.pid <> pg_backend_pid()
          and (session.backend_xmin is not null or session.backend_xid is not null)
          and session.backend_type <> 'autovacuum worker'
        union all
        select prepared.prepared, null, prepared.gid, prepared.owner::text, 'prepared'
        from pg_prepared_xacts as prepared
        where prepared.database = current_database()
      ) as held
      where held.since is not null
      order by held.since
      limit 1`);
  const findOldest = orm.with(oldest).select().from(oldest).prepare("find_oldest_snapshot");

  // The days of the archive count as one table.
  const tables = orm
    .$with("tables", {
      name: column<string>("name"),
      live_rows: column<number>("live_rows"),
      dead_rows: column<number>("dead_rows"),
      table_bytes: column<number>("table_bytes"),
      index_bytes: column<number>("index_bytes"),
      last_vacuum: column<string | null>("last_vacuum"),
    })
    .as(sql`
      select coalesce(parent.relname, own.relname)::text as name, sum(own.n_live_tup)::float8 as live_rows,
        sum(own.n_dead_tup)::float8 as dead_rows, sum(pg_table_size(own.relid))::float8 as table_bytes,
        sum(pg_indexes_size(own.relid))::float8 as index_bytes,
        max(greatest(own.last_vacuum, own.last_autovacuum)) as last_vacuum
      from pg_stat_user_tables as own
      left join pg_inherits as inherited on inherited.inhrelid = own.relid
      left join pg_class as parent on parent.oid = inherited.inhparent
      where own.schemaname = 'psqlqueue'
      group by 1
      order by 1`);
  const listTables = orm.with(tables).select().from(tables).prepare("list_table_states");

  const findOldestSnapshot = async (): Promise<Snapshot | null> => {
    const [row] = await db.run("find_oldest_snapshot", () => findOldest.execute(), true);
    return row ?? null;
  };

  return {
    /** The oldest snapshot that is held now; null when nobody holds one. */
    findOldestSnapshot,

    /** Tables by name, the archive's days together. Repeatable, cheap. */
    async getTableHealth(): Promise<TableHealth> {
      const rows = await db.run("list_table_states", () => listTables.execute(), true);
      return {
        oldest_snapshot: await findOldestSnapshot(),
        tables: rows.map((row) => ({
          ...row,
          last_vacuum: row.last_vacuum === null ? null : rfc3339(row.last_vacuum),
        })),
      };
    },
  };
}
