import { existsSync } from "node:fs";
import path from "node:path";
import type { Config } from "../config.ts";
import { carryOver } from "../db/copyDatabase.ts";
import { holdsCluster } from "../db/embedded/layout.ts";
import { type MigrationResult, migrateDatabase } from "../db/migrate.ts";
import { MigrationError } from "../errors.ts";
import { openStore, type Store } from "./store.ts";

/**
 * Brings the database of the settings to this version; with `from`, then carries the embedded database of that
 * directory over to it. Repeatable; a second carry-over is refused, since the target is not empty any more. Throws
 * MigrationError.
 */
export async function runMigration(
  config: Config,
  from: string | undefined,
): Promise<MigrationResult & { carried?: Record<string, number> }> {
  if (from !== undefined && config.database_url === "") {
    throw new MigrationError("--from needs a server to carry to: set PSQLQUEUE_DATABASE_URL to it");
  }
  if (from !== undefined && !existsSync(from)) {
    throw new MigrationError(`--from ${path.resolve(from)}: there is no such directory`);
  }
  // Else it would be made there.
  if (from !== undefined && !holdsCluster(from)) {
    throw new MigrationError(
      `--from ${path.resolve(from)}: there is no embedded database in it; name its data directory`,
    );
  }
  const store = await openStore(config);
  try {
    const result = await migrateDatabase(store.server);
    return from === undefined ? result : { ...result, carried: await carryFrom(config, from, store.server) };
  } finally {
    await store.close();
  }
}

async function carryFrom(config: Config, from: string, target: Store["server"]): Promise<Record<string, number>> {
  const source = await openStore({ ...config, database_url: "", PSQLQUEUE_DATA_DIR: from });
  try {
    await migrateDatabase(source.server);
    return await carryOver(source.server, target);
  } finally {
    await source.close();
  }
}
