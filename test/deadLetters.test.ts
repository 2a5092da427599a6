import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createQueue, serviceForFile, uniqueId } from "./harness.ts";
import { type Delivered, refused, verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ receive_limit_max: 100 });
const { call, elapse, broker } = service;
const { put, receive, take, ack, nack, extend, look, stats, update } = verbsOf(service);

const invalid = (details: string) => refused(3, "request validation failed", details);
const settings = { ack_deadline_seconds: 30, message_retention_seconds: 3600 };
const create = (id: string, own: Record<string, unknown>) => call("POST", "/v1/queues", { id, ...settings, ...own });

/** A queue with a dead-letter queue. */
async function pair(own: Record<string, unknown> = {}, dead_settings: Record<string, unknown> = {}) {
  const dead = await createQueue(service, dead_settings);
  const queue = await createQueue(service, { dead_queue_id: dead, message_max_deliveries: 2, ...own });
  return { queue, dead };
}

describe("the settings", () => {
  test("are shown, kept by an update that leaves them out, and reset together", async () => {
    const { queue, dead } = await pair({ dead_letter_on_expiry: true });
    const shown = { dead_queue_id: dead, message_max_deliveries: 2, dead_letter_on_expiry: true };
    expect((await update(queue, {})).body).toMatchObject(shown);
    const reset = { dead_queue_id: null, message_max_deliveries: null, dead_letter_on_expiry: null };
    expect((await update(queue, reset)).body).toMatchObject({
      dead_queue_id: null,
      message_max_deliveries: null,
      dead_letter_on_expiry: false,
    });
  });

  test("are given together or not at all", async () => {
    const { queue, dead } = await pair();
    const plain = await createQueue(service);
    const alone = {
      dead: invalid("dead_queue_id: must be given together with message_max_deliveries."),
      max: invalid("message_max_deliveries: must be given together with dead_queue_id."),
    };
    expect((await create(uniqueId(), { dead_queue_id: dead })).body).toEqual(alone.dead);
    expect((await create(uniqueId(), { message_max_deliveries: 3 })).body).toEqual(alone.max);
    expect((await update(plain, { dead_queue_id: dead })).body).toEqual(alone.dead);
    expect((await update(plain, { message_max_deliveries: 3 })).body).toEqual(alone.max);
    expect((await update(queue, { message_max_deliveries: null })).body).toEqual(alone.dead);
    expect((await update(queue, { dead_queue_id: null })).body).toEqual(alone.max);
    expect((await update(queue, { message_max_deliveries: 9 })).body.message_max_deliveries).toBe(9);
    expect((await update(queue, { dead_queue_id: plain })).body.dead_queue_id).toBe(plain);
  });

  test("allow 1 to 1000 deliveries, and a queue that there is", async () => {
    const dead_queue_id = await createQueue(service);
    const max = (message_max_deliveries: number) => create(uniqueId(), { dead_queue_id, message_max_deliveries });
    expect((await max(0)).body).toEqual(invalid("message_max_deliveries: must be no less than 1."));
    expect((await max(1001)).body).toEqual(invalid("message_max_deliveries: must be no greater than 1000."));
    expect((await max(1000)).status).toBe(201);
    const unknown = { dead_queue_id: uniqueId(), message_max_deliveries: 3 };
    expect(await create(uniqueId(), unknown)).toMatchObject({ status: 404, body: refused(5, "queue not found") });
    expect((await update(dead_queue_id, unknown)).body).toEqual(refused(5, "queue not found"));
    expect((await create(uniqueId(), { ...unknown, dead_queue_id: "a b" })).body.code).toBe(3);
    // A taken id comes first, and an update that names a missing target alone changes nothing.
    expect((await create(dead_queue_id, unknown)).body).toEqual(refused(4, "queue already exists"));
    const { queue, dead } = await pair();
    expect((await update(queue, { dead_queue_id: unknown.dead_queue_id })).body).toEqual(refused(5, "queue not found"));
    expect((await update(dead, { dead_queue_id: unknown.dead_queue_id })).body.code).toBe(3);
    expect((await call("GET", `/v1/queues/${queue}`)).body.dead_queue_id).toBe(dead);
  });

  test("never lead back to the queue, straight or by others", async () => {
    const itself = uniqueId();
    const own = { dead_queue_id: itself, message_max_deliveries: 3 };
    expect((await create(itself, own)).body).toEqual(invalid("dead_queue_id: must not be the queue itself."));
    const c = await createQueue(service);
    const b = await createQueue(service, { dead_queue_id: c, message_max_deliveries: 3 });
    const a = await createQueue(service, { dead_queue_id: b, message_max_deliveries: 3 });
    const back = invalid("dead_queue_id: must not lead back to the queue.");
    expect((await update(c, { dead_queue_id: a, message_max_deliveries: 3 })).body).toEqual(back);
    expect((await update(b, { dead_queue_id: a })).body).toEqual(back);
    expect((await update(b, { dead_queue_id: b })).body.details).toBe("dead_queue_id: must not be the queue itself.");
    // Two sources may share a target.
    expect((await update(a, { dead_queue_id: c })).status).toBe(200);
  });

  test("never lead in a circle that two updates at the same time close from both sides", async () => {
    for (let round = 0; round < 20; round++) {
      const [a, b] = [await createQueue(service), await createQueue(service)];
      const answers = await Promise.all([
        update(a, { dead_queue_id: b, message_max_deliveries: 3 }),
        update(b, { dead_queue_id: a, message_max_deliveries: 3 }),
      ]);
      expect(answers.map(({ status }) => status).sort()).toEqual([200, 400]);
    }
  });
});

