import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createQueue, serviceForFile, uniqueId } from "./harness.ts";
import { refused, verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ receive_limit_max: 100 });
const { call, elapse } = service;
const { put, receive, take, nack, look, update, secondsUntil } = verbsOf(service);

const invalid = (details: string) => refused(3, "request validation failed", details);
const shown = async (queue: string) => (await call("GET", `/v1/queues/${queue}`)).body.retry_policy;
const base = { ack_deadline_seconds: 30, message_retention_seconds: 100_000 };

describe("a retry policy", () => {
  test("has defaults for what is left out, is kept by an update, and reset by null", async () => {
    const queue = await createQueue(service);
    const plain = { min_seconds: 0, max_seconds: 600, multiplier: 2, jitter: "none" };
    expect(await shown(queue)).toEqual(plain);
    await update(queue, { retry_policy: { min_seconds: 10 } });
    expect(await shown(queue)).toEqual({ ...plain, min_seconds: 10, jitter: "equal" });
    await update(queue, {});
    expect(await shown(queue)).toEqual({ ...plain, min_seconds: 10, jitter: "equal" });
    await update(queue, { retry_policy: { max_seconds: 5, multiplier: 1.5, jitter: "full" } });
    expect(await shown(queue)).toEqual({ min_seconds: 0, max_seconds: 5, multiplier: 1.5, jitter: "full" });
    await update(queue, { retry_policy: null });
    expect(await shown(queue)).toEqual(plain);
  });

  test("is checked member by member", async () => {
    const ask = async (retry_policy: unknown) =>
      (await call("POST", "/v1/queues", { id: uniqueId(), ...base, retry_policy })).body;
    expect(await ask({ min_seconds: 43_201 })).toEqual(
      invalid("retry_policy.min_seconds: must be no greater than 43200."),
    );
    expect(await ask({ min_seconds: 10, max_seconds: 9 })).toEqual(
      invalid("retry_policy.max_seconds: must be no less than 10."),
    );
    expect(await ask({ multiplier: 0.5 })).toEqual(invalid("retry_policy.multiplier: must be no less than 1."));
    expect(await ask({ multiplier: 11 })).toEqual(invalid("retry_policy.multiplier: must be no greater than 10."));
    expect(await ask({ jitter: "some" })).toEqual(invalid("retry_policy.jitter: must be one of none, full, equal."));
    expect((await ask({ min_seconds: "1" })).code).toBe(2);
    expect((await ask([])).code).toBe(2);
    expect((await ask({ min_seconds: 700 })).retry_policy.max_seconds).toBe(700);
  });

  test("hides a nacked message longer each time, up to its maximum", async () => {
    const queue = await createQueue(service, {
      ...base,
      retry_policy: { min_seconds: 10, max_seconds: 65, multiplier: 3, jitter: "none" },
    });
    const id = await put(queue);
    for (const seconds of [10, 30, 65, 65]) {
      await take(queue);
      await nack(queue, id);
      const { body } = await look(queue, id);
      expect(body.state).toBe("backing_off");
      expect(await secondsUntil(body.visible_at)).toBeWithin(seconds - 5, seconds + 0.01);
      await elapse(seconds - 6);
      expect(await receive(queue)).toEqual([]);
      await elapse(7);
    }
  });

  test("hides a message behind the end of its lease", async () => {
    const queue = await createQueue(service, {
      ...base,
      retry_policy: { min_seconds: 20, multiplier: 1, jitter: "none" },
    });
    const id = await put(queue);
    const { lease_expires_at } = await take(queue);
    expect(await secondsUntil(lease_expires_at)).toBeWithin(25, 30.01);
    await elapse(31);
    expect(await receive(queue)).toEqual([]);
    expect((await look(queue, id)).body.state).toBe("backing_off");
    await elapse(21);
    expect(await take(queue)).toMatchObject({ id, delivery_attempts: 2 });
  });

  test("gives way to an explicit time, also to 0", async () => {
    const queue = await createQueue(service, { ...base, retry_policy: { min_seconds: 50 } });
    const id = await put(queue);
    await take(queue);
    await nack(queue, id, { visibility_timeout_seconds: 0 });
    await take(queue);
    await nack(queue, id, { visibility_timeout_seconds: 500 });
    expect(await secondsUntil((await look(queue, id)).body.visible_at)).toBeWithin(495, 500.01);
    const by_query = `/v1/queues/${queue}/messages/${id}/nack?visibility_timeout_seconds=`;
    await call("PUT", `${by_query}70`);
    expect(await secondsUntil((await look(queue, id)).body.visible_at)).toBeWithin(65, 70.01);
    expect((await call("PUT", `${by_query}43201`)).body.code).toBe(3);
    expect((await nack(queue, id, { visibility_timeout_seconds: -1 })).body.code).toBe(2);
  });

  test.each([
    ["none", 64, 64],
    ["full", 0, 64],
    ["equal", 32, 64],
  ])("with jitter %s stays between its bounds, and varies", async (jitter, least, most) => {
    const rows = await service.sql`
      select psqlqueue.backoff_seconds(4, 8, 600, 2, ${jitter}) as seconds from generate_series(1, 400)`;
    const seconds = rows.map((row) => row["seconds"] as number).sort((a, b) => a - b);
    expect(seconds[0]).toBeGreaterThanOrEqual(least);
    expect(seconds.at(-1)).toBeLessThanOrEqual(most);
    const [lowest = 0, highest = 0] = [seconds[0], seconds.at(-1)];
    // 400 throws leave less than a tenth of the range untouched.
    expect(highest - lowest).toBeGreaterThanOrEqual((most - least) * 0.9);
  });

  test("never overflows, however often a message was delivered", async () => {
    const queue = await createQueue(service, {
      ...base,
      retry_policy: { min_seconds: 43_200, max_seconds: 43_200, multiplier: 10, jitter: "none" },
    });
    const id = await put(queue);
    await service.sql`update psqlqueue.messages set delivery_attempts = 2000000000 where id = ${id}`;
    await take(queue);
    expect((await nack(queue, id)).status).toBe(204);
    expect(await secondsUntil((await look(queue, id)).body.visible_at)).toBeWithin(43_190, 43_200.01);
  });
});

