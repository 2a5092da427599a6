import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { createQueue, is_embedded, openService, serviceForFile, uniqueId, until } from "./harness.ts";
import { verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ receive_limit_max: 1000 });
const { call, sql } = service;
const { put, publish, receive, ack } = verbsOf(service);

const depth = async (queue: string) => {
  const [row] = await sql`select count(*)::int as count from psqlqueue.messages as message
    join psqlqueue.queues as queue on queue.no = message.queue_no where queue.id = ${queue}`;
  return row?.["count"] as number;
};
const publishBatch = (queue: string, count: number, query = "") =>
  call("POST", `/v1/queues/${queue}/messages/batch${query}`, {
    messages: Array.from({ length: count }, () => ({ body: "x" })),
  });
const quota_exceeded = { code: 18, message: "quota exceeded" };

describe("a message that is larger than max_message_bytes", () => {
  test("is refused, counted with its label and attributes", async () => {
    const queue = await createQueue(service, { max_message_bytes: 20 });
    expect((await publish(queue, { body: "x".repeat(20) })).status).toBe(204);
    for (const body of [
      { body: "x".repeat(21) },
      { body: "x".repeat(18), label: "abc" },
      { body: "\u00e9".repeat(11) },
    ]) {
      const { status, body: answer } = await publish(queue, body);
      expect([status, answer.code]).toEqual([413, 13]);
    }
    expect(await depth(queue)).toBe(1);
  });

  test("fails its batch, or itself with atomic=false", async () => {
    const queue = await createQueue(service, { max_message_bytes: 5 });
    const messages = [{ body: "x" }, { body: "much too large" }];
    const at = `/v1/queues/${queue}/messages/batch`;
    expect((await call("POST", at, { messages })).body.code).toBe(13);
    expect(await depth(queue)).toBe(0);
    const { data } = (await call("POST", `${at}?atomic=false`, { messages })).body;
    expect(data).toMatchObject([{ deduplicated: false }, { error: { code: 13 } }]);
  });
});

describe("max_depth", () => {
  test("is exact for one server, also for requests at the same time, and says when to come back", async () => {
    const queue = await createQueue(service, { max_depth: 10 });
    const answers = await Promise.all(Array.from({ length: 30 }, () => publish(queue, { body: "x" })));
    expect(answers.filter(({ status }) => status === 204)).toHaveLength(10);
    const refused = answers.find(({ status }) => status === 429);
    expect(refused?.body).toEqual(quota_exceeded);
    expect(refused?.headers.get("retry-after")).toBe("1");
    expect(await depth(queue)).toBe(10);
  });

  test("holds a batch back as a whole, or stores what fits with atomic=false", async () => {
    const queue = await createQueue(service, { max_depth: 10 });
    expect((await publishBatch(queue, 8)).status).toBe(201);
    expect((await publishBatch(queue, 3)).body).toEqual(quota_exceeded);
    expect(await depth(queue)).toBe(8);
    const { data } = (await publishBatch(queue, 3, "?atomic=false")).body;
    expect(data.filter((item: { error?: object }) => item.error === undefined)).toHaveLength(2);
    expect(await depth(queue)).toBe(10);
    expect((await publishBatch(await createQueue(service, { max_depth: 10 }), 10)).status).toBe(201);
  });

  test("lets in again what consumers make room for, within a second or so", async () => {
    const queue = await createQueue(service, { max_depth: 3 });
    await publishBatch(queue, 3);
    expect((await publish(queue, { body: "x" })).status).toBe(429);
    const [first] = await receive(queue);
    await ack(queue, first?.id ?? "");
    await until(async () => (await publish(queue, { body: "x" })).status === 204, 3000);
    expect((await publish(queue, { body: "x" })).status).toBe(429);
  });

  test("counts no duplicate", async () => {
    const queue = await createQueue(service, { max_depth: 2 });
    for (let i = 0; i < 3; i++) await put(queue, { body: "x", dedup_id: "k" });
    await put(queue);
    expect((await publish(queue, { body: "x" })).status).toBe(429);
  });

  test("can be set, raised and taken away", async () => {
    const queue = await createQueue(service);
    await publishBatch(queue, 5);
    const settings = { ack_deadline_seconds: 30, message_retention_seconds: 3600 };
    const set = (max_depth: number | null) => call("PUT", `/v1/queues/${queue}`, { ...settings, max_depth });
    expect((await set(5)).body).toMatchObject({ max_depth: 5, max_bytes: null });
    expect((await publish(queue, { body: "x" })).status).toBe(429);
    await set(null);
    await until(async () => (await publish(queue, { body: "x" })).status === 204, 3000);
    expect((await set(0)).body.details).toBe("max_depth: must be no less than 1.");
  });
});

