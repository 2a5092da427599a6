// The embedded database's file system, with everything that changes a file written down in order.

import type { PGlite } from "@electric-sql/pglite";
import { ActiveNodeFS } from "../../src/db/embedded/nodeFs.ts";

/** What was done to a file or a directory, by its path in the database's directory. */
export type FileChange =
  | { op: "create"; path: string; is_directory: boolean }
  | { op: "write"; path: string; at: number; bytes: Uint8Array }
  | { op: "truncate"; path: string; size: number }
  | { op: "rename"; path: string; to: string }
  | { op: "remove"; path: string }
  | { op: "sync"; path: string };

type FileNode = { name: string; mode: number };
type FileStream = { node: FileNode; position: number };
type NodeOperations = {
  mknod(parent: FileNode, name: string, mode: number, dev: number): FileNode;
  setattr(node: FileNode, attributes: { size?: number }): void;
  rename(node: FileNode, directory: FileNode, name: string): void;
  unlink(parent: FileNode, name: string): void;
  rmdir(parent: FileNode, name: string): void;
};
type StreamOperations = {
  open(stream: FileStream): void;
  setattr(stream: FileStream, attributes: { size?: number }): void;
  write(stream: FileStream, buffer: Uint8Array, offset: number, length: number, position: number): number;
  fsync?: (stream: FileStream) => number;
};
type NodeFileSystem = {
  realPath(node: FileNode): string;
  node_ops: NodeOperations;
  stream_ops: StreamOperations;
};
type Module = { NODEFS?: NodeFileSystem; FS: { filesystems: { NODEFS?: NodeFileSystem } } };

const directory_bit = 0o40000;

/** As durable as the one it is made of. `onChange` is called after each change. */
export class RecordedNodeFS extends ActiveNodeFS {
  readonly #root: string;
  readonly #onChange: (change: FileChange) => void;

  constructor(directory: string, onChange: (change: FileChange) => void) {
    super(directory, true, { onFsync() {}, onTransfer() {} });
    this.#root = directory;
    this.#onChange = onChange;
  }

  override async init(pg: PGlite, options: Parameters<ActiveNodeFS["init"]>[1]) {
    const started = await super.init(pg, options);
    started.emscriptenOpts.preRun?.push((module) => this.#record(module as unknown as Module));
    return started;
  }

  #record(module: Module): void {
    const files = module.NODEFS ?? module.FS.filesystems.NODEFS;
    if (files === undefined) throw new Error("PGlite changed: its directory-backed file system was not found.");
    const { node_ops: nodes, stream_ops: streams } = files;
    const inRoot = (real: string) => real.slice(this.#root.length + 1);
    const pathOf = (node: FileNode) => inRoot(files.realPath(node));
    const under = (parent: FileNode, name: string) => inRoot(`${files.realPath(parent)}/${name}`);
    const tell = this.#onChange;
    const { mknod, setattr, rename, unlink, rmdir } = nodes;
    nodes.mknod = (parent, name, mode, dev) => {
      const node = mknod(parent, name, mode, dev);
      tell({ op: "create", path: under(parent, name), is_directory: (mode & 0o170000) === directory_bit });
      return node;
    };
    nodes.setattr = (node, attributes) => {
      setattr(node, attributes);
      if (attributes.size != null) tell({ op: "truncate", path: pathOf(node), size: attributes.size });
    };
    nodes.rename = (node, directory, name) => {
      const path = pathOf(node);
      rename(node, directory, name);
      tell({ op: "rename", path, to: under(directory, name) });
    };
    nodes.unlink = (parent, name) => {
      unlink(parent, name);
      tell({ op: "remove", path: under(parent, name) });
    };
    nodes.rmdir = (parent, name) => {
      rmdir(parent, name);
      tell({ op: "remove", path: under(parent, name) });
    };
    this.#recordStreams(streams, pathOf);
  }

  #recordStreams(streams: StreamOperations, pathOf: (node: FileNode) => string): void {
    const tell = this.#onChange;
    const { open, setattr, write } = streams;
    streams.setattr = (stream, attributes) => {
      setattr(stream, attributes);
      if (attributes.size != null) tell({ op: "truncate", path: pathOf(stream.node), size: attributes.size });
    };
    streams.write = (stream, buffer, offset, length, position) => {
      const written = write(stream, buffer, offset, length, position);
      const bytes = buffer.slice(offset, offset + written);
      tell({ op: "write", path: pathOf(stream.node), at: position, bytes });
      return written;
    };
    let is_synced = false;
    streams.open = (stream) => {
      // Now, and not before: ours is put in by the other hook, whichever comes first.
      const { fsync } = streams;
      if (!is_synced && fsync !== undefined) {
        is_synced = true;
        streams.fsync = (own) => {
          const result = fsync(own);
          tell({ op: "sync", path: pathOf(own.node) });
          return result;
        };
      }
      open(stream);
    };
  }
}
