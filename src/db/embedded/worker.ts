// The thread in which the embedded PostgreSQL lives. Second entry point of the binary.
//
// It does one of two things in its life: build a new database (`create`), or open one and serve it (`open`). Not both:
// the memory that initdb takes is never given back by a wasm instance, so it runs in a Worker that is thrown away.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PGlite, type PGliteOptions } from "@electric-sql/pglite";
import initdb_wasm from "@electric-sql/pglite/initdb.wasm" with { type: "file" };
import { NodeFS } from "@electric-sql/pglite/nodefs";
import postgres_data from "@electric-sql/pglite/pglite.data" with { type: "file" };
import postgres_wasm from "@electric-sql/pglite/pglite.wasm" with { type: "file" };
import { takeBackend } from "./backend.ts";
import { copyRest } from "./backup.ts";
import { initializing_directory, publishCluster } from "./layout.ts";
import { counter_fsyncs, counter_life, type WorkerReply, type WorkerRequest } from "./messages.ts";
import { ActiveNodeFS } from "./nodeFs.ts";
import { serveBackend, tick_ms, type WireServer } from "./server.ts";
import { startParams } from "./startParams.ts";
import { queryMessage } from "./wire.ts";

declare const self: Worker & { onmessage: ((event: MessageEvent<WorkerRequest>) => void) | null };

// Small write-ahead log files: a new one is filled with zeros before its first use, and a commit waits for that.
// No sync by initdb itself: it works in memory, and the finished directory is flushed as a whole.
const initdb_params = ["--wal-segsize=4", "--no-sync"];
const log_lines_max = 12;
const log_line_chars_max = 400;
const log: string[] = [];
let pg: PGlite | null = null;
let server: WireServer | null = null;
let temporary_directory: string | null = null;

const reply = (message: WorkerReply) => self.postMessage(message);

self.onmessage = async ({ data: request }) => {
  try {
    if (request.kind === "create") await create(request);
    else if (request.kind === "open") await open(request);
    else if (request.kind === "copy") copy(request);
    else await close();
  } catch (cause) {
    reply({ kind: "failed", message: describe(cause) });
  }
};

function describe(cause: unknown): string {
  const parts: string[] = [];
  for (let error = cause; error instanceof Error; error = error.cause) parts.push(error.message);
  const lines = parts.length > 0 ? parts : [String(cause)];
  return [...lines, ...log].join("\n  ");
}

function noteLog(line: string): boolean {
  log.push(line.slice(0, log_line_chars_max));
  if (log.length > log_lines_max) log.shift();
  return false;
}

async function start(options: PGliteOptions): Promise<PGlite> {
  const [pgliteWasmModule, initdbWasmModule] = await Promise.all([
    WebAssembly.compile(await Bun.file(postgres_wasm).arrayBuffer()),
    WebAssembly.compile(await Bun.file(initdb_wasm).arrayBuffer()),
  ]);
  const fsBundle = new Blob([await Bun.file(postgres_data).arrayBuffer()]);
  return PGlite.create({ ...options, pgliteWasmModule, initdbWasmModule, fsBundle, onStderr: noteLog });
}

async function create(request: Extract<WorkerRequest, { kind: "create" }>): Promise<void> {
  const directory = join(request.data_dir, initializing_directory);
  rmSync(directory, { recursive: true, force: true });
  const created = await start({ fs: new NodeFS(directory), initDbStartParams: initdb_params });
  // Transaction numbers wrap around once every database is frozen in time, and these two could never be vacuumed from
  // here.
  await created.exec("update pg_database set datistemplate = false where datistemplate");
  await created.exec("drop database template1");
  await created.exec("drop database template0");
  await created.close();
  if (!isShutDown(directory)) throw new Error("the new database was not closed cleanly");
  publishCluster(request.data_dir, request.fsync);
  reply({ kind: "created" });
}

