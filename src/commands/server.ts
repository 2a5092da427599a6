import os from "node:os";
import { jobsOf } from "../background/jobs.ts";
import { startLeadership } from "../background/leadership.ts";
import { startLoop } from "../background/loop.ts";
import { peersJob } from "../background/peers.ts";
import { createBroker } from "../broker/broker.ts";
import type { Config } from "../config.ts";
import { openPostgres } from "../db/db.ts";
import { checkMigrated, migrateDatabase } from "../db/migrate.ts";
import { checkSession } from "../db/session.ts";
import { findKnownBug } from "../db/versions.ts";
import { createApp } from "../http/app.ts";
import type { Log } from "../log.ts";
import { createMetrics } from "../metrics.ts";
import { addObserver, observe } from "../observe.ts";
import { version } from "../version.ts";
import { openStore, type Store } from "./store.ts";

export type RunningServer = {
  /** The port that the API listens on. */
  port: number;
  metrics_port: number;
  /** Resolves with the reason when the embedded database died and the process must end. Never rejects. */
  failed: Promise<Error>;
  /**
   * Stops accepting, lets requests in flight finish within the grace period, closes everything. Repeatable: a second
   * call waits for the first.
   */
  stop(): Promise<void>;
  /** Ends at once, without a database to wait for: connections are cut, at most half a second is waited. */
  abort(): Promise<void>;
};

/** A listener that could not be opened; logged under its own message. */
export class ListenError extends Error {
  override readonly name = "ListenError";
  readonly listener: "http" | "metrics";

  constructor(listener: "http" | "metrics", cause: unknown) {
    super(cause instanceof Error ? cause.message : String(cause), { cause });
    this.listener = listener;
  }
}

function listen<T>(listener: "http" | "metrics", start: () => T): T {
  try {
    return start();
  } catch (cause) {
    throw new ListenError(listener, cause);
  }
}

/** A purge, cleanup or delete that takes longer goes on as a task. */
const removal_ms_max = 30_000;
/** How long a server that stops goes on serving at most, and how long nobody must have asked for it to be less. */
const goodbye_ms_max = 1000;
const quiet_ms_min = 300;
/** What an end without a database takes at most. */
const abort_ms_max = 500;
/** How long the start waits for LISTEN at most. */
const peers_ms_max = 1000;
/** Bun's own limit. */
const idle_seconds_max = 255;

/**
 * A slow request must not be cut as an idle connection: one that waits for its statement, runs it twice, and a removal
 * that runs into its last page.
 */
function handlerSeconds(statement_timeout_ms: number): number {
  const slowest_ms = removal_ms_max + 3 * (statement_timeout_ms + 2000);
  return Math.min(idle_seconds_max, Math.ceil(slowest_ms / 1000));
}

/**
 * Opens everything in order: database, broker, listeners, background jobs. Throws MigrationError for a database that is
 * not at this version or whose sessions do not get our settings, ListenError for a port that is taken, ReachError when
 * the database cannot be reached.
 */
export async function startServer(config: Config, log: Log): Promise<RunningServer> {
  const store = await openStore(config);
  try {
    // Nobody else can have migrated the embedded database: it has one process at a time.
    if (store.is_embedded) await migrateDatabase(store.server);
    // Asked while the service is being put together, and answered before it listens.
    const is_ready = store.is_embedded ? Promise.resolve() : checkVersion(store);
    is_ready.catch(() => {});
    return await serve(config, log, store, is_ready);
  } catch (error) {
    await store.close().catch(() => {});
    throw error;
  }
}

/** Where a browser on this machine finds the server. */
function urlOf(host: string, port: number): string {
  const name = host === "0.0.0.0" || host === "::" ? "localhost" : host.includes(":") ? `[${host}]` : host;
  return `http://${name}:${port}`;
}

/**
 * Goes on serving for a moment. Every answer asks to close its connection now, so a client that keeps connections open
 * is told before they are closed, and none of its requests meets a closed one.
 */
async function sayGoodbye(lastRequestMs: () => number, ms_max: number): Promise<void> {
  const end_ms = performance.now() + ms_max;
  if (performance.now() - lastRequestMs() > idle_seconds_max * 1000) return;
  const quiet_since_ms = () => Math.max(lastRequestMs(), end_ms - ms_max);
  while (performance.now() < end_ms && performance.now() - quiet_since_ms() < quiet_ms_min) await Bun.sleep(20);
}

async function checkVersion(store: Store): Promise<void> {
  const { is_newer } = await checkMigrated(store.server);
  if (!is_newer) return;
  observe({
    kind: "notice",
    level: "WARN",
    message: "the database was migrated by a newer psqlqueue",
    details: { effect: "this version works with it as before", remedy: "update this server when it suits" },
  });
}

