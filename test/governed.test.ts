import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createQueue, is_embedded, openService, serviceForFile, uniqueId, until } from "./harness.ts";
import { all, keyedVerbsOf, textOf } from "./keyed.ts";
import { type Delivered, refused, verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ receive_limit_max: 100 });
const { call, sql, broker, elapse } = service;
const { ack, bodies, change, extend, look, nack, publish, put, receive, stats, take, update } = verbsOf(service);
const { drain, end, putAll } = keyedVerbsOf(service);

/** Publishes bodies like `5a`: with their number as priority. */
async function putPrioritized(queue: string, ...texts: string[]): Promise<string[]> {
  const ids: string[] = [];
  for (const body of texts) ids.push(await put(queue, { body, priority: Number.parseInt(body, 10) }));
  return ids;
}
const prioritized = { priority_enabled: true };
const receiveAnswer = (queue: string, query = "") => call("GET", `/v1/queues/${queue}/messages${query}`);

describe("priority", () => {
  test("higher ones come first, and those of one priority by time", async () => {
    const queue = await createQueue(service, prioritized);
    await putPrioritized(queue, "0a", "-100", "5a", "100", "0b", "5b");
    expect(await bodies(queue, "?limit=4")).toEqual(["100", "5a", "5b", "0a"]);
    expect(await bodies(queue, all)).toEqual(["0b", "-100"]);
  });

  test("a filter by label keeps the order, and a message shows its priority", async () => {
    const queue = await createQueue(service, prioritized);
    for (const priority of [1, 3, 2]) await put(queue, { body: `${priority}`, priority, label: "a" });
    await put(queue, { body: "9", priority: 9 });
    const [first, ...others] = await receive(queue, "?label=a");
    expect([first, ...others].map((own) => own?.body)).toEqual(["3", "2", "1"]);
    expect((await look(queue, first?.id ?? "")).body.priority).toBe(3);
    expect((await receiveAnswer(queue)).body.data[0].priority).toBe(9);
  });

  test("a priority is a whole number from -100 to 100, and needs a queue that knows it", async () => {
    const queue = await createQueue(service, prioritized);
    const detailsOf = async (priority: number) => (await publish(queue, { body: "x", priority })).body?.details;
    expect(await detailsOf(101)).toBe("priority: must be no greater than 100.");
    expect(await detailsOf(-101)).toBe("priority: must be no less than -100.");
    expect((await publish(queue, { body: "x", priority: 1.5 })).body.code).toBe(2);
    const plain = await createQueue(service);
    const refusal = refused(3, "request validation failed", "priority: is not enabled for this queue.");
    expect((await publish(plain, { body: "x", priority: 1 })).body).toEqual(refusal);
    expect((await publish(plain, { body: "x", priority: 0 })).status).toBe(204);
    expect(await bodies(plain)).toEqual(["x"]);
  });

  test("a topic's copies have it where the queue knows it", async () => {
    const [knows, ignores] = [await createQueue(service, prioritized), await createQueue(service)];
    const topic = uniqueId("t");
    await call("POST", "/v1/topics", { id: topic });
    for (const queue_id of [knows, ignores]) {
      await call("POST", "/v1/subscriptions", { id: uniqueId("s"), topic_id: topic, queue_id });
    }
    for (const priority of [1, 2])
      await call("POST", `/v1/topics/${topic}/messages`, { body: `${priority}`, priority });
    expect([await bodies(knows), await bodies(ignores)]).toEqual([
      ["2", "1"],
      ["1", "2"],
    ]);
  });

  test("published by SQL it counts as well", async () => {
    const queue = await createQueue(service, prioritized);
    await sql`select psqlqueue.publish(${queue}, 'low', null, null, '{"priority":-1}')`;
    await sql`select psqlqueue.publish_batch(${queue}, '[{"body":"high","priority":100}]')`;
    await broker.moveOutbox();
    expect(await bodies(queue)).toEqual(["high", "low"]);
    const plain = await createQueue(service);
    await expect(sql`select psqlqueue.publish(${plain}, 'x', null, null, '{"priority":1}')`.execute()).rejects.toThrow(
      "request validation failed",
    );
  });

  test("with ageing a low one is not starved for ever", async () => {
    const queue = await createQueue(service, { ...prioritized, priority_aging_seconds: 10 });
    await putPrioritized(queue, "0");
    await elapse(40);
    await putPrioritized(queue, "3", "5");
    expect(await bodies(queue, all)).toEqual(["5", "0", "3"]);
  });

  test("it can be changed while nobody holds the message", async () => {
    const queue = await createQueue(service, prioritized);
    const [low = ""] = await putPrioritized(queue, "1", "2");
    expect((await change(queue, low, { priority: 3 })).body.priority).toBe(3);
    expect(await bodies(queue)).toEqual(["1", "2"]);
    expect((await change(queue, low, { priority: 4 })).status).toBe(409);
    const plain = await createQueue(service);
    const details = "priority: is not enabled for this queue.";
    expect((await change(plain, await put(plain), { priority: 3 })).body.details).toBe(details);
  });

  test("ageing needs priorities", async () => {
    const details = "priority_aging_seconds: must be given together with priority_enabled.";
    const body = { id: uniqueId(), ack_deadline_seconds: 30, message_retention_seconds: 30, priority_aging_seconds: 5 };
    expect((await call("POST", "/v1/queues", body)).body.details).toBe(details);
    const queue = await createQueue(service, { ...prioritized, priority_aging_seconds: 5 });
    expect((await update(queue, { priority_enabled: false })).body.details).toBe(details);
    expect((await update(queue, { priority_enabled: null, priority_aging_seconds: null })).status).toBe(200);
  });

  test("it chooses between the heads of keys only", async () => {
    const queue = await createQueue(service, prioritized);
    await put(queue, { body: "a1", ordering_key: "a", priority: 1 });
    await put(queue, { body: "a2", ordering_key: "a", priority: 100 });
    await put(queue, { body: "b1", ordering_key: "b", priority: 2 });
    expect(await bodies(queue, "?limit=1")).toEqual(["b1"]);
    expect(await drain(queue)).toEqual(["a1", "a2"]);
  });

  test("dead letters keep it on their way there and back, and are found in a queue that does not know it", async () => {
    const dead = await createQueue(service);
    const queue = await createQueue(service, { ...prioritized, dead_queue_id: dead, message_max_deliveries: 1 });
    await putPrioritized(queue, "1", "2");
    for (const message of await receive(queue)) await nack(queue, message.id, { lease_token: message.lease_token });
    expect(await stats(dead)).toMatchObject({ ready: 2, dead: 2 });
    expect(await bodies(dead, "?ack_deadline_seconds=0")).toEqual(["2", "1"]);
    await call("POST", `/v1/queues/${dead}/redrive?wait=true`, { limit: 10 });
    expect(await bodies(queue)).toEqual(["2", "1"]);
  });

  test("messages stay to be found when the queue gives priorities up, and stats count all", async () => {
    const queue = await createQueue(service, prioritized);
    await putPrioritized(queue, "-5", "7");
    await put(queue, { body: "later", priority: 3, delay_seconds: 60 });
    expect((await update(queue, { priority_enabled: false })).body.priority_enabled).toBe(false);
    expect(await stats(queue)).toMatchObject({ ready: 2, delayed: 1 });
    expect(await drain(queue)).toEqual(["7", "-5"]);
  });

  test("a waiter wakes for one of any priority, also when its delay is over", async () => {
    const queue = await createQueue(service, prioritized);
    const first = receive(queue, "?wait_seconds=10");
    await until(() => broker.wakeups.size() === 1);
    await putPrioritized(queue, "-7");
    expect(textOf(await first)).toEqual(["-7"]);
    await put(queue, { body: "delayed", priority: 50, delay_seconds: 1 });
    expect(textOf(await receive(queue, "?wait_seconds=10"))).toEqual(["delayed"]);
  });

  test("what has expired or used up its deliveries is put away", async () => {
    const dead = await createQueue(service);
    const queue = await createQueue(service, { ...prioritized, dead_queue_id: dead, message_max_deliveries: 1 });
    await put(queue, { body: "expired", priority: 9, ttl_seconds: 10 });
    await putPrioritized(queue, "5");
    expect(textOf(await receive(queue, "?limit=1&ack_deadline_seconds=11"))).toEqual(["expired"]);
    expect(await bodies(queue, "?limit=1")).toEqual(["5"]);
    await elapse(31);
    await putPrioritized(queue, "1");
    expect(await bodies(queue, "?limit=1")).toEqual(["1"]);
    expect(await bodies(dead)).toEqual(["5"]);
  });
});

