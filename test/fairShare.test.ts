import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { countOf, fair, itemsOf, keyOf, putBatch } from "./fair.ts";
import { createQueue, is_embedded, serviceForFile, uniqueId, until } from "./harness.ts";
import { all } from "./keyed.ts";
import { refused, verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ receive_limit_max: 100 });
const { call, sql, broker, elapse } = service;
const { bodies, extend, nack, publish, put, receive, take, update } = verbsOf(service);

describe("turns", () => {
  test("keys take them one after the other, those without a key together; inside a key by time", async () => {
    const queue = await createQueue(service, fair);
    await putBatch(service, queue, [...itemsOf("a", 6), ...itemsOf("b", 2), { body: "none0" }, { body: "none1" }]);
    expect(await bodies(queue, "?limit=5")).toEqual(["none0", "a0", "b0", "none1", "a1"]);
    expect(await bodies(queue, all)).toEqual(["b1", "a2", "a3", "a4", "a5"]);
  });

  test("busy keys get what their weight says of any hundred deliveries, within a batch", async () => {
    const queue = await createQueue(service, fair);
    const weights = { a: 1, b: 2, c: 7 };
    for (const [key, weight] of Object.entries(weights)) await putBatch(service, queue, itemsOf(key, 300, { weight }));
    const got: string[] = [];
    while (got.length < 300) got.push(...(await bodies(queue, "?limit=10")));
    for (let from = 0; from <= 200; from += 10) {
      const window = got.slice(from, from + 100);
      for (const [key, weight] of Object.entries(weights)) {
        expect(Math.abs(countOf(window, key) - weight * 10)).toBeLessThanOrEqual(10);
      }
    }
  });

  test("the weight of a key is that of its latest message", async () => {
    const queue = await createQueue(service, fair);
    await putBatch(service, queue, [...itemsOf("a", 50, { weight: 9 }), ...itemsOf("b", 50)]);
    await put(queue, { body: "a50", fairness_key: "a", weight: 1 });
    expect(countOf(await bodies(queue, "?limit=10"), "a")).toBe(5);
    await put(queue, { body: "a51", fairness_key: "a", weight: 4 });
    expect(countOf(await bodies(queue, "?limit=10"), "a")).toBe(8);
  });

  test("a key alone gets everything, and one that was idle no credit for it", async () => {
    const queue = await createQueue(service, fair);
    await putBatch(service, queue, itemsOf("a", 90));
    expect(countOf(await bodies(queue, "?limit=50"), "a")).toBe(50);
    await putBatch(service, queue, itemsOf("b", 40));
    expect(countOf(await bodies(queue, "?limit=20"), "b")).toBeLessThanOrEqual(11);
    expect(countOf(await bodies(queue, "?limit=20"), "a")).toBeGreaterThanOrEqual(9);
  });

  test("one that comes back with a message each time it is served gets its share and no more", async () => {
    const queue = await createQueue(service, fair);
    await putBatch(service, queue, itemsOf("busy", 60));
    await put(queue, { body: "lazy0", fairness_key: "lazy" });
    let lazy = 0;
    for (let i = 0; i < 40; i++) {
      const message = await take(queue);
      if (keyOf(message.body) !== "lazy") continue;
      lazy += 1;
      await put(queue, { body: `lazy${lazy}`, fairness_key: "lazy" });
    }
    expect(Math.abs(lazy - 20)).toBeLessThanOrEqual(1);
  });

  test("a nacked, a released and a delayed message come back into their key", async () => {
    const queue = await createQueue(service, fair);
    await putBatch(service, queue, [...itemsOf("a", 3), ...itemsOf("b", 1)]);
    const [a0, b0] = await receive(queue, "?limit=2");
    await nack(queue, a0?.id ?? "", { lease_token: a0?.lease_token, visibility_timeout_seconds: 100 });
    await extend(queue, b0?.id ?? "", 0, b0?.lease_token);
    expect(await bodies(queue, all)).toEqual(["a1", "b0", "a2"]);
    expect(await bodies(queue, all)).toEqual([]);
    await elapse(101);
    expect((await bodies(queue, all)).sort()).toEqual(["a0", "a1", "a2", "b0"]);
    const later = await createQueue(service, fair);
    await put(later, { body: "c0", fairness_key: "c", delay_seconds: 50 });
    expect(await bodies(later)).toEqual([]);
    await elapse(51);
    expect(await bodies(later)).toEqual(["c0"]);
  });

  test("what has expired takes nobody's turn", async () => {
    const queue = await createQueue(service, fair);
    for (let i = 0; i < 20; i++) await put(queue, { body: `a${i}`, fairness_key: "a", ttl_seconds: 10 });
    await putBatch(service, queue, [...itemsOf("a", 5), ...itemsOf("b", 5)]);
    await elapse(11);
    const got = await bodies(queue, all);
    expect(got.length).toBe(10);
    expect(await bodies(queue, all)).toEqual([]);
  });
});