async function serve(config: Config, log: Log, store: Store, is_ready: Promise<void>): Promise<RunningServer> {
  const holder = `${os.hostname()}:${process.pid}:${crypto.randomUUID()}`;
  const statement_timeout_ms = config.PSQLQUEUE_DATABASE_STATEMENT_TIMEOUT_MS;
  const db = openPostgres({
    server: store.server,
    connections_max: store.connections_max,
    connections_min: Math.min(config.PSQLQUEUE_DATABASE_MIN_CONNS, store.connections_max),
    statement_timeout_ms,
    onDiskFull: store.makeRoom,
    onAvailability: (is_up) => {
      if (is_up) broker.forgetFloors();
      observe({ kind: "database_up", is_up });
    },
    onServerChange: () => broker.forgetFloors(),
  });
  const broker = createBroker(
    db,
    {
      lanes: config.PSQLQUEUE_BATCH_LANES,
      items_max: config.PSQLQUEUE_BATCH_MAX_ITEMS,
      bytes_max: config.PSQLQUEUE_BATCH_MAX_BYTES,
      waiting_max: config.PSQLQUEUE_BATCH_MAX_WAITING,
      waiting_bytes_max: config.PSQLQUEUE_WAITING_MAX_BYTES,
      answer_bytes_max: config.PSQLQUEUE_RECEIVE_MAX_BYTES,
      answers_bytes_max: config.PSQLQUEUE_ANSWERS_MAX_BYTES,
      statement_ms_max: statement_timeout_ms,
      waiters_max: config.PSQLQUEUE_MAX_WAITERS,
      removal_ms_max,
    },
    holder,
  );

  let is_stopping = false;
  let metrics_port: number | undefined;
  const app = createApp(broker, {
    body_bytes_max: config.PSQLQUEUE_MAX_BODY_BYTES,
    cors_origins: config.PSQLQUEUE_CORS_ORIGINS,
    receive_limit_max: config.PSQLQUEUE_QUEUE_MAX_NUMBER_OF_MESSAGES,
    wait_seconds_max: config.PSQLQUEUE_MAX_WAIT_SECONDS,
    isStopping: () => is_stopping,
    metricsPort: () => metrics_port,
    checks_responses: process.env["NODE_ENV"] === "development",
    version,
  });
  const metrics = createMetrics({
    queues_max: config.PSQLQUEUE_METRICS_MAX_QUEUES,
    listDepths: broker.listDepths,
    getTableHealth: broker.getTableHealth,
    connectionsInUse: db.inFlight,
    waiters: broker.wakeups.size,
  });
  let last_request_ms = Number.NEGATIVE_INFINITY;
  const removeObservers = [
    addObserver(metrics.observer),
    addObserver(({ kind }) => {
      if (kind === "request_started") last_request_ms = performance.now();
    }),
  ];
  const removeObserver = () => {
    for (const remove of removeObservers) remove();
  };

  try {
    await is_ready;
    // On a connection of the pool, which the first request finds open.
    if (!store.is_embedded) {
      await checkSession(db.client, statement_timeout_ms);
      const bug = await findKnownBug(db.client);
      if (bug !== undefined) {
        observe({ kind: "notice", level: "WARN", message: "this PostgreSQL has a known bug", details: bug });
      }
    }
    const metrics_host = config.PSQLQUEUE_METRICS_HOST;
    const metrics_server = listen("metrics", () =>
      Bun.serve({
        hostname: metrics_host,
        port: config.PSQLQUEUE_METRICS_PORT,
        reusePort: false,
        async fetch() {
          return new Response(await metrics.scrape(), {
            headers: { "content-type": "text/plain; version=0.0.4; charset=utf-8" },
          });
        },
      }),
    );
    metrics_port = metrics_server.port ?? 0;
    log("info", "metrics server starting", { host: metrics_host, port: metrics_port });
    const peers = store.is_embedded ? undefined : peersJob(broker);
    // Known to the other servers before the first request, so that none of its publishes waits for a poll of theirs.
    await Promise.race([peers?.run().catch(() => {}), Bun.sleep(peers_ms_max)]);
    const host = config.PSQLQUEUE_SERVER_HOST;
    listen("http", () =>
      app.listen({
        hostname: host,
        port: config.PSQLQUEUE_SERVER_PORT,
        reusePort: false,
        // The gateway refuses what is too large, with a body that says so; Bun's own refusal has none. What nobody
        // reads is not kept either: Bun stops reading the socket.
        maxRequestBodySize: Number.MAX_SAFE_INTEGER,
        idleTimeout: Math.min(
          idle_seconds_max,
          Math.max(config.PSQLQUEUE_SERVER_READ_HEADER_TIMEOUT_SECONDS, handlerSeconds(statement_timeout_ms)),
        ),
        development: false,
      }),
    );
    const port = app.server?.port ?? 0;
    const url = urlOf(host, port);
    log("info", "http server starting", { host, port, url, docs: `${url}/v1/swagger/index.html` });

    const leadership = startLeadership(broker, holder);
    const jobs = [...jobsOf(broker), ...(peers ? [peers] : []), ...store.jobs(db)];
    const stops = jobs.map((job) => startLoop(job, leadership.isLeader, 1000));

    let stopped: Promise<void> | undefined;
    const stop = async () => {
      is_stopping = true;
      // Long polls end at once, with nothing.
      broker.wakeups.stop();
      const grace_ms = config.PSQLQUEUE_SHUTDOWN_GRACE_SECONDS * 1000;
      await sayGoodbye(() => last_request_ms, Math.min(grace_ms, goodbye_ms_max));
      const finished = Promise.all([app.server?.stop(), metrics_server.stop(), ...stops.map((end) => end())]);
      await Promise.race([finished, Bun.sleep(grace_ms)]);
      await Promise.all([app.server?.stop(true), metrics_server.stop(true)]);
      await Promise.allSettled([leadership.stop(), broker.notifier.retire(), broker.flushRates()]);
      await db.close(1);
      await store.close();
      removeObserver();
    };
    const abort = async () => {
      is_stopping = true;
      const cut = Promise.allSettled([app.server?.stop(true), metrics_server.stop(true), db.close(0), store.close()]);
      await Promise.race([cut, Bun.sleep(abort_ms_max)]);
    };
    return {
      port,
      abort,
      metrics_port: metrics_server.port ?? 0,
      failed: store.failed,
      stop: () => {
        stopped ??= stop();
        return stopped;
      },
    };
  } catch (error) {
    removeObserver();
    await db.close(0);
    throw error;
  }
}
