import { expect, setDefaultTimeout, test } from "bun:test";
import { createQueue, serviceForFile, uniqueId } from "./harness.ts";
import { refused, verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ receive_limit_max: 100 });
const { call, elapse } = service;
const { publish, bodies, update } = verbsOf(service);

const long = "x".repeat(50);
const too_large = { error: expect.objectContaining({ code: 13 }) };
const stored = { id: expect.stringMatching(/^[0-9A-Z]{26}$/), deduplicated: false };

const some = async (queue: string, messages: unknown[]) => {
  const answer = await call("POST", `/v1/queues/${queue}/messages/batch?atomic=false`, { messages });
  return { status: answer.status, data: answer.body.data };
};

async function topicTo(...queues: string[]): Promise<string> {
  const topic = uniqueId("t");
  await call("POST", "/v1/topics", { id: topic });
  for (const queue_id of queues) {
    await call("POST", "/v1/subscriptions", { id: uniqueId("s"), topic_id: topic, queue_id });
  }
  return topic;
}

test.each([
  ["that is too large", { max_message_bytes: 20 }, { body: long }, 13],
  ["with an order and a delay", {}, { body: "o", ordering_key: "k", delay_seconds: 3 }, 3],
  ["with a priority that its queue does not know", {}, { body: "p", priority: 3 }, 3],
  [
    "of another body, that is too large, on a strict queue",
    { max_message_bytes: 20, dedup_strict: true },
    { body: long },
    13,
  ],
])("a refused message %s leaves its dedup_id to the next of its batch", async (_, settings, barred, code) => {
  const queue = await createQueue(service, settings);
  const messages = [
    { ...barred, dedup_id: "1" },
    { body: "small", dedup_id: "1" },
    { body: "small", dedup_id: "1" },
  ];
  const answer = await some(queue, messages);
  expect(answer).toEqual({
    status: 200,
    data: [{ error: expect.objectContaining({ code }) }, stored, { id: answer.data[1].id, deduplicated: true }],
  });
  expect(await bodies(queue)).toEqual(["small"]);
});

test("refused messages with one dedup_id and different bodies are no conflict: nothing of them was stored", async () => {
  const queue = await createQueue(service, { max_message_bytes: 20, dedup_strict: true });
  const messages = [
    { body: long, dedup_id: "1" },
    { body: `${long}y`, dedup_id: "1" },
  ];
  expect(await some(queue, messages)).toEqual({ status: 200, data: [too_large, too_large] });
});

test("a refused message keeps nobody's publish back that leaves with it", async () => {
  const queue = await createQueue(service, { max_message_bytes: 20 });
  const keys = Array.from("abcdefghij");
  const answers = await Promise.all(
    keys.flatMap((dedup_id) => [
      publish(queue, { body: long, dedup_id }),
      publish(queue, { body: dedup_id, dedup_id }),
    ]),
  );
  expect(answers.map(({ status }) => status)).toEqual(keys.flatMap(() => [413, 204]));
  expect((await bodies(queue, "?limit=100")).sort()).toEqual(keys);
});

test("a refused message keeps no publish to a topic back that leaves with it", async () => {
  const queue = await createQueue(service, { max_message_bytes: 20 });
  const other = await createQueue(service);
  const path = `/v1/topics/${await topicTo(queue, other)}/messages`;
  const keys = Array.from("abcdefghij");
  const answers = await Promise.all(
    keys.flatMap((dedup_id) => [
      call("POST", path, { body: long, dedup_id }),
      call("POST", path, { body: dedup_id, dedup_id }),
      call("POST", path, { body: dedup_id, dedup_id, weight: 2 }),
    ]),
  );
  expect(answers.map(({ status }) => status)).toEqual(keys.flatMap(() => [413, 204, 204]));
  for (const own of [queue, other]) expect((await bodies(own, "?limit=100")).sort()).toEqual(keys);
});

test("a refused message of an atomic batch keeps its duplicates back, and leaves their dedup_id to others", async () => {
  const queue = await createQueue(service, { max_message_bytes: 20 });
  const messages = [
    { body: "small", dedup_id: "1" },
    { body: long, dedup_id: "1" },
    { body: "other", dedup_id: "2" },
  ];
  const answer = await call("POST", `/v1/queues/${queue}/messages/batch`, { messages });
  expect({ status: answer.status, body: answer.body }).toEqual({
    status: 413,
    body: refused(13, "payload too large", "the message is larger than the queue's max_message_bytes"),
  });
  expect(await some(queue, [messages[0], messages[2]])).toEqual({ status: 200, data: [stored, stored] });
  expect(await bodies(queue)).toEqual(["small", "other"]);
});