describe("the setting", () => {
  test("what was there before is shared too, and what is published while it changes", async () => {
    const queue = await createQueue(service);
    await putBatch(service, queue, [...itemsOf("a", 30, { label: "x" }), ...itemsOf("b", 30, { label: "y" })]);
    await put(queue, { body: "later", fairness_key: "c", delay_seconds: 40 });
    expect(await bodies(queue, "?limit=10")).toEqual(Array.from({ length: 10 }, (_, i) => `a${i}`));
    await update(queue, fair);
    const shared = await bodies(queue, "?limit=10");
    expect([countOf(shared, "a"), countOf(shared, "b")]).toEqual([5, 5]);
    await update(queue, { fair_by: "label" });
    const by_label = await bodies(queue, "?limit=10");
    expect([countOf(by_label, "a"), countOf(by_label, "b")]).toEqual([5, 5]);
    await update(queue, { fair_by: null });
    await put(queue, { body: "plain" });
    expect((await bodies(queue, all)).length).toBe(31);
    await elapse(41);
    expect((await bodies(queue, all)).length).toBe(62);
    await update(queue, fair);
    await elapse(31);
    expect((await bodies(queue, all)).length).toBe(62);
  });

  test("messages of a publish that did not see the setting are found a minute later", async () => {
    const queue = await createQueue(service);
    await update(queue, fair);
    await put(queue, { body: "a0", fairness_key: "a" });
    expect(await bodies(queue)).toEqual(["a0"]);
    await sql`insert into psqlqueue.messages (queue_no, id, body, visible_at, expires_at, created_at)
      select no, '01J00000000000000000000000', 'unseen', now(), now() + interval '1 hour', now()
      from psqlqueue.queues where id = ${queue}`;
    expect(await bodies(queue)).toEqual([]);
    await elapse(61);
    expect((await bodies(queue, all)).sort()).toEqual(["a0", "unseen"]);
  });

  test("is checked, and shown", async () => {
    const details = "max_in_flight_per_key: must be given together with fair_by.";
    const body = { id: uniqueId(), ack_deadline_seconds: 30, message_retention_seconds: 30 };
    expect((await call("POST", "/v1/queues", { ...body, max_in_flight_per_key: 5 })).body.details).toBe(details);
    const wrong = (await call("POST", "/v1/queues", { ...body, fair_by: "x", max_in_flight_per_key: 1001 })).body;
    expect(wrong.details).toBe(
      "fair_by: must be one of fairness_key, ordering_key, label; max_in_flight_per_key: must be no greater than 1000.",
    );
    const queue = await createQueue(service, { ...fair, max_in_flight_per_key: 5 });
    expect((await update(queue, { fair_by: null })).body.details).toBe(details);
    expect((await update(queue, {})).body).toMatchObject({ ...fair, max_in_flight_per_key: 5 });
    expect((await update(queue, { fair_by: null, max_in_flight_per_key: null })).body.fair_by).toBeNull();
    const refusals = await publish(queue, { body: "x", fairness_key: "", weight: 0 });
    expect(refusals.body).toEqual(
      refused(3, "request validation failed", "fairness_key: cannot be blank; weight: must be no less than 1."),
    );
    expect((await publish(queue, { body: "x", fairness_key: "k".repeat(257) })).body.details).toBe(
      "fairness_key: the length must be no more than 256.",
    );
  });

  test("a repair changes nothing on a healthy queue, and brings back a key that was forgotten", async () => {
    const queue = await createQueue(service, { ...fair, max_in_flight_per_key: 1 });
    await putBatch(service, queue, [...itemsOf("a", 3), ...itemsOf("b", 2), ...itemsOf("c", 1), { body: "none0" }]);
    await receive(queue, "?limit=2");
    const repair = async () => (await call("POST", `/v1/queues/${queue}/repair`)).body;
    expect(await repair()).toEqual({ checked: 4, repaired: 0 });
    await sql`update psqlqueue.fair_keys set is_ready = false, due_at = null
      where fair_key = 'b' and queue_no = (select no from psqlqueue.queues where id = ${queue})`;
    expect(await bodies(queue, all)).toEqual(["c0"]);
    expect(await repair()).toEqual({ checked: 4, repaired: 1 });
    expect(await bodies(queue, all)).toEqual(["b0"]);
    await sql`delete from psqlqueue.fair_keys
      where queue_no = (select no from psqlqueue.queues where id = ${queue})`;
    await elapse(31);
    await until(async () => (await broker.sweepFairKeys()) > 0);
    expect((await bodies(queue, all)).length).toBe(4);
  });

  test("a deleted queue leaves nothing of it behind", async () => {
    const queue = await createQueue(service, { ...fair, max_in_flight_per_key: 1 });
    await putBatch(service, queue, [...itemsOf("a", 5), ...itemsOf("b", 5)]);
    await receive(queue, all);
    const [row] = await sql`select no from psqlqueue.queues where id = ${queue}`;
    await call("DELETE", `/v1/queues/${queue}`);
    await until(async () => {
      await broker.sweepFairKeys();
      const [left] = await sql`
        select (select count(*) from psqlqueue.fair_keys where queue_no = ${row?.["no"]})
          + (select count(*) from psqlqueue.fair_changes where queue_no = ${row?.["no"]}) as count`;
      return Number(left?.["count"]) === 0;
    });
  });
});