describe("the error of a nack", () => {
  test("is kept as last_error, shown to whoever sees the message next, and replaced by the next one", async () => {
    const queue = await createQueue(service);
    const id = await put(queue);
    await take(queue);
    await nack(queue, id, { error: "first" });
    expect((await look(queue, id)).body.last_error).toBe("first");
    expect((await take(queue)).last_error).toBe("first");
    // A nack without one says nothing new.
    await nack(queue, id);
    expect((await take(queue)).last_error).toBe("first");
    await nack(queue, id, { error: "second" });
    const { body } = await call("GET", `/v1/queues/${queue}/messages/peek`);
    expect(body.data).toMatchObject([{ id, last_error: "second" }]);
    expect((await nack(queue, id, { error: 5 })).body.code).toBe(2);
  });

  test.each([
    ["x".repeat(2048), 2048],
    ["x".repeat(2049), 2048],
    ["é".repeat(1500), 2048],
    [`a${"é".repeat(1500)}`, 2047],
    [`ab${"😀".repeat(600)}`, 2046],
    [`abc${"😀".repeat(600)}`, 2047],
  ])("is cut at a character, at 2048 bytes", async (error, bytes) => {
    const queue = await createQueue(service);
    const id = await put(queue);
    expect((await nack(queue, id, { error })).status).toBe(204);
    const { last_error } = (await look(queue, id)).body;
    expect(Buffer.byteLength(last_error)).toBe(bytes);
    expect(error.startsWith(last_error)).toBe(true);
  });
});
