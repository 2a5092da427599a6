import { expect, setDefaultTimeout, test } from "bun:test";
import { createQueue, serviceForFile, uniqueId } from "./harness.ts";
import { verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ receive_limit_max: 100 });
const { call, broker, sql, elapse } = service;
const { put, bodies } = verbsOf(service);

async function topicTo(...queues: string[]): Promise<string> {
  const topic = uniqueId("t");
  await call("POST", "/v1/topics", { id: topic });
  for (const queue_id of queues) {
    await call("POST", "/v1/subscriptions", { id: uniqueId("s"), topic_id: topic, queue_id });
  }
  return topic;
}

async function publishBySql(topic: string, body: string, options: object = { dedup_id: "1" }): Promise<number> {
  const [row] = await sql`
    select psqlqueue.publish_topic(${topic}, ${body}, options => ${JSON.stringify(options)}::text::jsonb) as count`;
  return row?.["count"];
}

async function publishByHttp(topic: string, body: string) {
  const answer = await call("POST", `/v1/topics/${topic}/messages`, { body, dedup_id: "1" });
  const { status, headers } = answer;
  return { status, seen: headers.get("x-deduplicated"), queues: headers.get("x-delivered-queues") };
}

test("a dedup_id of a publish to a topic by SQL counts in the topic: all copies or none", async () => {
  const queues = [await createQueue(service), await createQueue(service, { content_dedup: true })];
  const topic = await topicTo(...queues);
  // Ids and bodies that the queues have met are no matter of it.
  for (const queue of queues) await put(queue, { body: "direct", dedup_id: "1" });
  await put(queues[1] ?? "", { body: "a" });
  expect(await publishBySql(topic, "a")).toBe(2);
  expect(await publishBySql(topic, "b")).toBe(2);
  await broker.moveOutbox();
  expect(await publishBySql(topic, "c")).toBe(2);
  await broker.moveOutbox();
  expect(await bodies(queues[0] ?? "")).toEqual(["direct", "a"]);
  expect(await bodies(queues[1] ?? "")).toEqual(["direct", "a", "a"]);
});

test("a topic knows the ids of both ways, until their window is over", async () => {
  const queue = await createQueue(service);
  const [by_sql, by_http] = [await topicTo(queue), await topicTo(queue)];
  await publishBySql(by_sql, "sql 1");
  await broker.moveOutbox();
  expect(await publishByHttp(by_sql, "no")).toEqual({ status: 204, seen: "true", queues: "1" });
  expect(await publishByHttp(by_http, "http 1")).toEqual({ status: 204, seen: null, queues: "1" });
  await publishBySql(by_http, "no");
  await broker.moveOutbox();
  expect(await bodies(queue)).toEqual(["sql 1", "http 1"]);
  await elapse(301);
  await publishBySql(by_sql, "sql 2");
  await broker.moveOutbox();
  await publishBySql(by_http, "sql 3");
  await broker.moveOutbox();
  expect(await bodies(queue)).toContain("sql 2");
  expect((await publishByHttp(by_http, "no")).seen).toBe("true");
});

test("copies that are moved one after another are all stored, and those of a topic that is deleted too", async () => {
  const queues = await Promise.all(Array.from({ length: 501 }, () => createQueue(service)));
  const topic = await topicTo(...queues);
  expect(await publishBySql(topic, "a")).toBe(501);
  expect(await broker.moveOutbox()).toEqual({ moved: 501, dropped: 0 });
  for (const queue of [queues[0], queues[499], queues[500]]) expect(await bodies(queue ?? "")).toEqual(["a"]);
  await publishBySql(topic, "b", { dedup_id: "2" });
  await call("DELETE", `/v1/topics/${topic}`);
  await broker.moveOutbox();
  for (const queue of [queues[0], queues[500]]) expect(await bodies(queue ?? "", "?limit=100")).toEqual(["b"]);
});