async function open(request: Extract<WorkerRequest, { kind: "open" }>): Promise<void> {
  const counters = new BigInt64Array(request.counters);
  const showLife = () => void Atomics.add(counters, counter_life, 1n);
  const countFsync = () => void Atomics.add(counters, counter_fsyncs, 1n);
  const is_recovered = !isShutDown(request.cluster);
  // PostgreSQL's own lock. The directory is this process's alone already, and a lock that a crash has left empty,
  // between its making and its writing, would refuse every start from then on.
  rmSync(join(request.cluster, "postmaster.pid"), { force: true });
  pg = await start({
    fs: new ActiveNodeFS(request.cluster, request.fsync, { onFsync: countFsync, onTransfer: showLife }),
    startParams: startParams(request.fsync),
  });
  if (request.fsync) await assertDurable(pg, () => Atomics.load(counters, counter_fsyncs));
  const backend = takeBackend(pg);
  // The first answer of a backend repeats the settings that a client has just been told.
  backend.exec(queryMessage("select 1"));
  const serve = (path: string) =>
    serveBackend(backend, {
      path,
      secret: request.secret,
      onRefusal: (refusal) => reply({ kind: "refused", refusal }),
      onFailure: (failure) => reply({ kind: "failed", message: describe(failure) }),
    });
  const socket_path = listen(request.socket_path, serve);
  setInterval(showLife, tick_ms);
  reply({ kind: "up", socket_path, is_recovered });
}

/** Nothing is written meanwhile: this is the thread that writes. */
function copy({ cluster, to, copied }: Extract<WorkerRequest, { kind: "copy" }>): void {
  const started = performance.now();
  const answer = (bytes: number, problem?: string) =>
    reply({ kind: "copied", bytes, ms: performance.now() - started, problem });
  try {
    answer(copyRest(cluster, to, copied));
  } catch (cause) {
    answer(0, (cause as Error).message);
  }
}

/** Listens at `path`, or in a private directory among the temporary files when that is impossible. Returns where. */
function listen(path: string | null, serve: (path: string) => WireServer): string {
  try {
    if (path === null) throw new Error("the path of the data directory is too long for a unix socket");
    server = serve(path);
    return path;
  } catch (cause) {
    try {
      temporary_directory = mkdtempSync(join(tmpdir(), "psqlqueue-"));
      const temporary_path = join(temporary_directory, ".s.PGSQL.5432");
      server = serve(temporary_path);
      return temporary_path;
    } catch (second) {
      throw new Error(`no unix socket could be opened in the data directory (${second}) or for temporary files`, {
        cause,
      });
    }
  }
}

/** Durability rests on internals of PGlite, which an upgrade could change without a word. So every start proves it. */
async function assertDurable(opened: PGlite, fsyncs: () => bigint): Promise<void> {
  for (const name of ["fsync", "full_page_writes", "synchronous_commit"]) {
    const { rows } = await opened.query<{ value: string }>("select current_setting($1) as value", [name]);
    if (rows[0]?.value !== "on") throw new Error(`refusing to start without durability: ${name} is ${rows[0]?.value}`);
  }
  const before = fsyncs();
  await opened.query("select pg_logical_emit_message(true, 'psqlqueue', 'durability check')");
  if (fsyncs() === before) {
    throw new Error(
      "refusing to start without durability: a commit did not reach fsync. This is a defect of the release.",
    );
  }
}

/** Whether PostgreSQL's control file says that the database was closed properly: DBState is 1. */
function isShutDown(cluster: string): boolean {
  return readFileSync(join(cluster, "global", "pg_control")).readUInt32LE(16) === 1;
}

async function close(): Promise<void> {
  server?.close();
  if (temporary_directory !== null) rmSync(temporary_directory, { recursive: true, force: true });
  const cluster = (pg?.fs as unknown as { rootDir: string } | undefined)?.rootDir;
  await pg?.close();
  pg = null;
  reply({ kind: "closed", is_clean: cluster !== undefined && isShutDown(cluster) });
}
