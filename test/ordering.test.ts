import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createQueue, serviceForFile } from "./harness.ts";
import { all, keyedVerbsOf, textOf, whole } from "./keyed.ts";
import { type Delivered, refused, verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ receive_limit_max: 100 });
const { call, elapse } = service;
const { bodies, change, extend, look, nack, publish, put, receive, stats, take } = verbsOf(service);
const { ackOf, drain, end, keysOf, putAll } = keyedVerbsOf(service);

describe("order", () => {
  test("messages with the same key are delivered in order, one at a time", async () => {
    const queue = await createQueue(service);
    await putAll(queue, "k", "1", "2", "3");
    for (const expected of ["1", "2", "3"]) {
      const [first, ...others] = await receive(queue, all);
      expect({ body: first?.body, key: first?.ordering_key, others }).toEqual({ body: expected, key: "k", others: [] });
      await end(first as Delivered);
    }
    expect(await bodies(queue, all)).toEqual([]);
    expect(await keysOf(queue)).toEqual([]);
  });

  test("other keys and messages without a key flow freely, and fill the limit", async () => {
    const queue = await createQueue(service);
    await putAll(queue, "a", "a1", "a2");
    await put(queue, { body: "x" });
    await putAll(queue, "b", "b1", "b2");
    await put(queue, { body: "y" });
    expect(await bodies(queue, "?limit=4")).toEqual(["a1", "x", "b1", "y"]);
    expect(await bodies(queue, all)).toEqual([]);
  });

  test("a batch is published in the order of its array", async () => {
    const queue = await createQueue(service);
    const messages = Array.from({ length: 30 }, (_, i) => ({ body: `${i}`, ordering_key: i % 2 ? "odd" : "even" }));
    expect((await call("POST", `/v1/queues/${queue}/messages/batch`, { messages })).status).toBe(201);
    const texts = await drain(queue);
    const of = (rest: number) => texts.map(Number).filter((n) => n % 2 === rest);
    const sorted = (numbers: number[]) => numbers.toSorted((a, b) => a - b);
    expect([of(0).length, of(1).length]).toEqual([15, 15]);
    expect([of(0), of(1)]).toEqual([sorted(of(0)), sorted(of(1))]);
  });

  test("a batch that is refused as a whole leaves no key behind", async () => {
    const queue = await createQueue(service, { max_message_bytes: 5 });
    const messages = [
      { body: "1", ordering_key: "k" },
      { body: "too large", ordering_key: "k" },
    ];
    expect((await call("POST", `/v1/queues/${queue}/messages/batch`, { messages })).status).toBe(413);
    expect(await keysOf(queue)).toEqual([]);
    const answer = await call("POST", `/v1/queues/${queue}/messages/batch?atomic=false`, { messages });
    expect(answer.body.data[1].error.code).toBe(13);
    expect(await drain(queue)).toEqual(["1"]);
  });

  test("the key is 1 to 256 bytes of text", async () => {
    const queue = await createQueue(service);
    const answers = ["", "x".repeat(257), "é".repeat(129), "a\0b"].map((ordering_key) =>
      publish(queue, { body: "x", ordering_key }),
    );
    const too_long = "ordering_key: the length must be no more than 256.";
    expect((await Promise.all(answers)).map(({ body }) => body.details)).toEqual([
      "ordering_key: cannot be blank.",
      too_long,
      too_long,
      "ordering_key: must be in a valid format.",
    ]);
    expect((await publish(queue, { body: "x", ordering_key: 5 })).body.code).toBe(2);
    expect((await publish(queue, { body: "x", ordering_key: "é".repeat(128) })).status).toBe(204);
  });

  test("a message shows its key wherever it is shown", async () => {
    const queue = await createQueue(service);
    const [first, second] = await putAll(queue, "k", "1", "2");
    await put(queue, { body: "x" });
    const peeked = await call("GET", `/v1/queues/${queue}/messages/peek?ordering_key=k&state=all`);
    const shown = ({ id, state, ordering_key }: Record<string, unknown>) => ({ id, state, ordering_key });
    expect(peeked.body.data.map(shown)).toEqual([
      { id: first, state: "ready", ordering_key: "k" },
      { id: second, state: "ready", ordering_key: "k" },
    ]);
    await end(await take(queue, "?limit=1"));
    expect(shown((await look(queue, first ?? "")).body)).toEqual({ id: first, state: "acked", ordering_key: "k" });
  });
});