/** What a moved message shows, whole. */
function expectMoved(moved: Delivered, was: Partial<Delivered>, dead: Record<string, unknown>): void {
  const { dead_at } = (moved.dead ?? {}) as { dead_at: string };
  expect(dead_at).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
  const { lease_token: _, lease_expires_at: __, ...shown } = moved;
  expect(shown).toMatchObject(was);
  expect(moved.dead).toEqual({ ...dead, dead_at });
}

describe("a message is dead", () => {
  test("(a) at a nack, when its deliveries are used up; it keeps what it is and starts anew", async () => {
    const { queue, dead } = await pair({ message_retention_seconds: 1000 }, { message_retention_seconds: 500 });
    const id = await put(queue, { body: "b", label: "l", attributes: { k: "v" }, ttl_seconds: 900 });
    const first = await take(queue);
    await nack(queue, id, { lease_token: first.lease_token, error: "first" });
    expect(await receive(dead)).toEqual([]);
    await elapse(100);
    const second = await take(queue);
    await nack(queue, id, { lease_token: second.lease_token, visibility_timeout_seconds: 100, error: "second" });
    expect((await look(queue, id)).body).toEqual(refused(6, "message not found"));
    expect((await ack(queue, id, second.lease_token)).body.code).toBe(6);
    expect((await ack(dead, id, second.lease_token)).body.code).toBe(11);

    const peeked = (await look(dead, id)).body;
    expect(peeked).toMatchObject({ state: "ready", delivery_attempts: 0, last_error: "second" });
    expect(peeked).not.toHaveProperty("expires_at");
    const moved = await take(dead);
    const { created_at } = second as unknown as { created_at: string };
    const kept = {
      id,
      body: "b",
      label: "l",
      attributes: { k: "v" },
      created_at,
      queue_id: dead,
      delivery_attempts: 1,
    };
    const reason = { source_queue_id: queue, reason: "max_deliveries", error: "second", attempts: 2 };
    expectMoved(moved, kept as Partial<Delivered>, reason);
    expect(moved).not.toHaveProperty("expires_at");

    // Retention counts from the move, with the dead-letter queue's own.
    await extend(dead, id, 0, moved.lease_token);
    await elapse(498);
    expect((await look(dead, id)).body.state).toBe("ready");
    await elapse(3);
    expect((await look(dead, id)).body.state).toBe("expired");
  });

  test("(a) also without a token, and says no error when there was none", async () => {
    const { queue, dead } = await pair({ message_max_deliveries: 1 });
    const id = await put(queue);
    await take(queue);
    await nack(queue, id);
    expectMoved(
      await take(dead),
      { id, delivery_attempts: 1 },
      { source_queue_id: queue, reason: "max_deliveries", error: null, attempts: 1 },
    );
  });

  test("(b) when a lease meets it: moved before the answer, which is filled up all the same", async () => {
    const { queue, dead } = await pair({ message_max_deliveries: 1 });
    for (let i = 0; i < 25; i++) await put(queue, { body: `spent ${i}` });
    expect(await receive(queue, "?limit=100")).toHaveLength(25);
    await elapse(31);
    for (let i = 0; i < 5; i++) await put(queue, { body: `fresh ${i}` });
    const filled = await receive(queue, "?limit=3");
    expect(filled.map(({ body }) => body)).toEqual(["fresh 0", "fresh 1", "fresh 2"]);
    expect((await stats(dead)).dead).toBe(25);
    const moved = await receive(dead, "?limit=100");
    expect(moved).toHaveLength(25);
    for (const one of moved) {
      expectMoved(
        one,
        { delivery_attempts: 1 },
        { source_queue_id: queue, reason: "max_deliveries", error: null, attempts: 1 },
      );
    }
  });

  test("(b) with the error of its last nack, when the last lease ran out", async () => {
    const { queue, dead } = await pair();
    const id = await put(queue);
    await take(queue);
    await nack(queue, id, { error: "earlier" });
    await take(queue);
    await elapse(31);
    expect(await receive(queue)).toEqual([]);
    expect((await take(dead)).dead).toMatchObject({ error: "earlier", attempts: 2 });
  });

  test("(b) when the limit was lowered below its deliveries, and never while its lease is live", async () => {
    const { queue, dead } = await pair({ message_max_deliveries: 5 });
    const id = await put(queue);
    await take(queue);
    await elapse(31);
    const second = await take(queue);
    await update(queue, { message_max_deliveries: 1 });
    expect(await receive(queue)).toEqual([]);
    expect((await extend(queue, id, 30, second.lease_token)).status).toBe(204);
    await elapse(31);
    expect(await receive(queue)).toEqual([]);
    expect((await take(dead)).dead).toMatchObject({ attempts: 2 });
  });

  test("(c) on an idle queue, by the sweeper", async () => {
    const { queue, dead } = await pair();
    const spent = await put(queue);
    for (let i = 0; i < 2; i++) {
      await take(queue);
      await elapse(31);
    }
    // The sweeper looks at what has run out lately: the first is found, the one delivered once is not.
    const once = await put(queue);
    expect(await broker.sweepExhausted(60)).toBe(1);
    expect((await look(queue, once)).body.state).toBe("ready");
    expect(await receive(dead)).toMatchObject([{ id: spent, dead: { attempts: 2, reason: "max_deliveries" } }]);

    const again = await pair({ message_max_deliveries: 1 });
    const ids = [await put(again.queue), await put(again.queue), await put(again.queue)];
    const [, second, third] = await receive(again.queue);
    await extend(again.queue, third?.id ?? "", 100, third?.lease_token);
    await extend(again.queue, second?.id ?? "", 0, second?.lease_token);
    await elapse(31);
    expect(await broker.sweepExhausted(60)).toBe(1);
    expect(await broker.sweepExhausted(60)).toBe(0);
    expect((await receive(again.dead)).map(({ id }) => id)).toEqual([ids[0] as string]);
    // A released message waits for its next lease, a leased one for the end of its own.
    expect((await look(again.queue, second?.id ?? "")).body.state).toBe("ready");
    expect((await look(again.queue, third?.id ?? "")).body.state).toBe("leased");
  });

  test("(c) never under a lease that was extended while the sweeper looked", async () => {
    const { queue, dead } = await pair({ message_max_deliveries: 1 });
    for (let round = 0; round < 15; round++) {
      const id = await put(queue);
      const { lease_token } = await take(queue);
      await elapse(31);
      const [, extended] = await Promise.all([broker.sweepExhausted(60), extend(queue, id, 60, lease_token)]);
      expect(extended.status).toBe((await look(dead, id)).status === 200 ? 404 : 204);
      await call("PUT", `/v1/queues/${queue}/purge`);
    }
    expect((await stats(dead)).ready).toBeLessThanOrEqual(15);
  });

  test("(d) at once when rejected, whatever the count; an ordinary nack without a dead-letter queue", async () => {
    const { queue, dead } = await pair({ message_max_deliveries: 1000 });
    const id = await put(queue);
    const { lease_token } = await take(queue);
    await nack(queue, id, { lease_token, dead_letter: true, error: "bad" });
    const reason = { source_queue_id: queue, reason: "rejected", error: "bad", attempts: 1 };
    expectMoved(await take(dead), { id }, reason);
    const unseen = await put(queue);
    await nack(queue, unseen, { dead_letter: true });
    expect((await take(dead)).dead).toMatchObject({ reason: "rejected", attempts: 0, error: null });

    const plain = await createQueue(service);
    const other = await put(plain);
    await take(plain);
    await nack(plain, other, { dead_letter: true, visibility_timeout_seconds: 60 });
    expect((await look(plain, other)).body.state).toBe("backing_off");
  });

  test("(e) on expiry where the queue says so: at a lease, and by the sweeper", async () => {
    const { queue, dead } = await pair({ message_retention_seconds: 100, dead_letter_on_expiry: true });
    const id = await put(queue);
    await elapse(101);
    expect(await receive(queue)).toEqual([]);
    const reason = { source_queue_id: queue, reason: "expired", error: null, attempts: 0 };
    expectMoved(await take(dead), { id, delivery_attempts: 1 }, reason);

    const idle = await pair({ message_retention_seconds: 100, dead_letter_on_expiry: true });
    const [unseen, seen] = [await put(idle.queue), await put(idle.queue)];
    await receive(idle.queue, "?ack_deadline_seconds=200");
    await nack(idle.queue, unseen, { error: "boom", visibility_timeout_seconds: 0 });
    await elapse(101);
    await broker.sweepExpired();
    // The other one is under a live lease.
    const expired = { ...reason, source_queue_id: idle.queue };
    expectMoved(await take(idle.dead), { id: unseen }, { ...expired, error: "boom", attempts: 1 });
    expect((await look(idle.queue, seen)).body.state).toBe("leased");
  });

  test("(e) and not where it does not: the archive takes it with what is known of it", async () => {
    const { queue, dead } = await pair({ message_retention_seconds: 100 });
    const [at_lease, by_sweeper] = [await put(queue), await put(queue)];
    await receive(queue);
    for (const id of [at_lease, by_sweeper]) await nack(queue, id, { error: "boom" });
    await elapse(101);
    await broker.sweepExpired();
    expect(await receive(queue)).toEqual([]);
    expect(await receive(dead)).toEqual([]);
    for (const id of [at_lease, by_sweeper]) {
      expect((await look(queue, id)).body).toMatchObject({
        state: "expired",
        last_error: "boom",
        delivery_attempts: 1,
      });
    }
  });
});