test("a publish that stored nothing and has no original is 503, and not answered as published", async () => {
  const queue = await createQueue(service);
  const topic = await topicTo(queue);
  const { sql } = service;
  // What stands in the way of a claim is gone when it is looked for.
  await sql.unsafe(
    `create function public.claim_nothing() returns trigger language plpgsql as 'begin return null; end'`,
  );
  for (const table of ["deduplications", "topic_deduplications"]) {
    await sql.unsafe(`create trigger claim_nothing before insert on psqlqueue.${table}
      for each row execute function public.claim_nothing()`);
  }
  const message = { body: "a", dedup_id: "1" };
  const gone = refused(19, "service unavailable", "the database does not answer (ORIGINAL_GONE)");
  for (const path of [`queues/${queue}`, `topics/${topic}`]) {
    const answer = await call("POST", `/v1/${path}/messages`, message);
    expect({ status: answer.status, body: answer.body }).toEqual({ status: 503, body: gone });
  }
  expect(await some(queue, [message, { body: "b" }])).toEqual({ status: 200, data: [{ error: gone }, stored] });
  await sql.unsafe("drop function public.claim_nothing() cascade");
  expect((await publish(queue, message)).status).toBe(204);
  expect(await bodies(queue)).toEqual(["b", "a"]);
});

const full = { error: expect.objectContaining({ code: 18 }) };
const again = (id: string | null) => ({ id, deduplicated: true });
/** The answer to one publish. */
async function send(path: string, message: unknown, headers: Record<string, string> = {}) {
  const answer = await call("POST", `/v1/${path}/messages`, message, headers);
  const { status } = answer;
  return { status, id: answer.headers.get("x-message-id"), seen: answer.headers.get("x-deduplicated") };
}

test.each([
  ["by an id", {}, { body: "a", dedup_id: "1" }],
  ["by its content", { content_dedup: true }, { body: "a" }],
  [
    "in the scope of its ordering key",
    { dedup_scope: "ordering_key" },
    { body: "a", ordering_key: "k", dedup_id: "1" },
  ],
])("a retry %s is answered with the original also when the queue is full", async (_, settings, message) => {
  const queue = await createQueue(service, { max_depth: 1, ...settings });
  const first = await send(`queues/${queue}`, message);
  expect(first).toEqual({ status: 204, id: expect.any(String), seen: null });
  for (let i = 0; i < 2; i++) {
    expect(await send(`queues/${queue}`, message)).toEqual({ status: 204, id: first.id, seen: "true" });
  }
  expect((await send(`queues/${queue}`, { ...message, body: "b", dedup_id: "2" })).status).toBe(429);
  expect(await some(queue, [message, { body: "c" }, message])).toEqual({
    status: 200,
    data: [again(first.id), full, again(first.id)],
  });
  expect(await bodies(queue)).toEqual(["a"]);
});

test("a retry is answered with the original also when max_message_bytes was lowered meanwhile", async () => {
  const queue = await createQueue(service);
  const topic = await topicTo(queue);
  const message = { body: long, dedup_id: "1" };
  const first = await send(`queues/${queue}`, message);
  await send(`topics/${topic}`, message);
  await update(queue, { max_message_bytes: 20 });
  expect(await send(`queues/${queue}`, message)).toEqual({ status: 204, id: first.id, seen: "true" });
  expect(await send(`topics/${topic}`, message)).toEqual({ status: 204, id: null, seen: "true" });
  const batch = await call("POST", `/v1/queues/${queue}/messages/batch`, { messages: [message, { body: "b" }] });
  expect({ status: batch.status, data: batch.body.data }).toEqual({ status: 201, data: [again(first.id), stored] });
  for (const query of ["", "?atomic=false"]) {
    const messages = [message, { body: "c" }];
    const answer = await call("POST", `/v1/topics/${topic}/messages/batch${query}`, { messages });
    expect(answer.body).toEqual({ data: [{ delivered_queues: 1 }, { delivered_queues: 1 }] });
  }
  await elapse(301);
  for (const path of [`queues/${queue}`, `topics/${topic}`]) expect((await send(path, message)).status).toBe(413);
});