describe("a head that is not delivered", () => {
  test("blocks its key while it backs off, and the limit is filled from others", async () => {
    const queue = await createQueue(service);
    await putAll(queue, "a", "a1", "a2");
    await putAll(queue, "b", "b1", "b2");
    await put(queue, { body: "x" });
    const a1 = await take(queue, "?limit=1");
    expect((await nack(queue, a1.id, { lease_token: a1.lease_token, visibility_timeout_seconds: 60 })).status).toBe(
      204,
    );
    expect(await bodies(queue, "?limit=2")).toEqual(["b1", "x"]);
    await elapse(61);
    expect(await drain(queue)).toEqual(["b1", "x", "a1", "b2", "a2"]);
  });

  test("blocks its key when its lease has run out, until it is delivered again", async () => {
    const queue = await createQueue(service, { retry_policy: { min_seconds: 20, jitter: "none" } });
    await putAll(queue, "a", "a1", "a2");
    await take(queue, "?limit=1");
    await elapse(40);
    expect(await bodies(queue, all)).toEqual([]);
    await elapse(15);
    expect(await bodies(queue, all)).toEqual(["a1"]);
  });

  test("a nack makes it ready again at once, before the others of its key", async () => {
    const queue = await createQueue(service);
    await putAll(queue, "a", "a1", "a2");
    const a1 = await take(queue, "?limit=1");
    await nack(queue, a1.id, { lease_token: a1.lease_token });
    expect(await drain(queue)).toEqual(["a1", "a2"]);
  });

  test("an expired one never blocks, leased or delayed or in line", async () => {
    const queue = await createQueue(service, { allow_delayed_ordering: true });
    await put(queue, { body: "delayed", ordering_key: "d", delay_seconds: 1000, ttl_seconds: 10 });
    await put(queue, { body: "d2", ordering_key: "d" });
    await putAll(queue, "e", "e1");
    await put(queue, { body: "short", ordering_key: "e", ttl_seconds: 10 });
    await putAll(queue, "e", "e3");
    await elapse(11);
    expect((await drain(queue)).sort()).toEqual(["d2", "e1", "e3"]);
    await put(queue, { body: "leased", ordering_key: "l", ttl_seconds: 10 });
    await putAll(queue, "l", "l2");
    const leased = await take(queue, "?limit=1");
    await elapse(11);
    expect(await bodies(queue, all)).toEqual([]);
    expect((await extend(queue, leased.id, 60, leased.lease_token)).status).toBe(204);
    await elapse(61);
    expect(await bodies(queue, all)).toEqual(["l2"]);
  });

  test("an expired head in a long backoff makes room at its end", async () => {
    const queue = await createQueue(service, {
      retry_policy: { min_seconds: 1000, max_seconds: 1000, jitter: "none" },
    });
    await put(queue, { body: "1", ordering_key: "k", ttl_seconds: 60 });
    await putAll(queue, "k", "2");
    await take(queue, "?limit=1");
    await elapse(59);
    expect(await bodies(queue, all)).toEqual([]);
    await elapse(2);
    expect(await bodies(queue, all)).toEqual(["2"]);
  });
});

