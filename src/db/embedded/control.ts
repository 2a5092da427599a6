// How another process of this machine asks the one that owns an embedded database for a backup: over a socket beside
// the database's own, in a directory that is closed to other users.
import { existsSync, rmSync } from "node:fs";
import path from "node:path";
import { create } from "tar";
import type { Embedded } from "./embedded.ts";
import { cluster_directory, format_file, socket_directory, socket_path_bytes_max } from "./layout.ts";

const name = "control";

/** The socket of the process that owns a data directory; undefined where its path would be too long for one. */
export function controlSocket(data_dir: string): string | undefined {
  const socket = path.join(data_dir, socket_directory, name);
  return Buffer.byteLength(socket) <= socket_path_bytes_max && process.platform !== "win32" ? socket : undefined;
}

/** A packed copy of a database: its files, and the one that tells which release made it. */
export function packBackup(directory: string): AsyncIterable<Uint8Array> {
  return create({ gzip: true, cwd: directory, portable: true }, [format_file, cluster_directory]);
}

/** The header of a backup that says for how long statements had to wait. */
export const held_header = "x-backup-held-ms";

/** Answers backups until it is stopped. One at a time; does nothing where no socket can be made. */
export function serveBackups(embedded: Embedded, onBackup: (details: Record<string, number>) => void) {
  const socket = controlSocket(embedded.data_dir);
  if (socket === undefined || !existsSync(path.dirname(socket))) return { stop: async () => {} };
  let is_running = false;

  async function* backUp(directory: string): AsyncGenerator<Uint8Array> {
    try {
      yield* packBackup(directory);
    } finally {
      rmSync(directory, { recursive: true, force: true });
      is_running = false;
    }
  }

  async function answer(request: Request, server: Bun.Server<undefined>): Promise<Response> {
    // Nothing is sent while the files are copied.
    server.timeout(request, 0);
    if (is_running) return new Response("another backup is being made", { status: 409 });
    is_running = true;
    const started = performance.now();
    let bytes = 0;
    try {
      const { directory, held_ms } = await embedded.copy((more) => {
        bytes += more;
      });
      onBackup({ bytes, held_ms: Math.round(held_ms), duration_ms: Math.round(performance.now() - started) });
      return new Response(backUp(directory), { headers: { [held_header]: String(Math.round(held_ms)) } });
    } catch (error) {
      is_running = false;
      return new Response((error as Error).message, { status: 500 });
    }
  }

  const server = Bun.serve({
    unix: socket,
    routes: { "/backup": { POST: answer } },
    fetch: () => new Response("not found", { status: 404 }),
  });
  return { stop: () => server.stop(true) };
}
