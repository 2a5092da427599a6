import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createQueue, serviceForFile, uniqueId } from "./harness.ts";
import { refused, verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ receive_limit_max: 100 });
const { call, elapse } = service;
const { publish, put, receive, take, ack, bodies, update, remove, stats } = verbsOf(service);

const conflict = refused(22, "dedup conflict");
const representation = { prefer: "return=representation" };

/** What a publish answers: the id, and whether it was a duplicate. */
async function send(queue: string, body: Record<string, unknown>, headers: Record<string, string> = {}) {
  const answer = await publish(queue, body, headers);
  return { status: answer.status, id: answer.headers.get("x-message-id"), seen: answer.headers.get("x-deduplicated") };
}

describe("a publish with a dedup_id", () => {
  test("that is new is stored; the same one again answers with the original, and stores nothing", async () => {
    const queue = await createQueue(service);
    const first = await send(queue, { body: "a", dedup_id: "1", label: "l" });
    expect(first).toEqual({ status: 204, id: expect.stringMatching(/^[0-9A-Z]{26}$/), seen: null });
    // Label, attributes and delay of a duplicate are ignored.
    const again = await send(queue, { body: "a", dedup_id: "1", label: "m", delay_seconds: 60 });
    expect(again).toEqual({ status: 204, id: first.id, seen: "true" });
    const other_body = await publish(queue, { body: "b", dedup_id: "1" }, representation);
    expect({ status: other_body.status, body: other_body.body }).toEqual({
      status: 201,
      body: { id: first.id, deduplicated: true },
    });
    expect(await receive(queue)).toMatchObject([{ id: first.id ?? "", body: "a", label: "l" }]);
  });

  test("counts per queue", async () => {
    const [one, other] = [await createQueue(service), await createQueue(service)];
    await send(one, { body: "a", dedup_id: "1" });
    expect((await send(other, { body: "a", dedup_id: "1" })).seen).toBeNull();
  });

  test("counts from the first publish, for the queue's window, and duplicates do not extend it", async () => {
    const queue = await createQueue(service, { dedup_window_seconds: 100 });
    const first = await send(queue, { body: "a", dedup_id: "1" });
    await elapse(60);
    expect((await send(queue, { body: "a", dedup_id: "1" })).seen).toBe("true");
    await elapse(41);
    const second = await send(queue, { body: "a", dedup_id: "1" });
    expect(second.seen).toBeNull();
    expect(second.id).not.toBe(first.id);
    expect((await send(queue, { body: "a", dedup_id: "1" })).id).toBe(second.id);
  });

  test("holds although the message was acked, deleted, expired or dead-lettered", async () => {
    const dead_queue_id = await createQueue(service);
    const queue = await createQueue(service, { dead_queue_id, message_max_deliveries: 2, dedup_window_seconds: 1000 });
    for (const [i, end] of [
      (id: string) => ack(queue, id),
      (id: string) => remove(queue, id),
      (id: string) => call("PUT", `/v1/queues/${queue}/messages/${id}/nack`, { dead_letter: true }),
      () => elapse(11).then(() => service.broker.sweepExpired()),
    ].entries()) {
      const first = await send(queue, { body: "a", dedup_id: String(i), ttl_seconds: 10 });
      await end(first.id ?? "");
      expect(await send(queue, { body: "a", dedup_id: String(i) })).toEqual({
        status: 204,
        id: first.id,
        seen: "true",
      });
    }
  });

  test("is forgotten by a purge, and with the queue", async () => {
    const queue = await createQueue(service);
    await send(queue, { body: "a", dedup_id: "1" });
    await call("PUT", `/v1/queues/${queue}/purge`);
    expect((await send(queue, { body: "a", dedup_id: "1" })).seen).toBeNull();
    await call("DELETE", `/v1/queues/${queue}`);
    await call("POST", "/v1/queues", { id: queue, ack_deadline_seconds: 30, message_retention_seconds: 3600 });
    expect((await send(queue, { body: "a", dedup_id: "1" })).seen).toBeNull();
    await call("DELETE", `/v1/queues/${queue}`);
    // The longest window of any queue here.
    await elapse(1001);
    await service.broker.sweepDeduplications();
    const [row] = await service.sql`select count(*)::int as count from psqlqueue.deduplications`;
    expect(row).toEqual({ count: 0 });
  });

  test("is not looked at where the window is 0; a shorter window counts at once", async () => {
    const queue = await createQueue(service, { dedup_window_seconds: 0 });
    for (let i = 0; i < 2; i++) expect((await send(queue, { body: "a", dedup_id: "1" })).seen).toBeNull();
    const shorter = await createQueue(service, { dedup_window_seconds: 1000 });
    await send(shorter, { body: "a", dedup_id: "1" });
    await elapse(100);
    await update(shorter, { dedup_window_seconds: 50 });
    expect((await send(shorter, { body: "a", dedup_id: "1" })).seen).toBeNull();
  });

  test("a longer window counts for keys that are still stored", async () => {
    const queue = await createQueue(service, { dedup_window_seconds: 50 });
    await send(queue, { body: "a", dedup_id: "1" });
    await elapse(100);
    await update(queue, { dedup_window_seconds: 1000 });
    expect((await send(queue, { body: "a", dedup_id: "1" })).seen).toBe("true");
  });

  test("with another body is refused where the queue is strict, until the window is over", async () => {
    const queue = await createQueue(service, { dedup_strict: true, dedup_window_seconds: 100 });
    await send(queue, { body: "a", dedup_id: "1" });
    expect((await send(queue, { body: "a", dedup_id: "1", label: "m" })).seen).toBe("true");
    const refusal = await publish(queue, { body: "b", dedup_id: "1" });
    expect({ status: refusal.status, body: refusal.body }).toEqual({ status: 409, body: conflict });
    await elapse(101);
    expect((await send(queue, { body: "b", dedup_id: "1" })).seen).toBeNull();
  });

  test("has 1 to 128 printable characters", async () => {
    const queue = await createQueue(service);
    const ask = async (dedup_id: unknown) => (await publish(queue, { body: "a", dedup_id })).body?.details;
    expect(await ask("")).toBe("dedup_id: must be in a valid format.");
    expect(await ask("a b")).toBe("dedup_id: must be in a valid format.");
    expect(await ask("é")).toBe("dedup_id: must be in a valid format.");
    expect(await ask("x".repeat(129))).toBe("dedup_id: the length must be no more than 128.");
    expect(await ask("!".repeat(64) + "~".repeat(64))).toBeUndefined();
    expect((await publish(queue, { body: "a", dedup_id: 1 })).body.code).toBe(2);
  });

  test("may come as Idempotency-Key; the member wins, and a batch does not look at it", async () => {
    const queue = await createQueue(service);
    const header = { "idempotency-key": "h" };
    const first = await send(queue, { body: "a" }, header);
    expect((await send(queue, { body: "a" }, header)).id).toBe(first.id);
    expect((await send(queue, { body: "a", dedup_id: "h" })).id).toBe(first.id);
    const member = await send(queue, { body: "a", dedup_id: "m" }, header);
    expect(member.seen).toBeNull();
    expect((await publish(queue, { body: "a" }, { "idempotency-key": "a b" })).body).toEqual(
      refused(3, "request validation failed", "Idempotency-Key: must be in a valid format."),
    );
    const batch = { messages: [{ body: "a" }, { body: "a" }] };
    expect((await call("POST", `/v1/queues/${queue}/messages/batch`, batch, header)).status).toBe(201);
    expect((await stats(queue)).ready).toBe(4);
  });
});