describe("several of a key in one receive", () => {
  test("max_per_key gives consecutive ones, in order, and only one lease holds the key", async () => {
    const queue = await createQueue(service);
    await putAll(queue, "a", "a1", "a2", "a3", "a4");
    await putAll(queue, "b", "b1");
    expect(textOf(await receive(queue, "?limit=100&max_per_key=3"))).toEqual(["a1", "a2", "a3", "b1"]);
    expect(await bodies(queue, whole)).toEqual([]);
  });

  test("0 means any number, up to the limit", async () => {
    const queue = await createQueue(service);
    await putAll(queue, "a", "a1", "a2", "a3", "a4", "a5");
    expect(textOf(await receive(queue, "?limit=4&max_per_key=0"))).toEqual(["a1", "a2", "a3", "a4"]);
  });

  test("acking out of order inside the lease is fine, and the rest follows", async () => {
    const queue = await createQueue(service);
    await putAll(queue, "a", "a1", "a2", "a3", "a4");
    const [a1, a2, a3] = (await receive(queue, "?limit=3&max_per_key=0")) as [Delivered, Delivered, Delivered];
    await end(a3);
    await end(a1);
    expect(await bodies(queue, whole)).toEqual([]);
    await end(a2);
    expect(await bodies(queue, whole)).toEqual(["a4"]);
  });

  test("a nack lets the later ones go: their tokens are void, they come back in order, nobody has failed them", async () => {
    const queue = await createQueue(service);
    await putAll(queue, "a", "a1", "a2", "a3");
    const [a1, a2, a3] = (await receive(queue, whole)) as [Delivered, Delivered, Delivered];
    await end(a1);
    expect((await nack(queue, a2.id, { lease_token: a2.lease_token })).status).toBe(204);
    expect((await ackOf(a3)).body).toEqual(refused(11, "lease lost"));
    const again = await receive(queue, whole);
    expect(again.map(({ body, delivery_attempts }) => ({ body, delivery_attempts }))).toEqual([
      { body: "a2", delivery_attempts: 2 },
      { body: "a3", delivery_attempts: 1 },
    ]);
  });

  test("a release does the same, and the delivery stays counted", async () => {
    const queue = await createQueue(service);
    await putAll(queue, "a", "a1", "a2");
    const [a1, a2] = (await receive(queue, whole)) as [Delivered, Delivered];
    expect((await extend(queue, a1.id, 0, a1.lease_token)).status).toBe(204);
    expect((await ackOf(a2)).status).toBe(409);
    expect((await receive(queue, whole)).map(({ delivery_attempts }) => delivery_attempts)).toEqual([2, 1]);
  });

  test("an extended head keeps those behind it whose leases have run out", async () => {
    const queue = await createQueue(service);
    await putAll(queue, "a", "a1", "a2", "a3");
    const [a1, a2] = (await receive(queue, whole)) as [Delivered, Delivered];
    expect((await extend(queue, a1.id, 100, a1.lease_token)).status).toBe(204);
    await elapse(40);
    expect(await bodies(queue, whole)).toEqual([]);
    await end(a2);
    await end(a1);
    expect(await bodies(queue, whole)).toEqual(["a3"]);
  });

  test("an extended follower keeps the head back: nothing of a key is delivered while something of it is leased", async () => {
    const queue = await createQueue(service);
    await putAll(queue, "a", "a1", "a2");
    const [a1, a2] = (await receive(queue, whole)) as [Delivered, Delivered];
    expect((await extend(queue, a2.id, 100, a2.lease_token)).status).toBe(204);
    await elapse(40);
    expect(await bodies(queue, whole)).toEqual([]);
    await end(a2);
    expect(await bodies(queue, whole)).toEqual(["a1"]);
    expect((await ackOf(a1)).status).toBe(409);
  });

  test("a lease that has run out cannot be extended after the key was delivered again", async () => {
    const queue = await createQueue(service);
    await putAll(queue, "a", "a1", "a2");
    const [, a2] = (await receive(queue, whole)) as [Delivered, Delivered];
    await elapse(31);
    expect(await bodies(queue, all)).toEqual(["a1"]);
    expect((await extend(queue, a2.id, 100, a2.lease_token)).body).toEqual(refused(11, "lease lost"));
    expect((await ackOf(a2)).status).toBe(204);
  });

  test("several consumers that wait never share a key", async () => {
    const queue = await createQueue(service);
    await putAll(queue, "a", "a1");
    const waiting = [1, 2, 3].map(() => receive(queue, `${whole}&wait_seconds=1`));
    await putAll(queue, "a", "a2");
    const got = await Promise.all(waiting);
    expect(got.flatMap(textOf)[0]).toBe("a1");
    expect(got.filter((own) => own.length > 0).length).toBe(1);
  });
});

