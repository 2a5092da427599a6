// What a disk holds after a crash, from what was done to its files before it. A file is what it was at the start and
// the changes since; what was not flushed may be there, or not, or in part.

import { closeSync, cpSync, ftruncateSync, mkdirSync, openSync, rmSync, writeSync } from "node:fs";
import path from "node:path";
import type { Random } from "./random.ts";
import type { FileChange } from "./recordedFs.ts";

/**
 * written: all that was done before the crash, as after kill -9. flushed: only what an fsync of the file has confirmed,
 * and of other names than the file's what one of their directory has. torn: that, and of the rest a part in no order,
 * the last of it cut in a sector.
 */
export const survivals = ["written", "flushed", "torn"] as const;
export type Survival = (typeof survivals)[number];

const sector_bytes = 512;

type Content = Extract<FileChange, { op: "write" | "truncate" }>;
/** A file, whatever its name is now. `base`: its path at the start; null: it was made since. */
type Inode = { base: string | null; changes: Content[]; synced: number; is_directory: boolean };
type Names = Map<string, Inode>;

/** Follows changes from a directory that was flushed. */
export class Disk {
  readonly #base: string;
  readonly #start: Names;
  /** As the running system sees it, and as an fsync has confirmed it. */
  #names: Names;
  #synced: Names;

  /** `paths` are what is in `base`: relative, directories with a slash at their end. */
  constructor(base: string, paths: string[]) {
    this.#base = base;
    const inodes = paths.map((given): [string, Inode] => {
      const is_directory = given.endsWith("/");
      const name = is_directory ? given.slice(0, -1) : given;
      return [name, { base: name, changes: [], synced: 0, is_directory }];
    });
    this.#start = new Map(inodes);
    this.#names = new Map(inodes);
    this.#synced = new Map(inodes);
  }

  apply(change: FileChange): void {
    const inode = this.#names.get(change.path);
    if (change.op === "create") {
      const { is_directory } = change;
      this.#names.set(change.path, { base: null, changes: [], synced: 0, is_directory });
    } else if (change.op === "remove") this.#names.delete(change.path);
    else if (change.op === "rename") {
      if (inode === undefined) return;
      this.#names.delete(change.path);
      this.#names.set(change.to, inode);
    } else if (change.op === "sync") this.#sync(change.path, inode);
    // A file without a name is gone after a crash, whatever is written to it.
    else inode?.changes.push(change);
  }

  #sync(name: string, inode: Inode | undefined): void {
    if (name !== "" && inode?.is_directory === false) {
      inode.synced = inode.changes.length;
      // As journaling file systems do it: what was flushed can be found.
      for (const [one, own] of this.#synced) if (own === inode) this.#synced.delete(one);
      this.#synced.set(name, inode);
      return;
    }
    // Of a directory: the names in it, those that have gone too.
    const isIn = (one: string) => path.dirname(one) === (name === "" ? "." : name);
    for (const one of this.#synced.keys()) if (isIn(one) && !this.#names.has(one)) this.#synced.delete(one);
    for (const [one, own] of this.#names) if (isIn(one)) this.#synced.set(one, own);
  }

  /** Which changes of a file survive, in order. */
  #contentOf(inode: Inode, survival: Survival, random: Random): Content[] {
    if (survival === "written") return inode.changes;
    const safe = inode.changes.slice(0, inode.synced);
    if (survival === "flushed") return safe;
    const rest = inode.changes.slice(inode.synced).filter(() => random.chance(0.5));
    const last = rest.at(-1);
    if (last?.op === "write") {
      const sectors = Math.ceil(last.bytes.length / sector_bytes);
      rest[rest.length - 1] = { ...last, bytes: last.bytes.slice(0, random.below(sectors + 1) * sector_bytes) };
    }
    return [...safe, ...rest];
  }

  /** Writes to `target`, which must not exist, what is there after a crash now. */
  restore(target: string, survival: Survival, random: Random): void {
    cpSync(this.#base, target, { recursive: true });
    const names = survival === "written" ? this.#names : this.#synced;
    const isKept = (name: string, inode: Inode) => inode.base === name && names.get(name) === inode;
    const gone: string[] = [];
    for (const [name, inode] of this.#start) if (!isKept(name, inode)) gone.push(name);
    for (const name of gone) rmSync(path.join(target, name), { recursive: true, force: true });
    // Shorter ones first: a directory before what is in it.
    for (const [name, inode] of [...names].sort(([a], [b]) => a.length - b.length)) {
      const place = path.join(target, name);
      if (inode.is_directory) {
        mkdirSync(place, { recursive: true });
        continue;
      }
      const moved = inode.base !== null && inode.base !== name ? path.join(this.#base, inode.base) : undefined;
      if (moved !== undefined) cpSync(moved, place);
      const changes = this.#contentOf(inode, survival, random);
      if (changes.length > 0 || inode.base === null) applyAll(place, changes);
    }
  }
}

function applyAll(place: string, changes: Content[]): void {
  const handle = openSync(place, "a");
  closeSync(handle);
  const file = openSync(place, "r+");
  for (const change of changes) {
    if (change.op === "truncate") ftruncateSync(file, change.size);
    else if (change.bytes.length > 0) writeSync(file, change.bytes, 0, change.bytes.length, change.at);
  }
  closeSync(file);
}
