// PGlite's directory-backed file system, with an fsync.
//
// PGlite flushes nothing to the disk by itself: it starts PostgreSQL with -F, its default wal_sync_method ends in a
// call that does nothing, and its file system has no sync operation. PostgreSQL flushes files and directories alike
// through this one.
import { fsyncSync } from "node:fs";
import type { PGlite } from "@electric-sql/pglite";
import { NodeFS } from "@electric-sql/pglite/nodefs";

type Stream = { nfd: number };
type StreamOperations = {
  read(...parameters: unknown[]): number;
  write(...parameters: unknown[]): number;
  fsync?: (stream: Stream) => number;
};
type FileSystemModule = {
  NODEFS?: { stream_ops: StreamOperations };
  FS: { filesystems: { NODEFS?: { stream_ops: StreamOperations } }; ErrnoError: new (errno: number) => Error };
};
type InitOptions = Parameters<NodeFS["init"]>[1];

/** What the file system reports: each fsync that succeeded, and every read and write, as a sign of life. */
export type FileActivity = { onFsync(): void; onTransfer(): void };

// WASI's number for "I/O error". PostgreSQL answers it with a panic, as it must: after a failed fsync the kernel may
// have dropped the pages, and a second fsync would lie.
const errno_io = 29;

/** Without `is_durable` nothing reaches the disk before the operating system finds the time. */
export class ActiveNodeFS extends NodeFS {
  readonly #is_durable: boolean;
  readonly #activity: FileActivity;

  constructor(directory: string, is_durable: boolean, activity: FileActivity) {
    super(directory);
    this.#is_durable = is_durable;
    this.#activity = activity;
  }

  override async init(pg: PGlite, options: InitOptions) {
    const started = await super.init(pg, options);
    const preRun = started.emscriptenOpts.preRun;
    if (preRun === undefined) throw new Error("PGlite changed: its file system no longer has a start hook.");
    preRun.push((module) => this.#hook(module as unknown as FileSystemModule));
    return started;
  }

  #hook(module: FileSystemModule): void {
    const operations = (module.NODEFS ?? module.FS.filesystems.NODEFS)?.stream_ops;
    if (operations === undefined) throw new Error("PGlite changed: its directory-backed file system was not found.");
    const { read, write } = operations;
    const { onFsync, onTransfer } = this.#activity;
    operations.read = (...parameters) => {
      onTransfer();
      return read(...parameters);
    };
    operations.write = (...parameters) => {
      onTransfer();
      return write(...parameters);
    };
    if (!this.#is_durable) return;
    operations.fsync = (stream) => {
      try {
        fsyncSync(stream.nfd);
      } catch {
        throw new module.FS.ErrnoError(errno_io);
      }
      onFsync();
      return 0;
    };
  }
}