describe("content_dedup", () => {
  test("takes the body for the id where none is given", async () => {
    const queue = await createQueue(service, { content_dedup: true });
    const first = await send(queue, { body: "a" });
    expect(await send(queue, { body: "a", label: "m", attributes: { k: "v" } })).toEqual({ ...first, seen: "true" });
    expect((await send(queue, { body: "b" })).seen).toBeNull();
    // An id of its own is another one, also when it looks like the body.
    expect((await send(queue, { body: "a", dedup_id: "a" })).seen).toBeNull();
    await elapse(301);
    expect((await send(queue, { body: "a" })).seen).toBeNull();
  });

  test("without an id and without content_dedup nothing is stored", async () => {
    const queue = await createQueue(service);
    await put(queue, { body: "a", ttl_seconds: 60 });
    const rows = await service.sql`select from psqlqueue.deduplications as seen
      join psqlqueue.queues as queue on queue.no = seen.queue_no where queue.id = ${queue}`;
    expect(rows).toHaveLength(0);
  });
});

describe("in one batch", () => {
  const batch = (queue: string, messages: unknown[], query = "") =>
    call("POST", `/v1/queues/${queue}/messages/batch${query}`, { messages });

  test("the later ones are duplicates of the first", async () => {
    const queue = await createQueue(service);
    const answer = await batch(queue, [
      { body: "a", dedup_id: "1" },
      { body: "b" },
      { body: "c", dedup_id: "1" },
      { body: "d", dedup_id: "2" },
    ]);
    const [first, plain, repeat, last] = answer.body.data;
    expect(answer.status).toBe(201);
    expect([first, plain, repeat, last].map((one) => one.deduplicated)).toEqual([false, false, true, false]);
    expect(repeat.id).toBe(first.id);
    expect(await bodies(queue)).toEqual(["a", "b", "d"]);
    const again = await batch(queue, [
      { body: "x", dedup_id: "2" },
      { body: "y", dedup_id: "1" },
    ]);
    expect(again.body.data).toEqual([
      { id: last.id, deduplicated: true },
      { id: first.id, deduplicated: true },
    ]);
  });

  test("a conflict fails all, with what was in the queue and with one another; or one alone", async () => {
    const queue = await createQueue(service, { dedup_strict: true });
    await put(queue, { body: "a", dedup_id: "1" });
    await take(queue);
    const with_stored = [{ body: "n" }, { body: "b", dedup_id: "1" }];
    const with_each_other = [{ body: "n" }, { body: "p", dedup_id: "2" }, { body: "q", dedup_id: "2" }];
    for (const messages of [with_stored, with_each_other]) {
      const refusal = await batch(queue, messages);
      expect({ status: refusal.status, body: refusal.body }).toEqual({ status: 409, body: conflict });
    }
    expect(await bodies(queue)).toEqual([]);
    const some = await batch(queue, [...with_each_other, { body: "p", dedup_id: "2" }], "?atomic=false");
    expect(some.status).toBe(200);
    const { id } = some.body.data[1];
    expect(some.body.data.slice(1)).toEqual([
      { id, deduplicated: false },
      { error: conflict },
      { id, deduplicated: true },
    ]);
    expect(await bodies(queue)).toEqual(["n", "p"]);
  });
});

