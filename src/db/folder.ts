import { readFileSync } from "node:fs";
import path from "node:path";

/** The migrations: embedded in the binary, or beside `src/` in a checkout. */
export const migrations_folder = path.resolve(
  Bun.isStandaloneExecutable ? import.meta.dir : path.join(import.meta.dir, "../.."),
  "drizzle",
);

type Entry = { when: number; tag: string };

const readJournal = (): Entry[] =>
  (JSON.parse(readFileSync(path.join(migrations_folder, "meta/_journal.json"), "utf8")) as { entries: Entry[] })
    .entries;

/** The times of our migrations, oldest first; the migrator records the same number for each that it applied. */
export const readMigrationTimes = (): number[] => readJournal().map((entry) => entry.when);

/** The times of those that programs made before them cannot live with: their file begins with `--! breaking`. */
export const readBreakingTimes = (): number[] =>
  readJournal().flatMap(({ tag, when }) =>
    readFileSync(path.join(migrations_folder, `${tag}.sql`), "utf8").startsWith("--! breaking") ? [when] : [],
  );
