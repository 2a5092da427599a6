import { describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  AlreadyExistsError,
  ConflictError,
  createClient,
  InvalidBodyError,
  InvalidRequestError,
  LeaseLostError,
  NotFoundError,
  PsqlqueueError,
  type StandardSchema,
  TooManyRequestsError,
  UnauthorizedError,
  UnavailableError,
  UnreachableError,
} from "../client/src/client.ts";
import { operations } from "../client/src/operations.ts";
import { createQueue, serviceForFile, uniqueId, until } from "./harness.ts";
import { freePort } from "./postgres.ts";
import { verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile();
const { put, stats } = verbsOf(service);

const asked: Request[] = [];
const ask = async (url: string, init: RequestInit): Promise<Response> => {
  const request = new Request(url, init);
  asked.push(request.clone() as Request);
  return await service.app.handle(request);
};
const client = createClient({ url: "http://localhost", fetch: ask });
const settings = { ack_deadline_seconds: 30, message_retention_seconds: 3600 };

/** The error that `work` ends with. */
async function failure(work: Promise<unknown>): Promise<PsqlqueueError> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof PsqlqueueError)) throw new Error(`no error of the client: ${error}`);
  return error;
}

type Order = { order: number };
/** A validator without a library: JSON with a number `order`, which arrives with `is_checked`. */
const order_schema: StandardSchema<Order, Order & { is_checked: true }> = {
  "~standard": {
    version: 1,
    vendor: "test",
    validate: (value) =>
      typeof (value as Order | null)?.order === "number"
        ? { value: { ...(value as Order), is_checked: true } }
        : { issues: [{ message: "order must be a number" }] },
  },
};

