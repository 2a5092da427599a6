import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { fair, itemsOf, keyOf, putBatch } from "./fair.ts";
import { createQueue, is_embedded, openService, serviceForFile, uniqueId, until } from "./harness.ts";
import { all, keyedVerbsOf, textOf } from "./keyed.ts";
import { type Delivered, verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ receive_limit_max: 100 });
const { call, sql, broker, elapse } = service;
const { bodies, change, extend, look, nack, put, receive, take, update } = verbsOf(service);
const { drain, end, putAll } = keyedVerbsOf(service);

const receiveAnswer = (queue: string, query = "") => call("GET", `/v1/queues/${queue}/messages${query}`);

describe("max_in_flight_per_key", () => {
  const capped = { ...fair, max_in_flight_per_key: 2 };

  test("a key at its cap is skipped, and the others flow; the answer says why it is short", async () => {
    const queue = await createQueue(service, capped);
    await putBatch(service, queue, [...itemsOf("a", 5), ...itemsOf("b", 1)]);
    const first = await receiveAnswer(queue, "?limit=10");
    expect(textOf(first.body.data).sort()).toEqual(["a0", "a1", "b0"]);
    expect(first.headers.get("x-throttled")).toBe("in_flight");
    const second = await receiveAnswer(queue);
    expect([textOf(second.body.data), second.headers.get("x-throttled")]).toEqual([[], "in_flight"]);
    await put(queue, { body: "c0", fairness_key: "c" });
    expect(await bodies(queue, all)).toEqual(["c0"]);
    const [a0] = first.body.data as Delivered[];
    await end(a0 as Delivered);
    expect(await bodies(queue, all)).toEqual(["a2"]);
  });

  test("a key without a place does not give its turn to one that has had its own", async () => {
    const queue = await createQueue(service, capped);
    await putBatch(service, queue, [...itemsOf("a", 3), ...itemsOf("d", 2)]);
    expect(await bodies(queue, "?limit=4")).toEqual(["a0", "d0", "a1", "d1"]);
    await putBatch(service, queue, itemsOf("e", 2));
    expect(await bodies(queue, "?limit=2")).toEqual(["e0", "e1"]);
    // As far as the queue has come, and so is the key without a place, between them by its name.
    await putBatch(service, queue, [{ body: "none0" }, { body: "none1" }, ...itemsOf("b", 1), ...itemsOf("a", 1)]);
    expect((await bodies(queue, "?limit=2")).sort()).toEqual(["b0", "none0"]);
  });

  test("an ack, a nack, a release, a dead letter and the end of a lease free a place", async () => {
    const dead = await createQueue(service);
    const queue = await createQueue(service, {
      ...fair,
      max_in_flight_per_key: 1,
      dead_queue_id: dead,
      message_max_deliveries: 5,
    });
    await putBatch(service, queue, itemsOf("a", 6));
    await end(await take(queue));
    const a1 = await take(queue);
    expect(a1.body).toBe("a1");
    await nack(queue, a1.id, { lease_token: a1.lease_token, visibility_timeout_seconds: 1000 });
    const a2 = await take(queue);
    expect(a2.body).toBe("a2");
    await extend(queue, a2.id, 0, a2.lease_token);
    expect((await take(queue)).body).toBe("a3");
    await elapse(31);
    const free = await take(queue);
    await nack(queue, free.id, { lease_token: free.lease_token, dead_letter: true });
    expect((await receive(queue)).length).toBe(1);
    expect(await bodies(queue)).toEqual([]);
    expect((await bodies(dead)).length).toBe(1);
  });

  test("an extension keeps the place", async () => {
    const queue = await createQueue(service, { ...fair, max_in_flight_per_key: 1 });
    await putBatch(service, queue, itemsOf("a", 2));
    const a0 = await take(queue);
    await extend(queue, a0.id, 100, a0.lease_token);
    await elapse(40);
    expect(await bodies(queue)).toEqual([]);
    await elapse(61);
    expect((await receive(queue)).length).toBe(1);
  });

  test("a waiter wakes when a place of a key becomes free, by an ack and by the end of a lease", async () => {
    const queue = await createQueue(service, { ...fair, max_in_flight_per_key: 1 });
    await putBatch(service, queue, itemsOf("a", 2));
    const a0 = await take(queue);
    const waiting = receive(queue, "?wait_seconds=20");
    await until(() => broker.wakeups.size() === 1);
    await end(a0);
    expect(textOf(await waiting)).toEqual(["a1"]);
    const short = await createQueue(service, { ...fair, max_in_flight_per_key: 1, ack_deadline_seconds: 1 });
    await putBatch(service, short, itemsOf("b", 2));
    await take(short);
    expect((await receive(short, "?wait_seconds=10")).length).toBe(1);
  });

  test("leases from before the cap count, each for its key", async () => {
    const queue = await createQueue(service);
    await putBatch(service, queue, [...itemsOf("a", 3), ...itemsOf("b", 2)]);
    expect(await bodies(queue, "?limit=2")).toEqual(["a0", "a1"]);
    await update(queue, { ...fair, max_in_flight_per_key: 2 });
    expect((await bodies(queue, all)).sort()).toEqual(["b0", "b1"]);
    await update(queue, { max_in_flight_per_key: 3 });
    expect(await bodies(queue, all)).toEqual(["a2"]);
  });

  test("it goes together with the queue's own cap and a rate", async () => {
    const queue = await createQueue(service, { ...capped, max_in_flight: 3 });
    await putBatch(service, queue, [...itemsOf("a", 5), ...itemsOf("b", 5)]);
    expect((await bodies(queue, all)).length).toBe(3);
    await update(queue, { max_in_flight: null, rate_limit: { count: 1, per_seconds: 3600, burst: 1 } });
    const answer = await receiveAnswer(queue, all);
    expect([answer.body.data.length, answer.headers.get("x-throttled")]).toEqual([1, "rate"]);
  });

  test("no key has ever more than it may, with many consumers on two servers", async () => {
    const other = is_embedded ? service : await openService({ url: service.url });
    const queue = await createQueue(service, capped);
    const keys = ["a", "b", "c"];
    await putBatch(
      service,
      queue,
      keys.flatMap((key) => itemsOf(key, 60)),
    );
    const held = new Map<string, number>();
    let most = 0;
    let done = 0;
    const consume = async ({ call: ask }: typeof service) => {
      while (done < 180) {
        const got = (await ask("GET", `/v1/queues/${queue}/messages?limit=4&wait_seconds=1`)).body.data as Delivered[];
        for (const { body } of got) {
          held.set(keyOf(body), (held.get(keyOf(body)) ?? 0) + 1);
          most = Math.max(most, ...held.values());
        }
        for (const { id, lease_token, body } of got) {
          held.set(keyOf(body), (held.get(keyOf(body)) ?? 0) - 1);
          await ask("PUT", `/v1/queues/${queue}/messages/${id}/ack`, { lease_token });
          done += 1;
        }
      }
    };
    await Promise.all(Array.from({ length: 8 }, (_, i) => consume(i % 2 ? service : other)));
    expect([done, most <= 2]).toEqual([180, true]);
    if (other !== service) await other.close();
  }, 120_000);
});

