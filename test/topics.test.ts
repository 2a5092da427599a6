import { expect, setDefaultTimeout, test } from "bun:test";
import { createQueue, serviceForFile, uniqueId } from "./harness.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile();
const { call } = service;

async function subscribe(topic_id: string, message_filters?: unknown) {
  const queue_id = await createQueue(service);
  const answer = await call("POST", "/v1/subscriptions", { id: uniqueId("s"), topic_id, queue_id, message_filters });
  expect(answer.status).toBe(201);
  return queue_id;
}

async function createTopic() {
  const id = uniqueId("t");
  expect((await call("POST", "/v1/topics", { id })).status).toBe(201);
  return id;
}

const bodies = async (queue: string) =>
  (await call("GET", `/v1/queues/${queue}/messages`)).body.data.map((message: { body: string }) => message.body);

test("a filter is AND over names and OR within a list, and `__proto__` is a name like any other", async () => {
  const topic = await createTopic();
  const all = await subscribe(topic);
  const both = await subscribe(topic, { a: ["1", "2"], b: ["x"] });
  const none = await subscribe(topic, { a: [] });
  const odd = await subscribe(topic, JSON.parse('{"__proto__":["y"]}'));
  const send = (body: string) => call("POST", `/v1/topics/${topic}/messages`, body);
  expect((await send('{"body":"1","attributes":{"a":"2","b":"x"}}')).status).toBe(204);
  await send('{"body":"2","attributes":{"a":"2","b":"z"}}');
  await send('{"body":"3","attributes":{"__proto__":"y"}}');
  await send('{"body":"4"}');
  expect(await bodies(all)).toEqual(["1", "2", "3", "4"]);
  expect(await bodies(both)).toEqual(["1"]);
  expect(await bodies(none)).toEqual([]);
  expect(await bodies(odd)).toEqual(["3"]);
});

test("many copies have ids of their own, in one statement", async () => {
  const topic = await createTopic();
  const queues = await Promise.all(Array.from({ length: 40 }, () => subscribe(topic)));
  await Promise.all([1, 2, 3].map((n) => call("POST", `/v1/topics/${topic}/messages`, { body: String(n) })));
  const ids = new Set<string>();
  for (const queue of queues) {
    const { data } = (await call("GET", `/v1/queues/${queue}/messages`)).body;
    expect(data).toHaveLength(3);
    for (const message of data) ids.add(message.id);
  }
  expect(ids.size).toBe(120);
});

test("fifty concurrent subscribers to one pair: one wins, the others hear that it exists", async () => {
  const topic_id = await createTopic();
  const queue_id = await createQueue(service);
  const answers = await Promise.all(
    Array.from({ length: 50 }, (_, i) =>
      call("POST", "/v1/subscriptions", { id: `${topic_id}-${i}`, topic_id, queue_id }),
    ),
  );
  expect(answers.filter((answer) => answer.status === 201)).toHaveLength(1);
  expect(answers.filter((answer) => answer.body.code === 9)).toHaveLength(49);
});

test("a refused batch names the message and the member that it was refused for", async () => {
  const topic = await createTopic();
  const queue = await subscribe(topic);
  const messages = [
    { body: "a" },
    { body: "b", ordering_key: "k", delay_seconds: 1 },
    { body: "c", ordering_key: "k", deliver_at: "2000-01-01T00:00:00Z" },
  ];
  const refusal = await call("POST", `/v1/topics/${topic}/messages/batch`, { messages });
  expect({ status: refusal.status, body: refusal.body }).toEqual({
    status: 400,
    body: {
      code: 3,
      message: "request validation failed",
      details: "messages[1].ordering_key: must not be given together with delay_seconds.",
    },
  });
  expect(await bodies(queue)).toEqual([]);
});
