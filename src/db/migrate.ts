import { drizzle } from "drizzle-orm/postgres-js";
import { migrate } from "drizzle-orm/postgres-js/migrator";
import type postgres from "postgres";
import { MigrationError } from "../errors.ts";
import { adoptUpstream, checkUpstream } from "./adopt.ts";
import { driverOptions, openClient } from "./driver.ts";
import { migrations_folder, readMigrationTimes } from "./folder.ts";
import { createConnector, type DatabaseServer } from "./hosts.ts";

// Beside our tables, and not in Drizzle's default schema: the database may belong to an application that uses Drizzle
// too.
const migrationsSchema = "psqlqueue";
const migrationsTable = "migrations";

export type MigrationResult = { applied: number; adopted?: { queues: number; messages: number } };

/**
 * One connection of its own, without the pool's settings: for work that must stay on it. With several hosts, to the
 * first that is what the URL asks for. Rejects with the driver's error when there is none.
 */
export async function connectOnce(server: DatabaseServer): Promise<postgres.Sql> {
  const connector = createConnector(server);
  const client = openClient(server, {
    ...driverOptions(server, connector),
    max: 1,
    connection: { application_name: "psqlqueue migrate", TimeZone: "UTC" },
  });
  for (let tries = 1; ; tries++) {
    try {
      await client`select`;
      return client;
    } catch (error) {
      if (tries < connector.count) continue;
      await client.end({ timeout: 1 });
      throw error;
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
  "the database was migrated by a newer psqlqueue than this one; run that version, or a later one, or restore a backup " +
  "made before the upgrade";

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
    const before = await appliedTime(client);
    if (before !== undefined && before > (times.at(-1) ?? 0)) throw new MigrationError(too_new);
    await checkUpstream(client);
    // Never queue for a lock for long: everybody who comes later would wait behind us.
    await client`select set_config('lock_timeout', '10s', false)`;
    await migrate(drizzle(client), { migrationsFolder: migrations_folder, migrationsSchema, migrationsTable });
    await client`select psqlqueue.keep_archive(2)`;
    const adopted = await adoptUpstream(client);
    const applied = times.filter((time) => before === undefined || time > before).length;
    return { applied, ...(adopted !== undefined && { adopted }) };
  } finally {
    await client.end({ timeout: 5 });
  }
}

/** Throws MigrationError, saying what to run, unless the database is exactly at this program's version. */
export async function checkMigrated(server: DatabaseServer): Promise<void> {
  const newest = readMigrationTimes().at(-1) ?? 0;
  const client = await connectOnce(server);
  try {
    const found = await appliedTime(client);
    if (found === undefined) {
      throw new MigrationError("the database is not migrated: run `psqlqueue migrate` with the same settings first");
    }
    if (found < newest) {
      throw new MigrationError(
        "the database is behind this program: run `psqlqueue migrate` with the same settings first",
      );
    }
    if (found > newest) throw new MigrationError(too_new);
  } finally {
    await client.end({ timeout: 5 });
  }
}
