import { afterAll } from "bun:test";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import postgres from "postgres";
import { type Broker, createBroker } from "../src/broker/broker.ts";
import type { Limits } from "../src/broker/limits.ts";
import type { Secrets } from "../src/broker/masterKeys.ts";
import type { DatabaseOptions } from "../src/db/db.ts";
import { type Db, openPostgres } from "../src/db/db.ts";
import { openEmbedded } from "../src/db/embedded/embedded.ts";
import { migrateDatabase } from "../src/db/migrate.ts";
import { type App, type AppOptions, createApp } from "../src/http/app.ts";
import { refusal } from "../src/http/output.ts";
import { type Listener, type ListenerOptions, startListener } from "../src/web/listener.ts";
import { sharedCluster } from "./postgres.ts";

export type Answer = {
  status: number;
  headers: Headers;
  // Tests look into bodies of every shape.
  // biome-ignore lint/suspicious/noExplicitAny: see above
  body: any;
  text: string;
};

export type Service = {
  /** Empty on the embedded database. */
  url: string;
  db: Db;
  broker: Broker;
  app: App;
  /** Raw SQL on the service's database, with default planning. */
  sql: postgres.Sql;
  /** Sends a request through the whole app without a port; a body that is no string is sent as JSON. */
  call(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<Answer>;
  /** Moves everything stored `seconds` into the past, as if time had passed. */
  elapse(seconds: number): Promise<void>;
  close(): Promise<void>;
};

export const limits: Limits = {
  lanes: 2,
  items_max: 500,
  bytes_max: 8_388_608,
  waiting_max: 20_000,
  waiting_bytes_max: 268_435_456,
  answer_bytes_max: 67_108_864,
  answers_bytes_max: 67_108_864,
  statement_ms_max: 5000,
  waiters_max: 10_000,
  removal_ms_max: 30_000,
};

/** The suite runs on a PostgreSQL server, and once more on the embedded database. */
export const is_embedded = process.env["PSQLQUEUE_TEST_STORE"] === "embedded";

let template: Promise<string> | undefined;

/**
 * A data directory at this program's version, to be copied: creating another takes seconds of CPU. Made once per
 * process, and named to the processes that it starts.
 */
export async function embeddedTemplate(): Promise<string> {
  const given = process.env["PSQLQUEUE_TEST_TEMPLATE"];
  if (given !== undefined) return given;
  const data_dir = mkdtempSync(path.join(tmpdir(), "psqlqueue-template-"));
  process.on("exit", () => rmSync(data_dir, { recursive: true, force: true }));
  const embedded = await openEmbedded({ data_dir, fsync: false });
  await migrateDatabase(embedded.connection);
  await embedded.close();
  return data_dir;
}

type TestStore = { server: DatabaseOptions["server"]; close(): Promise<void> };

async function openEmbeddedStore(): Promise<TestStore> {
  template ??= embeddedTemplate();
  const data_dir = mkdtempSync(path.join(tmpdir(), "psqlqueue-data-"));
  cpSync(await template, data_dir, { recursive: true });
  const embedded = await openEmbedded({ data_dir, fsync: true });
  return {
    server: embedded.connection,
    async close() {
      await embedded.close();
      rmSync(data_dir, { recursive: true, force: true });
    },
  };
}

async function openStore(url: string | undefined): Promise<TestStore> {
  if (url === undefined && is_embedded) return await openEmbeddedStore();
  return { server: url ?? (await createMigratedDatabase()), close: async () => {} };
}

/** The name of a database at this program's version, migrated once per run: copying it is faster than migrating. */
async function migratedTemplate(): Promise<string> {
  const cluster = await sharedCluster();
  const name = `psqlqueue_template_${process.pid}`;
  await migrateDatabase(await cluster.createDatabase(name));
  return name;
}

/** The URL of a new database at this program's version; dropped with the cluster. */
export async function createMigratedDatabase(): Promise<string> {
  const cluster = await sharedCluster();
  template ??= migratedTemplate();
  return await cluster.createDatabase(undefined, await template);
}

export type ServiceOptions = Partial<Limits> &
  Secrets &
  Partial<AppOptions> & { url?: string; connections_max?: number; statement_timeout_ms?: number } & Pick<
    DatabaseOptions,
    "onAvailability"
  >;

/** A server on a database that is open already: with the settings of another one, beside it. */
export function serveOn(db: Db, options: ServiceOptions = {}): Pick<Service, "broker" | "app" | "call"> {
  const statement_ms_max = options.statement_timeout_ms ?? 5000;
  const broker = createBroker(db, { ...limits, statement_ms_max, ...options }, undefined, options);
  const app = createApp(broker, {
    body_bytes_max: 16_777_216,
    cors_origins: [],
    receive_limit_max: 10,
    wait_seconds_max: 20,
    version: "test",
    checks_responses: true,
    ...options,
  });
  return {
    broker,
    app,
    async call(method, path, body, headers = {}) {
      const init: RequestInit = { method, headers };
      if (body !== undefined) init.body = typeof body === "string" ? body : JSON.stringify(body);
      return await read(await app.handle(new Request(`http://localhost${path}`, init)));
    },
  };
}

/** A service on a database of its own. */
export async function openService(options: ServiceOptions = {}): Promise<Service> {
  const store = await openStore(options.url);
  const url = typeof store.server === "string" ? store.server : "";
  const statement_timeout_ms = options.statement_timeout_ms ?? 5000;
  const connections_max = url === "" ? 1 : (options.connections_max ?? 10);
  const { onAvailability = () => {} } = options;
  const db = openPostgres({ server: store.server, connections_max, statement_timeout_ms, onAvailability });
  const server = serveOn(db, options);
  // The embedded database has one connection, the service's own.
  const sql = url === "" ? db.client : postgres(url, { max: 2, onnotice() {} });

  return {
    url,
    db,
    sql,
    ...server,
    async elapse(seconds) {
      const by = `${seconds} seconds`;
      await sql.begin(async (session) => {
        // Time passes, nobody does anything: no trigger sees it.
        await session`set local session_replication_role = replica`;
        await session`update psqlqueue.messages
          set visible_at = visible_at - ${by}::interval, expires_at = expires_at - ${by}::interval,
            created_at = created_at - ${by}::interval, leased_at = leased_at - ${by}::interval,
            lease_expires_at = lease_expires_at - ${by}::interval, due_at = due_at - ${by}::interval`;
        await session`update psqlqueue.ordering_keys set blocked_since = blocked_since - ${by}::interval`;
        await session`update psqlqueue.fair_keys set due_at = due_at - ${by}::interval`;
        await session`update psqlqueue.fair_changes set due_at = due_at - ${by}::interval`;
        await session`update psqlqueue.governors
          set due_from = due_from - ${by}::interval, keyed_since = keyed_since - ${by}::interval`;
        await session`update psqlqueue.archived_messages
          set expires_at = expires_at - ${by}::interval, created_at = created_at - ${by}::interval`;
        await session`update psqlqueue.deduplications set created_at = created_at - ${by}::interval`;
        await session`update psqlqueue.topic_deduplications set created_at = created_at - ${by}::interval`;
      });
      // Rows never move back in time by themselves, and the scan floor relies on it.
      server.broker.forgetFloors();
    },
    async close() {
      await Promise.all([db.close(0), sql.end({ timeout: 1 })]);
      await store.close();
    },
  };
}

/** Serves an app on a port of this machine, as the server does. */
export async function listen(app: App, options: Partial<ListenerOptions> = {}): Promise<Listener> {
  return await startListener({
    hostname: "127.0.0.1",
    port: 0,
    fetch: async (request) => await app.fetch(request),
    refusal,
    idle_seconds_max: 120,
    header_seconds_max: 60,
    body_rate_min: 240,
    rate_window_ms: 10_000,
    handler_seconds_max: 300,
    ...options,
  });
}

/** A service for all tests of a file, closed after them. */
export async function serviceForFile(options: ServiceOptions = {}): Promise<Service> {
  const service = await openService(options);
  afterAll(() => service.close());
  return service;
}

/** Reads a response: the body as JSON where it is JSON. */
export async function read(response: Response): Promise<Answer> {
  const text = await response.text();
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    body = undefined;
  }
  return { status: response.status, headers: response.headers, body, text };
}

let made = 0;

/** An id that no other test of this run uses. */
export function uniqueId(prefix = "q"): string {
  made += 1;
  return `${prefix}-${process.pid}-${made}`;
}

/** Makes a queue and answers its id. */
export async function createQueue(service: Service, settings: Record<string, unknown> = {}): Promise<string> {
  const id = uniqueId();
  const body = { id, ack_deadline_seconds: 30, message_retention_seconds: 3600, ...settings };
  const answer = await service.call("POST", "/v1/queues", body);
  if (answer.status !== 201) throw new Error(`queue not created: ${answer.text}`);
  return id;
}

/** Waits until `condition` holds, at most `ms`; tests never sleep for a fixed time. */
export async function until(condition: () => boolean | Promise<boolean>, ms = 20_000): Promise<void> {
  const end = performance.now() + ms;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`condition did not come to hold within ${ms} ms`);
    await Bun.sleep(10);
  }
}
