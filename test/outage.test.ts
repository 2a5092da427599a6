// The database dies, hangs, and comes back while we work. Every answer is honest: 2xx, or 503 and come back later.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import postgres from "postgres";
import { openPostgres } from "../src/db/db.ts";
import { migrateDatabase } from "../src/db/migrate.ts";
import type { DatabaseError } from "../src/errors.ts";
import { type FaultProxy, startFaultProxy } from "./faultProxy.ts";
import { type Answer, createQueue, openService, type Service, until } from "./harness.ts";
import { type Cluster, startCluster } from "./postgres.ts";

setDefaultTimeout(90_000);

const statement_timeout_ms = 1000;
// The watchdog gives a connection up 2 s after the statement timeout and looks four times a second.
const answer_ms_max = statement_timeout_ms + 3000;

let cluster: Cluster;
let proxy: FaultProxy;
let direct: postgres.Sql;
let service: Service;

beforeAll(async () => {
  cluster = await startCluster();
  const url = await cluster.createDatabase();
  await migrateDatabase(url);
  proxy = await startFaultProxy({ host: "127.0.0.1", port: cluster.port });
  const proxied = new URL(url);
  proxied.port = String(proxy.port);
  direct = postgres(url, { max: 2, onnotice() {} });
  service = await openService({ url: proxied.href, statement_timeout_ms });
});

afterAll(async () => {
  await service.close();
  await direct.end({ timeout: 1 });
  await proxy.close();
  await cluster.remove();
});

/** The database without the proxy. */
function directUrl(): string {
  const url = new URL(service.url);
  url.port = String(cluster.port);
  return url.href;
}

type Timed = Answer & { took_ms: number };

/** A call that must be answered in time, by 2xx or by a 503 that says when to come back. */
async function ask(method: string, path: string, body?: unknown, through = service): Promise<Timed> {
  const since_ms = performance.now();
  const answer = await through.call(method, path, body);
  const took_ms = performance.now() - since_ms;
  if (answer.status >= 300) {
    expect([answer.status, answer.body?.code, answer.body?.message]).toEqual([503, 19, "service unavailable"]);
    expect(answer.headers.get("retry-after")).toMatch(/^[1-9]\d*$/);
  }
  expect(took_ms).toBeLessThan(2 * answer_ms_max);
  return { ...answer, took_ms };
}

const publish = (queue: string, body: string) => ask("POST", `/v1/queues/${queue}/messages`, { body });

type Delivery = { id: string; body: string; asked_ms: number };
type History = {
  /** Bodies sent, and those whose publish was answered 204. */
  sent: Set<string>;
  stored: Set<string>;
  deliveries: Delivery[];
  /** Message ids whose ack was answered 204, and when first. */
  acked: Map<string, number>;
  refused: number;
};

const newHistory = (): History => ({
  sent: new Set(),
  stored: new Set(),
  deliveries: [],
  acked: new Map(),
  refused: 0,
});

/** Receives once and acks what came, at once. Answers how many came. */
async function consume(queue: string, history: History, through = service): Promise<number> {
  const asked_ms = performance.now();
  const answer = await ask("GET", `/v1/queues/${queue}/messages`, undefined, through);
  if (answer.status !== 200) {
    history.refused += 1;
    return 0;
  }
  const messages = answer.body.data as { id: string; body: string }[];
  await Promise.all(
    messages.map(async ({ id, body }) => {
      history.deliveries.push({ id, body, asked_ms });
      const { status } = await ask("PUT", `/v1/queues/${queue}/messages/${id}/ack`, undefined, through);
      if (status === 204) history.acked.set(id, history.acked.get(id) ?? performance.now());
      else history.refused += 1;
    }),
  );
  return messages.length;
}

/** Publishes and consumes with several clients until `work` is done. */
async function underLoad(
  queue: string,
  history: History,
  marker: string,
  work: () => Promise<void>,
  consumer_service = service,
): Promise<void> {
  let is_done = false;
  const publisher = async (n: number) => {
    for (let i = 0; !is_done; i++) {
      const body = `${marker} ${n}-${i}`;
      history.sent.add(body);
      const { status } = await publish(queue, body);
      if (status === 204) history.stored.add(body);
      else history.refused += 1;
    }
  };
  const consumer = async () => {
    while (!is_done) await consume(queue, history, consumer_service);
  };
  const clients = [...Array.from({ length: 6 }, (_, n) => publisher(n)), consumer(), consumer(), consumer()];
  try {
    await work();
  } finally {
    is_done = true;
    await Promise.all(clients);
  }
}

