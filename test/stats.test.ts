import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createQueue, serviceForFile, uniqueId } from "./harness.ts";
import { refused, verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ receive_limit_max: 100 });
const { call, elapse, broker, sql } = service;
const { put, receive, take, ack, nack, stats } = verbsOf(service);

const empty = {
  num_undelivered_messages: 0,
  oldest_unacked_message_age_seconds: 0,
  ready: 0,
  delayed: 0,
  leased: 0,
  backing_off: 0,
  dead: 0,
  oldest_ready_age_seconds: 0,
  oldest_lease_age_seconds: 0,
  publish_rate_1m: 0,
  ack_rate_1m: 0,
  blocked_keys: 0,
  blocked_by_label: 0,
};

describe("the statistics of a queue", () => {
  test("count every state, and the ages of the oldest", async () => {
    const dead = await createQueue(service);
    const queue = await createQueue(service, { dead_queue_id: dead, message_max_deliveries: 9 });
    expect(await stats(queue)).toEqual(empty);
    const nacked = await put(queue);
    const acked = await put(queue);
    await put(queue);
    await receive(queue, "?ack_deadline_seconds=1000");
    await nack(queue, nacked, { visibility_timeout_seconds: 1000 });
    await ack(queue, acked);
    for (let i = 0; i < 4; i++) await put(queue, { body: "x", delay_seconds: 100 + i });
    await put(queue, { body: "x", delay_seconds: 50 });
    await nack(queue, await put(queue), { dead_letter: true });
    await elapse(100);
    await put(queue);
    // A second on each age: the test takes its own time.
    const { oldest_unacked_message_age_seconds, oldest_ready_age_seconds, oldest_lease_age_seconds, ...counts } =
      await stats(queue);
    expect(counts).toEqual(expect.objectContaining({ ready: 3, num_undelivered_messages: 3, delayed: 3 }));
    expect(counts).toMatchObject({ leased: 1, backing_off: 1, dead: 0 });
    expect(counts).not.toHaveProperty("approximate");
    expect(oldest_unacked_message_age_seconds).toBeWithin(100, 105);
    expect(oldest_ready_age_seconds).toBeWithin(50, 55);
    expect(oldest_lease_age_seconds).toBeWithin(100, 105);
    expect(await stats(dead)).toMatchObject({ ready: 1, dead: 1 });
    await take(dead);
    expect(await stats(dead)).toMatchObject({ ready: 0, leased: 1, dead: 1 });
  });

  test("change with the clock alone: a delay, a lease, a backoff, a life that is over", async () => {
    const queue = await createQueue(service, { retry_policy: { min_seconds: 20, jitter: "none" } });
    await put(queue, { body: "x", delay_seconds: 40, ttl_seconds: 200 });
    await put(queue, { body: "x", ttl_seconds: 200 });
    await take(queue);
    const states = async () => {
      const { ready, delayed, leased, backing_off } = await stats(queue);
      return { ready, delayed, leased, backing_off };
    };
    const none = { ready: 0, delayed: 0, leased: 0, backing_off: 0 };
    expect(await states()).toEqual({ ...none, delayed: 1, leased: 1 });
    await elapse(31);
    expect(await states()).toEqual({ ...none, delayed: 1, backing_off: 1 });
    await elapse(11);
    expect(await states()).toEqual({ ...none, ready: 1, backing_off: 1 });
    await elapse(11);
    expect(await states()).toEqual({ ...none, ready: 2 });
    await elapse(150);
    expect(await states()).toEqual(none);
  });

  test("of an unknown queue are refused", async () => {
    expect(await stats(uniqueId())).toEqual(refused(5, "queue not found"));
  });

  test("are exact up to 100,000, and above it within 10 % and marked so", async () => {
    const queue = await createQueue(service);
    const insert = (first: number, last: number, seconds: number) => sql`
      insert into psqlqueue.messages (queue_no, id, body, visible_at, expires_at, created_at)
      select no, '01' || lpad(n::text, 24, '0'), repeat('x', 200), now() + ${seconds} * interval '1 second',
        now() + interval '1 day', now()
      from psqlqueue.queues, generate_series(${first}::int, ${last}::int) as n where id = ${queue}`;
    await insert(1, 100_000, -60);
    await insert(100_001, 110_000, 3600);
    const exact = await stats(queue);
    expect(exact).toMatchObject({ ready: 100_000, num_undelivered_messages: 100_000, delayed: 10_000 });
    expect(exact).not.toHaveProperty("approximate");
    await insert(110_001, 160_000, -60);
    const started_ms = performance.now();
    const estimated = await stats(queue);
    expect(performance.now() - started_ms).toBeLessThan(5000);
    expect(estimated.approximate).toBe(true);
    expect(estimated.ready).toBeWithin(135_000, 165_000);
    expect(estimated.num_undelivered_messages).toBe(estimated.ready);
    expect(estimated).toMatchObject({ delayed: 10_000, leased: 0, backing_off: 0, dead: 0 });
    await sql`delete from psqlqueue.messages`;
  }, 120_000);
});

describe("the rates", () => {
  test("are those of the last full minute, of all servers together", async () => {
    const queue = await createQueue(service);
    await sql`insert into psqlqueue.rates (queue_id, minute, published, acked)
      select ${queue}, date_trunc('minute', now()) - n * interval '1 minute', 60 * (n + 1), 30 * n
      from generate_series(0, 3) as n`;
    expect(await stats(queue)).toMatchObject({ publish_rate_1m: 2, ack_rate_1m: 0.5 });
  });

  test("are counted from publishes and acks, single, in batches and by topics", async () => {
    const queue = await createQueue(service);
    const topic = uniqueId("t");
    await call("POST", "/v1/topics", { id: topic });
    await call("POST", "/v1/subscriptions", { id: uniqueId("s"), topic_id: topic, queue_id: queue });
    const messages = [{ body: "a" }, { body: "b" }];
    await put(queue, { body: "x", dedup_id: "1" });
    await put(queue, { body: "x", dedup_id: "1" });
    await call("POST", `/v1/queues/${queue}/messages/batch`, { messages });
    await call("POST", `/v1/topics/${topic}/messages`, { body: "c" });
    await call("POST", `/v1/topics/${topic}/messages/batch`, { messages });
    const [first, ...others] = await receive(queue);
    await ack(queue, first?.id ?? "", first?.lease_token);
    await call("POST", `/v1/queues/${queue}/ack`, { items: others.slice(1).map(({ id }) => ({ id })) });
    await broker.flushRates();
    await broker.flushRates();
    const sums = await sql`select sum(published)::int as published, sum(acked)::int as acked
      from psqlqueue.rates where queue_id = ${queue}`;
    expect([...sums]).toEqual([{ published: 6, acked: 5 }]);
  });
});

test("/v1/info says what there is", async () => {
  const { status, body } = await call("GET", "/v1/info");
  const delivery = [
    "lease_tokens",
    "dead_letter",
    "long_poll",
    "batch",
    "extend",
    "ordering_keys",
    "priority",
    "caps",
    "dedup",
    "retry_policy",
    "delay",
  ];
  expect({ status, body }).toEqual({
    status: 200,
    body: {
      name: "psqlqueue",
      version: "test",
      features: [...delivery, "ttl", "archive", "peek", "pause", "quotas", "search", "error_groups", "history", "sql"],
      allowed: ["publish", "consume", "peek", "manage"],
    },
  });
});
