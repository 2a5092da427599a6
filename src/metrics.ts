import {
  AggregatorRegistry,
  Counter,
  collectDefaultMetrics,
  Gauge,
  Histogram,
  type MetricObjectWithValues,
  type MetricValue,
  Registry,
} from "prom-client";
import { type Depth, other_queue, renderDepths, whole, withOthers } from "./depthGauges.ts";
import { createHistogram, type Series } from "./histogram.ts";
import type { MessageEvent, Observation, Observer } from "./observe.ts";

/** What vacuum has to do, and what holds it up. */
export type DatabaseState = {
  oldest_snapshot: { age_seconds: number } | null;
  tables: { name: string; dead_rows: number; table_bytes: number; index_bytes: number }[];
};

export type MetricsOptions = {
  /** Queues with a label of their own; the rest are counted together as `_other`. */
  queues_max: number;
  listDepths: (queues_max: number) => Promise<Depth[]>;
  /** Of all queues with a greater id together; undefined when there are none. */
  sumDepthsAfter: (queue_id: string) => Promise<Omit<Depth, "queue_id"> | undefined>;
  getTableHealth: () => Promise<DatabaseState>;
  connectionsInUse: () => number;
  waiters: () => number;
};

/** The numbers of one process, as data: what several have counted is added up. */
export type Numbers = MetricObjectWithValues<MetricValue<string>>[];

/** What a server counts with, and what it tells of it. */
export type Metrics = {
  observer: Observer;
  /** The numbers of this process. */
  collect(): Promise<Numbers>;
  /** The text of a scrape; `others`: the numbers of the other processes of this server. */
  scrape(others?: Numbers[]): Promise<string>;
};

/** A scrape within this time of another gets the same numbers of the database. */
const database_cache_ms = 5000;
/** How often the event loop is asked how late it is. */
const lag_every_ms = 1000;
/** A queue of which nothing was counted for so long gives its place to another one. */
const label_idle_ms = 600_000;

/**
 * The queues that have a label of their own. Names are the clients' choice, so their number is bounded; one that is
 * idle for long, or deleted, gives its place back, and `onForgotten` drops its series.
 */
function createLabels(queues_max: number, onForgotten: (queue_id: string) => void) {
  // In order of use: the first is the one that has been idle for longest.
  const used_ms = new Map<string, number>();
  const forget = (queue_id: string) => {
    used_ms.delete(queue_id);
    onForgotten(queue_id);
  };
  const forgetIdle = (now_ms: number, is_gone: (queue_id: string) => boolean) => {
    for (const [queue_id, at_ms] of used_ms) {
      if (now_ms - at_ms >= label_idle_ms || is_gone(queue_id)) forget(queue_id);
    }
  };
  return {
    of(queue_id: string): string {
      const now_ms = Date.now();
      if (!used_ms.delete(queue_id) && used_ms.size >= queues_max) {
        const [oldest] = used_ms;
        if (oldest === undefined || now_ms - oldest[1] < label_idle_ms) return other_queue;
        forget(oldest[0]);
      }
      used_ms.set(queue_id, now_ms);
      return queue_id;
    },
    /** Drops queues that are idle or deleted. `existing`: all queues there are, when all are known. */
    sweep(existing: Set<string> | undefined): void {
      forgetIdle(Date.now(), (queue_id) => existing !== undefined && !existing.has(queue_id));
    },
  };
}

/** How late a timer of this process is at worst, since the last scrape. */
function watchEventLoop(registers: Registry[]): void {
  let worst_ms = 0;
  let due_ms = performance.now() + lag_every_ms;
  const look = () => {
    const now = performance.now();
    worst_ms = Math.max(worst_ms, now - due_ms);
    due_ms = now + lag_every_ms;
  };
  setInterval(look, lag_every_ms).unref();
  new Gauge({
    name: "psqlqueue_event_loop_lag_seconds",
    help: "How late a timer of this process was at worst since the last scrape.",
    registers,
    aggregator: "max",
    collect() {
      this.set(Math.max(0, worst_ms) / 1000);
      worst_ms = 0;
    },
  });
}

