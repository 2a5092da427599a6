import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createQueue, serviceForFile } from "./harness.ts";
import { verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const key = Buffer.alloc(32, 1);
const service = await serviceForFile({ receive_limit_max: 100, master_keys: new Map([["2026", key]]) });
const { call, broker, sql } = service;
const { publish, bodies, update } = verbsOf(service);

/** What a client sends that hashes the body itself. */
const hexOf = (body: string) => new Bun.CryptoHasher("sha256").update(body).digest("hex");

async function send(queue: string, body: Record<string, unknown>) {
  const answer = await publish(queue, body);
  return { status: answer.status, id: answer.headers.get("x-message-id"), seen: answer.headers.get("x-deduplicated") };
}

const by_content = { content_dedup: true };
const in_scope = { content_dedup: true, dedup_scope: "ordering_key" };

describe.each([
  ["a queue", by_content, {}],
  ["a queue that encrypts", { ...by_content, encrypt: true }, {}],
  ["the scope of an ordering key", in_scope, { ordering_key: "k" }],
])("in %s", (_, settings, options) => {
  test("the hash of a body, given as an id, is the same as no id", async () => {
    const queue = await createQueue(service, settings);
    const first = await send(queue, { body: "x", ...options });
    expect(await send(queue, { body: "y", dedup_id: hexOf("x"), ...options })).toEqual({ ...first, seen: "true" });
    const second = await send(queue, { body: "é", dedup_id: hexOf("z"), ...options });
    expect(await send(queue, { body: "z", ...options })).toEqual({ ...second, seen: "true" });
    const messages = [
      { body: "v", dedup_id: hexOf("w"), ...options },
      { body: "w", ...options },
      { body: "é", ...options },
    ];
    const batch = await call("POST", `/v1/queues/${queue}/messages/batch`, { messages });
    const flags = batch.body.data.map(({ deduplicated }: { deduplicated: boolean }) => deduplicated);
    expect(flags).toEqual([false, true, false]);
    expect((await bodies(queue, "?max_per_key=0")).sort()).toEqual(["v", "x", "é", "é"]);
  });
});

describe("what is published by SQL", () => {
  const sqlPublish = (queue: string, body: string, options: Record<string, unknown> = {}) =>
    sql`select psqlqueue.publish(${queue}, ${body}, options => ${JSON.stringify(options)}::text::jsonb)`;

  test.each([
    ["without a scope", by_content, {}],
    ["in the scope of its ordering key", in_scope, { ordering_key: "k" }],
  ])("%s has the same key as over HTTP", async (_, settings, options) => {
    const queue = await createQueue(service, settings);
    const bodies_sent = ["x", "é", "\u0001psqlqueue\u00010:x"];
    for (const body of bodies_sent) await sqlPublish(queue, body, options);
    await sqlPublish(queue, "y", { dedup_id: hexOf("x"), ...options });
    await broker.moveOutbox();
    for (const body of bodies_sent) expect((await send(queue, { body, ...options })).seen).toBe("true");
    await send(queue, { body: "z", ...options });
    await sqlPublish(queue, "z", options);
    await sqlPublish(queue, "zz", { dedup_id: hexOf("z"), ...options });
    await broker.moveOutbox();
    expect(await bodies(queue, "?max_per_key=0")).toEqual([...bodies_sent, "z"]);
  });

  test("by the functions of an older version is moved under its old key", async () => {
    const queue = await createQueue(service, by_content);
    await sqlPublish(queue, "x");
    await sql`update psqlqueue.outbox set content_key = null`;
    await broker.moveOutbox();
    expect((await send(queue, { body: "x" })).seen).toBe("true");
  });
});

describe("a body that an older version has stored", () => {
  const old_hash = (body: string) => new Bun.CryptoHasher("sha256").update(`body:${body}`).digest("base64url");
  /** As 0.5 leaves it. */
  async function age(queue: string, body: string, ordering_key?: string) {
    const hash = old_hash(body);
    const stored =
      ordering_key === undefined
        ? hash
        : new Bun.CryptoHasher("sha256").update(hash + ordering_key).digest("base64url");
    await sql`update psqlqueue.deduplications as seen set key = ${stored}, body_hash = ${hash}
      from psqlqueue.queues as queue where queue.no = seen.queue_no and queue.id = ${queue}`;
  }

  test.each([
    ["a queue", by_content, {}],
    ["a strict queue", { ...by_content, dedup_strict: true }, {}],
    ["the scope of an ordering key", in_scope, { ordering_key: "k" }],
  ])("is a duplicate until its window is over, in %s", async (_, settings, options: { ordering_key?: string }) => {
    const queue = await createQueue(service, settings);
    const first = await send(queue, { body: "x", ...options });
    await age(queue, "x", options.ordering_key);
    const again = { ...first, seen: "true" };
    expect(await send(queue, { body: "x", ...options })).toEqual(again);
    await sql`select psqlqueue.publish(${queue}, 'x', options => ${JSON.stringify(options)}::text::jsonb)`;
    await broker.moveOutbox();
    expect(await bodies(queue)).toEqual(["x"]);
    await service.elapse(301);
    const second = await send(queue, { body: "x", ...options });
    expect(second).toMatchObject({ status: 204, seen: null });
    expect(await send(queue, { body: "x", ...options })).toEqual({ ...second, seen: "true" });
    // Where nothing more is let in.
    await broker.sweepDeduplications();
    await age(queue, "x", options.ordering_key);
    await update(queue, { ...settings, max_depth: 1 });
    expect(await send(queue, { body: "x", ...options })).toEqual({ ...second, seen: "true" });
    expect((await send(queue, { body: "y", ...options })).status).toBe(429);
  });
});

test("a queue that begins to encrypt knows the ids that it had before, and refuses no body that it cannot compare", async () => {
  const queue = await createQueue(service, { dedup_strict: true });
  const first = await send(queue, { body: "a", dedup_id: "1" });
  await update(queue, { dedup_strict: true, encrypt: true });
  for (let i = 0; i < 2; i++) {
    expect(await send(queue, { body: "a", dedup_id: "1" })).toEqual({ ...first, seen: "true" });
  }
  const second = await send(queue, { body: "b", dedup_id: "2" });
  expect(second).toMatchObject({ status: 204, seen: null });
  expect(await send(queue, { body: "b", dedup_id: "2" })).toEqual({ ...second, seen: "true" });
  expect((await send(queue, { body: "c", dedup_id: "2" })).status).toBe(409);
  expect(await bodies(queue)).toEqual(["a", "b"]);
});