test("every operation of the API can be asked for", async () => {
  asked.length = 0;
  const queue = client.queue(uniqueId());
  const dead_id = uniqueId();
  const topic = client.topic(uniqueId("t"));
  const subscription_id = uniqueId("s");
  await client.queues.create({ id: dead_id, ...settings });
  const dead = client.queue(dead_id);
  const made = await client.queues.create({
    id: queue.id,
    ...settings,
    dead_queue_id: dead_id,
    message_max_deliveries: 5,
  });
  expect(made).toMatchObject({ id: queue.id, ack_deadline_seconds: 30, dead_queue_id: dead_id });
  expect(await client.queues.get(queue.id)).toEqual(made);
  expect(await queue.get()).toEqual(made);
  expect((await client.queues.list({ limit: 1000 })).data).toContainEqual(made);
  expect(await Array.fromAsync(client.queues.all())).toContainEqual(made);
  const changed = await client.queues.update(queue.id, { ...settings, ack_deadline_seconds: 60 });
  expect(changed.ack_deadline_seconds).toBe(60);
  expect((await queue.pause()).paused).toEqual({ publish: false, consume: true });
  expect((await queue.resume()).paused).toEqual({ publish: false, consume: false });

  const published = await queue.publish({ body: "one", label: "l", attributes: { a: "b" } });
  expect(published).toEqual({ id: expect.any(String), deduplicated: false });
  expect(await queue.publishBatch([{ body: "two" }, { body: "three" }])).toHaveLength(2);
  expect(await queue.publishEach([{ body: "four" }, { body: "" }])).toMatchObject([
    { deduplicated: false },
    { error: { code: 3, details: "body: cannot be blank." } },
  ]);
  const { data: seen } = await queue.peek({ state: "ready" });
  expect(seen.map(({ body }) => body)).toEqual(["one", "two", "three", "four"]);
  expect(await queue.getMessage(published.id)).toMatchObject({ id: published.id, state: "ready" });
  expect(await queue.changeMessage(seen[3]?.id ?? "", { label: "other" })).toMatchObject({ label: "other" });

  const [one, two, three, four] = await queue.receive({ limit: 4 });
  expect(one).toMatchObject({
    id: published.id,
    body: "one",
    label: "l",
    attributes: { a: "b" },
    delivery_attempts: 1,
  });
  if (!one || !two || !three || !four) throw new Error("four were published");
  expect(await queue.extend(one, 100)).toMatch(/Z$/);
  await queue.ack(one);
  await queue.nack(two, { error: "why", dead_letter: true });
  expect(await queue.extendBatch([three, four], 90)).toEqual([three, four].map(({ id }) => ({ id, status: "ok" })));
  expect(await queue.nackBatch([three], { visibility_timeout_seconds: 9 })).toEqual([{ id: three.id, status: "ok" }]);
  expect(await queue.ackBatch([four, one])).toEqual([four, one].map(({ id }) => ({ id, status: "ok" })));
  await queue.deleteMessage({ id: three.id });
  expect((await dead.peek({ state: "dead" })).data).toMatchObject([{ id: two.id, dead: { error: "why" } }]);
  expect(await dead.redriveNow({ limit: 10 })).toEqual({ moved: 1 });
  const { task_id } = await dead.redrive();
  expect((await client.tasks.list()).data.map(({ id }) => id)).toContain(task_id);
  await service.broker.runTasks();
  expect((await Array.fromAsync(client.tasks.watch(task_id))).at(-1)).toMatchObject({ state: "completed", moved: 0 });
  await client.tasks.cancel(task_id);
  expect(await queue.stats()).toMatchObject({ ready: 1 });
  expect(await queue.count({ state: "ready" })).toMatchObject({ count: 1 });
  expect(await dead.errorGroups()).toMatchObject({ data: [] });
  expect(Array.isArray((await queue.rates()).data)).toBe(true);
  expect((await client.stats({ search: queue.id })).data).toMatchObject([{ queue_id: queue.id, ready: 1 }]);
  expect((await client.trends({ queue_ids: queue.id, minutes: 5 })).data).toMatchObject([{ queue_id: queue.id }]);
  expect(await queue.actOnMatching({ action: "delete", label: "none" })).toEqual({ task_id: expect.any(String) });
  expect(await queue.cleanUp()).toBeUndefined();
  expect(await queue.purge({ async: true })).toEqual({ task_id: expect.any(String) });

  expect(await client.topics.create({ id: topic.id })).toEqual(await topic.get());
  expect((await client.topics.list()).data.length).toBeGreaterThan(0);
  await client.subscriptions.create({ id: subscription_id, topic_id: topic.id, queue_id: queue.id });
  expect(await client.subscriptions.get(subscription_id)).toMatchObject({ id: subscription_id, message_filters: null });
  expect((await client.subscriptions.list()).data.length).toBeGreaterThan(0);
  expect(await topic.publish({ body: "copied" })).toMatchObject({
    delivered_queues: 1,
    data: [{ queue_id: queue.id }],
  });
  expect(await topic.publishBatch([{ body: "copied" }])).toEqual([{ delivered_queues: 1 }]);
  await client.subscriptions.delete(subscription_id);
  await client.topics.delete(topic.id);
  expect(await client.queues.delete(dead_id, { force: true })).toBeUndefined();
  expect(await queue.orderingKeys()).toEqual({ data: [], limit: 10 });
  expect(await queue.repair()).toEqual({ checked: 0, repaired: 0 });
  const key = await client.keys.create({ name: "test", scopes: [{ actions: ["publish"] }] });
  expect(key.key).toStartWith(`pq_${key.id}_`);
  expect((await client.keys.list()).data.map(({ id }) => id)).toContain(key.id);
  await client.keys.delete(key.id);
  expect(await client.info()).toMatchObject({ name: "psqlqueue" });
  expect(await client.health()).toEqual({ success: true });
  expect((await client.maintenance()).tables.length).toBeGreaterThan(0);

  const paths = Object.entries(operations).map(([name, route]) => {
    const [method, path = ""] = route.split(" ");
    return { name, method, pattern: new RegExp(`^${path.replaceAll(/\{\w+\}/g, "[^/]+")}$`) };
  });
  const isAsked = ({ method, pattern }: (typeof paths)[number]) =>
    asked.some((request) => request.method === method && pattern.test(new URL(request.url).pathname));
  expect(paths.filter((own) => !isAsked(own)).map(({ name }) => name)).toEqual([]);
});