test("a strict queue that is full refuses another body as a conflict", async () => {
  const queue = await createQueue(service, { max_depth: 1, dedup_strict: true });
  await send(`queues/${queue}`, { body: "a", dedup_id: "1" });
  const other = { body: "b", dedup_id: "1" };
  expect((await send(`queues/${queue}`, other)).status).toBe(409);
  expect(await some(queue, [other])).toEqual({ status: 200, data: [{ error: refused(22, "dedup conflict") }] });
});

test("a batch needs no room for its duplicates, of what is stored and of one another", async () => {
  const queue = await createQueue(service, { max_depth: 3 });
  const first = await send(`queues/${queue}`, { body: "a", dedup_id: "1" });
  const messages = [
    { body: "a", dedup_id: "1" },
    { body: "b", dedup_id: "2" },
    { body: "b", dedup_id: "2" },
    { body: "c" },
  ];
  const whole = await call("POST", `/v1/queues/${queue}/messages/batch`, { messages });
  expect(whole.body.data).toEqual([again(first.id), stored, again(whole.body.data[1].id), stored]);
  // All of it is duplicates now, but the last.
  const refusal = await call("POST", `/v1/queues/${queue}/messages/batch`, { messages });
  expect({ status: refusal.status, code: refusal.body.code }).toEqual({ status: 429, code: 18 });
  expect((await call("POST", `/v1/queues/${queue}/messages/batch`, { messages: messages.slice(0, 3) })).status).toBe(
    201,
  );
  expect(await bodies(queue)).toEqual(["a", "b", "c"]);
});

test("room that a duplicate of a batch has left is for the next, where each is for itself", async () => {
  const queue = await createQueue(service, { max_depth: 2 });
  const messages = ["1", "1", "2", "3"].map((dedup_id) => ({ body: dedup_id, dedup_id }));
  const answer = await some(queue, messages);
  expect(answer.data).toEqual([stored, again(answer.data[0].id), stored, full]);
  expect(await bodies(queue)).toEqual(["1", "2"]);
});

test("a retry to a topic is answered with the original also when a queue of it is full", async () => {
  const queue = await createQueue(service, { max_depth: 2 });
  const path = `topics/${await topicTo(queue)}`;
  const message = { body: "a", dedup_id: "1" };
  expect((await send(path, message)).status).toBe(204);
  const messages = [message, { body: "b", dedup_id: "2" }, { body: "b", dedup_id: "2" }];
  const whole = await call("POST", `/v1/${path}/messages/batch`, { messages });
  expect(whole.body).toEqual({ data: messages.map(() => ({ delivered_queues: 1 })) });
  expect(await send(path, message)).toEqual({ status: 204, id: null, seen: "true" });
  expect((await send(path, { body: "c", dedup_id: "3" })).status).toBe(429);
  const each = await call("POST", `/v1/${path}/messages/batch?atomic=false`, {
    messages: [...messages, { body: "c" }],
  });
  expect(each.body.data).toEqual([...messages.map(() => ({ delivered_queues: 1 })), full]);
  expect(await bodies(queue)).toEqual(["a", "b"]);
});

test("of concurrent duplicates that fill a queue one is stored; none is refused for good", async () => {
  const queue = await createQueue(service, { max_depth: 1 });
  const topic_queue = await createQueue(service, { max_depth: 1 });
  const topic = await topicTo(topic_queue);
  const message = { body: "a", dedup_id: "1" };
  for (const path of [`queues/${queue}`, `topics/${topic}`]) {
    const answers = await Promise.all(Array.from({ length: 20 }, () => send(path, message)));
    // One that comes while the first is not committed yet is told to come back.
    expect(answers.filter(({ status }) => status !== 204 && status !== 429)).toEqual([]);
    expect(answers.filter(({ status, seen }) => status === 204 && seen === null)).toHaveLength(1);
    expect(await send(path, message)).toMatchObject({ status: 204, seen: "true" });
  }
  for (const own of [queue, topic_queue]) expect(await bodies(own)).toEqual(["a"]);
});
