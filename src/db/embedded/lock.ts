// One process per data directory. PGlite does not check, and two of them silently destroy each other's pages.
//
// The lock is SQLite's own lock on an empty file, because that is the one advisory file lock Bun brings along on every
// platform without loading a library: the kernel frees it when the process dies however it dies, so there is no stale
// lock and no guessing about recycled pids; it belongs to the file, so symbolic links, bind mounts and two containers
// that share a volume (same host, different process and network namespaces) all meet it.
import { Database } from "bun:sqlite";
import { chmodSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";

/**
 * The lock file inside the data directory. Never open it by other means: closing any handle on it would free the lock.
 */
const lock_file = "lock";
/** Who holds the lock, for the sentence that a second process prints. Says nothing about whether the lock is held. */
const owner_file = "owner";

// Keeps them from the garbage collector, which would close them, and that would free the lock.
const held = new Set<Database>();

/** A held lock. `release` may be called twice. */
export type DirectoryLock = { release(): void };

/**
 * Takes the lock of an existing data directory, at once or not at all. Throws with a sentence that names the directory
 * and the owner when another process, or another caller in this process, holds it.
 */
export function takeLock(data_dir: string): DirectoryLock {
  const path = join(data_dir, lock_file);
  const database = openLockFile(path, data_dir);
  try {
    database.run("pragma busy_timeout = 0");
    // Nothing is ever written, so no journal file needs to lie about.
    database.run("pragma journal_mode = memory");
    database.run("begin exclusive");
  } catch (cause) {
    database.close();
    if ((cause as { code?: string }).code === "SQLITE_BUSY") throw new Error(occupied(data_dir), { cause });
    throw new Error(`The data directory ${data_dir} cannot be locked: ${path} is not lockable on this file system.`, {
      cause,
    });
  }
  const owner = join(data_dir, owner_file);
  writeFileSync(owner, JSON.stringify({ pid: process.pid, host: hostname() }) + "\n", { mode: 0o600 });
  held.add(database);
  return {
    release() {
      if (!held.delete(database)) return;
      rmSync(owner, { force: true });
      database.close();
    },
  };
}

function openLockFile(path: string, data_dir: string): Database {
  try {
    const database = new Database(path, { create: true, readwrite: true });
    chmodSync(path, 0o600);
    return database;
  } catch (cause) {
    // The directory itself is writable: that was looked at before.
    throw new Error(
      `The data directory ${data_dir} cannot be locked: ${path} cannot be written by this user (uid ` +
        `${process.getuid?.() ?? "?"}); change its owner, or make room if the disk is full.`,
      { cause },
    );
  }
}

function occupied(data_dir: string): string {
  return (
    `The data directory ${data_dir} is in use by ${describeOwner(data_dir)}. ` +
    "One process at a time may own it: stop the other one, or give this one its own directory, " +
    "or point both to a PostgreSQL server."
  );
}

function describeOwner(data_dir: string): string {
  try {
    const owner: unknown = JSON.parse(readFileSync(join(data_dir, owner_file), "utf8"));
    const { pid, host } = owner as { pid: number; host: string };
    return host === hostname() ? `process ${pid}` : `process ${pid} on host ${host}`;
  } catch {
    // Between taking the lock and writing the file there is a moment without a name. The refusal stands all the same.
    return "another process";
  }
}