/** Ends every lease and takes what is left. */
async function drain(queue: string, history: History): Promise<void> {
  await until(async () => (await service.call("GET", "/v1/healthz")).status === 200, 15_000);
  await direct`update psqlqueue.messages set visible_at = now() where visible_at > now()`;
  service.broker.forgetFloors();
  await until(async () => (await consume(queue, history)) === 0 && (await left()) === 0, 15_000);
}
const left = async () => (await direct`select count(*)::int as count from psqlqueue.messages`)[0]?.["count"] as number;

/** What was answered 204 arrived, once; nothing else arrived; nothing came back after its ack. */
function expectNothingLost(history: History): void {
  const ids = new Map<string, Set<string>>();
  for (const { id, body } of history.deliveries) ids.set(body, (ids.get(body) ?? new Set()).add(id));
  expect([...history.stored].filter((body) => !ids.has(body))).toEqual([]);
  expect([...ids.keys()].filter((body) => !history.sent.has(body))).toEqual([]);
  expect([...ids].filter(([, own]) => own.size > 1)).toEqual([]);
  const revived = history.deliveries.filter(({ id, asked_ms }) => asked_ms > (history.acked.get(id) ?? Infinity));
  expect(revived).toEqual([]);
}

describe("backends killed under load", () => {
  test("cost a 503 at most: no lost message, no hang, and no copy", async () => {
    const queue = await createQueue(service);
    const history = newHistory();
    let killed = 0;
    await underLoad(queue, history, "kill", async () => {
      for (let round = 0; killed < 150 && round < 1000; round++) {
        killed += await cluster.terminateBackends("application_name = 'psqlqueue'");
        await Bun.sleep(5);
      }
    });
    expect(killed).toBeGreaterThanOrEqual(150);
    await drain(queue, history);
    expect(history.stored.size).toBeGreaterThan(20);
    expectNothingLost(history);
  }, 120_000);
});

describe("a connection cut after the request was forwarded", () => {
  test("leaves each publish that was answered 204 there exactly once, also with consumers that ack at once", async () => {
    const queue = await createQueue(service);
    const history = newHistory();
    const cuts = 40;
    const before = proxy.cutCount();
    // Consumers of their own way to the database, while the publisher's is slow: they have received and acked a message
    // long before its publish is sent again.
    const near = await openService({ url: directUrl(), statement_timeout_ms });
    const cutAndPublish = async () => {
      await proxy.setMode({ latency_ms: 15 });
      let seen = 0;
      // Every second one: what the service sends once more by itself must get through, too.
      proxy.cutAfterRequest(cuts, (chunk) => chunk.includes("cut here") && seen++ % 2 === 0);
      await until(() => proxy.cutCount() - before >= cuts && history.stored.size > 2 * cuts, 30_000);
    };
    await underLoad(queue, history, "cut here", cutAndPublish, near);
    await near.close();
    await proxy.heal();
    await drain(queue, history);
    expectNothingLost(history);
  }, 120_000);

  test("of an ack: the message is gone for good, whatever the answer was", async () => {
    const queue = await createQueue(service);
    const ids: string[] = [];
    for (let i = 0; i < 10; i++) await publish(queue, String(i));
    for (const { id } of (await ask("GET", `/v1/queues/${queue}/messages`)).body.data) ids.push(id);
    proxy.cutAfterRequest(10, (chunk) => ids.some((id) => chunk.includes(id)));
    const statuses: number[] = [];
    for (const id of ids) statuses.push((await ask("PUT", `/v1/queues/${queue}/messages/${id}/ack`)).status);
    await proxy.heal();
    // An ack may be sent twice, so the first cut is mended without the client knowing.
    expect(statuses).toContain(204);
    await until(async () => (await service.call("GET", "/v1/healthz")).status === 200);
    expect(await left()).toBe(0);
    for (const id of ids) expect((await ask("PUT", `/v1/queues/${queue}/messages/${id}/ack`)).status).toBe(204);
  });
});

