import { drizzle } from "drizzle-orm/postgres-js";
import { migrate } from "drizzle-orm/postgres-js/migrator";
import type postgres from "postgres";
import { MigrationError } from "../errors.ts";
import { driverOptions, openClient } from "./driver.ts";
import { migrations_folder, readBreakingTimes, readMigrationTimes } from "./folder.ts";
import { connectionOf, createConnector, type DatabaseServer } from "./hosts.ts";
import { checkV04, importV04 } from "./importV04.ts";
import { reachError } from "./reach.ts";
import { checkEncoding, checkRights, checkUsage, migrateGivenSchema } from "./rights.ts";

// Beside our tables, and not in Drizzle's default schema: the database may belong to an application that uses Drizzle
// too.
const migrationsSchema = "psqlqueue";
const migrationsTable = "migrations";

export type MigrationResult = { applied: number; adopted?: { queues: number; messages: number } };

/**
 * One connection of its own, without the pool's settings: for work that must stay on it. With several hosts, to the
 * first that is what the URL asks for. Rejects with ReachError when there is none.
 */
export async function connectOnce(server: DatabaseServer): Promise<postgres.Sql> {
  const connector = createConnector(server);
  const session = { application_name: "psqlqueue migrate", TimeZone: "UTC" };
  const client = openClient({ ...driverOptions(server, connector, session), max: 1 });
  const tried: { address: string; error: unknown }[] = [];
  for (;;) {
    try {
      await client`select`;
      return client;
    } catch (error) {
      tried.push({ address: connector.lastTried(), error });
      if (tried.length < connector.count) continue;
      await client.end({ timeout: 1 });
      throw reachError(tried, connectionOf(server));
    }
  }
}

/** When the newest applied migration was made; undefined when the database holds none of ours. */
async function appliedTime(client: postgres.Sql): Promise<number | undefined> {
  const [found] = await client`select to_regclass('psqlqueue.migrations') is not null as exists`;
  if (!found?.["exists"]) return undefined;
  const [row] = await client.unsafe(`select max(created_at)::text as time from ${migrationsSchema}.${migrationsTable}`);
  return row?.["time"] === null || row?.["time"] === undefined ? undefined : Number(row["time"]);
}

const too_new =
  "the database was migrated by a newer psqlqueue than this one, in a way that this one cannot work with; run that " +
  "version, or a later one, or restore a backup made before the upgrade";

/**
 * Is the database newer than this program? Throws when one of the migrations that came later broke with programs before
 * it; with the others this one goes on as before, so that servers can be brought to a new version one after the other.
 */
async function checkNewer(client: postgres.Sql, applied: number, newest: number): Promise<boolean> {
  if (applied <= newest) return false;
  // Only programs that write this table down make migrations that others can live with.
  const [found] = await client`select to_regclass('psqlqueue.breaking_migrations') is not null as exists`;
  const [row] = found?.["exists"]
    ? await client`select exists (select from psqlqueue.breaking_migrations where created_at > ${newest}) as is_breaking`
    : [{ is_breaking: true }];
  if (row?.["is_breaking"]) throw new MigrationError(too_new);
  return true;
}

/**
 * Brings the database to this version, and adopts the tables of psqlqueue 0.4.1 when they are there. May be called any
 * number of times and by many processes at once: one works, the others wait and find nothing to do.
 * Throws MigrationError for a database that must be left alone; then nothing has changed.
 */
export async function migrateDatabase(server: DatabaseServer): Promise<MigrationResult> {
  const times = readMigrationTimes();
  const client = await connectOnce(server);
  try {
    // One connection, so that the lock covers all that follows; it ends with the connection, also when we are killed.
    await client`select pg_advisory_lock(hashtextextended('psqlqueue:migrate', 0))`;
    await checkEncoding(client);
    await checkUsage(client);
    const before = await appliedTime(client);
    const is_done = before !== undefined && before >= (times.at(-1) ?? 0);
    const { is_schema_given } = is_done ? { is_schema_given: true } : await checkRights(client);
    if (before !== undefined) await checkNewer(client, before, times.at(-1) ?? 0);
    await checkV04(client);
    // Never queue for a lock for long: everybody who comes later would wait behind us.
    await client`select set_config('lock_timeout', '10s', false)`;
    const options = { migrationsFolder: migrations_folder, migrationsSchema, migrationsTable };
    if (is_schema_given) await migrateGivenSchema(drizzle(client), options);
    else await migrate(drizzle(client), options);
    for (const time of readBreakingTimes()) {
      await client`insert into psqlqueue.breaking_migrations (created_at) values (${time}) on conflict do nothing`;
    }
    await client`select psqlqueue.keep_archive(2)`;
    const adopted = await importV04(client);
    const applied = times.filter((time) => before === undefined || time > before).length;
    return { applied, ...(adopted !== undefined && { adopted }) };
  } finally {
    await client.end({ timeout: 5 });
  }
}

/**
 * Throws MigrationError, saying what to run, unless this program can work with the database. `is_newer`: a later
 * version has migrated it, in a way that this one can live with.
 */
export async function checkMigrated(server: DatabaseServer): Promise<{ is_newer: boolean }> {
  const newest = readMigrationTimes().at(-1) ?? 0;
  const client = await connectOnce(server);
  try {
    await checkEncoding(client);
    await checkUsage(client);
    const found = await appliedTime(client);
    if (found === undefined) {
      throw new MigrationError("the database is not migrated: run `psqlqueue migrate` with the same settings first");
    }
    if (found < newest) {
      throw new MigrationError(
        "the database is behind this program: run `psqlqueue migrate` with the same settings first",
      );
    }
    return { is_newer: await checkNewer(client, found, newest) };
  } finally {
    await client.end({ timeout: 5 });
  }
}
