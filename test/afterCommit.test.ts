import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { type Broker, createBroker } from "../src/broker/broker.ts";
import type { Db } from "../src/db/db.ts";
import { BrokerError, DatabaseError } from "../src/errors.ts";
import { createApp } from "../src/http/app.ts";
import { createQueue, is_embedded, limits, read, serviceForFile, uniqueId } from "./harness.ts";
import { verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

// What happens between a statement's commit and its answer: the look-ups that explain refusals fail, or the answer is
// lost and the statement is sent again. Both are made to happen at the one place through which every statement goes.

const service = await serviceForFile({ receive_limit_max: 100 });
const { call, sql } = service;
const { put, take, receive, look } = verbsOf(service);

type Faults = { failing: Set<string>; repeated: Set<string>; full: Set<string> };

/** A broker on the same database, whose statements fail or run twice by name. */
function faulty(): { broker: Broker; faults: Faults } {
  const faults: Faults = { failing: new Set(), repeated: new Set(), full: new Set() };
  const db: Db = {
    ...service.db,
    async run(name, statement, is_repeatable) {
      if (faults.failing.has(name)) throw new DatabaseError("lost", "CONNECTION_CLOSED", name);
      if (faults.full.has(name)) throw new DatabaseError("timeout", "53100", name);
      if (faults.repeated.has(name)) await service.db.run(name, statement);
      return await service.db.run(name, statement, is_repeatable);
    },
  };
  return { broker: createBroker(db, limits), faults };
}

const message = { body: "x", label: null, attributes: null };
const no_options = { delay_seconds: null, deliver_at: null, ttl_seconds: null, expires_at: null, dedup_key: null };
const unavailable = { code: 19, message: "service unavailable" };
const count = async (queue: string) => (await receive(queue, "?limit=100&ack_deadline_seconds=0")).length;

describe("a look-up that fails after the commit", () => {
  const { broker, faults } = faulty();
  const app = createApp(broker, {
    body_bytes_max: 1_000_000,
    cors_origins: [],
    receive_limit_max: 100,
    wait_seconds_max: 20,
    version: "test",
  });
  const send = async (method: string, path: string, body: unknown) =>
    read(await app.handle(new Request(`http://localhost${path}`, { method, body: JSON.stringify(body) })));

  test("fails the refused publish, and not those that were stored beside it", async () => {
    const queue = await createQueue(service);
    faults.failing.add("explain_unpublished");
    const results = await Promise.allSettled([
      broker.publish({ ...message, queue_id: queue }),
      broker.publish({ ...message, queue_id: "unknown" }),
      broker.publish({ ...message, queue_id: queue }),
    ]);
    faults.failing.clear();
    expect(results.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled"]);
    expect(await count(queue)).toBe(2);
  });

  test("of a queue that looks at bodies stores nothing twice", async () => {
    const [plain, hashed] = [await createQueue(service), await createQueue(service, { content_dedup: true })];
    faults.failing.add("publish_with_options");
    const results = await Promise.allSettled([
      broker.publish({ ...message, queue_id: plain }),
      broker.publish({ ...message, queue_id: hashed }),
    ]);
    faults.failing.clear();
    expect(results.map(({ status }) => status)).toEqual(["fulfilled", "rejected"]);
    expect([await count(plain), await count(hashed)]).toEqual([1, 0]);
  });

  test("says of a batch which item it was", async () => {
    const queue = await createQueue(service);
    const first = await put(queue, { body: "x", dedup_id: "1" });
    const messages = [{ body: "new" }, { body: "x", dedup_id: "1" }];
    for (const [path, status] of [
      ["", 201],
      ["?atomic=false", 200],
    ] as const) {
      faults.failing.add("find_originals");
      const answer = await send("POST", `/v1/queues/${queue}/messages/batch${path}`, { messages });
      faults.failing.clear();
      expect(answer).toMatchObject({ status, body: { data: [{ deduplicated: false }, { error: unavailable }] } });
    }
    expect(await count(queue)).toBe(3);
    expect((await look(queue, first)).status).toBe(200);
  });

  test("of a topic fails the duplicate only", async () => {
    const [queue, topic] = [await createQueue(service), uniqueId("t")];
    await call("POST", "/v1/topics", { id: topic });
    await call("POST", "/v1/subscriptions", { id: uniqueId("s"), topic_id: topic, queue_id: queue });
    const messages = [{ body: "a" }, { body: "b", dedup_id: "k" }, { body: "b", dedup_id: "k" }];
    faults.failing.add("find_topic_originals");
    const answer = await send("POST", `/v1/topics/${topic}/messages/batch`, { messages });
    faults.failing.clear();
    expect(answer).toMatchObject({
      status: 201,
      body: { data: [{ delivered_queues: 1 }, { delivered_queues: 1 }, { error: unavailable }] },
    });
    expect(await count(queue)).toBe(2);
  });

  test.each(["ack", "nack", "extend"])("of a %s fails the missing one, and not the others", async (verb) => {
    const queue = await createQueue(service);
    await put(queue);
    const { id, lease_token } = await take(queue);
    faults.failing.add("explain_misses");
    const answer = await send("POST", `/v1/queues/${queue}/${verb}`, {
      items: [
        { id: "unknown", lease_token: "1" },
        { id, lease_token },
      ],
      ...(verb === "extend" && { ack_deadline_seconds: 9 }),
    });
    faults.failing.clear();
    expect(answer).toMatchObject({
      status: 200,
      body: {
        results: [
          { id: "unknown", status: "failed", error: unavailable },
          { id, status: "ok" },
        ],
      },
    });
  });
});

describe("on a full disk", () => {
  test("an ack succeeds without the archive, so that consuming makes room; a receive ends what has expired", async () => {
    const { broker, faults } = faulty();
    const queue = await createQueue(service);
    await put(queue);
    const { id, lease_token } = await take(queue);
    faults.full.add("end_messages");
    expect(await broker.ack({ queue_id: queue, id, lease_token })).toBeUndefined();
    expect((await look(queue, id)).status).toBe(404);
    const expired = await put(queue, { body: "x", ttl_seconds: 1 });
    await service.elapse(2);
    const from = { queue_id: queue, label: undefined, lease_seconds: undefined, wait_ms: 0, wait_ms_max: 0 };
    expect(await broker.receive({ ...from, limit: 10 })).toEqual([]);
    expect((await look(queue, expired)).status).toBe(404);
  });
});

describe("every batch answers per item", () => {
  test("an extension that is too long does not hide one that was made", async () => {
    const queue = await createQueue(service, { max_lease_seconds: 100 });
    await put(queue);
    await put(queue);
    const [one, two] = await receive(queue);
    const items = [
      { id: one?.id, lease_token: one?.lease_token, ack_deadline_seconds: 90 },
      { id: two?.id, lease_token: two?.lease_token, ack_deadline_seconds: 5000 },
    ];
    const { status, body } = await call("POST", `/v1/queues/${queue}/extend`, { items });
    expect({ status, body }).toEqual({
      status: 200,
      body: {
        results: [
          { id: one?.id, status: "ok" },
          {
            id: two?.id,
            status: "failed",
            error: {
              code: 3,
              message: "request validation failed",
              details: expect.stringMatching(/^ack_deadline_seconds: must be no greater than (99|100)\.$/),
            },
          },
        ],
      },
    });
  });

  test("an unknown queue is a matter of all", async () => {
    const answer = await call("POST", "/v1/queues/unknown/ack", { items: [{ id: "a" }] });
    expect([answer.status, answer.body.code]).toEqual([404, 5]);
  });
});

describe("a statement that is sent again because its answer was lost answers as the first would have", () => {
  const { broker, faults } = faulty();
  beforeAll(() => {
    for (const name of ["publish", "publish_with_options", "fanout", "end_messages", "end_ordered", "nack", "extend"])
      faults.repeated.add(name);
  });
  afterAll(() => faults.repeated.clear());

  const nack = { visibility_timeout_seconds: null, error: null, dead_letter: false };

  test("a nack, with its token and without", async () => {
    const queue = await createQueue(service);
    await put(queue);
    const { id, lease_token } = await take(queue);
    expect(await broker.nack({ queue_id: queue, id, lease_token, ...nack })).toBeUndefined();
    expect(await broker.nack({ queue_id: queue, id, lease_token: null, ...nack })).toBeUndefined();
    // The client's own repeat is told that the lease is over.
    expect(broker.nack({ queue_id: queue, id, lease_token, ...nack })).rejects.toMatchObject({ error: "lease_lost" });
    expect(await take(queue)).toMatchObject({ id, delivery_attempts: 2 });
  });

  test("a nack that dead-letters", async () => {
    const dead = await createQueue(service);
    const queue = await createQueue(service, { dead_queue_id: dead, message_max_deliveries: 1 });
    await put(queue);
    const { id, lease_token } = await take(queue);
    const [result, stale] = await broker.nackBatch([
      { queue_id: queue, id, lease_token, ...nack },
      { queue_id: queue, id: "unknown", lease_token: "1", ...nack },
    ]);
    expect([result, stale]).toEqual([undefined, new BrokerError("message_not_found")]);
    expect(await take(dead)).toMatchObject({ id });
  });

  test("a release and an extension", async () => {
    const queue = await createQueue(service);
    await put(queue);
    const { id, lease_token } = await take(queue);
    const extend = { queue_id: queue, id, lease_token };
    expect(await broker.extend({ ...extend, ack_deadline_seconds: 60 })).toEqual({
      lease_expires_at: expect.any(String),
    });
    expect(await broker.extend({ ...extend, ack_deadline_seconds: 0 })).toEqual({
      lease_expires_at: expect.any(String),
    });
    expect(await take(queue)).toMatchObject({ id });
  });

  test.each([
    ["an ack", {}, {}],
    ["an ack where there is no archive", { archive_retention_seconds: 0 }, {}],
    ["an ack of a message with an ordering key", {}, { ordering_key: "k" }],
    ["the same without an archive", { archive_retention_seconds: 0 }, { ordering_key: "k" }],
  ])("%s", async (_, settings, options) => {
    const queue = await createQueue(service, settings);
    for (const has_token of [true, false]) {
      await call("POST", `/v1/queues/${queue}/messages`, { body: "x", ...options });
      const { id, lease_token } = await take(queue);
      const item = { queue_id: queue, id, lease_token: has_token ? lease_token : null };
      const unknown = { ...item, id: "unknown" };
      expect(await broker.ackBatch([unknown, item])).toEqual([new BrokerError("message_not_found"), undefined]);
    }
  });

  test("a publish, with a client's key and without", async () => {
    const queue = await createQueue(service);
    const { deduplicated } = await broker.publish({ ...message, queue_id: queue });
    const keyed = await broker.publish({ ...message, queue_id: queue }, { ...no_options, dedup_key: "k" });
    expect([deduplicated, keyed.deduplicated, await count(queue)]).toEqual([false, false, 2]);
  });

  test("a keyed fan-out", async () => {
    const [queue, topic] = [await createQueue(service), uniqueId("t")];
    await call("POST", "/v1/topics", { id: topic });
    await call("POST", "/v1/subscriptions", { id: uniqueId("s"), topic_id: topic, queue_id: queue });
    const published = { ...message, ...no_options, topic_id: topic, dedup_key: "k" };
    const [delivered] = [await broker.publishToTopic(published), await count(queue)];
    const { id } = await take(queue);
    expect(delivered).toEqual({ delivered_queues: 1, deduplicated: false, copies: [{ queue_id: queue, id }] });
    expect(await broker.publishToTopic(published)).toEqual({ delivered_queues: 1, deduplicated: true, copies: [] });
  });
});

test("a fan-out with client keys costs at most twice one without", async () => {
  const topic = uniqueId("t");
  await call("POST", "/v1/topics", { id: topic });
  for (let i = 0; i < 10; i++) {
    const queue = await createQueue(service);
    await call("POST", "/v1/subscriptions", { id: uniqueId("s"), topic_id: topic, queue_id: queue });
  }
  const measure = async (key: (i: number) => string | null) => {
    const items = Array.from({ length: 1000 }, (_, i) => ({ ...message, ...no_options, dedup_key: key(i) }));
    const start = performance.now();
    await service.broker.publishBatchToTopic(topic, items, true);
    return performance.now() - start;
  };
  let [plain, keyed] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
  for (let round = 0; round < 5; round++) {
    plain = Math.min(plain, await measure(() => null));
    keyed = Math.min(keyed, await measure((i) => `${round}-${i}`));
  }
  // A quadratic one is 20 times as slow; the bound leaves room for a busy machine.
  expect(keyed / plain).toBeLessThan(4);
});

test.if(!is_embedded)(
  "a message that is leased anew while an old token's settlement waits for it stays as it is",
  async () => {
    const queue = await createQueue(service);
    const settlements = [
      (id: string, lease_token: string) => service.broker.ack({ queue_id: queue, id, lease_token }),
      (id: string, lease_token: string) =>
        service.broker.extend({ queue_id: queue, id, lease_token, ack_deadline_seconds: 100 }),
      (id: string, lease_token: string) =>
        service.broker.nack({
          queue_id: queue,
          id,
          lease_token,
          visibility_timeout_seconds: 0,
          error: null,
          dead_letter: false,
        }),
    ];
    for (const settle of settlements) {
      await put(queue);
      const { id, lease_token } = await take(queue);
      let settled: Promise<unknown> | undefined;
      await sql.begin(async (leasing) => {
        await leasing`update psqlqueue.messages set lease_token = 4711, lease_expires_at = now() + interval '1 hour',
          visible_at = now() + interval '1 hour' where id = ${id}`;
        settled = settle(id, lease_token).then(
          () => "settled",
          (error) => error.error,
        );
        for (;;) {
          const [waiting] = await leasing`select pg_stat_clear_snapshot(), count(*)::int as count from pg_locks
            where not granted and locktype = 'transactionid'`;
          if (waiting?.["count"] > 0) return;
        }
      });
      expect(await settled).toBe("lease_lost");
      const [row] = await sql`select lease_token from psqlqueue.messages where id = ${id}`;
      expect(row).toEqual({ lease_token: "4711" });
      await sql`delete from psqlqueue.messages where id = ${id}`;
    }
  },
);