describe("max_in_flight", () => {
  test("a receive returns fewer, and says why; an ack or the end of a lease frees a place", async () => {
    const queue = await createQueue(service, { max_in_flight: 2 });
    for (const body of ["1", "2", "3", "4"]) await put(queue, { body });
    const answer = await receiveAnswer(queue);
    expect([textOf(answer.body.data), answer.headers.get("x-throttled")]).toEqual([["1", "2"], "in_flight"]);
    const none = await receiveAnswer(queue);
    expect([none.status, none.body.data, none.headers.get("x-throttled")]).toEqual([200, [], "in_flight"]);
    await end(answer.body.data[0]);
    expect(await bodies(queue)).toEqual(["3"]);
    await elapse(31);
    const rest = await receiveAnswer(queue, "?limit=2");
    expect([textOf(rest.body.data), rest.headers.get("x-throttled")]).toEqual([["4", "2"], null]);
  });

  test("a nack and a release free the place, an extension keeps it, a lost lease does not come back", async () => {
    const queue = await createQueue(service, { max_in_flight: 1 });
    await put(queue, { body: "1" });
    await put(queue, { body: "2" });
    const one = await take(queue);
    expect((await extend(queue, one.id, 60, one.lease_token)).status).toBe(204);
    await elapse(40);
    expect(await bodies(queue)).toEqual([]);
    expect((await extend(queue, one.id, 0, one.lease_token)).status).toBe(204);
    const two = await take(queue);
    expect(two.body).toBe("2");
    await nack(queue, two.id, { lease_token: two.lease_token, visibility_timeout_seconds: 1000 });
    const again = await take(queue);
    await elapse(31);
    expect((await extend(queue, again.id, 60, again.lease_token)).body).toEqual(refused(11, "lease lost"));
    expect((await ack(queue, again.id, again.lease_token)).status).toBe(204);
  });

  test.if(!is_embedded)(
    "a lease lasts as long as was asked from when it is made, not from when it began to wait",
    async () => {
      const queue = await createQueue(service, { max_in_flight: 10 });
      await put(queue, { body: "1" });
      await receive(queue, "?ack_deadline_seconds=0");
      const waited_ms = 500;
      const received = await sql.begin(async (session) => {
        await session`select from psqlqueue.governors
        where queue_no = (select no from psqlqueue.queues where id = ${queue}) for update`;
        const waiting = receiveAnswer(queue, "?ack_deadline_seconds=5");
        await Bun.sleep(waited_ms);
        return { waiting, was_ms: Date.now() };
      });
      const [message] = (await received.waiting).body.data;
      expect(Date.parse(message.lease_expires_at)).toBeGreaterThan(received.was_ms + 5000 - waited_ms / 2);
    },
  );

  test("leases that were made before the cap count", async () => {
    const queue = await createQueue(service);
    for (const body of ["1", "2", "3"]) await put(queue, { body });
    await receive(queue, "?limit=2");
    await update(queue, { max_in_flight: 2 });
    expect(await bodies(queue)).toEqual([]);
    await update(queue, { max_in_flight: 3 });
    expect(await bodies(queue)).toEqual(["3"]);
  });

  test("a waiter wakes when a place becomes free", async () => {
    const queue = await createQueue(service, { max_in_flight: 1 });
    await put(queue, { body: "1" });
    await put(queue, { body: "2" });
    const one = await take(queue);
    const waiting = receive(queue, "?wait_seconds=20");
    await until(() => broker.wakeups.size() === 1);
    await end(one);
    expect(textOf(await waiting)).toEqual(["2"]);
    const short = await createQueue(service, { max_in_flight: 1, ack_deadline_seconds: 1 });
    await put(short, { body: "1" });
    await put(short, { body: "2" });
    expect(await bodies(short)).toEqual(["1"]);
    expect((await receive(short, "?wait_seconds=10")).length).toBe(1);
  });

  test("it holds with ordering keys, labels and several of a key", async () => {
    const queue = await createQueue(service, { max_in_flight: 2, ...prioritized });
    await putAll(queue, "a", "a1", "a2");
    await putAll(queue, "b", "b1", "b2");
    await putAll(queue, "c", "c1");
    const [a1] = await receive(queue, `${all}&max_per_key=0`);
    expect(a1?.body).toBe("a1");
    expect(await bodies(queue, all)).toEqual([]);
    expect((await extend(queue, a1?.id ?? "", 50, a1?.lease_token)).status).toBe(204);
    await end(a1 as Delivered);
    expect(await bodies(queue, all)).toEqual(["c1"]);
  });

  test("it is never exceeded by many consumers on two servers", async () => {
    const other = is_embedded ? service : await openService({ url: service.url });
    const max_in_flight = 5;
    const queue = await createQueue(service, { max_in_flight });
    const messages = Array.from({ length: 200 }, (_, i) => ({ body: `${i}` }));
    await call("POST", `/v1/queues/${queue}/messages/batch`, { messages });
    let done = 0;
    let in_flight = 0;
    let most = 0;
    const consume = async ({ call: ask }: typeof service) => {
      while (done < messages.length) {
        const got = (await ask("GET", `/v1/queues/${queue}/messages?limit=3&wait_seconds=1`)).body.data as Delivered[];
        in_flight += got.length;
        most = Math.max(most, in_flight);
        for (const { id, lease_token } of got) {
          in_flight -= 1;
          await ask("PUT", `/v1/queues/${queue}/messages/${id}/ack`, { lease_token });
          done += 1;
        }
      }
    };
    await Promise.all(Array.from({ length: 10 }, (_, i) => consume(i % 2 ? service : other)));
    expect(done).toBe(200);
    expect(most).toBeLessThanOrEqual(max_in_flight);
    if (other !== service) await other.close();
  }, 120_000);
});