describe("a refusal", () => {
  test("is an error of a class, with the server's code, status, details and request id", async () => {
    const queue = client.queue(await createQueue(service));
    const id = await put(queue.id);
    const cases: [() => Promise<unknown>, typeof PsqlqueueError, Partial<PsqlqueueError>][] = [
      [
        () => client.queue("none").publish({ body: "x" }),
        NotFoundError,
        { code: 5, status: 404, operation: "publishMessage" },
      ],
      [() => client.queues.create({ id: queue.id, ...settings }), AlreadyExistsError, { code: 4, status: 400 }],
      [
        () => queue.publish({ body: "" }),
        InvalidRequestError,
        { code: 3, status: 400, details: "body: cannot be blank." },
      ],
      [() => queue.ack({ id, lease_token: "1" }), LeaseLostError, { code: 11, status: 409, name: "LeaseLostError" }],
    ];
    for (const [work, type, facts] of cases) {
      const error = await failure(work());
      expect(error).toBeInstanceOf(type);
      expect(error).toMatchObject({ ...facts, request_id: expect.any(String) });
    }
    await queue.pause({ publish: true, consume: false });
    expect(await failure(queue.publish({ body: "x" }))).toBeInstanceOf(ConflictError);
  });

  test("of a full queue says when to come back", async () => {
    const queue = client.queue(await createQueue(service, { max_depth: 1 }));
    await queue.publish({ body: "x" });
    const error = await failure(queue.publish({ body: "y" }));
    expect(error).toBeInstanceOf(TooManyRequestsError);
    expect(error).toMatchObject({ code: 18, status: 429, retry_after_seconds: 1 });
  });

  test("of something in between is told by its status", async () => {
    const answering = (status: number, text: string, headers = {}) =>
      createClient({ url: "http://localhost", fetch: async () => new Response(text, { status, headers }) });
    const html = "<html>bad gateway</html>";
    expect(await failure(answering(502, html).health())).toBeInstanceOf(UnavailableError);
    expect(await failure(answering(401, html).health())).toBeInstanceOf(UnauthorizedError);
    expect(await failure(answering(200, html).health())).toMatchObject({
      name: "PsqlqueueError",
      code: 0,
      status: 200,
    });
    const late = answering(503, "", { "retry-after": new Date(Date.now() + 60_000).toUTCString() });
    expect((await failure(late.health())).retry_after_seconds).toBeGreaterThan(50);
  });
});

describe("a server that does not answer", () => {
  test("is named, and why", async () => {
    const port = await freePort();
    const error = await failure(createClient({ url: `http://127.0.0.1:${port}` }).health());
    expect(error).toBeInstanceOf(UnreachableError);
    expect(error.message).toStartWith(`http://127.0.0.1:${port} did not answer: `);
  });

  test("is given up after the timeout, and at once when the caller aborts", async () => {
    const silent = (_: string, { signal }: RequestInit) =>
      new Promise<Response>((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason)));
    const slow = createClient({ url: "http://localhost", fetch: silent, timeout_ms: 20 });
    expect((await failure(slow.health())).message).toContain("no answer within 20 ms");
    const controller = new AbortController();
    const waiting = slow.queue("q").receive({ wait_seconds: 20, signal: controller.signal });
    controller.abort(new Error("enough"));
    expect(waiting).rejects.toThrow("enough");
  });

  test("an address that is none is refused before anything is sent", () => {
    for (const url of ["", "localhost:8000", "ftp://localhost", "http://user:secret@localhost"]) {
      expect(() => createClient({ url })).toThrow(TypeError);
    }
  });
});

