import { createReadStream, existsSync, mkdirSync, rmSync } from "node:fs";
import path from "node:path";
import { pipeline } from "node:stream/promises";
import { extract } from "tar";
import { controlSocket, held_header, packBackup } from "../db/embedded/control.ts";
import {
  checkLayout,
  cluster_directory,
  holdsCluster,
  holdsDatabase,
  initializing_directory,
  prepareDirectory,
  publishCluster,
  writeFormat,
} from "../db/embedded/layout.ts";
import { takeLock } from "../db/embedded/lock.ts";
import { progressForPeople } from "../terminal/progress.ts";
import { CommandError, type Context, type Runner } from "./context.ts";
import { readOwnSettings } from "./ownSettings.ts";
import { isStandard, openTarget, type Target } from "./target.ts";

// The embedded database as a file, and a file as an embedded database.

const megabytes = (bytes: number) => `${(bytes / 1_048_576).toFixed(1)} MB`;

/** The data directory of the settings; throws where messages are not in an embedded database. */
function dataDirectory(verb: "backup" | "restore"): string {
  const config = readOwnSettings();
  if (config.database_url === "") return path.resolve(config.PSQLQUEUE_DATA_DIR);
  const tool = verb === "backup" ? "pg_dump --schema=psqlqueue --format=custom" : "pg_restore";
  throw new CommandError(
    `PSQLQUEUE_DATABASE_URL is set, so the messages are in a PostgreSQL server; ${verb} is for the embedded database. ` +
      `Use ${tool} there, or the server's own backups`,
  );
}

type Source = { chunks: AsyncIterable<Uint8Array>; held_ms: number | undefined; close(): void };

/** Asks the process that owns the directory; undefined: nobody listens there. */
async function askOwner(data_dir: string, signal: AbortSignal): Promise<Source | undefined> {
  const socket = controlSocket(data_dir);
  if (socket === undefined || !existsSync(socket)) return undefined;
  let answer: Response;
  try {
    answer = await fetch("http://localhost/backup", { unix: socket, method: "POST", signal, timeout: false });
  } catch (error) {
    signal.throwIfAborted();
    // Left over by one that was killed.
    if (/ECONNREFUSED|ConnectionRefused|ENOENT|FailedToOpenSocket/.test(`${(error as { code?: string }).code}`)) return;
    throw error;
  }
  if (!answer.ok || answer.body === null) {
    throw new CommandError(`the server that uses ${data_dir} made no backup: ${await answer.text()}`);
  }
  const held_ms = Number(answer.headers.get(held_header));
  return { chunks: answer.body, held_ms, close() {} };
}

/** Nobody uses the directory: it is read as it is. */
function readDirectory(data_dir: string): Source {
  const lock = takeLock(data_dir);
  return { chunks: packBackup(data_dir), held_ms: undefined, close: lock.release };
}

async function write(source: Source, target: Target, onBytes: (bytes: number) => void): Promise<number> {
  let bytes = 0;
  for await (const chunk of source.chunks) {
    await target.write(chunk);
    bytes += chunk.length;
    onBytes(bytes);
  }
  return bytes;
}

/** `backup` */
export const backup: Runner = {
  async run({ out, signals }: Context, [file = "-"]: string[]) {
    const { stopping } = signals();
    const data_dir = dataDirectory("backup");
    if (!holdsDatabase(data_dir)) {
      throw new CommandError(`${data_dir} holds no database; name its data directory with PSQLQUEUE_DATA_DIR`);
    }
    const target = openTarget(file, { is_packed: false });
    const progress = progressForPeople();
    let source: Source | undefined;
    try {
      progress.show(undefined, "copying the files");
      source = (await askOwner(data_dir, stopping)) ?? readDirectory(data_dir);
      const bytes = await write(source, target, (so_far) => {
        stopping.throwIfAborted();
        progress.show(undefined, `${megabytes(so_far)} written`);
      });
      await target.close();
      progress.end();
      const held = source.held_ms === undefined ? "" : `; statements waited for ${source.held_ms} ms`;
      out.note(`backed up ${data_dir} to ${file}: ${megabytes(bytes)}${held}`);
    } catch (error) {
      progress.end();
      target.discard();
      throw error;
    } finally {
      source?.close();
    }
    return 0;
  },
};

async function unpack(file: string, into: string, signal: AbortSignal): Promise<void> {
  const source = isStandard(file) ? process.stdin : createReadStream(file);
  const isOurs = (name: string) => /^(format\.json$|postgresql(\/|$))/.test(path.posix.normalize(name));
  // Nothing but files and directories of ours, and nothing above `into`.
  const unpacking = extract({
    cwd: into,
    strict: true,
    filter: (name, entry) => isOurs(name) && "type" in entry && ["File", "Directory"].includes(entry.type),
  });
  await pipeline(source, unpacking as unknown as NodeJS.WritableStream, { signal });
}

/** `restore` */
export const restore: Runner = {
  async run({ out, signals }: Context, [file = "-"]: string[]) {
    const { stopping } = signals();
    if (!isStandard(file) && !existsSync(file)) throw new CommandError(`${file} does not exist`, 2);
    const data_dir = prepareDirectory(dataDirectory("restore"));
    checkLayout(data_dir);
    const lock = takeLock(data_dir);
    const into = path.join(data_dir, initializing_directory);
    try {
      if (holdsCluster(data_dir)) {
        throw new CommandError(
          `${data_dir} holds a database, which is not overwritten: move it away (mv ${data_dir} ${data_dir}.old), or name ` +
            "another directory with PSQLQUEUE_DATA_DIR",
        );
      }
      rmSync(into, { recursive: true, force: true });
      mkdirSync(into, { mode: 0o700 });
      await unpack(file, into, stopping).catch((error: Error) => {
        stopping.throwIfAborted();
        throw new CommandError(`${file} is no whole backup, and nothing was restored: ${error.message}`);
      });
      if (!holdsDatabase(into)) {
        throw new CommandError(`${file} is no backup of an embedded database, and nothing was restored`);
      }
      checkLayout(into);
      // First, so that there never is a database whose maker is unknown.
      writeFormat(data_dir);
      publishCluster(data_dir, true, path.join(into, cluster_directory));
      out.note(`restored ${file} to ${data_dir}; start the server with the same settings`);
    } finally {
      rmSync(into, { recursive: true, force: true });
      lock.release();
    }
    return 0;
  },
};