describe("of 50 concurrent duplicates", () => {
  test.each([
    ["by id", {}, () => ({ body: "a", dedup_id: "1" })],
    ["by id, with bodies of their own", {}, (i: number) => ({ body: String(i), dedup_id: "1" })],
    ["by content", { content_dedup: true }, () => ({ body: "a" })],
  ])("%s exactly one is stored, and all answer with its id", async (_, settings, message) => {
    const queue = await createQueue(service, settings);
    const answers = await Promise.all(Array.from({ length: 50 }, (_, i) => send(queue, message(i))));
    expect(answers.filter(({ seen }) => seen === null)).toHaveLength(1);
    expect(new Set(answers.map(({ id }) => id)).size).toBe(1);
    expect(await receive(queue)).toMatchObject([{ id: answers[0]?.id ?? "" }]);
  });

  test("with other bodies on a strict queue, those with the winner's body agree, the others are refused", async () => {
    const queue = await createQueue(service, { dedup_strict: true });
    const answers = await Promise.all(
      Array.from({ length: 50 }, (_, i) => send(queue, { body: String(i % 2), dedup_id: "1" })),
    );
    expect(answers.filter(({ status }) => status === 409)).toHaveLength(25);
    expect(answers.filter(({ status, seen }) => status === 204 && seen === null)).toHaveLength(1);
    expect(await receive(queue)).toHaveLength(1);
  });
});

test("to a topic: decided once, all copies or none; a duplicate repeats what was answered", async () => {
  const topic = uniqueId("t");
  await call("POST", "/v1/topics", { id: topic });
  const queues = [await createQueue(service), await createQueue(service)];
  const subscribe = (queue_id: string) =>
    call("POST", "/v1/subscriptions", { id: uniqueId("s"), topic_id: topic, queue_id });
  for (const queue of queues) await subscribe(queue);
  const path = `/v1/topics/${topic}/messages`;
  const fan = async (headers = {}) => {
    const answer = await call("POST", path, { body: "a", dedup_id: "1" }, headers);
    return {
      status: answer.status,
      queues: answer.headers.get("x-delivered-queues"),
      seen: answer.headers.get("x-deduplicated"),
      body: answer.body,
    };
  };
  expect(await fan()).toEqual({ status: 204, queues: "2", seen: null, body: undefined });
  const third = await createQueue(service);
  await subscribe(third);
  expect(await fan()).toEqual({ status: 204, queues: "2", seen: "true", body: undefined });
  expect((await fan(representation)).body).toEqual({ delivered_queues: 2, data: [] });
  // A key in a queue is another one than a key of a topic.
  expect((await send(third, { body: "a", dedup_id: "1" })).seen).toBeNull();
  for (const queue of [...queues, third]) expect(await receive(queue)).toHaveLength(1);
  await elapse(301);
  expect(await fan()).toMatchObject({ queues: "3", seen: null });
  const many = await Promise.all(
    Array.from({ length: 30 }, () => call("POST", path, { body: "b" }, { "idempotency-key": "2" })),
  );
  expect(many.filter((answer) => answer.headers.get("x-deduplicated") === null)).toHaveLength(1);
});