describe("under concurrency", () => {
  test("no message is delivered more often than the limit, and each ends in the dead-letter queue once", async () => {
    const { queue, dead } = await pair({ message_max_deliveries: 3 });
    const total = 200;
    await Promise.all(Array.from({ length: total }, () => put(queue)));
    const deliveries = new Map<string, number>();
    const consumer = async (n: number) => {
      for (let i = 0; i < 40; i++) {
        // Half of the consumers crash: their leases end at once. The others nack.
        const taken = await receive(queue, n % 2 === 0 ? "?limit=7&ack_deadline_seconds=0" : "?limit=7");
        for (const { id, lease_token, delivery_attempts } of taken) {
          deliveries.set(id, (deliveries.get(id) ?? 0) + 1);
          expect(delivery_attempts).toBeLessThanOrEqual(3);
          if (n % 2 === 1) await nack(queue, id, { lease_token });
        }
        if (n === 0) await broker.sweepExhausted(60);
      }
    };
    await Promise.all(Array.from({ length: 8 }, (_, n) => consumer(n)));
    expect([...deliveries.values()].filter((count) => count > 3)).toEqual([]);
    while ((await receive(queue, "?limit=100&ack_deadline_seconds=0")).length > 0);
    const moved = [];
    for (;;) {
      const some = await receive(dead, "?limit=100");
      if (some.length === 0) break;
      moved.push(...some);
    }
    expect(new Set(moved.map(({ id }) => id)).size).toBe(total);
    expect(moved.filter((one) => one.delivery_attempts !== 1 || one.dead?.["attempts"] !== 3)).toEqual([]);
  });
});

test("a dead-letter queue cannot be deleted while it is one, unless forced", async () => {
  const { queue, dead } = await pair();
  const refusal = await call("DELETE", `/v1/queues/${dead}`);
  expect(refusal).toMatchObject({ status: 409, body: { code: 12, message: "queue in use" } });
  expect((await call("DELETE", `/v1/queues/${dead}?force=false`)).status).toBe(409);
  expect((await call("DELETE", `/v1/queues/${dead}?force=true`)).status).toBe(204);
  const left = { dead_queue_id: null, message_max_deliveries: null };
  expect((await call("GET", `/v1/queues/${queue}`)).body).toMatchObject(left);
  // Without a target there is no limit either.
  const id = await put(queue);
  for (let i = 0; i < 4; i++) {
    await take(queue);
    await nack(queue, id);
  }
  expect(await take(queue)).toMatchObject({ id, delivery_attempts: 5 });
  const source = await pair();
  expect((await call("DELETE", `/v1/queues/${source.queue}`)).status).toBe(204);
  expect((await call("DELETE", `/v1/queues/${source.dead}`)).status).toBe(204);
});
