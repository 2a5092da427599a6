import { expect, setDefaultTimeout, test } from "bun:test";
import { createQueue, serviceForFile, uniqueId } from "./harness.ts";
import { refused, verbsOf } from "./verbs.ts";

setDefaultTimeout(30_000);

const service = await serviceForFile({ receive_limit_max: 100 });
const { call } = service;
const { publish, bodies } = verbsOf(service);

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