test("max_bytes bounds the bytes of all messages together", async () => {
  const queue = await createQueue(service, { max_bytes: 1000 });
  for (let i = 0; i < 4; i++) expect((await publish(queue, { body: "x".repeat(240) })).status).toBe(204);
  expect((await publish(queue, { body: "x".repeat(240) })).body).toEqual(quota_exceeded);
  expect((await publish(queue, { body: "x".repeat(30) })).status).toBe(204);
});

test("a full queue fails a publish to its topic as a whole", async () => {
  const [full, free, topic] = [await createQueue(service, { max_depth: 1 }), await createQueue(service), uniqueId("t")];
  await call("POST", "/v1/topics", { id: topic });
  for (const queue of [full, free]) {
    await call("POST", "/v1/subscriptions", { id: uniqueId("s"), topic_id: topic, queue_id: queue });
  }
  const fanOut = () => call("POST", `/v1/topics/${topic}/messages`, { body: "x" });
  expect((await fanOut()).headers.get("x-delivered-queues")).toBe("2");
  expect((await fanOut()).body).toEqual(quota_exceeded);
  const batch = await call("POST", `/v1/topics/${topic}/messages/batch`, { messages: [{ body: "x" }, { body: "y" }] });
  expect(batch.body).toEqual(quota_exceeded);
  expect([await depth(full), await depth(free)]).toEqual([1, 1]);
});

describe.if(!is_embedded)("with two servers", () => {
  test("a quota holds within one percent", async () => {
    const other = await openService(service.url === "" ? {} : { url: service.url });
    afterAll(() => other.close());
    const ends = await Promise.all(
      [service, other].map(({ broker }) =>
        broker.notifier.listen(
          () => {},
          () => {},
        ),
      ),
    );
    await until(() => [service, other].every(({ broker }) => broker.notifier.others() >= 1));
    const queue = await createQueue(service, { max_depth: 2000 });
    const fill = async (own: typeof service) => {
      for (let refused = 0; refused < 20; ) {
        const answers = await Promise.all(
          Array.from({ length: 20 }, () => own.call("POST", `/v1/queues/${queue}/messages`, { body: "x" })),
        );
        refused += answers.filter(({ status }) => status === 429).length;
      }
    };
    await Promise.all([fill(service), fill(other)]);
    expect(await depth(queue)).toBeWithin(1980, 2021);
    await Promise.all(ends.map((end) => end()));
  });
});

describe.if(!is_embedded)("the numbers of queues", () => {
  test("are not used up by creating what is there", async () => {
    const queue = await createQueue(service);
    const settings = { ack_deadline_seconds: 30, message_retention_seconds: 3600 };
    for (let i = 0; i < 5; i++)
      expect((await call("POST", "/v1/queues", { id: queue, ...settings })).body.code).toBe(4);
    const next = await createQueue(service);
    const rows = await sql`select no from psqlqueue.queues where id in (${queue}, ${next}) order by no`;
    expect(rows[1]?.["no"] - rows[0]?.["no"]).toBe(1);
  });

  test("say when they are all given away", async () => {
    const own = await openService();
    await own.sql`select setval('psqlqueue.queues_no_seq', 2147483647)`;
    const settings = { ack_deadline_seconds: 30, message_retention_seconds: 3600 };
    const { status, body } = await own.call("POST", "/v1/queues", { id: "q", ...settings });
    expect({ status, body }).toEqual({
      status: 503,
      body: { code: 19, message: "service unavailable", details: expect.stringContaining("2147483647") },
    });
    await own.close();
  });
});