describe("delay", () => {
  test("a delay of its own is refused with a key, unless the queue allows it", async () => {
    const queue = await createQueue(service);
    const delayed = await publish(queue, { body: "x", ordering_key: "k", delay_seconds: 5 });
    const details = "ordering_key: must not be given together with delay_seconds.";
    expect(delayed.body).toEqual(refused(3, "request validation failed", details));
    const at = new Date(Date.now() + 60_000).toISOString();
    const other = await publish(queue, { body: "x", ordering_key: "k", deliver_at: at });
    expect(other.body.details).toBe("ordering_key: must not be given together with deliver_at.");
    const messages = [{ body: "x" }, { body: "y", ordering_key: "k", delay_seconds: 5 }];
    const batch = await call("POST", `/v1/queues/${queue}/messages/batch`, { messages });
    expect(batch.body.details).toBe("messages[1].ordering_key: must not be given together with delay_seconds.");
    expect(await bodies(queue, all)).toEqual([]);
  });

  test("a later delayed one blocks nobody, an earlier one blocks its key", async () => {
    const queue = await createQueue(service, { allow_delayed_ordering: true });
    await putAll(queue, "a", "a1");
    await put(queue, { body: "a2", ordering_key: "a", delay_seconds: 60 });
    await putAll(queue, "a", "a3");
    expect(await drain(queue)).toEqual(["a1"]);
    expect(await stats(queue)).toMatchObject({ ready: 1, delayed: 1 });
    await elapse(61);
    expect(await drain(queue)).toEqual(["a2", "a3"]);
  });

  test("the queue's own delay holds for each message, also for one that comes to the front", async () => {
    const queue = await createQueue(service, { delivery_delay_seconds: 60 });
    await putAll(queue, "a", "a1");
    await elapse(50);
    await putAll(queue, "a", "a2");
    await elapse(11);
    expect(await drain(queue)).toEqual(["a1"]);
    await elapse(50);
    expect(await drain(queue)).toEqual(["a2"]);
  });

  test("a message is rescheduled where the queue allows it, and its key waits with it", async () => {
    const queue = await createQueue(service, { allow_delayed_ordering: true });
    const [a1] = await putAll(queue, "a", "a1", "a2");
    const deliver_at = new Date(Date.now() + 60_000).toISOString();
    expect((await change(queue, a1 ?? "", { deliver_at })).body.state).toBe("delayed");
    expect(await drain(queue)).toEqual([]);
    await elapse(61);
    expect(await drain(queue)).toEqual(["a1", "a2"]);
    const strict = await createQueue(service);
    const [b1] = await putAll(strict, "b", "b1");
    expect((await change(strict, b1 ?? "", { deliver_at })).body.details).toBe(
      "deliver_at: must not be given together with ordering_key.",
    );
  });
});

describe("labels", () => {
  test("a filter never jumps over an earlier message of the key with another label", async () => {
    const queue = await createQueue(service);
    await put(queue, { body: "1", ordering_key: "k", label: "a" });
    await put(queue, { body: "2", ordering_key: "k", label: "b" });
    expect(await bodies(queue, "?label=b")).toEqual([]);
    expect(await stats(queue)).toMatchObject({ blocked_by_label: 1, ready: 2, num_undelivered_messages: 2 });
    await end(await take(queue, "?label=a&max_per_key=0"));
    expect(await bodies(queue, "?label=b")).toEqual(["2"]);
    expect(await stats(queue)).toMatchObject({ blocked_by_label: 0 });
  });

  test("an expired head with another label is in nobody's way", async () => {
    const queue = await createQueue(service);
    await put(queue, { body: "1", ordering_key: "k", label: "a", ttl_seconds: 10 });
    await put(queue, { body: "2", ordering_key: "k", label: "b" });
    await elapse(11);
    expect(await bodies(queue, "?label=b")).toEqual(["2"]);
  });

  test("with key_label each label of a key has its own order", async () => {
    const queue = await createQueue(service, { ordering_scope: "key_label" });
    for (const [body, label] of [
      ["a1", "a"],
      ["b1", "b"],
      ["a2", "a"],
      ["none", undefined],
    ])
      await put(queue, { body, ordering_key: "k", ...(label && { label }) });
    expect(await bodies(queue, "?label=b")).toEqual(["b1"]);
    expect(await bodies(queue, all)).toEqual(["a1", "none"]);
    expect(await keysOf(queue)).toMatchObject([
      { ordering_key: "k", pending: 1 },
      { ordering_key: "k", label: "a", pending: 2 },
      { ordering_key: "k", label: "b", pending: 1 },
    ]);
  });
});