/** What this server counts, by queue. */
const events: Record<MessageEvent | "delivered", string> = {
  published: "Messages stored.",
  deduplicated: "Publishes that were duplicates, and stored nothing.",
  delivered: "Messages handed to consumers.",
  acked: "Messages acked.",
  nacked: "Messages nacked.",
  lease_expired: "Leases that ran out; counted when the message is met again.",
  expired: "Messages that expired; counted when they are met.",
  dead_lettered: "Messages moved to the dead-letter queue of this queue.",
};

/** Makes the metrics: an observer that counts, and the text of a scrape. */
export function createMetrics(options: MetricsOptions): Metrics {
  const registry = new Registry();
  // Of several processes the one that is asked tells of the database.
  const whole_registry = new Registry();
  // Its monitor of the event loop would wake an idle process a hundred times a second.
  collectDefaultMetrics({ register: registry, prefix: "", eventLoopMonitoringPrecision: 1000 });
  const registers = [registry];

  const duration = createHistogram(registry, {
    name: "http_request_duration_seconds",
    help: "The latency of the HTTP requests.",
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
  });
  const size = createHistogram(registry, {
    name: "http_response_size_bytes",
    help: "The size of the HTTP responses.",
    buckets: [100, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9],
  });
  // Counted here and handed over at a scrape: as gauges the two changes of a request cost more than its routing.
  const in_flight = new Map<string, number>();
  new Gauge({
    name: "http_requests_inflight",
    help: "The number of inflight requests being handled at the same time.",
    labelNames: ["service", "handler"],
    registers,
    collect() {
      for (const [route, count] of in_flight) this.set({ service: "", handler: route }, count);
    },
  });
  const countInFlight = (route: string, by: number) => in_flight.set(route, (in_flight.get(route) ?? 0) + by);
  // Counted here and handed over at a scrape too: a batch may be of as many queues as it has messages.
  const counters: Counter[] = [];
  const labels = createLabels(options.queues_max, (queue) => {
    for (const counter of counters) counter.remove({ queue });
    for (const by_queue of Object.values(counts)) by_queue.delete(queue);
  });
  const counts = Object.fromEntries(
    Object.entries(events).map(([event, help]) => {
      const by_queue = new Map<string, number>();
      const counter = new Counter({
        name: `psqlqueue_messages_${event}_total`,
        help,
        labelNames: ["queue"],
        registers,
        collect() {
          for (const [queue, count] of by_queue) this.inc({ queue }, count);
          by_queue.clear();
        },
      });
      counters.push(counter);
      return [event, by_queue];
    }),
  );
  function countMessages(event: keyof typeof events, queue_id: string, count: number): void {
    const by_queue = counts[event];
    const queue = labels.of(queue_id);
    by_queue?.set(queue, (by_queue.get(queue) ?? 0) + count);
  }
  const delivery_latency = new Histogram({
    name: "psqlqueue_delivery_latency_seconds",
    help: "From visible to delivered, of the first message of each receive.",
    buckets: [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30, 120, 600, 3600],
    registers,
  });
  new Gauge({
    name: "psqlqueue_waiters",
    help: "Consumers that wait for messages.",
    registers,
    collect() {
      this.set(options.waiters());
    },
  });
  const batch_items = new Histogram({
    name: "psqlqueue_batch_items",
    help: "Requests, or items of batches, that one statement carried.",
    labelNames: ["verb"],
    buckets: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000],
    registers,
  });
  new Gauge({ name: "psqlqueue_workers", help: "Processes that serve.", registers }).set(1);
  const db_up = new Gauge({
    name: "psqlqueue_db_up",
    help: "1 while the database answers.",
    registers,
    aggregator: "min",
  });
  db_up.set(1);
  new Gauge({
    name: "psqlqueue_db_connections",
    help: "Statements in flight to the database.",
    labelNames: ["state"],
    registers,
    collect() {
      this.set({ state: "in_use" }, options.connectionsInUse());
    },
  });
  const snapshot_age = new Gauge({
    name: "psqlqueue_oldest_snapshot_age_seconds",
    help: `Age of the oldest snapshot: what died since then cannot be vacuumed. 0 when none is held.${whole}`,
    registers: [whole_registry],
  });
  const tableGauge = (name: string, help: string) =>
    new Gauge({ name, help: `${help}${whole}`, labelNames: ["table"], registers: [whole_registry] });
  const table_gauges = {
    dead_rows: tableGauge("psqlqueue_table_dead_rows", "Estimated rows that vacuum has to remove."),
    table_bytes: tableGauge("psqlqueue_table_bytes", "Bytes of the table, without its indexes."),
    index_bytes: tableGauge("psqlqueue_table_index_bytes", "Bytes of the table's indexes."),
  };
  watchEventLoop(registers);

  let asked_at_ms = Number.NEGATIVE_INFINITY;
  async function askDatabase(): Promise<void> {
    if (performance.now() - asked_at_ms < database_cache_ms) return;
    asked_at_ms = performance.now();
    await Promise.all([refreshDepths(), refreshTables()]);
  }

  async function refreshTables(): Promise<void> {
    const { oldest_snapshot, tables } = await options.getTableHealth();
    snapshot_age.set(oldest_snapshot?.age_seconds ?? 0);
    for (const table of tables) {
      for (const name of ["dead_rows", "table_bytes", "index_bytes"] as const) {
        table_gauges[name].set({ table: table.name }, table[name]);
      }
    }
  }

  let depths_text = renderDepths([]);
  async function refreshDepths(): Promise<void> {
    const rows = await options.listDepths(options.queues_max);
    // A full list may leave queues out, which are no less alive for that.
    labels.sweep(rows.length < options.queues_max ? new Set(rows.map(({ queue_id }) => queue_id)) : undefined);
    const is_full = rows.length >= options.queues_max;
    const others = is_full ? await options.sumDepthsAfter(rows.at(-1)?.queue_id ?? "") : undefined;
    depths_text = renderDepths(withOthers(rows, others));
  }

  const children = new Map<string, { duration: Series; size: Series }>();
  const methods = new Set(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]);
  function countRequest({
    request,
    route,
    status,
    latency_ms,
    response_bytes,
  }: Extract<Observation, { kind: "request" }>): void {
    countInFlight(route, -1);
    const method = methods.has(request.method) ? request.method : "other";
    const key = `${method} ${status} ${route}`;
    let child = children.get(key);
    if (child === undefined) {
      const labels = { service: "", handler: route, method, code: String(status) };
      child = { duration: duration.of(labels), size: size.of(labels) };
      children.set(key, child);
    }
    child.duration.observe(latency_ms / 1000);
    child.size.observe(response_bytes);
  }

  async function collect(): Promise<Numbers> {
    const numbers = (await registry.getMetricsAsJSON()) as Numbers;
    // The library leaves it out of sums. A server began when its first process did.
    return numbers.map((own) => (own.name === "process_start_time_seconds" ? { ...own, aggregator: "min" } : own));
  }

  return {
    observer(observation) {
      if (observation.kind === "request_started") countInFlight(observation.route, 1);
      else if (observation.kind === "request") countRequest(observation);
      else if (observation.kind === "messages") {
        countMessages(observation.event, observation.queue_id, observation.count);
      } else if (observation.kind === "delivered") {
        const [first] = observation.messages;
        if (first === undefined) return;
        countMessages("delivered", observation.queue_id, observation.messages.length);
        // The first waited longest; one of a receive is enough to see.
        delivery_latency.observe((Date.parse(first.now) - Date.parse(first.ready_at)) / 1000);
      } else if (observation.kind === "batch") batch_items.observe({ verb: observation.verb }, observation.items);
      else if (observation.kind === "database_up") db_up.set(observation.is_up ? 1 : 0);
    },
    collect,
    async scrape(others = []) {
      // Without the database the other numbers are still worth having.
      await askDatabase().catch(() => {});
      const all = others.length === 0 ? registry : AggregatorRegistry.aggregate([await collect(), ...others]);
      return `${await all.metrics()}\n${await whole_registry.metrics()}\n${depths_text}`;
    },
  };
}
