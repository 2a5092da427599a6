// The PostgreSQL that psqlqueue carries inside itself: PGlite in a Worker, reached like any other server over a socket.
import { randomBytes } from "node:crypto";
import { closeSync, copyFileSync, mkdirSync, openSync, readdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { copyRoughly } from "./backup.ts";
import {
  backup_directory,
  checkLayout,
  cluster_directory,
  format_file,
  holdsCluster,
  prepareDirectory,
  socket_directory,
  socket_path_bytes_max,
  writeFormat,
} from "./layout.ts";
import { type DirectoryLock, takeLock } from "./lock.ts";
import { counter_fsyncs, counter_life, counters_count, type WorkerReply, type WorkerRequest } from "./messages.ts";

/** A first start may take this long, on a slow disk. */
const create_ms_max = 120_000;
/** Opening may take this long; after a crash it replays the write-ahead log. */
const open_ms_max = 120_000;
/** What changed while the rest was copied is copied within this time. */
const copy_ms_max = 120_000;
/** Closing may take this long; it writes a checkpoint. */
const close_ms_max = 30_000;
/**
 * Without a sign of life for this long the Worker counts as hanging. A long statement that reads or writes gives signs.
 */
const silence_ms_max_default = 60_000;

/** Something worth a log line or a metric. */
export type EmbeddedEvent =
  | { name: "embedded_created"; data_dir: string; duration_ms: number }
  | { name: "embedded_opened"; data_dir: string; duration_ms: number; is_recovered: boolean }
  | { name: "embedded_connection_refused"; reason: string }
  | { name: "embedded_failed"; message: string }
  | { name: "embedded_closed"; data_dir: string; duration_ms: number };

export type EmbeddedOptions = {
  /** Created when missing. One process at a time. */
  data_dir: string;
  /** `false` gives up durability: an answered commit can be lost with the machine's power. */
  fsync: boolean;
  observe?: (event: EmbeddedEvent) => void;
  /** Milliseconds; see `silence_ms_max_default`. */
  silence_ms_max?: number;
};

export type Embedded = {
  /** What postgres.js needs, with `max: 1`: a second connection at the same time is refused with 53300. */
  connection: { host: string; path: string; user: string; password: string; database: string };
  /** The real path of the data directory. */
  data_dir: string;
  /** Whether this start created the database. */
  is_new: boolean;
  /**
   * Resolves with the reason when the database died or hangs; the process should exit then. Never rejects; stays
   * pending for ever when all goes well.
   */
  failed: Promise<Error>;
  /** How many times data was really flushed to the disk since the start. 0 for ever with `fsync: false`. */
  fsyncs(): Promise<number>;
  /**
   * Copies the database as it is at one moment into a directory below `data_dir`, which is removed first, and answers
   * for how long statements had to wait. `onBytes`: what has been copied. One at a time; throws what went wrong.
   */
  copy(onBytes: (bytes: number) => void): Promise<{ directory: string; held_ms: number }>;
  /** Ends connections, writes a checkpoint, frees the directory. May be called twice and at any time. Throws when the
   * checkpoint failed; nothing is lost then, the next start replays the log. */
  close(): Promise<void>;
};

const watch_ms = 1_000;
const socket_name = ".s.PGSQL.5432";

/**
 * Opens the database in `data_dir`, creating it on the first start (a few seconds). Throws with a sentence when the
 * directory is in use, made by an incompatible version, not writable, or cannot be made durable; it is free again then.
 */
export async function openEmbedded(options: EmbeddedOptions): Promise<Embedded> {
  const observe = options.observe ?? (() => {});
  const data_dir = prepareDirectory(options.data_dir);
  // Before the lock, so that a directory that is not ours stays untouched, and after it, because it may have changed.
  checkLayout(data_dir);
  const lock = takeLock(data_dir);
  try {
    checkLayout(data_dir);
    const is_new = !holdsCluster(data_dir);
    if (is_new) await createCluster(data_dir, options.fsync, observe);
    writeFormat(data_dir);
    return await openCluster(data_dir, is_new, lock, options, observe);
  } catch (cause) {
    lock.release();
    throw cause;
  }
}

async function createCluster(data_dir: string, fsync: boolean, observe: (event: EmbeddedEvent) => void): Promise<void> {
  const started = performance.now();
  // First, so that there never is a database whose maker is unknown.
  writeFormat(data_dir);
  const worker = startWorker();
  try {
    send(worker, { kind: "create", data_dir, fsync });
    await answer(worker, "created", create_ms_max, `The database could not be created in ${data_dir}`);
  } finally {
    worker.terminate();
  }
  observe({ name: "embedded_created", data_dir, duration_ms: performance.now() - started });
}

async function openCluster(
  data_dir: string,
  is_new: boolean,
  lock: DirectoryLock,
  options: EmbeddedOptions,
  observe: (event: EmbeddedEvent) => void,
): Promise<Embedded> {
  const started = performance.now();
  const password = randomBytes(32).toString("base64url");
  const counters = new SharedArrayBuffer(counters_count * BigInt64Array.BYTES_PER_ELEMENT);
  const shared = new BigInt64Array(counters);
  const place = socketPlace(data_dir);
  const worker = startWorker();
  const cleanUp = () => {
    worker.terminate();
    place.remove();
    lock.release();
  };
  let up: Extract<WorkerReply, { kind: "up" }>;
  try {
    const cluster = join(data_dir, cluster_directory);
    send(worker, {
      kind: "open",
      cluster,
      fsync: options.fsync,
      socket_path: place.socket_path,
      secret: password,
      counters,
    });
    up = await answer(worker, "up", open_ms_max, `The database in ${data_dir} could not be opened`);
  } catch (cause) {
    cleanUp();
    throw cause;
  }
  const watch = watchWorker(worker, shared, options.silence_ms_max ?? silence_ms_max_default, observe);
  observe({
    name: "embedded_opened",
    data_dir,
    duration_ms: performance.now() - started,
    is_recovered: up.is_recovered,
  });

  async function closeOnce(): Promise<void> {
    const closing = performance.now();
    watch.stop();
    try {
      if (watch.failure() !== null) return;
      send(worker, { kind: "close" });
      const sentence = `The database in ${data_dir} could not be closed`;
      const closed = await answer(worker, "closed", close_ms_max, sentence);
      if (!closed.is_clean) throw new Error(`${sentence}: its last checkpoint failed; the next start replays the log.`);
    } finally {
      cleanUp();
    }
    observe({ name: "embedded_closed", data_dir, duration_ms: performance.now() - closing });
  }

  async function copy(onBytes: (bytes: number) => void): Promise<{ directory: string; held_ms: number }> {
    const directory = join(data_dir, backup_directory);
    const cluster = join(data_dir, cluster_directory);
    rmSync(directory, { recursive: true, force: true });
    const to = join(directory, cluster_directory);
    const copied = await copyRoughly(cluster, to, onBytes);
    send(worker, { kind: "copy", cluster, to, copied });
    const done = await answer(worker, "copied", copy_ms_max, "The database could not be copied");
    if (done.problem !== undefined) throw new Error(`The database could not be copied: ${done.problem}`);
    onBytes(done.bytes);
    copyFileSync(join(data_dir, format_file), join(directory, format_file));
    return { directory, held_ms: done.ms };
  }

  let closed: Promise<void> | null = null;
  return {
    connection: {
      host: dirname(up.socket_path),
      path: up.socket_path,
      user: "postgres",
      password,
      database: "postgres",
    },
    data_dir,
    is_new,
    failed: watch.failed,
    copy,
    fsyncs: async () => Number(Atomics.load(shared, counter_fsyncs)),
    close() {
      closed ??= closeOnce();
      return closed;
    },
  };
}

/** Reports the death and the silence of an opened Worker. */
function watchWorker(
  worker: Worker,
  shared: BigInt64Array,
  silence_ms_max: number,
  observe: (event: EmbeddedEvent) => void,
) {
  const { promise: failed, resolve } = Promise.withResolvers<Error>();
  let failure: Error | null = null;
  let is_stopped = false;
  const fail = (message: string) => {
    if (failure !== null || is_stopped) return;
    clearInterval(timer);
    failure = new Error(message);
    observe({ name: "embedded_failed", message });
    resolve(failure);
  };
  let life = -1n;
  let silent_ms = 0;
  // Counts its own turns instead of reading a clock: a suspended machine must not look like a hanging Worker.
  const timer = setInterval(() => {
    const now = Atomics.load(shared, counter_life);
    silent_ms = now === life ? silent_ms + watch_ms : 0;
    life = now;
    if (silent_ms >= silence_ms_max) fail(`The embedded database has been silent for ${silent_ms} ms.`);
  }, watch_ms);
  timer.unref();
  worker.addEventListener("message", ({ data }: MessageEvent<WorkerReply>) => {
    if (data.kind === "refused") observe({ name: "embedded_connection_refused", reason: data.refusal });
    if (data.kind === "failed") fail(`The embedded database failed: ${data.message}`);
  });
  worker.addEventListener("error", (event) => fail(`The embedded database failed: ${event.message}`));
  worker.addEventListener("close", () => fail("The embedded database's thread ended."));
  return {
    failed,
    failure: () => failure,
    stop() {
      is_stopped = true;
      clearInterval(timer);
    },
  };
}

function startWorker(): Worker {
  if (!Bun.isStandaloneExecutable) return new Worker(new URL("./worker.ts", import.meta.url).href);
  // In the binary our code is one file at the root of the embedded file system. The Worker is another, under its path
  // below the folder that the entry points of the build have in common.
  const files = readdirSync(import.meta.dir, { recursive: true }).map(String);
  const path = files.find((file) => /(^|[\\/])embedded[\\/]worker\.js$/.test(file));
  if (path === undefined) throw new Error("This binary was built without src/db/embedded/worker.ts as an entry point.");
  return new Worker(pathToFileURL(join(import.meta.dir, path)).href);
}

function send(worker: Worker, request: WorkerRequest): void {
  worker.postMessage(request);
}

/** Waits for one kind of reply. Throws with `sentence` and the reason when the Worker fails, dies or takes too long. */
function answer<Kind extends WorkerReply["kind"]>(
  worker: Worker,
  kind: Kind,
  ms_max: number,
  sentence: string,
): Promise<Extract<WorkerReply, { kind: Kind }>> {
  return new Promise((resolve, reject) => {
    const listening = new AbortController();
    const { signal } = listening;
    const finish = (settle: () => void) => {
      clearTimeout(timer);
      listening.abort();
      settle();
    };
    const fail = (reason: string) => finish(() => reject(new Error(`${sentence}: ${reason}`)));
    const timer = setTimeout(() => fail(`no answer within ${ms_max} ms.`), ms_max);
    worker.addEventListener(
      "message",
      ({ data }: MessageEvent<WorkerReply>) => {
        if (data.kind === kind) finish(() => resolve(data as Extract<WorkerReply, { kind: Kind }>));
        if (data.kind === "failed") fail(data.message);
      },
      { signal },
    );
    worker.addEventListener("error", (event) => fail(event.message), { signal });
    worker.addEventListener("close", () => fail("its thread ended."), { signal });
  });
}

/**
 * Makes the private directory of the socket, and a path to it that is short enough for one. Without such a path, or on
 * a file system that holds no sockets (shared folders of virtual machines), the Worker finds a place among the
 * temporary files.
 */
function socketPlace(data_dir: string): { socket_path: string | null; remove(): void } {
  if (process.platform === "win32") {
    return { socket_path: `\\\\.\\pipe\\psqlqueue-${randomBytes(12).toString("hex")}`, remove() {} };
  }
  let socket_path: string | null = null;
  let handle: number | null = null;
  const directory = join(data_dir, socket_directory);
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { mode: 0o700 });
  if (Buffer.byteLength(join(directory, socket_name)) <= socket_path_bytes_max) {
    socket_path = join(directory, socket_name);
  } else if (process.platform === "linux") {
    // The same directory under a short name, valid in this process only, which is where the client lives as well.
    handle = openSync(directory, "r");
    socket_path = join(`/proc/self/fd/${handle}`, socket_name);
  }
  let is_removed = false;
  return {
    socket_path,
    remove() {
      if (is_removed) return;
      is_removed = true;
      if (handle !== null) closeSync(handle);
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
