import { jobsOf } from "../background/jobs.ts";
import { keysJob, revokedKeysJob } from "../background/keys.ts";
import { peersJob } from "../background/peers.ts";
import { createBroker } from "../broker/broker.ts";
import { hashSecret } from "../broker/manage/keys.ts";
import type { Config } from "../config.ts";
import { dashboardRoutes } from "../dashboard/dashboard.ts";
import { openPostgres } from "../db/db.ts";
import { checkMigrated, migrateDatabase } from "../db/migrate.ts";
import { checkSession } from "../db/session.ts";
import { createApp } from "../http/app.ts";
import { refusal } from "../http/output.ts";
import type { Log } from "../log.ts";
import { createMetrics } from "../metrics.ts";
import { addObserver, observe } from "../observe.ts";
import { version } from "../version.ts";
import { createAuth } from "../web/keyCache.ts";
import { startListener } from "../web/listener.ts";
import type { Certificates } from "../web/port.ts";
import { readCertificates, watchCertificates } from "./certificates.ts";
import { first_ms, startDuties } from "./duties.ts";
import { createEdges } from "./edges.ts";
import { createHearing, relayTo } from "./hearing.ts";
import { checkListeners, type ListenerName, listen, ownNames, portOf, urlOf } from "./listeners.ts";
import { serveMetrics } from "./metricsServer.ts";
import { noteClosedKeys, noteNoKeys, noteOddities } from "./oddities.ts";
import { type Part, wholeServer } from "./part.ts";
import { openStore, type Store } from "./store.ts";

