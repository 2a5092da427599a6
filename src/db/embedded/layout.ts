// What lies in a data directory, and which versions of it this release can open.
import {
  accessSync,
  chmodSync,
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  writeSync,
} from "node:fs";
import { join, resolve } from "node:path";

/** The version of PGlite that this release carries. */
export const pglite_version = "0.5.16";
/** The major version of PostgreSQL inside it. Its data files cannot be read by another one. */
const postgresql_major = 18;
/** The layout of the data directory. Raised when an older release could no longer open it. */
const layout_format = 1;

/** The file that tells which release made the directory. */
export const format_file = "format.json";
/** The PostgreSQL data directory proper. Exists only when complete. */
export const cluster_directory = "postgresql";
/** Where a first start builds it. Left over by a killed one; thrown away by the next. */
export const initializing_directory = "initializing";
/** Where a backup is gathered while it is being written. Left over by a killed one; thrown away by the next. */
export const backup_directory = "backup";

/** Where sockets are, closed to other users. */
export const socket_directory = "socket";
/** sun_path is 104 bytes on macOS and 108 on Linux, with the closing NUL. */
export const socket_path_bytes_max = 103;

type Format = { format: number; postgresql_major: number; pglite_version: string };

/** What else lies in a data directory. */
const other_files = ["lock", "owner", socket_directory, "reserve", backup_directory, `${format_file}.new`];
/** What file systems and version control put into a directory that is otherwise empty. */
const foreign_files = ["lost+found", ".snapshot", ".gitignore", ".gitkeep"];
const remedy = "name another with PSQLQUEUE_DATA_DIR, or give a PostgreSQL server with PSQLQUEUE_DATABASE_URL";

/** What the system says about a path, for people. */
function describeFailure(path: string, cause: unknown): string {
  const user = `this user (uid ${process.getuid?.() ?? "?"})`;
  switch ((cause as { code?: string }).code) {
    case "EEXIST":
    case "ENOTDIR":
      return `${path} is a file, or below one, and no directory`;
    case "EACCES":
    case "EPERM":
      return `The data directory ${path} is not readable and writable by ${user}: change its owner or its permissions`;
    case "EROFS":
      return `The data directory ${path} is on a file system that is read-only`;
    case "ENOSPC":
    case "EDQUOT":
      return `The data directory ${path} is on a disk that is full`;
    default:
      return `The data directory ${path} cannot be used: ${(cause as Error).message}`;
  }
}

/**
 * Creates the directory (mode 0700) when it is missing and returns its real path, the same for every way to write it.
 * Throws a sentence when it is none, or this user cannot write in it; changes nothing of one that exists.
 */
export function prepareDirectory(data_dir: string): string {
  const path = resolve(data_dir);
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    const { R_OK, W_OK, X_OK } = constants;
    accessSync(path, R_OK | W_OK | X_OK);
    return realpathSync(path);
  } catch (cause) {
    throw new Error(`${describeFailure(path, cause)}; ${remedy}.`, { cause });
  }
}

/** Whether the directory was made by us, as far as its files tell: with our format file, or with no file but ours. */
function isOurs(data_dir: string): boolean {
  const own = [cluster_directory, initializing_directory, format_file, ...other_files];
  const names = readdirSync(data_dir).filter((name) => !foreign_files.includes(name));
  const has_cluster = existsSync(join(data_dir, cluster_directory, "PG_VERSION"));
  const is_own = names.every((name) => own.includes(name)) && (has_cluster || !names.includes(cluster_directory));
  return is_own || (existsSync(join(data_dir, format_file)) && (has_cluster || hasFormat(data_dir)));
}

function hasFormat(data_dir: string): boolean {
  try {
    return readFormat(data_dir).format > 0;
  } catch {
    return false;
  }
}

/** Whether the directory holds a complete database. */
export function holdsCluster(data_dir: string): boolean {
  return existsSync(join(data_dir, cluster_directory));
}

