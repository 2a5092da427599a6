// What a queue keeps its order in: the key, or the key and the label.

import { expect, setDefaultTimeout, test } from "bun:test";
import { createQueue, serviceForFile, uniqueId } from "./harness.ts";
import { refused, verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ receive_limit_max: 100 });
const { call, sql } = service;
const { put, bodies, change, update, nack, ack, receive } = verbsOf(service);

const invalid = (details: string) => refused(3, "request validation failed", details);
const all = "?limit=100";

test("a message keeps its label where the order is kept by key and label", async () => {
  const queue = await createQueue(service, { ordering_scope: "key_label" });
  const id = await put(queue, { body: "a1", ordering_key: "k", label: "a" });
  await put(queue, { body: "b1", ordering_key: "k", label: "b" });
  const { status, body } = await change(queue, id, { label: "b", attributes: { k: "v" } });
  expect({ status, body }).toEqual({
    status: 400,
    body: invalid(
      "label: must stay, for with ordering_scope key_label the order is kept by it; publish the message anew instead.",
    ),
  });
  const changed = await change(queue, id, { label: "a", attributes: { k: "v" } });
  expect(changed.body).toMatchObject({ label: "a", attributes: { k: "v" } });
  expect((await bodies(queue, all)).sort()).toEqual(["a1", "b1"]);
});

test("a label is changed where it is no part of an order", async () => {
  const scoped = await createQueue(service, { ordering_scope: "key_label" });
  const keyed = await createQueue(service);
  for (const [queue, ordering_key] of [
    [scoped, undefined],
    [keyed, "k"],
  ] as const) {
    const id = await put(queue, { body: "x", label: "a", ...(ordering_key && { ordering_key }) });
    expect((await change(queue, id, { label: "b" })).body).toMatchObject({ label: "b" });
    expect(await bodies(queue, "?label=b")).toEqual(["x"]);
  }
});

const alike = {
  status: 400,
  body: invalid(
    "ordering_scope: must be the same for a queue and its dead-letter queue; to change it, take dead_queue_id away first.",
  ),
};
const answerOf = ({ status, body }: { status: number; body: unknown }) => ({ status, body });

test("a queue that holds messages in an order keeps it until they are gone", async () => {
  const queue = await createQueue(service);
  const label = (body: string) => ({ body, ordering_key: "k", label: body });
  await put(queue, { body: "no key" });
  await put(queue, label("a"));
  await put(queue, label("b"));
  const refusal = await update(queue, { ordering_scope: "key_label" });
  expect(answerOf(refusal)).toEqual({
    status: 409,
    body: refused(
      12,
      "queue in use",
      "its messages with an ordering key are in the order of its ordering_scope; change that when they are acked or " +
        "purged, and no key is blocked",
    ),
  });
  expect((await update(queue, { ordering_scope: "key" })).status).toBe(200);
  expect((await update(queue, { receive_wait_seconds: 1 })).body).toMatchObject({ ordering_scope: "key" });
  expect(await bodies(queue, all)).toEqual(["no key", "a"]);
  expect((await call("PUT", `/v1/queues/${queue}/purge`)).status).toBe(204);
  expect((await update(queue, { ordering_scope: "key_label" })).body).toMatchObject({ ordering_scope: "key_label" });
  await put(queue, label("a"));
  await put(queue, label("b"));
  expect(await bodies(queue, all)).toEqual(["a", "b"]);
});

test("a queue whose keys a dead message blocks keeps its order too", async () => {
  const dead = await createQueue(service);
  const queue = await createQueue(service, { dead_queue_id: dead, message_max_deliveries: 3, on_dead: "block" });
  const id = await put(queue, { body: "x", ordering_key: "k" });
  await nack(queue, id, { dead_letter: true });
  const alone = { dead_queue_id: null, message_max_deliveries: null, ordering_scope: "key_label" };
  expect((await update(queue, alone)).status).toBe(409);
});

test("a queue and its dead-letter queue keep one order", async () => {
  const [plain, scoped] = [await createQueue(service), await createQueue(service, { ordering_scope: "key_label" })];
  const to = (dead_queue_id: string | null) => ({
    dead_queue_id,
    message_max_deliveries: dead_queue_id === null ? null : 3,
  });
  const settings = { ack_deadline_seconds: 30, message_retention_seconds: 3600 };
  const make = (id: string, own: Record<string, unknown>) => call("POST", "/v1/queues", { id, ...settings, ...own });
  expect(answerOf(await make(uniqueId(), to(scoped)))).toEqual(alike);
  expect(answerOf(await make(uniqueId(), { ...to(plain), ordering_scope: "key_label" }))).toEqual(alike);
  const queue = await createQueue(service, to(plain));
  expect(answerOf(await update(queue, to(scoped)))).toEqual(alike);
  expect(answerOf(await update(queue, { ordering_scope: "key_label" }))).toEqual(alike);
  expect(answerOf(await update(plain, { ordering_scope: "key_label" }))).toEqual(alike);
  expect((await update(queue, { ...to(scoped), ordering_scope: "key_label" })).body).toMatchObject({
    dead_queue_id: scoped,
    ordering_scope: "key_label",
  });
  expect((await update(queue, to(null))).status).toBe(200);
  expect((await update(queue, { ordering_scope: "key" })).body).toMatchObject({ ordering_scope: "key" });
});

test("two changes at once do not leave a queue and its dead-letter queue with two orders", async () => {
  for (let round = 0; round < 5; round++) {
    const [queue, dead] = [await createQueue(service), await createQueue(service)];
    const answers = await Promise.all([
      update(queue, { dead_queue_id: dead, message_max_deliveries: 3 }),
      update(dead, { ordering_scope: "key_label" }),
    ]);
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 400]);
  }
});

test("a redrive to a queue with another order puts messages into that one", async () => {
  const dead = await createQueue(service);
  const queue = await createQueue(service, { dead_queue_id: dead, message_max_deliveries: 3 });
  const target = await createQueue(service, { ordering_scope: "key_label" });
  for (const label of ["a", "b"]) {
    const id = await put(queue, { body: `${label}1`, ordering_key: "k", label });
    await nack(queue, id, { dead_letter: true });
  }
  await put(target, { body: "a2", ordering_key: "k", label: "a" });
  const asked = { destination_queue_id: target, limit: 9 };
  expect((await call("POST", `/v1/queues/${dead}/redrive?wait=true`, asked)).body).toEqual({ moved: 2 });
  await put(target, { body: "b2", ordering_key: "k", label: "b" });
  // By their numbers: what was published first stands first.
  const first = await receive(target, all);
  expect(first.map(({ body }) => body).sort()).toEqual(["a1", "b1"]);
  for (const { id, lease_token } of first) await ack(target, id, lease_token);
  expect((await bodies(target, all)).sort()).toEqual(["a2", "b2"]);
  const [row] = await sql`select count(*)::int as count from psqlqueue.ordering_keys where queue_no =
    (select no from psqlqueue.queues where id = ${dead})`;
  expect(row).toEqual({ count: 0 });
});
