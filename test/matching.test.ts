import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createQueue, serviceForFile, uniqueId, until } from "./harness.ts";
import { refused, verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ receive_limit_max: 1000 });
const { call, broker } = service;
const { put, receive, take, ack, nack, look, stats } = verbsOf(service);

type Json = Record<string, unknown>;
const at = (queue: string, path: string) => `/v1/queues/${queue}/messages/${path}`;
const task = async (id: string) => (await call("GET", `/v1/tasks/${id}`)).body;
const finish = () => until(async () => (await broker.runTasks()).running === 0);
const invalid = (details: string) => refused(3, "request validation failed", details);

async function pair() {
  const dead = await createQueue(service);
  return { dead, queue: await createQueue(service, { dead_queue_id: dead, message_max_deliveries: 3 }) };
}

const publishAll = async (queue: string, messages: Json[]): Promise<string[]> =>
  (await call("POST", at(queue, "batch"), { messages })).body.data.map(({ id }: { id: string }) => id);

/** Publishes a message for each error, and rejects it with that. */
async function bury(queue: string, errors: (string | undefined)[]): Promise<string[]> {
  const ids = await publishAll(
    queue,
    errors.map((_, i) => ({ body: String(i) })),
  );
  const items = ids.map((id, i) => ({ id, dead_letter: true, ...(errors[i] !== undefined && { error: errors[i] }) }));
  expect((await call("POST", `/v1/queues/${queue}/nack`, { items })).status).toBe(200);
  return ids;
}

/** Starts to act on everything that matches, and waits until it is done. */
async function actOn(queue: string, body: Json) {
  const started = await call("POST", at(queue, "matching"), body);
  if (started.status !== 202) throw new Error(started.text);
  await finish();
  return await task(started.body.task_id);
}

const found = async (queue: string, query: string): Promise<string[]> => {
  const answer = await call("GET", at(queue, `peek?${query}`));
  if (answer.status !== 200) throw new Error(answer.text);
  return answer.body.data.map(({ body }: { body: string }) => body);
};

describe("a search", () => {
  test("finds a part of the body, of an attribute, of the error and of the id, in any case", async () => {
    const queue = await createQueue(service);
    await publishAll(queue, [
      { body: '{"customer":"Ada"}' },
      { body: "second", attributes: { Region: "EU-west" } },
      { body: "100% sure_" },
      { body: "plain" },
    ]);
    const failed = await put(queue, { body: "failed" });
    await nack(queue, failed, { error: "Connection REFUSED" });
    expect(await found(queue, "search=ADA")).toEqual(['{"customer":"Ada"}']);
    expect(await found(queue, "search=eu-WEST")).toEqual(["second"]);
    expect(await found(queue, "search=refused")).toEqual(["failed"]);
    expect(await found(queue, `search=${failed.toLowerCase()}`)).toEqual(["failed"]);
    // Nothing in it is a pattern.
    expect(await found(queue, "search=0%25%20SURE_")).toEqual(["100% sure_"]);
    expect(await found(queue, "search=.")).toEqual([]);
    expect(await found(queue, `message_id=${failed}`)).toEqual(["failed"]);
    expect(await found(queue, "message_id=nothing")).toEqual([]);
    expect(await found(queue, "search=")).toHaveLength(5);
    const long = "x".repeat(201);
    expect((await call("GET", at(queue, `peek?search=${long}`))).body).toEqual(
      invalid("search: the length must be no more than 200."),
    );
  });

  test("looks at a bounded number of messages, says when it stopped early, and goes on from there", async () => {
    const queue = await createQueue(service);
    const many = (count: number) => Array.from({ length: count }, () => ({ body: "hay" }));
    await publishAll(queue, many(1000));
    await publishAll(queue, [...many(10), { body: "needle" }]);
    const first = (await call("GET", at(queue, "peek?search=needle"))).body;
    expect(first).toEqual({ data: [], next: expect.any(String), stopped_early: true });
    const second = (await call("GET", at(queue, `peek?search=needle&after=${first.next}`))).body;
    expect(second).toEqual({ data: [expect.objectContaining({ body: "needle" })] });
  });

  test("shows the beginning of long bodies when asked to, and how long they are", async () => {
    const queue = await createQueue(service);
    await put(queue, { body: "äöü and so on" });
    await put(queue, { body: "abcd" });
    const { data } = (await call("GET", at(queue, "peek?body_characters_max=4"))).body;
    expect(data.map(({ body, body_bytes }: Json) => ({ body, body_bytes }))).toEqual([
      { body: "äöü ", body_bytes: 16 },
      { body: "abcd" },
    ]);
  });
});

