// Bodies of queues with the setting `encrypt`: what is stored, who can read it, and what happens without the key.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { decrypt, encrypt } from "../src/broker/masterKeys.ts";
import { magic } from "../src/broker/publish/sealing.ts";
import { addObserver } from "../src/observe.ts";
import { createQueue, is_embedded, type Service, serveOn, serviceForFile, uniqueId } from "./harness.ts";
import { refused, verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

// See onEmbedded.ts.
if (is_embedded) await import("./sealingEntry.test.ts");

const key = (byte: number) => Buffer.alloc(32, byte);
const old_key: [string, Buffer] = ["2025", key(1)];
const new_key: [string, Buffer] = ["2026", key(2)];

const service = await serviceForFile({ master_keys: new Map([old_key]) });
const { sql, db, call, broker } = service;
const { put, take, receive, bodies, ack, nack, look } = verbsOf(service);

/** The same database through a server with other master keys. */
const serverWith = (...keys: [string, Buffer][]): Service => ({
  ...service,
  ...serveOn(db, { master_keys: new Map(keys) }),
});

/** Every text that is stored anywhere, of all queues. */
async function stored(): Promise<string[]> {
  const rows = await sql`
    select to_jsonb(message)::text as text from psqlqueue.messages as message
    union all select to_jsonb(past)::text from psqlqueue.archived_messages as past
    union all select to_jsonb(row)::text from psqlqueue.outbox as row
    union all select to_jsonb(seen)::text from psqlqueue.deduplications as seen`;
  return rows.map((row) => row["text"] as string);
}
const holding = async (text: string) => (await stored()).filter((row) => row.includes(text));
const bodyOf = async (id: string): Promise<string> =>
  (await sql`select body from psqlqueue.messages where id = ${id}`)[0]?.["body"];
const rowOf = async (id: string) => {
  const [row] = await sql`select delivery_attempts, lease_token::text, lease_expires_at, events, body
    from psqlqueue.messages where id = ${id}`;
  return { ...row };
};

describe("a queue that encrypts", () => {
  test("stores no body: of its messages, of the archive, of dead letters, and of what goes back", async () => {
    const dead = await createQueue(service);
    const queue = await createQueue(service, { encrypt: true, dead_queue_id: dead, message_max_deliveries: 5 });
    const first = await put(queue, { body: "secret one", label: "l", attributes: { a: "b" } });
    const second = await put(queue, { body: "secret two", delay_seconds: 0 });
    const third = await put(queue, { body: "secret three", ordering_key: "k" });
    expect(await bodyOf(first)).toMatch(new RegExp(`^${magic}1:2025:[A-Za-z0-9+/]+=*$`));
    expect(await holding("secret")).toEqual([]);
    const taken = await receive(queue, "?limit=10");
    expect(taken.map(({ id, body, label }) => [id, body, label])).toEqual([
      [first, "secret one", "l"],
      [second, "secret two", null],
      [third, "secret three", null],
    ]);
    await ack(queue, first);
    await nack(queue, second, { dead_letter: true });
    expect(await holding("secret")).toEqual([]);
    expect((await look(queue, first)).body).toMatchObject({ state: "acked", body: "secret one" });
    expect((await look(dead, second)).body).toMatchObject({ body: "secret two" });
    expect((await call("POST", `/v1/queues/${dead}/redrive?wait=true`, { limit: 9 })).body).toEqual({ moved: 1 });
    expect((await take(queue)).body).toBe("secret two");
    expect(await holding("secret")).toEqual([]);
  });

  test("encrypts the same body differently each time, and says so in its settings", async () => {
    const queue = await createQueue(service, { encrypt: true });
    const [one, two] = [await put(queue, { body: "same" }), await put(queue, { body: "same" })];
    expect(await bodyOf(one)).not.toBe(await bodyOf(two));
    expect(await bodies(queue)).toEqual(["same", "same"]);
    expect((await call("GET", `/v1/queues/${queue}`)).body.encrypt).toBe(true);
    expect((await call("GET", `/v1/queues/${await createQueue(service)}`)).body.encrypt).toBe(false);
  });

  test("takes a batch as a whole, or item by item", async () => {
    const queue = await createQueue(service, { encrypt: true, max_message_bytes: 20 });
    const send = (messages: object[], query = "") =>
      call("POST", `/v1/queues/${queue}/messages/batch${query}`, { messages });
    const long = "secret ".repeat(20);
    // What was sent is measured, and not what is stored.
    expect((await send([{ body: "secret 20 characters" }, { body: "secret", priority: 0 }])).status).toBe(201);
    expect((await send([{ body: "kept back" }, { body: long }])).status).toBe(413);
    expect((await send([{ body: "alone" }, { body: long }], "?atomic=false")).body.data).toMatchObject([
      { id: expect.any(String) },
      { error: { code: 13 } },
    ]);
    expect(await holding("secret")).toEqual([]);
    expect(await bodies(queue)).toEqual(["secret 20 characters", "secret", "alone"]);
  });

  test("counts what is stored against its quota in bytes", async () => {
    const queue = await createQueue(service, { encrypt: true, max_bytes: 400 });
    const publish = () => call("POST", `/v1/queues/${queue}/messages`, { body: "x".repeat(100) });
    expect((await publish()).status).toBe(204);
    const bytes = (
      await sql`select max(octet_length(body)) as bytes from psqlqueue.messages as message
      join psqlqueue.queues as queue on queue.no = message.queue_no where queue.id = ${queue}`
    )[0]?.["bytes"];
    expect(bytes).toBeGreaterThan(170);
    expect(bytes).toBeLessThan(200);
    expect([(await publish()).status, (await publish()).status]).toEqual([204, 429]);
  });

  test.if(!is_embedded)("holds a message of the largest size", async () => {
    const queue = await createQueue(service, { encrypt: true, archive_retention_seconds: 0 });
    const body = "é".repeat(8_388_000);
    await put(queue, { body });
    const taken = await take(queue);
    expect(taken.body === body).toBe(true);
    await ack(queue, taken.id);
  });

  test("a search does not read into bodies, and a preview is a beginning of what was sent", async () => {
    const queue = await createQueue(service, { encrypt: true });
    const id = await put(queue, { body: "😀secret text", attributes: { a: "searched" } });
    const peek = async (query: string) =>
      (await call("GET", `/v1/queues/${queue}/messages/peek?state=all&${query}`)).body.data;
    expect(await peek("search=secret")).toEqual([]);
    expect(await peek("search=psqlqueue")).toEqual([]);
    expect(await peek("search=searched")).toMatchObject([{ id, body: "😀secret text" }]);
    expect(await peek("body_characters_max=3")).toMatchObject([{ body: "😀se", body_bytes: 15 }]);
    const [whole] = await peek("body_characters_max=12");
    expect([whole.body, "body_bytes" in whole]).toEqual(["😀secret text", false]);
    expect("body" in (await peek("body=false"))[0]).toBe(false);
  });

  test.if(!is_embedded)("a page of a peek ends before it would open too much, and says where to go on", async () => {
    const queue = await createQueue(service, { encrypt: true });
    const ids: string[] = [];
    for (let i = 0; i < 2; i++) ids.push(await put(queue, { body: "x".repeat(3_500_000) }));
    const peek = async (after: string) =>
      (await call("GET", `/v1/queues/${queue}/messages/peek?body_characters_max=2${after}`)).body;
    const first = await peek("");
    expect(first).toMatchObject({ data: [{ body: "xx", body_bytes: 3_500_000 }], next: ids[0] });
    expect(await peek(`&after=${first.next}`)).toMatchObject({ data: [{ id: ids[1] }] });
    await call("PUT", `/v1/queues/${queue}/purge`);
  });

  test("needs a master key: without one it is refused, and off is not", async () => {
    const bare = serverWith();
    const times = { ack_deadline_seconds: 30, message_retention_seconds: 3600 };
    const no_key = refused(3, "request validation failed", "encrypt: is not enabled for this server.");
    const id = uniqueId();
    expect(await bare.call("POST", "/v1/queues", { id, ...times, encrypt: true })).toMatchObject({
      status: 400,
      body: no_key,
    });
    expect((await bare.call("POST", "/v1/queues", { id, ...times, encrypt: false })).status).toBe(201);
    expect((await bare.call("PUT", `/v1/queues/${id}`, { ...times, encrypt: true })).body).toEqual(no_key);
    for (const encrypt of [false, null]) {
      expect((await bare.call("PUT", `/v1/queues/${id}`, { ...times, encrypt })).body).toMatchObject({ id });
    }
  });
});

describe("a body that looks like one of ours", () => {
  const forged = `${magic}1:2025:${encrypt(new Map([old_key]), "forged", "body").text}`;
  const texts = [magic, `${magic}0:x`, `${magic}1:2025:AAAA`, forged, `${magic}2:`];

  test("is what was sent: by every way in, of either kind of queue", async () => {
    const topic = uniqueId("t");
    await call("POST", "/v1/topics", { id: topic });
    for (const encrypt of [false, true]) {
      const queue = await createQueue(service, { encrypt });
      await call("POST", "/v1/subscriptions", { id: uniqueId("s"), topic_id: topic, queue_id: queue });
      const ids: string[] = [];
      for (const body of texts) ids.push(await put(queue, { body }));
      for (const body of texts) await put(queue, { body, ttl_seconds: 60 });
      for (const body of texts) await put(queue, { body, ordering_key: uniqueId("k") });
      await call("POST", `/v1/queues/${queue}/messages/batch`, { messages: texts.map((body) => ({ body })) });
      const seen: string[] = [];
      while (seen.length < 4 * texts.length) seen.push(...(await bodies(queue)));
      expect(seen).toEqual([...texts, ...texts, ...texts, ...texts]);
      expect((await look(queue, ids[3] ?? "")).body.body).toBe(forged);
    }
    for (const body of texts) expect((await call("POST", `/v1/topics/${topic}/messages`, { body })).status).toBe(204);
    const copies = await sql`select queue.id, count(*)::int as count from psqlqueue.messages as message
      join psqlqueue.queues as queue on queue.no = message.queue_no
      join psqlqueue.subscriptions as subscription on subscription.queue_no = queue.no
      where subscription.topic_id = ${topic} and message.lease_token is null group by queue.id`;
    expect(copies.map(({ count }) => count)).toEqual([5, 5]);
    for (const { id } of copies) expect(await bodies(id)).toEqual(texts);
  });

  test("also by the functions of SQL", async () => {
    const queue = await createQueue(service);
    for (const body of texts) await sql`select psqlqueue.publish(${queue}, ${body})`;
    await sql`select psqlqueue.publish_batch(${queue}, ${JSON.stringify(texts.map((body) => ({ body })))}::text::jsonb)`;
    await broker.moveOutbox();
    expect(await bodies(queue, "?limit=10")).toEqual([...texts, ...texts]);
  });
});

describe("master keys", () => {
  test("the first encrypts, and all decrypt", async () => {
    const rotated = verbsOf(serverWith(new_key, old_key));
    const queue = await createQueue(service, { encrypt: true });
    await put(queue, { body: "before" });
    const id = await rotated.put(queue, { body: "after" });
    expect(await bodyOf(id)).toStartWith(`${magic}1:2026:`);
    expect(await rotated.bodies(queue)).toEqual(["before", "after"]);
  });

  test("a key that stood alone, without an id, still decrypts when there are several", () => {
    const alone = encrypt(new Map([["", key(1)]]), "x", "body");
    expect(decrypt(new Map([new_key, old_key]), alone, "body")).toBe("x");
    expect(() => decrypt(new Map([new_key]), alone, "body")).toThrow("changed");
  });

  test("a secret of an API key is no body, and cannot be read as one", () => {
    const keys = new Map([old_key]);
    const secret = encrypt(keys, "secret");
    expect(decrypt(keys, secret)).toBe("secret");
    expect(() => decrypt(keys, secret, "body")).toThrow("changed");
    expect(() => decrypt(keys, { ...secret, text: secret.text.slice(0, 24) })).toThrow("changed");
  });
});

describe("a message whose key is missing", () => {
  const stranger = serverWith(new_key);
  const { bodies: bodiesWithout, put: putWithout } = verbsOf(stranger);
  const receiveWithout = (queue: string, query = "") => stranger.call("GET", `/v1/queues/${queue}/messages${query}`);

  test("fails the receive with 500, stays as it was, and is delivered when the key is there", async () => {
    const queue = await createQueue(service, {
      encrypt: true,
      message_max_deliveries: 1,
      dead_queue_id: await createQueue(service),
    });
    const id = await put(queue, { body: "secret" });
    const before = await rowOf(id);
    const reasons: string[] = [];
    const remove = addObserver((seen) => {
      if (seen.kind === "internal_error") reasons.push((seen.error as Error).message);
    });
    for (const query of ["", "?limit=1", "?wait_seconds=5", "?ack_deadline_seconds=0"]) {
      expect(await receiveWithout(queue, query)).toMatchObject({
        status: 500,
        body: refused(1, "internal server error"),
      });
      expect(await rowOf(id)).toEqual(before);
    }
    remove();
    const reason = `message ${id} of queue ${queue}: the master key "2025" is not in PSQLQUEUE_MASTER_KEY`;
    expect(reasons).toEqual([reason, reason, reason, reason]);
    expect((await look(queue, id)).body).toMatchObject({ state: "ready", delivery_attempts: 0 });
    expect(await receive(queue)).toMatchObject([{ id, body: "secret", delivery_attempts: 1 }]);
  });

  test("is seen without its body, and with the reason", async () => {
    const queue = await createQueue(service, { encrypt: true });
    const id = await put(queue, { body: "secret" });
    const [seen] = (await stranger.call("GET", `/v1/queues/${queue}/messages/peek`)).body.data;
    expect(seen).toMatchObject({ id, unreadable: "key_missing" });
    expect("body" in seen).toBe(false);
    expect((await stranger.call("GET", `/v1/queues/${queue}/messages/${id}`)).body).toMatchObject({
      id,
      unreadable: "key_missing",
    });
    expect((await verbsOf(stranger).ack(queue, id)).status).toBe(204);
  });

  test("does not stand in the way of others, however few a receive takes and however many there are", async () => {
    const queue = await createQueue(service, { encrypt: true });
    for (let i = 0; i < 60; i++) await put(queue, { body: "secret" });
    for (const body of ["a", "b", "c"]) await putWithout(queue, { body });
    const seen: string[] = [];
    for (let i = 0; i < 10 && seen.length < 3; i++) {
      const { status, body } = await receiveWithout(queue, "?limit=1");
      if (status === 200) seen.push(...body.data.map((own: { body: string }) => own.body));
    }
    expect(seen).toEqual(["a", "b", "c"]);
    expect((await receiveWithout(queue)).status).toBe(500);
    // A mixed batch: what can be read is delivered.
    await putWithout(queue, { body: "d" });
    const [first] = await bodiesWithout(queue);
    expect(first).toBe("d");
  });

  test("nor where the order is by priority, or a cap has one place", async () => {
    const queue = await createQueue(service, { encrypt: true, priority_enabled: true, max_in_flight: 1 });
    const id = await put(queue, { body: "secret", priority: 9 });
    await putWithout(queue, { body: "low" });
    expect((await receiveWithout(queue)).status).toBe(500);
    expect(await bodiesWithout(queue)).toEqual(["low"]);
    expect((await look(queue, id)).body).toMatchObject({ state: "delayed", delivery_attempts: 0 });
    await service.elapse(31);
    expect(await receive(queue)).toMatchObject([{ id, body: "secret", delivery_attempts: 1 }]);
  });

  test("keeps its ordering key waiting, and no other", async () => {
    const queue = await createQueue(service, { encrypt: true });
    await put(queue, { body: "secret", ordering_key: "a" });
    await putWithout(queue, { body: "after it", ordering_key: "a" });
    await putWithout(queue, { body: "other", ordering_key: "b" });
    const both = verbsOf(serverWith(old_key, new_key));
    expect(await bodiesWithout(queue, "?max_per_key=2")).toEqual(["other"]);
    expect((await receiveWithout(queue, "?max_per_key=0")).status).toBe(500);
    expect(await both.bodies(queue, "?max_per_key=2")).toEqual(["secret", "after it"]);
  });

  test("so it is with one that was changed, or is in no form that is known", async () => {
    const queue = await createQueue(service, { encrypt: true });
    const id = await put(queue, { body: "secret" });
    const body = await bodyOf(id);
    for (const changed of [
      body.replace(/(.)(.{8})$/, (_, own, rest) => (own === "A" ? "B" : "A") + rest),
      `${magic}1:2025:`,
      `${magic}1:2025`,
      `${magic}9:x`,
    ]) {
      await sql`update psqlqueue.messages set body = ${changed} where id = ${id}`;
      expect((await call("GET", `/v1/queues/${queue}/messages`)).status).toBe(500);
      expect((await look(queue, id)).body).toMatchObject({ unreadable: "changed", delivery_attempts: 0 });
    }
    await sql`update psqlqueue.messages set body = ${body} where id = ${id}`;
    expect(await bodies(queue)).toEqual(["secret"]);
  });

  test("a server without keys does not publish what it cannot seal", async () => {
    const bare = serverWith();
    const queue = await createQueue(service, { encrypt: true });
    const topic = uniqueId("t");
    await call("POST", "/v1/topics", { id: topic });
    await call("POST", "/v1/subscriptions", { id: uniqueId("s"), topic_id: topic, queue_id: queue });
    const messages = [{ body: "secret" }];
    for (const [path, body] of [
      [`queues/${queue}/messages`, { body: "secret" }],
      [`queues/${queue}/messages`, { body: "secret", delay_seconds: 1 }],
      [`queues/${queue}/messages/batch`, { messages }],
      [`topics/${topic}/messages`, { body: "secret" }],
    ] as const) {
      expect([path, (await bare.call("POST", `/v1/${path}`, body)).status]).toEqual([path, 500]);
    }
    expect(await holding('"secret"')).toEqual([]);
    expect(await bodies(queue)).toEqual([]);
  });
});
