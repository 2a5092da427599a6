// What is measured: a server that somebody runs, or one of ours with a private PostgreSQL or the embedded database.

import path from "node:path";
import postgres, { type Sql } from "postgres";
import { startCluster } from "../test/postgres.ts";
import { atEnd, endAtEnd, temporaryDirectory, waitForText } from "./children.ts";
import { familyCpu, machineCpu, postmasterOf } from "./cpu.ts";

/** A server under test, and what is known of what it runs on. */
export type Subject = {
  url: string;
  /** For the heading. */
  description: string;
  /** Undefined: its CPU is not known. */
  server_pid: number | undefined;
  postmaster_pid: number | undefined;
  /** The server's database, when there is a way to it and it has our schema. */
  sql: Sql | undefined;
  database_url: string | undefined;
  /** Server and database were started here, for this run. */
  is_own: boolean;
};

/** Which server. */
export type SubjectOptions = {
  url: string | undefined;
  database_url: string | undefined;
  server_pid: number | undefined;
  binary: string | undefined;
  /** The checkout whose source runs, where there is no binary. */
  checkout?: string;
  is_embedded: boolean;
  /** Of a server of our own. */
  workers: number;
};

const root = path.resolve(import.meta.dir, "..");
const start_ms_max = 30_000;

/** Seconds of CPU since the processes began; undefined where they are not known. */
export type CpuReading = { server: number | undefined; postgres: number | undefined; machine: number };

/** Reads what server and PostgreSQL have used so far. */
export function readCpu(subject: Subject): CpuReading {
  return {
    server: subject.server_pid === undefined ? undefined : familyCpu(subject.server_pid),
    postgres: subject.postmaster_pid === undefined ? undefined : familyCpu(subject.postmaster_pid),
    machine: machineCpu(),
  };
}

function openSql(database_url: string): Sql {
  const sql = postgres(database_url, {
    max: 2,
    onnotice: () => {},
    connection: { application_name: "psqlqueue-bench" },
  });
  atEnd(() => sql.end({ timeout: 1 }));
  return sql;
}

async function findPostmaster(sql: Sql): Promise<number | undefined> {
  const [row] = await sql<{ pid: number }[]>`select pg_backend_pid() as pid`;
  return row && postmasterOf(row.pid);
}

async function attach(url: string, options: SubjectOptions): Promise<Subject> {
  const { database_url, server_pid } = options;
  const base = { url, description: `the server at ${url}`, server_pid, is_own: false };
  if (database_url === undefined) return { ...base, postmaster_pid: undefined, sql: undefined, database_url };
  const sql = openSql(database_url);
  const postmaster_pid = await findPostmaster(sql);
  const [row] = await sql<{ is_ours: boolean }[]>`select to_regclass('psqlqueue.messages') is not null as is_ours`;
  return row?.is_ours
    ? { ...base, postmaster_pid, sql, database_url }
    : { ...base, postmaster_pid, sql: undefined, database_url: undefined };
}

function programOf({ binary, checkout = root }: SubjectOptions): string[] {
  return binary === undefined ? [process.execPath, path.resolve(checkout, "src/main.ts")] : [path.resolve(binary)];
}

async function startServer(asked: SubjectOptions, settings: Record<string, string>) {
  const directory = temporaryDirectory();
  const program = programOf(asked);
  const options = {
    // Nobody's .env is above it.
    cwd: directory,
    env: {
      PATH: process.env["PATH"] ?? "",
      HOME: directory,
      TMPDIR: directory,
      NODE_ENV: "production",
      PSQLQUEUE_SERVER_HOST: "127.0.0.1",
      PSQLQUEUE_SERVER_PORT: "0",
      PSQLQUEUE_METRICS_HOST: "127.0.0.1",
      PSQLQUEUE_METRICS_PORT: "0",
      PSQLQUEUE_DATA_DIR: path.join(directory, "data"),
      // For receive+ack-100.
      PSQLQUEUE_QUEUE_MAX_NUMBER_OF_MESSAGES: "100",
      ...settings,
    },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
  } as const;
  const migration = Bun.spawn([...program, "migrate"], options);
  const [log, code] = await Promise.all([new Response(migration.stdout).text(), migration.exited]);
  if (code !== 0) throw new Error(`migrate failed:\n${log}`);
  const server = Bun.spawn([...program, "server"], options);
  endAtEnd(server);
  const [, port] = await waitForText(server.stdout, /"http server starting".*?"port":(\d+)/, start_ms_max);
  return { url: `http://127.0.0.1:${port}`, pid: server.pid };
}

async function startOwn(options: SubjectOptions): Promise<Subject> {
  const name = options.binary ?? "bun src/main.ts";
  if (options.is_embedded) {
    const { url, pid } = await startServer(options, {});
    const description = `${name}, embedded database (its CPU is the server's)`;
    const unknown = { postmaster_pid: undefined, sql: undefined, database_url: undefined };
    return { url, description, server_pid: pid, ...unknown, is_own: true };
  }
  const cluster = await startCluster({ settings: { shared_buffers: "256MB" } });
  atEnd(() => cluster.remove());
  const database_url = await cluster.createDatabase("bench");
  const { url, pid } = await startServer(options, {
    PSQLQUEUE_DATABASE_URL: database_url,
    PSQLQUEUE_WORKERS: String(options.workers),
  });
  const sql = openSql(database_url);
  const description = `${name}, PostgreSQL ${cluster.version}, shared_buffers=256MB`;
  return {
    url,
    description,
    server_pid: pid,
    postmaster_pid: await findPostmaster(sql),
    sql,
    database_url,
    is_own: true,
  };
}

/** Starts what is asked for, or attaches to what runs already. Ended by `endAll`. */
export function openSubject(options: SubjectOptions): Promise<Subject> {
  return options.url === undefined ? startOwn(options) : attach(options.url, options);
}

/**
 * Starts a reference: `null.ts`, the HTTP stack with a broker that does nothing, or `plain.ts`, a server without any
 * code of ours.
 */
export async function startReference(file: "null.ts" | "plain.ts"): Promise<Subject> {
  const child = Bun.spawn([process.execPath, path.join(import.meta.dir, file)], {
    cwd: root,
    env: { PATH: process.env["PATH"] ?? "", NODE_ENV: "production" },
    stdin: "pipe",
    stdout: "pipe",
    stderr: "inherit",
  });
  endAtEnd(child);
  const [url = ""] = await waitForText(child.stdout, /http:\S+/, start_ms_max);
  const unknown = { postmaster_pid: undefined, sql: undefined, database_url: undefined };
  return { url, description: file, server_pid: child.pid, ...unknown, is_own: true };
}