/** Whether the directory holds a complete database that we made. */
export function holdsDatabase(data_dir: string): boolean {
  return holdsCluster(data_dir) && existsSync(join(data_dir, format_file));
}

/**
 * Reads only. Throws a sentence when the directory belongs to a newer release, to another PostgreSQL major version or
 * to something else. A directory without a database passes.
 */
export function checkLayout(data_dir: string): void {
  if (existsSync(join(data_dir, "PG_VERSION"))) {
    throw new Error(
      `${data_dir} is the data directory of a PostgreSQL server, which the embedded database cannot use. ` +
        `Nothing was changed. Start that server and give its URL, or ${remedy}.`,
    );
  }
  if (!isOurs(data_dir)) {
    throw new Error(
      `${data_dir} is not empty and not a psqlqueue data directory; nothing was changed. Name another with ` +
        "PSQLQUEUE_DATA_DIR: one that is empty, or that does not exist yet.",
    );
  }
  if (!holdsCluster(data_dir)) return;
  const format = readFormat(data_dir);
  if (format.format > layout_format) {
    throw new Error(
      `The data directory ${data_dir} has format ${format.format}, made by a newer release; this one knows format ` +
        `${layout_format} and would damage it. Use the release that made it, or a newer one.`,
    );
  }
  const version_file = join(data_dir, cluster_directory, "PG_VERSION");
  const found = existsSync(version_file) ? readFileSync(version_file, "utf8").trim() : "";
  if (found !== String(postgresql_major)) {
    throw new Error(
      `The data directory ${data_dir} was made by PostgreSQL ${found || "of an unknown version"} ` +
        `(PGlite ${format.pglite_version}); this release carries PostgreSQL ${postgresql_major}, which cannot read its ` +
        "files. Nothing was changed. Use the release that made it, or carry the messages over to a PostgreSQL server " +
        `with it: psqlqueue migrate --from ${data_dir}.`,
    );
  }
}

function readFormat(data_dir: string): Format {
  const path = join(data_dir, format_file);
  try {
    const format = JSON.parse(readFileSync(path, "utf8")) as Format;
    if (!Number.isInteger(format.format)) throw new Error("it has no format number");
    return format;
  } catch (cause) {
    throw new Error(
      `${path} is missing or unreadable, so it is unknown which release made this data directory. ` +
        `Restore the file from a backup of the whole directory, or ${remedy}.`,
      { cause },
    );
  }
}

/** Writes the format file of this release, durably. Replaces an older one at once or not at all. */
export function writeFormat(data_dir: string): void {
  const format: Format = { format: layout_format, postgresql_major, pglite_version };
  const path = join(data_dir, format_file);
  const text = JSON.stringify(format) + "\n";
  if (existsSync(path) && readFileSync(path, "utf8") === text) return;
  const file = openSync(path + ".new", "w", 0o600);
  writeSync(file, text);
  fsyncSync(file);
  closeSync(file);
  renameSync(path + ".new", path);
  flushDirectory(data_dir);
}

/** Makes a whole cluster visible: flushes its files, then renames its directory; by default that of a first start. */
export function publishCluster(
  data_dir: string,
  is_durable: boolean,
  built = join(data_dir, initializing_directory),
): void {
  // The data directory around it may be older than we are, and open to others.
  chmodSync(built, 0o700);
  if (is_durable) flushTree(built);
  renameSync(built, join(data_dir, cluster_directory));
  if (is_durable) flushDirectory(data_dir);
}

function flushTree(directory: string): void {
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) flushTree(path);
    else if (entry.isFile()) flushFile(path);
  }
  flushDirectory(directory);
}

function flushFile(path: string): void {
  const file = openSync(path, "r+");
  fsyncSync(file);
  closeSync(file);
}

function flushDirectory(path: string): void {
  // Windows cannot open a directory, and makes renames durable by itself.
  if (process.platform === "win32") return;
  const file = openSync(path, "r");
  fsyncSync(file);
  closeSync(file);
}