// The last ones: what they leave behind would make every step in time of the others slow.
describe("at scale", () => {
  test("a tenant with 100,000 messages delays another's single one by one round at most", async () => {
    const queue = await createQueue(service, fair);
    const count = is_embedded ? 20_000 : 100_000;
    await putBatch(service, queue, itemsOf("many", count));
    await put(queue, { body: "one0", fairness_key: "one" });
    expect(countOf(await bodies(queue, "?limit=2"), "one")).toBe(1);
    await put(queue, { body: "one1", fairness_key: "one" });
    expect(countOf(await bodies(queue, "?limit=2"), "one")).toBe(1);
    expect(await bodies(queue, "?limit=3")).toEqual(["many2", "many3", "many4"]);
  }, 120_000);

  test("a hundred thousand keys cost a receive what its answer has, and none is forgotten", async () => {
    const queue = await createQueue(service, fair);
    const keys = is_embedded ? 10_000 : 100_000;
    await putBatch(
      service,
      queue,
      Array.from({ length: keys }, (_, i) => ({ body: `${i}`, fairness_key: `k${i}` })),
    );
    await receive(queue, "?limit=10");
    const median = async (query: string) => {
      const took: number[] = [];
      for (let i = 0; i < 15; i++) {
        const started = performance.now();
        expect((await receive(queue, query)).length).toBe(10);
        took.push(performance.now() - started);
      }
      return took.sort((x, y) => x - y)[7] as number;
    };
    const with_many = await median("?limit=10");
    const few = await createQueue(service, fair);
    await putBatch(
      service,
      few,
      Array.from({ length: 400 }, (_, i) => ({ body: `${i}`, fairness_key: `k${i % 20}` })),
    );
    const started = performance.now();
    for (let i = 0; i < 15; i++) expect((await receive(few, "?limit=10")).length).toBe(10);
    const with_few = (performance.now() - started) / 15;
    // Wide, for noisy machines: walking the keys would be a thousand times as much.
    expect(with_many).toBeLessThan(10 * with_few + 20);
    let count = 160;
    for (let got = 1; got > 0 && count < 1200; count += got) got = (await receive(queue, all)).length;
    expect(count).toBeGreaterThanOrEqual(1200);
  }, 180_000);
});
