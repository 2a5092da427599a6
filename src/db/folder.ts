import { readFileSync } from "node:fs";
import path from "node:path";

/** The migrations: embedded in the binary, or beside `src/` in a checkout. */
export const migrations_folder = path.resolve(
  Bun.isStandaloneExecutable ? import.meta.dir : path.join(import.meta.dir, "../.."),
  "drizzle",
);

/** The times of our migrations, oldest first; the migrator records the same number for each that it applied. */
export function readMigrationTimes(): number[] {
  const journal = JSON.parse(readFileSync(path.join(migrations_folder, "meta/_journal.json"), "utf8")) as {
    entries: { when: number }[];
  };
  return journal.entries.map((entry) => entry.when);
}
