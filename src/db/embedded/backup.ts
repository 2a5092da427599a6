// A copy of the embedded database as it is at one moment, while it serves.
//
// PostgreSQL writes its files from one thread here. What that thread has written when it is held is what it would find
// after a crash of the process at that moment, which it recovers from: so a copy of all files, made while it is held,
// is a backup. To hold it for a short time only, the files are copied before, and then those that have changed since.
import { constants, copyFileSync, existsSync, mkdirSync, readdirSync, rmSync, type Stats, statSync } from "node:fs";
import { copyFile, mkdir, readdir, stat } from "node:fs/promises";
import path from "node:path";

/** Files that were copied, by their paths below the cluster: when each had last been written, and its bytes. */
export type Copied = Map<string, { mtime_ms: number; size: number; at_ms: number }>;

/** A file system may tell times as coarsely as this: what was written so shortly before its copy is copied again. */
const mtime_ms_min = 2000;

const isGone = (error: unknown) => (error as { code?: string }).code === "ENOENT";

/** Copies all files of a cluster that is being written to, none of them surely whole. Throws what the system says. */
export async function copyRoughly(from: string, to: string, onBytes: (bytes: number) => void): Promise<Copied> {
  const copied: Copied = new Map();
  async function walk(below: string): Promise<void> {
    await mkdir(path.join(to, below), { recursive: true, mode: 0o700 });
    for (const entry of await readdir(path.join(from, below), { withFileTypes: true })) {
      const name = path.join(below, entry.name);
      if (entry.isDirectory()) await walk(name);
      else if (entry.isFile()) await copyOne(name);
    }
  }
  async function copyOne(name: string): Promise<void> {
    try {
      const at_ms = Date.now();
      const { mtimeMs, size } = await stat(path.join(from, name));
      await copyFile(path.join(from, name), path.join(to, name), constants.COPYFILE_FICLONE);
      copied.set(name, { mtime_ms: mtimeMs, size, at_ms });
      onBytes(size);
    } catch (error) {
      // PostgreSQL has removed it meanwhile.
      if (!isGone(error)) throw error;
    }
  }
  await walk("");
  return copied;
}

/**
 * Makes a rough copy the same as the cluster, which nobody may write to meanwhile: called in the thread that does.
 * Answers how many bytes it copied.
 */
export function copyRest(from: string, to: string, copied: Copied): number {
  let bytes = 0;
  const isSame = (name: string, { mtimeMs, size }: Stats) => {
    const known = copied.get(name);
    return known?.mtime_ms === mtimeMs && known.size === size && mtimeMs < known.at_ms - mtime_ms_min;
  };
  function walk(below: string): void {
    const directory = path.join(to, below);
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    const entries = readdirSync(path.join(from, below), { withFileTypes: true });
    const names = new Set(entries.map(({ name }) => name));
    for (const name of readdirSync(directory)) {
      if (!names.has(name)) rmSync(path.join(directory, name), { recursive: true, force: true });
    }
    for (const entry of entries) {
      const name = path.join(below, entry.name);
      if (entry.isDirectory()) walk(name);
      if (!entry.isFile()) continue;
      const source = path.join(from, name);
      const found = statSync(source);
      if (isSame(name, found) && existsSync(path.join(to, name))) continue;
      copyFileSync(source, path.join(to, name), constants.COPYFILE_FICLONE);
      bytes += found.size;
    }
  }
  walk("");
  return bytes;
}
