import path from "node:path";
import type { Job } from "../background/loop.ts";
import { type Config, ConfigError } from "../config.ts";
import { type Connection, readConnection } from "../connection/connection.ts";
import { checkFiles } from "../db/credentials.ts";
import type { DatabaseOptions, Db } from "../db/db.ts";
import { serveBackups } from "../db/embedded/control.ts";
import { type Embedded, openEmbedded } from "../db/embedded/embedded.ts";
import { createReserve, giveReserveWhereFull } from "../db/embedded/reserve.ts";
import { embeddedUpkeep } from "../db/embedded/upkeep.ts";
import { observe } from "../observe.ts";

/** How often the reserve is looked at that was given to a full disk. */
const reserve_every_ms = 60_000;

/** The PostgreSQL of this process: somebody's server, or the one we carry. */
export type Store = {
  server: DatabaseOptions["server"];
  is_embedded: boolean;
  /** The embedded database has one backend, which takes statements one after the other. */
  connections_max: number;
  /** Resolves with the reason when the embedded database died; nothing can be served then. Never rejects. */
  failed: Promise<Error>;
  /** Background work that a server does by itself and the embedded database does not. */
  jobs(db: Db): Job[];
  /** The disk is full: gives the database what was kept for that. Repeatable. */
  makeRoom(): void;
  /** Repeatable. */
  close(): Promise<void>;
};

/** A new database where somebody expected another is a setting that was not read: says what was. */
function noteOpened(config: Config, { data_dir, is_new }: Embedded): void {
  const remedy = "one process at a time; set PSQLQUEUE_DATABASE_URL to use a PostgreSQL server instead";
  if (!is_new) {
    const details = { data_dir, is_new, note: remedy };
    observe({ kind: "notice", level: "INFO", message: "embedded database", details });
    return;
  }
  const { dotenv_file = "none found", unknown_names } = config.origin;
  observe({
    kind: "notice",
    level: "WARN",
    message: "a new embedded database was made, because PSQLQUEUE_DATABASE_URL is not set",
    details: {
      data_dir,
      is_new,
      dotenv_file,
      ...(unknown_names.length > 0 && { unknown_settings: unknown_names }),
      note: remedy,
    },
  });
}

/** What other programs read to find a database. */
const foreign_variables = ["DATABASE_URL", "PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE", "PGSERVICE"];

function warnOfForeignVariables(): void {
  const found = foreign_variables.filter((name) => process.env[name]);
  if (found.length === 0) return;
  observe({
    kind: "notice",
    level: "WARN",
    message: "variables of other programs do not count: the embedded database is used",
    details: { variables: found, remedy: "set PSQLQUEUE_DATABASE_URL to use a PostgreSQL server" },
  });
}

/** The server of the settings, called by the name of its setting. Throws ConfigError for a file that it names. */
export function readServer(config: Config): Connection {
  const connection = readConnection(config.database_url);
  const from = config.PSQLQUEUE_DATABASE_URL_FILE === "" ? "PSQLQUEUE_DATABASE_URL" : "PSQLQUEUE_DATABASE_URL_FILE";
  const name = config.PSQLQUEUE_TESTING ? "PSQLQUEUE_TEST_DATABASE_URL" : from;
  const shown = `${name}=${JSON.stringify(connection.shown)}`;
  try {
    checkFiles(connection);
  } catch (error) {
    throw new ConfigError(`${shown} cannot be used: ${(error as Error).message}`);
  }
  return { ...connection, shown };
}

/**
 * Opens the database of the settings. The embedded one is created at its first start; throws a sentence when its
 * directory is in use, or was made by a version that this program cannot read. A server is not contacted yet; throws
 * ConfigError for a file of its connection string that cannot be used.
 */
export async function openStore(config: Config): Promise<Store> {
  if (config.database_url !== "") {
    return {
      server: readServer(config),
      is_embedded: false,
      connections_max: config.PSQLQUEUE_DATABASE_MAX_CONNS,
      failed: new Promise(() => {}),
      jobs: () => [],
      makeRoom: () => {},
      close: async () => {},
    };
  }
  // Not where an embedded database is only carried over to a server.
  if (config.PSQLQUEUE_DATABASE_URL === "" && !config.PSQLQUEUE_TESTING) warnOfForeignVariables();
  const data_dir = path.resolve(config.PSQLQUEUE_DATA_DIR);
  const reserve = createReserve(data_dir);
  const has_fsync = config.PSQLQUEUE_EMBEDDED_FSYNC === "on";
  giveReserveWhereFull(data_dir);
  const embedded = await openEmbedded({
    data_dir,
    fsync: has_fsync,
    observe: ({ name, ...details }) =>
      observe({ kind: "notice", level: "DEBUG", message: name.replaceAll("_", " "), details }),
  });
  noteOpened(config, embedded);
  const backups = serveBackups(embedded, (details) =>
    observe({ kind: "notice", level: "INFO", message: "backup of the embedded database", details }),
  );
  if (!has_fsync) {
    observe({
      kind: "notice",
      level: "WARN",
      message: "PSQLQUEUE_EMBEDDED_FSYNC=off: answers are sent before data is on disk",
      details: {
        cost: "what was answered in the last seconds before a power cut or a crash of the system can be lost",
      },
    });
  }
  return {
    server: embedded.connection,
    is_embedded: true,
    connections_max: 1,
    failed: embedded.failed,
    jobs: (db) => {
      const upkeep = embeddedUpkeep(db.client, {
        observe: ({ name, ...details }) => observe({ kind: "job", job: name, details }),
      });
      const keepReserve: Job = {
        name: "reserve",
        is_shared: false,
        async run() {
          reserve.keep();
          return reserve_every_ms;
        },
      };
      return [{ name: "embedded upkeep", is_shared: false, run: upkeep.run }, keepReserve];
    },
    makeRoom: () => {
      if (!reserve.give()) return;
      const details = { effect: "what was kept free is given to acks and purges, which make room", data_dir };
      observe({ kind: "notice", level: "WARN", message: "the disk of the embedded database is full", details });
    },
    async close() {
      await backups.stop();
      await embedded.close();
    },
  };
}