describe("rate_limit", () => {
  test("after its burst a queue delivers at its rate, and a waiter wakes in time", async () => {
    const queue = await createQueue(service, { rate_limit: { count: 20, per_seconds: 1, burst: 5 } });
    const messages = Array.from({ length: 60 }, (_, i) => ({ body: `${i}` }));
    await call("POST", `/v1/queues/${queue}/messages/batch`, { messages });
    const started_ms = performance.now();
    const first = await receiveAnswer(queue, all);
    expect([first.body.data.length, first.headers.get("x-throttled")]).toEqual([5, "rate"]);
    let count = 5;
    while (count < 45) count += (await receive(queue, "?wait_seconds=5&limit=10")).length;
    const seconds = (performance.now() - started_ms) / 1000;
    // 40 beyond the burst, at 20 a second.
    expect(seconds).toBeGreaterThan(2 * 0.95 - 0.1);
    expect(seconds).toBeLessThan(2 * 1.05 + 4);
  });

  test("one that a queue gets later begins with its burst", async () => {
    const queue = await createQueue(service, { max_in_flight: 50 });
    for (let i = 0; i < 6; i++) await put(queue, { body: `${i}` });
    expect((await receive(queue, "?limit=1")).length).toBe(1);
    await update(queue, { rate_limit: { count: 1, per_seconds: 3600, burst: 3 } });
    expect((await receive(queue, all)).length).toBe(3);
    await update(queue, { rate_limit: { count: 1, per_seconds: 1800, burst: 3 } });
    expect((await receive(queue, all)).length).toBe(0);
  });

  test("it is shown as it was given, and null takes it away", async () => {
    const queue = await createQueue(service, { rate_limit: { count: 10, per_seconds: 60 } });
    const shown = async () => (await call("GET", `/v1/queues/${queue}`)).body.rate_limit;
    expect(await shown()).toEqual({ count: 10, per_seconds: 60, burst: 10 });
    await update(queue, { rate_limit: { count: 5, per_seconds: 1, burst: 50 } });
    await update(queue, {});
    expect(await shown()).toEqual({ count: 5, per_seconds: 1, burst: 50 });
    await update(queue, { rate_limit: null });
    expect(await shown()).toBeNull();
    const wrong = await update(queue, { rate_limit: { count: 0, per_seconds: 90_000 } });
    expect(wrong.body.details).toBe(
      "rate_limit.count: cannot be blank; rate_limit.per_seconds: must be no greater than 86400.",
    );
  });
});