test("ids are written as one segment of the path, and those that no URL can hold are refused", async () => {
  for (const id of ["a/b", "a b", "ä", "a?b#c", "%2e%2e", "..a"]) {
    asked.length = 0;
    expect(await failure(client.queues.get(id))).toBeInstanceOf(NotFoundError);
    expect(new URL(asked[0]?.url ?? "").pathname).toBe(`/v1/queues/${encodeURIComponent(id)}`);
  }
  asked.length = 0;
  for (const id of ["", ".", "..", "\ud800"]) {
    expect(await failure(client.queues.delete(id))).toBeInstanceOf(InvalidRequestError);
    expect(await failure(client.queue("q").ack({ id }))).toBeInstanceOf(InvalidRequestError);
  }
  expect(asked).toEqual([]);
});

test("a key goes along with every request, and a path in front of the API is kept", async () => {
  let seen: [string, RequestInit["headers"]] | undefined;
  const fetch = async (url: string, { headers }: RequestInit) => {
    seen = [url, headers];
    return Response.json({ success: true });
  };
  await createClient({ url: "https://example.com/queue/", key: "k3y", fetch }).health();
  expect(seen).toEqual(["https://example.com/queue/v1/healthz", { authorization: "Bearer k3y" }]);
});

describe("bodies with a schema", () => {
  test("are checked on the way out, and typed on the way in", async () => {
    const queue = client.queue(await createQueue(service), { schema: order_schema });
    await queue.publish({ body: { order: 4711 } });
    const wrong = await failure(queue.publish({ body: { order: "x" } as unknown as Order }));
    expect(wrong).toBeInstanceOf(InvalidBodyError);
    expect(wrong).toMatchObject({ issues: [{ message: "order must be a number" }] });
    const [message] = await queue.receive();
    expect(message?.body).toEqual({ order: 4711, is_checked: true });
    expect((await stats(queue.id)).ready).toBe(0);
  });

  test("that do not fit are nacked with the reason, and not handed out", async () => {
    const dead_queue_id = await createQueue(service);
    const id = await createQueue(service, { dead_queue_id, message_max_deliveries: 1 });
    await put(id, { body: "no JSON" });
    await put(id, { body: '{"order":"x"}' });
    await put(id, { body: '{"order":1}' });
    const messages = await client.queue(id, { schema: order_schema }).receive();
    expect(messages.map(({ body }) => body)).toEqual([{ order: 1, is_checked: true }]);
    const { data } = await client.queue(dead_queue_id).peek();
    expect(data.map(({ dead }) => dead?.error)).toEqual([
      "the body is not JSON",
      "the schema refuses the body: order must be a number",
    ]);
  });
});

describe("a loop over messages", () => {
  test("gives back what it does not settle, and extends the lease of the one in hand", async () => {
    const queue = client.queue(await createQueue(service, { ack_deadline_seconds: 1, message_retention_seconds: 60 }));
    for (const body of ["a", "b", "c"]) await queue.publish({ body });
    for await (const message of queue.messages({ until_empty: true })) {
      if (message.body === "a") {
        const [before] = (await queue.peek({ state: "leased" })).data;
        await until(async () => {
          const [now] = (await queue.peek({ state: "leased" })).data;
          return (now?.lease_expires_at ?? "") > (before?.lease_expires_at ?? "");
        });
        await message.ack();
      } else if (message.body === "b") await message.nack({ visibility_timeout_seconds: 60 });
      else break;
    }
    expect(await stats(queue.id)).toMatchObject({ ready: 1, backing_off: 1, leased: 0 });
    expect((await queue.peek()).data.map(({ body }) => body)).toEqual(["c"]);
  });

  test("ends when it is told to, and throws when the queue is gone", async () => {
    const queue = client.queue(await createQueue(service));
    await queue.publish({ body: "a" });
    const controller = new AbortController();
    const bodies: string[] = [];
    for await (const message of queue.messages({ signal: controller.signal })) {
      bodies.push(message.body);
      await message.ack();
      controller.abort();
    }
    expect(bodies).toEqual(["a"]);
    const gone = Array.fromAsync(client.queue("none").messages());
    expect(await failure(gone)).toBeInstanceOf(NotFoundError);
  });
});