test("a count is of what matches, over as many calls as it takes", async () => {
  const queue = await createQueue(service);
  for (let i = 0; i < 3; i++) {
    await publishAll(
      queue,
      Array.from({ length: 1000 }, (_, n) => ({ body: n % 2 ? "odd" : "even", label: n % 4 ? "l" : "m" })),
    );
  }
  const count = async (query: string) => {
    const counts: number[] = [];
    for (let after = ""; ; ) {
      const { body } = await call("GET", at(queue, `count?${query}${after && `&after=${after}`}`));
      counts.push(body.count);
      if (body.next === undefined) return counts;
      after = body.next;
    }
  };
  expect(await count("label=m")).toEqual([750]);
  expect(await count("search=odd")).toEqual([1000, 500]);
  expect(await count("state=all&search=odd")).toEqual([1000, 500, 0]);
  expect(await count("state=leased")).toEqual([0]);
  for (const { id } of await receive(queue, "?limit=3")) await ack(queue, id);
  expect(await count("state=acked")).toEqual([3]);
  expect((await call("GET", at(uniqueId(), "count"))).body).toEqual(refused(5, "queue not found"));
  expect((await call("GET", at(queue, "count?state=x"))).body.code).toBe(3);
});

describe("dead letters", () => {
  test("are grouped by their error, whose numbers and ids do not count", async () => {
    const { queue, dead } = await pair();
    const ids = await bury(queue, [
      "timeout after 300 ms for order 01J9ZK3M5N7P9R1T3V5X7Z9B1D",
      "timeout after 12.5 ms for order 01J9ZK3M5N7P9R1T3V5X7Z9B2E\nat line 3",
      "user 7b0c2c1e-35c4-4f0e-9a55-0a9f6d2b1c11 is unknown",
      undefined,
      "timeout after 7 ms for order 01J9ZK3M5N7P9R1T3V5X7Z9B3F",
    ]);
    await put(dead, { body: "published here directly" });
    const { body } = await call("GET", at(dead, "groups"));
    const group = {
      error_group: expect.stringMatching(/^[0-9a-f]{32}$/),
      reasons: ["rejected"],
      source_queue_ids: [queue],
    };
    const seen = { first_seen: expect.any(String), last_seen: expect.any(String) };
    const none = { ...group, error: "", count: 1, ...seen, sample: { id: ids[3], error: null } };
    const unknown = { ...group, error: "user <id> is unknown", count: 1, ...seen };
    expect(body.data[0]).toEqual({
      ...group,
      ...{ error: "timeout after # ms for order <id>", count: 3, ...seen },
      sample: { id: ids[4], error: expect.stringMatching(/^timeout after 7 ms/) },
    });
    expect(
      body.data.slice(1).toSorted((a: Json, b: Json) => (String(a["error"]) < String(b["error"]) ? -1 : 1)),
    ).toEqual([
      none,
      { ...unknown, sample: { id: ids[2], error: "user 7b0c2c1e-35c4-4f0e-9a55-0a9f6d2b1c11 is unknown" } },
    ]);
    const query = `state=dead&error_group=${body.data[0].error_group}`;
    expect(await found(dead, query)).toEqual(["0", "1", "4"]);
    expect((await call("GET", at(dead, `count?${query}`))).body).toEqual({ count: 3, next: "a" });
    expect((await call("GET", at(uniqueId(), "groups"))).body).toEqual(refused(5, "queue not found"));
    expect((await call("GET", at(dead, "groups?after=%20"))).body.code).toBe(3);
  });

  test("of one group are redriven, a few at first and then the rest", async () => {
    const { queue, dead } = await pair();
    await bury(queue, [...Array.from({ length: 15 }, (_, i) => `no route ${i}`), "other", "other"]);
    const { data } = (await call("GET", at(dead, "groups"))).body;
    const { error_group } = data[0];
    const redrive = async (body: Json, query = "") => await call("POST", `/v1/queues/${dead}/redrive${query}`, body);
    expect((await redrive({ error_group, limit: 10 }, "?wait=true")).body).toEqual({ moved: 10 });
    expect([(await stats(queue)).ready, (await stats(dead)).dead]).toEqual([10, 7]);
    const started = await redrive({ error_group });
    await finish();
    expect(await task(started.body.task_id)).toMatchObject({ state: "completed", moved: 5 });
    expect([(await stats(queue)).ready, (await stats(dead)).dead]).toEqual([15, 2]);
    const [one] = (await call("GET", at(dead, "peek?state=dead"))).body.data;
    expect((await redrive({ message_id: one.id, limit: 1 }, "?wait=true")).body).toEqual({ moved: 1 });
    expect((await look(queue, one.id)).status).toBe(200);
    expect((await redrive({ search: "OTHER", limit: 5 }, "?wait=true")).body).toEqual({ moved: 1 });
    expect((await redrive({ error_group: "x" })).body).toEqual(invalid("error_group: must be in a valid format."));
  });
});