describe("with what else a queue has", () => {
  test("priority inside a key", async () => {
    const queue = await createQueue(service, { ...fair, priority_enabled: true });
    for (const priority of [1, 3, 2]) {
      await put(queue, { body: `a${priority}`, fairness_key: "a", priority });
      await put(queue, { body: `b${priority}`, fairness_key: "b", priority });
    }
    expect(await bodies(queue, "?limit=4")).toEqual(["a3", "b3", "a2", "b2"]);
    await update(queue, { priority_aging_seconds: 10 });
    await elapse(25);
    await put(queue, { body: "a4", fairness_key: "a", priority: 3 });
    expect((await bodies(queue, all)).filter((body) => body.startsWith("a")).slice(-2)).toEqual(["a1", "a4"]);
  });

  test("ordering keys: one blocked by its order is skipped, loses no turn, and stays in order", async () => {
    const queue = await createQueue(service, { fair_by: "ordering_key" });
    await putAll(queue, "a", "a0", "a1", "a2");
    await putAll(queue, "b", "b0", "b1");
    await put(queue, { body: "none0" });
    const got = await receive(queue, all);
    expect(textOf(got)).toEqual(["none0", "a0", "b0"]);
    expect(await bodies(queue, all)).toEqual([]);
    for (const message of got) await end(message);
    expect(await drain(queue)).toEqual(["a1", "b1", "a2"]);
  });

  test("a fairness key over several ordering keys", async () => {
    const queue = await createQueue(service, { ...fair, max_in_flight_per_key: 2 });
    for (const key of ["x", "y", "z"]) {
      for (let i = 0; i < 2; i++) {
        await put(queue, { body: `${key}${i}`, fairness_key: "tenant", ordering_key: key });
      }
    }
    const got = await receive(queue, all);
    expect(textOf(got)).toEqual(["x0", "y0"]);
    await end(got[0] as Delivered);
    expect(textOf(await receive(queue, all))).toEqual(["z0"]);
  });

  test("labels: as keys, and as a filter that keeps the turns", async () => {
    const by_label = await createQueue(service, { fair_by: "label" });
    for (let i = 0; i < 3; i++) await put(by_label, { body: `x${i}`, label: "x" });
    await put(by_label, { body: "y0", label: "y" });
    expect(await bodies(by_label, "?limit=2")).toEqual(["x0", "y0"]);
    expect(await bodies(by_label, "?label=x&limit=1")).toEqual(["x1"]);
    const queue = await createQueue(service, fair);
    await putBatch(service, queue, [
      ...itemsOf("a", 5, { label: "red" }),
      ...itemsOf("b", 5, { label: "blue" }),
      ...itemsOf("c", 2, { label: "red" }),
    ]);
    expect(await bodies(queue, "?label=red&limit=4")).toEqual(["a0", "c0", "a1", "c1"]);
    expect(await bodies(queue, "?label=none")).toEqual([]);
    expect(await bodies(queue, "?label=blue&limit=2")).toEqual(["b0", "b1"]);
    expect((await bodies(queue, all)).sort()).toEqual(["a2", "a3", "a4", "b2", "b3", "b4"]);
  });

  test("a rare label is found behind more keys than are looked at", async () => {
    const queue = await createQueue(service, fair);
    await putBatch(
      service,
      queue,
      Array.from({ length: 1500 }, (_, i) => ({ body: `${i}`, fairness_key: `k${i}`, label: "common" })),
    );
    await put(queue, { body: "found", fairness_key: "z", label: "rare" });
    expect(await bodies(queue, "?label=rare")).toEqual(["found"]);
    expect(await bodies(queue, "?label=rare")).toEqual([]);
  });

  test("a label that a message gets later", async () => {
    const queue = await createQueue(service, { fair_by: "label", max_in_flight_per_key: 1 });
    await put(queue, { body: "x0", label: "x" });
    const id = await put(queue, { body: "x1", label: "x" });
    await change(queue, id, { label: "y" });
    expect(await bodies(queue, all)).toEqual(["x0", "x1"]);
  });

  test("dead letters and redrive: shared there and here, each by its own setting", async () => {
    const dead = await createQueue(service, { fair_by: "fairness_key" });
    const queue = await createQueue(service, { ...fair, dead_queue_id: dead, message_max_deliveries: 1 });
    await putBatch(service, queue, [...itemsOf("a", 3), ...itemsOf("b", 1)]);
    for (const { id, lease_token } of await receive(queue, all)) await nack(queue, id, { lease_token });
    expect(await bodies(dead, "?limit=2&ack_deadline_seconds=0")).toEqual(["a0", "b0"]);
    expect((await call("POST", `/v1/queues/${dead}/redrive?wait=true`, { limit: 10 })).body).toEqual({ moved: 4 });
    expect((await bodies(queue, all)).sort()).toEqual(["a0", "a1", "a2", "b0"]);
  });

  test("a purge leaves nothing to trip over", async () => {
    const queue = await createQueue(service, { ...fair, max_in_flight_per_key: 1 });
    await putBatch(service, queue, [...itemsOf("a", 5), ...itemsOf("b", 5)]);
    await receive(queue, all);
    expect((await call("PUT", `/v1/queues/${queue}/purge`)).status).toBeLessThan(300);
    await put(queue, { body: "a9", fairness_key: "a" });
    expect(await bodies(queue, all)).toEqual(["a9"]);
  });

  test("topics and SQL give it; a queue that is not shared keeps it", async () => {
    const [shared, plain] = [await createQueue(service, fair), await createQueue(service)];
    const topic = uniqueId("t");
    await call("POST", "/v1/topics", { id: topic });
    for (const queue_id of [shared, plain]) {
      await call("POST", "/v1/subscriptions", { id: uniqueId("s"), topic_id: topic, queue_id });
    }
    for (const body of ["a0", "a1", "b0"]) {
      await call("POST", `/v1/topics/${topic}/messages`, { body, fairness_key: keyOf(body), weight: 2 });
    }
    await call("POST", `/v1/topics/${topic}/messages`, { body: "none" });
    expect(await bodies(shared, all)).toEqual(["none", "a0", "b0", "a1"]);
    const [first] = await receive(plain, all);
    expect((await look(plain, first?.id ?? "")).body).toMatchObject({ body: "a0", fairness_key: "a", weight: 2 });
    const queue = await createQueue(service, fair);
    await sql`select psqlqueue.publish(${queue}, 'a0', null, null, '{"fairness_key":"a"}')`;
    await sql`select psqlqueue.publish_batch(${queue},
      '[{"body":"a1","fairness_key":"a"},{"body":"b0","fairness_key":"b","weight":100}]')`;
    await broker.moveOutbox();
    expect(await bodies(queue, "?limit=2")).toEqual(["a0", "b0"]);
    await expect(
      sql`select psqlqueue.publish(${queue}, 'x', null, null, '{"fairness_key":"","weight":101}')`.execute(),
    ).rejects.toMatchObject({
      detail: "weight: must be no greater than 100; fairness_key: cannot be blank.",
    });
  });
});
