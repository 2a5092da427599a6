import os from "node:os";
import { housekeepingJob } from "../background/housekeeping.ts";
import { startLoop } from "../background/loop.ts";
import { peersJob } from "../background/peers.ts";
import { ratesJob } from "../background/rates.ts";
import { tasksJob } from "../background/tasks.ts";
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

/** A slow request must not be cut as an idle connection: twice the longest statement. */
const handler_seconds_min = 30;

/**
 * Opens everything in order: database, broker, listeners, background jobs. Throws MigrationError for a database that is
 * not at this version or whose sessions do not get our settings, ListenError for a port that is taken, DatabaseError
 * when the database cannot be reached.
 */
export async function startServer(config: Config, log: Log): Promise<RunningServer> {
  const store = await openStore(config);
  try {
    // Nobody else can have migrated the embedded database: it has one process at a time.
    if (store.is_embedded) await migrateDatabase(store.server);
    // Asked while the service is being put together, and answered before it listens.
    const is_ready = store.is_embedded ? Promise.resolve() : checkMigrated(store.server);
    is_ready.catch(() => {});
    return await serve(config, log, store, is_ready);
  } catch (error) {
    await store.close().catch(() => {});
    throw error;
  }
}

async function serve(config: Config, log: Log, store: Store, is_ready: Promise<void>): Promise<RunningServer> {
  const holder = `${os.hostname()}:${process.pid}:${crypto.randomUUID()}`;
  const statement_timeout_ms = config.PSQLQUEUE_DATABASE_STATEMENT_TIMEOUT_MS;
  const db = openPostgres({
    server: store.server,
    connections_max: store.connections_max,
    connections_min: Math.min(config.PSQLQUEUE_DATABASE_MIN_CONNS, store.connections_max),
    statement_timeout_ms,
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
      statement_ms_max: statement_timeout_ms,
      waiters_max: config.PSQLQUEUE_MAX_WAITERS,
    },
    holder,
  );

  let is_stopping = false;
  const app = createApp(broker, {
    body_bytes_max: config.PSQLQUEUE_MAX_BODY_BYTES,
    cors_origins: config.PSQLQUEUE_CORS_ORIGINS,
    receive_limit_max: config.PSQLQUEUE_QUEUE_MAX_NUMBER_OF_MESSAGES,
    wait_seconds_max: config.PSQLQUEUE_MAX_WAIT_SECONDS,
    isStopping: () => is_stopping,
    version,
  });
  const metrics = createMetrics({
    queues_max: config.PSQLQUEUE_METRICS_MAX_QUEUES,
    listDepths: broker.listDepths,
    getMaintenance: broker.getMaintenance,
    connectionsInUse: db.inFlight,
    waiters: broker.wakeups.size,
  });
  const removeObserver = addObserver(metrics.observer);

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
    const metrics_port = metrics_server.port ?? 0;
    log("info", "metrics server starting", { host: metrics_host, port: metrics_port });
    const host = config.PSQLQUEUE_SERVER_HOST;
    listen("http", () =>
      app.listen({
        hostname: host,
        port: config.PSQLQUEUE_SERVER_PORT,
        reusePort: false,
        // The door refuses what is too large, with a body that says so; Bun's own refusal has none. What nobody reads
        // is not kept either: Bun stops reading the socket.
        maxRequestBodySize: Number.MAX_SAFE_INTEGER,
        idleTimeout: Math.max(config.PSQLQUEUE_SERVER_READ_HEADER_TIMEOUT_SECONDS, handler_seconds_min),
        development: false,
      }),
    );
    const port = app.server?.port ?? 0;
    log("info", "http server starting", { host, port });

    const leading = [housekeepingJob(broker, holder), tasksJob(broker, holder)];
    const jobs = [...leading, ratesJob(broker), ...(store.is_embedded ? [] : [peersJob(broker)]), ...store.jobs(db)];
    const stops = jobs.map((job) => startLoop(job, 1000));

    let stopped: Promise<void> | undefined;
    const stop = async () => {
      is_stopping = true;
      // Long polls end at once, with nothing.
      broker.wakeups.stop();
      const grace_ms = config.PSQLQUEUE_SHUTDOWN_GRACE_SECONDS * 1000;
      const finished = Promise.all([app.server?.stop(), metrics_server.stop(), ...stops.map((end) => end())]);
      await Promise.race([finished, Bun.sleep(grace_ms)]);
      await Promise.all([app.server?.stop(true), metrics_server.stop(true)]);
      await Promise.allSettled([...leading.map((job) => job.resign()), broker.notifier.retire(), broker.flushRates()]);
      await db.close(1);
      await store.close();
      removeObserver();
    };
    return {
      port,
      metrics_port,
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