describe("everything that matches", () => {
  test("is deleted, live and archived; what somebody holds stays", async () => {
    const queue = await createQueue(service);
    const bodies = ["held", "acked", ...Array.from({ length: 2000 }, (_, i) => (i % 2 ? "keep" : "drop"))];
    const [held = "", acked = ""] = (
      await publishAll(
        queue,
        bodies.slice(0, 1000).map((body) => ({ body })),
      )
    ).slice(0, 2);
    await publishAll(
      queue,
      bodies.slice(1000, 2000).map((body) => ({ body })),
    );
    await publishAll(
      queue,
      bodies.slice(2000).map((body) => ({ body })),
    );
    await receive(queue, "?limit=2&ack_deadline_seconds=600");
    await ack(queue, acked);
    const done = await actOn(queue, { action: "delete", search: "drop", total_estimate: 1000 });
    expect(done).toMatchObject({ kind: "delete_matching", state: "completed", moved: 1000, total_estimate: 1000 });
    expect(await stats(queue)).toMatchObject({ ready: 1000, leased: 1 });
    expect((await look(queue, acked)).status).toBe(200);
    expect(await actOn(queue, { action: "delete" })).toMatchObject({ moved: 1001 });
    expect([(await look(queue, held)).status, (await look(queue, acked)).status]).toEqual([200, 404]);
    await call("PUT", `/v1/queues/${queue}/purge`);
  });

  test("keeps the order of keys: a delete lets the next of a key come, a nack leaves ordered messages alone", async () => {
    const queue = await createQueue(service);
    const ordered = (body: string) => ({ body, ordering_key: "k" });
    await publishAll(queue, [ordered("drop 1"), ordered("drop 2"), ordered("keep 3"), { body: "plain" }]);
    const leased = await receive(queue, "?limit=1&max_per_key=1");
    expect(leased.map(({ body }) => body)).toEqual(["drop 1"]);
    expect(await actOn(queue, { action: "nack", state: "leased" })).toMatchObject({ moved: 0 });
    await nack(queue, leased[0]?.id ?? "", { lease_token: leased[0]?.lease_token });
    expect(await actOn(queue, { action: "delete", search: "drop" })).toMatchObject({ moved: 2 });
    const bodies = (await receive(queue, "?limit=10")).map(({ body }) => body);
    expect(bodies.toSorted()).toEqual(["keep 3", "plain"]);
  });

  test("of a state in the archive is deleted there", async () => {
    const queue = await createQueue(service);
    const [gone, live] = [await put(queue), await put(queue)];
    await take(queue);
    await ack(queue, gone);
    expect(await actOn(queue, { action: "delete", state: "acked" })).toMatchObject({ moved: 1 });
    expect([(await look(queue, gone)).status, (await look(queue, live)).status]).toEqual([404, 200]);
  });

  test("is made visible at once by a nack, also what is held, and a waiting consumer gets it", async () => {
    const queue = await createQueue(service);
    const held = await put(queue, { body: "held" });
    await take(queue);
    await publishAll(queue, [
      { body: "delayed", delay_seconds: 600 },
      { body: "other", delay_seconds: 600 },
    ]);
    expect(await actOn(queue, { action: "nack", state: "leased" })).toMatchObject({ kind: "nack_matching", moved: 1 });
    expect((await look(queue, held)).body).toMatchObject({ state: "ready", events: [{ event: "nacked", attempt: 1 }] });
    expect((await receive(queue)).map(({ body }) => body)).toEqual(["held"]);
    const long_poll = receive(queue, "?limit=1&wait_seconds=20");
    expect(await actOn(queue, { action: "nack", search: "delayed" })).toMatchObject({ moved: 1 });
    expect((await long_poll).map(({ body }) => body)).toEqual(["delayed"]);
    expect(await stats(queue)).toMatchObject({ delayed: 1 });
  });

  test("can be cancelled, is alone of its kind on its queue, and is listed with the other tasks", async () => {
    const queue = await createQueue(service);
    for (let i = 0; i < 2; i++)
      await publishAll(
        queue,
        Array.from({ length: 1000 }, () => ({ body: "x" })),
      );
    const started = (await call("POST", at(queue, "matching"), { action: "delete" })).body.task_id;
    const second = await call("POST", at(queue, "matching"), { action: "delete" });
    expect([second.status, second.body.code]).toEqual([409, 12]);
    await broker.runTasks();
    await call("DELETE", `/v1/tasks/${started}`);
    await finish();
    const cancelled = await task(started);
    expect(cancelled).toMatchObject({ state: "cancelled", moved: 1000, total_estimate: 2000 });
    const other = (await call("POST", at(queue, "matching"), { action: "nack" })).body.task_id;
    await finish();
    const listed = (await call("GET", `/v1/tasks?queue_id=${queue}&limit=10`)).body;
    expect(listed).toEqual({ data: [await task(other), cancelled], limit: 10 });
    expect((await call("GET", "/v1/tasks?limit=1&offset=1")).body.data).toEqual([cancelled]);
    await call("PUT", `/v1/queues/${queue}/purge`);
  });

  test("is refused where the request is not understood", async () => {
    const queue = await createQueue(service);
    const ask = (body: Json, id = queue) => call("POST", at(id, "matching"), body);
    expect((await ask({ action: "ack" })).body).toEqual(invalid("action: must be one of delete, nack."));
    expect((await ask({})).body).toEqual(invalid("action: cannot be blank."));
    expect((await ask({ action: "nack", state: "gone" })).body.code).toBe(3);
    expect((await ask({ action: "nack", search: 1 })).body.code).toBe(2);
    expect((await ask({ action: "nack" }, uniqueId())).body).toEqual(refused(5, "queue not found"));
  });
});