export type RunningServer = {
  /** The port that the API listens on. */
  port: number;
  metrics_port: number;
  /** The port for clients of Amazon SQS only; undefined: there is none. */
  sqs_port: number | undefined;
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

/** A purge, cleanup or delete that takes longer goes on as a task. */
const removal_ms_max = 30_000;
/** How long a server that stops goes on serving at most, and how long nobody must have asked for it to be less. */
const goodbye_ms_max = 1000;
const quiet_ms_min = 300;
/** As the setting of the rate says. */
const rate_window_ms = 10_000;
/** Of several processes each has a part of the requests: their statements would be that much smaller. */
const regather_ms = 2;
/** What an end without a database takes at most. */
const abort_ms_max = 500;
/** How long the start waits for LISTEN at most. */
const peers_ms_max = 1000;
/**
 * Opens everything in order: database, broker, listeners, background jobs. Throws MigrationError for a database that is
 * not at this version or whose sessions do not get our settings, ListenError for a port that is taken (before anything
 * is opened), ReachError when the database cannot be reached. `part`: this process is one of several of the server.
 */
export async function startServer(config: Config, log: Log, part: Part = wholeServer(log)): Promise<RunningServer> {
  // First: nothing is made on the disk by a server that then cannot serve.
  const addresses = part.addresses ?? (await checkListeners(config));
  const certificates = readCertificates(config);
  const store = await openStore(config);
  try {
    // Nobody else can have migrated the embedded database: it has one process at a time.
    if (store.is_embedded) await migrateDatabase(store.server);
    // Asked while the service is being put together, and answered before it listens.
    const is_ready = store.is_embedded ? Promise.resolve() : checkVersion(store, part.is_first);
    is_ready.catch(() => {});
    return await serve(config, log, store, addresses, certificates, is_ready, part);
  } catch (error) {
    await store.close().catch(() => {});
    throw error;
  }
}

/**
 * Goes on serving for a moment. Every answer asks to close its connection now, so a client that keeps connections open
 * is told before they are closed, and none of its requests meets a closed one.
 */
async function sayGoodbye(lastRequestMs: () => number, idle_ms_max: number, ms_max: number): Promise<void> {
  const end_ms = performance.now() + ms_max;
  if (performance.now() - lastRequestMs() > idle_ms_max) return;
  const quiet_since_ms = () => Math.max(lastRequestMs(), end_ms - ms_max);
  while (performance.now() < end_ms && performance.now() - quiet_since_ms() < quiet_ms_min) await Bun.sleep(20);
}

const isLoopback = (address: string) => address === "::1" || address.startsWith("127.");

/** Said at every start, so that nobody serves the world without knowing. */
function warnOfOpenness(config: Config, log: Log, addresses: Record<ListenerName, string>): void {
  const has_client_ca = config.PSQLQUEUE_TLS_CLIENT_CA !== "";
  if (config.PSQLQUEUE_AUTH !== "on" && !has_client_ca && !isLoopback(addresses.http)) {
    log("warn", "no key is asked for: whoever reaches this address may do everything", {
      host: config.PSQLQUEUE_SERVER_HOST,
      remedy:
        "set PSQLQUEUE_AUTH=on and PSQLQUEUE_ROOT_KEY, or PSQLQUEUE_SERVER_HOST=127.0.0.1, or keep others off by a firewall",
    });
  }
  if (has_client_ca && config.PSQLQUEUE_METRICS_AUTH !== "on" && !isLoopback(addresses.metrics)) {
    log("warn", "the metrics port asks for no client certificate: whoever reaches this address may read the metrics", {
      host: config.PSQLQUEUE_METRICS_HOST,
      remedy: "set PSQLQUEUE_METRICS_AUTH=on, or PSQLQUEUE_METRICS_HOST=127.0.0.1, or keep others off by a firewall",
    });
  }
}

async function checkVersion(store: Store, is_first: boolean): Promise<void> {
  const { is_newer } = await checkMigrated(store.server);
  if (!is_newer || !is_first) return;
  observe({
    kind: "notice",
    level: "WARN",
    message: "the database was migrated by a newer psqlqueue",
    details: { effect: "this version works with it as before", remedy: "update this server when it suits" },
  });
}

async function serve(
  config: Config,
  log: Log,
  store: Store,
  addresses: Record<ListenerName, string>,
  certificates: Certificates | undefined,
  is_ready: Promise<void>,
  { holder, say, is_first, leads, ports, link }: Part,
): Promise<RunningServer> {
  const statement_timeout_ms = config.PSQLQUEUE_DATABASE_STATEMENT_TIMEOUT_MS;
  const db = openPostgres({
    server: store.server,
    connections_max: store.connections_max,
    connections_min: Math.min(config.PSQLQUEUE_DATABASE_MIN_CONNS, store.connections_max),
    statement_timeout_ms,
    onDiskFull: store.makeRoom,
    onAvailability: (is_up, reason) => {
      if (is_up) broker.forgetFloors();
      observe({ kind: "database_up", is_up, ...(reason !== undefined && { reason }) });
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
      ...(link && { regather_ms }),
    },
    holder,
    { master_keys: config.PSQLQUEUE_MASTER_KEY, siblings: link?.siblings },
  );

  const asks_keys = config.PSQLQUEUE_AUTH === "on";
  const keys =
    asks_keys || config.PSQLQUEUE_METRICS_AUTH === "on"
      ? createAuth({
          find: broker.findKey,
          findSigning: broker.findSigningKey,
          hash: hashSecret,
          claim: broker.claimRate,
          root_key: config.PSQLQUEUE_ROOT_KEY,
        })
      : undefined;
  let is_stopping = false;
  let metrics_port: number | undefined;
  const app = createApp(broker, {
    body_bytes_max: config.PSQLQUEUE_MAX_BODY_BYTES,
    cors_origins: config.PSQLQUEUE_CORS_ORIGINS,
    own_names: ownNames(config),
    receive_limit_max: config.PSQLQUEUE_QUEUE_MAX_NUMBER_OF_MESSAGES,
    wait_seconds_max: config.PSQLQUEUE_MAX_WAIT_SECONDS,
    isStopping: () => is_stopping,
    metricsPort: () => metrics_port,
    checks_responses: process.env["NODE_ENV"] === "development",
    ...(config.PSQLQUEUE_UI === "on" && { beside: [dashboardRoutes()], home: "/ui" }),
    version,
    ...(asks_keys && keys && { auth: { keys, open: config.PSQLQUEUE_AUTH_OPEN } }),
  });
  const edges = createEdges(broker, app, config, keys, () => is_stopping, link?.tell);
  const metrics = createMetrics({
    queues_max: config.PSQLQUEUE_METRICS_MAX_QUEUES,
    listDepths: broker.listDepths,
    sumDepthsAfter: broker.sumDepthsAfter,
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
    if (!store.is_embedded) await checkSession(db.client, statement_timeout_ms);
    if (is_first) await noteOddities(db, broker, store.is_embedded);
    if (is_first && asks_keys && config.PSQLQUEUE_ROOT_KEY === "") await noteNoKeys(broker);
    if (is_first && asks_keys && edges.sqs) await noteClosedKeys(broker);
    await broker.clock.refresh();
    const metrics_host = config.PSQLQUEUE_METRICS_HOST;
    const metrics_server = await listen("metrics", config, () => {
      const port = ports.metrics ?? config.PSQLQUEUE_METRICS_PORT;
      return serveMetrics(config, { hostname: addresses.metrics, port, metrics, keys, link, api: edges.main });
    });
    metrics_port = metrics_server.port ?? 0;
    say("info", "metrics server starting", { host: metrics_host, port: metrics_port });
    const peers = store.is_embedded ? undefined : peersJob(broker, link && relayTo(link));
    // Known to the other servers before the first request, so that none of its publishes waits for a poll of theirs.
    if (leads) await Promise.race([peers?.run().catch(() => {}), Bun.sleep(peers_ms_max)]);
    const host = config.PSQLQUEUE_SERVER_HOST;
    const serving = {
      refusal,
      idle_seconds_max: config.PSQLQUEUE_SERVER_IDLE_TIMEOUT_SECONDS,
      header_seconds_max: config.PSQLQUEUE_SERVER_READ_HEADER_TIMEOUT_SECONDS,
      body_rate_min: config.PSQLQUEUE_SERVER_BODY_RATE_MIN,
      rate_window_ms,
      handler_seconds_max: config.PSQLQUEUE_SERVER_HANDLER_TIMEOUT_SECONDS,
      is_shared: link !== undefined,
      // Of the port of SQS clients too: it would be a way round the certificates that the other one asks for.
      certificates,
    };
    const listener = await listen("http", config, () =>
      startListener({
        ...serving,
        hostname: addresses.http,
        port: ports.http ?? config.PSQLQUEUE_SERVER_PORT,
        fetch: edges.main,
      }),
    );
    const sqs_asked = ports.sqs ?? portOf("sqs", config);
    const sqs_fetch = edges.sqs;
    const sqs_listener =
      sqs_asked === undefined || sqs_fetch === undefined
        ? undefined
        : await listen("sqs", config, () =>
            startListener({ ...serving, hostname: addresses.sqs, port: sqs_asked, fetch: sqs_fetch }),
          );
    const urlAt = (port: number) => urlOf(host, port, certificates !== undefined);
    if (sqs_listener) {
      say("info", "sqs server starting", { host, port: sqs_listener.port, url: urlAt(sqs_listener.port) });
    }
    const { port } = listener;
    const url = urlAt(port);
    const pages = { ...(config.PSQLQUEUE_UI === "on" && { ui: `${url}/ui` }), docs: `${url}/v1/swagger/index.html` };
    say("info", "http server starting", { host, port, url, ...pages });
    const endWatch = watchCertificates(config, log, async (renewed) => {
      await listener.reload(renewed);
      await sqs_listener?.reload(renewed);
    });
    warnOfOpenness(config, say, addresses);

    const jobs = [...jobsOf(broker), ...store.jobs(db)];
    const own = [...jobs.filter(({ is_shared }) => !is_shared), ...(keys ? [keysJob(broker, keys)] : [])];
    const forgetKey = (id: string | undefined) => (id === undefined ? keys?.forgetAll() : keys?.forget(id));
    const spreadKey = (id: string | undefined) => {
      forgetKey(id);
      link?.tell({ about: "key", id });
    };
    broker.onKeyRevoked(spreadKey);
    const revoked = revokedKeysJob(broker, { forget: spreadKey, forgetAll: () => spreadKey(undefined) });
    const leading = [
      ...jobs.filter(({ is_shared }) => is_shared),
      ...(peers ? [peers, ...(keys ? [revoked] : [])] : []),
    ];
    const duties = startDuties(broker, holder, own, leading);
    if (leads) duties.lead(first_ms);
    link?.attach({
      told: createHearing(broker, edges, forgetKey),
      lead: () => duties.lead(),
      wants: () => broker.wakeups.size() > 0 || (duties.isLeading() && broker.notifier.hasPeers()),
      count: metrics.collect,
    });

    let stopped: Promise<void> | undefined;
    const stop = async () => {
      is_stopping = true;
      endWatch();
      // Long polls end at once, with nothing.
      broker.wakeups.stop();
      const grace_ms = config.PSQLQUEUE_SHUTDOWN_GRACE_SECONDS * 1000;
      await sayGoodbye(
        () => last_request_ms,
        config.PSQLQUEUE_SERVER_IDLE_TIMEOUT_SECONDS * 1000,
        Math.min(grace_ms, goodbye_ms_max),
      );
      const servers = [listener, metrics_server, ...(sqs_listener ? [sqs_listener] : [])];
      const finished = Promise.all([...servers.map((server) => server.stop()), duties.end()]);
      await Promise.race([finished, Bun.sleep(grace_ms)]);
      await Promise.all(servers.map((server) => server.stop(true)));
      const retire = () => (duties.isLeading() ? broker.notifier.retire() : undefined);
      await Promise.allSettled([duties.resign(), retire(), broker.flushRates()]);
      await db.close(1);
      await store.close();
      removeObserver();
    };
    const abort = async () => {
      is_stopping = true;
      const servers = [listener, metrics_server, ...(sqs_listener ? [sqs_listener] : [])];
      const cut = Promise.allSettled([...servers.map((server) => server.stop(true)), db.close(0), store.close()]);
      await Promise.race([cut, Bun.sleep(abort_ms_max)]);
    };
    return {
      port,
      abort,
      metrics_port: metrics_server.port ?? 0,
      sqs_port: sqs_listener?.port,
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