describe("a database that is away", () => {
  const everything: [string, string, unknown?][] = [
    ["GET", "/v1/healthz"],
    ["POST", "/v1/queues/away/messages", { body: "x" }],
    ["GET", "/v1/queues/away/messages"],
    ["PUT", "/v1/queues/away/messages/01HZZZZZZZZZZZZZZZZZZZZZ01/ack"],
    ["GET", "/v1/queues/away/stats"],
    ["POST", "/v1/topics", { id: "away" }],
    ["POST", "/v1/topics/away/messages", { body: "x" }],
    ["GET", "/v1/subscriptions"],
  ];
  const askEverything = () => Promise.all(everything.map((one) => ask(...one)));

  test("stopped is 503 at once, the health check too; started again everything works by itself", async () => {
    const queue = await createQueue(service);
    await publish(queue, "kept");
    await cluster.stop("fast");
    for (let round = 0; round < 3; round++) {
      const answers = await askEverything();
      expect(answers.map(({ status }) => status)).toEqual(everything.map(() => 503));
      expect(Math.max(...answers.map(({ took_ms }) => took_ms))).toBeLessThan(1500);
    }
    await cluster.start();
    await until(async () => (await service.call("GET", "/v1/healthz")).status === 200, 5000);
    expect((await publish(queue, "later")).status).toBe(204);
    const { data } = (await ask("GET", `/v1/queues/${queue}/messages`)).body;
    expect(data.map((message: { body: string }) => message.body)).toEqual(["kept", "later"]);
  });

  test("silent is 503 within the statement timeout and 3 s; healed everything works by itself", async () => {
    const queue = await createQueue(service);
    await publish(queue, "kept");
    await askEverything().catch(() => {});
    await proxy.setMode("silent");
    for (let round = 0; round < 2; round++) {
      const answers = await askEverything();
      expect(answers.map(({ status }) => status)).toEqual(everything.map(() => 503));
      expect(Math.max(...answers.map(({ took_ms }) => took_ms))).toBeLessThan(answer_ms_max);
    }
    await proxy.heal();
    await until(async () => (await service.call("GET", "/v1/healthz")).status === 200, 10_000);
    expect((await publish(queue, "later")).status).toBe(204);
    const { data } = (await ask("GET", `/v1/queues/${queue}/messages`)).body;
    expect(data.map((message: { body: string }) => message.body)).toEqual(["kept", "later"]);
  });

  test("on one connection of two: the one that answers is kept", async () => {
    const db = openPostgres({ server: directUrl(), connections_max: 2, statement_timeout_ms });
    const pidOf = () =>
      db.run(
        "pid",
        async () => (await db.client`select pg_backend_pid() as pid, pg_sleep(0.02)`)[0]?.["pid"] as number,
      );
    const pids = await Promise.all([pidOf(), pidOf()]);
    const [stopped, other] = pids;
    expect(stopped).not.toBe(other);
    process.kill(stopped, "SIGSTOP");
    const outcomes: unknown[] = [];
    const failed = () => outcomes.filter((outcome) => typeof outcome === "string");
    await Promise.all(
      pids.map(async () => {
        while (failed().length === 0) outcomes.push(await pidOf().catch((error: DatabaseError) => error.code));
      }),
    );
    process.kill(stopped, "SIGCONT");
    expect(failed()).toEqual(["DEADLINE"]);
    expect(new Set(outcomes)).toEqual(new Set([other, "DEADLINE"]));
    const kept = await Promise.all([pidOf(), pidOf()]);
    expect(kept).toContain(other);
    expect(kept).not.toContain(stopped);
    await db.close(0);
  }, 15_000);

  test("refusing connections, or resetting them, is 503 and passes with it", async () => {
    for (const mode of ["refuse", "reset"] as const) {
      await proxy.setMode(mode);
      const answers = await askEverything();
      expect(answers.map(({ status }) => status)).toEqual(everything.map(() => 503));
      await proxy.heal();
      await until(async () => (await service.call("GET", "/v1/healthz")).status === 200, 5000);
    }
  });

  test("that does not get on with its work is 503 when the statement is cancelled, and nothing has happened", async () => {
    const queue = await createQueue(service);
    const held = Promise.withResolvers<void>();
    const released = Promise.withResolvers<void>();
    const holding = direct.begin(async (transaction) => {
      await transaction`lock table psqlqueue.messages in access exclusive mode`;
      held.resolve();
      await released.promise;
    });
    await held.promise;
    const answer = await publish(queue, "too late");
    expect(answer.status).toBe(503);
    expect(answer.took_ms).toBeLessThan(answer_ms_max);
    released.resolve();
    await holding;
    expect((await ask("GET", `/v1/queues/${queue}/messages`)).body.data).toEqual([]);
  }, 15_000);
});
