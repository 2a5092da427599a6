import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createQueue, serviceForFile, uniqueId } from "./harness.ts";
import { refused, verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ receive_limit_max: 100 });
const { call, elapse } = service;
const { publish, put, receive, take, ack, nack, extend, look, bodies, stats, update, secondsUntil } = verbsOf(service);

const invalid = (details: string) => refused(3, "request validation failed", details);
const closed = refused(17, "queue closed");
const later = (seconds: number) => new Date(Date.now() + seconds * 1000).toISOString();

const topicOf = async (...queues: string[]) => {
  const id = uniqueId("t");
  await call("POST", "/v1/topics", { id });
  for (const queue_id of queues) await call("POST", "/v1/subscriptions", { id: uniqueId("s"), topic_id: id, queue_id });
  return id;
};

describe("the answer", () => {
  test("is 204 with the id; with Prefer: return=representation the id as JSON", async () => {
    const queue = await createQueue(service);
    const plain = await publish(queue, { body: "a" });
    expect({ status: plain.status, text: plain.text }).toEqual({ status: 204, text: "" });
    expect(plain.headers.get("x-message-id")).toMatch(/^[0-9A-HJKMNP-TV-Z]{26}$/);
    expect(plain.headers.get("x-deduplicated")).toBeNull();
    const full = await publish(queue, { body: "b" }, { prefer: "respond-async, return=representation" });
    expect(full.status).toBe(201);
    expect(full.headers.get("preference-applied")).toBe("return=representation");
    expect(full.body).toEqual({ id: full.headers.get("x-message-id"), deduplicated: false });
    expect((await receive(queue)).map(({ id }) => id)).toEqual([plain.headers.get("x-message-id"), full.body.id]);
    expect((await publish(queue, { body: "c" }, { prefer: "return=minimal" })).status).toBe(204);
  });

  test("of a publish to a topic says how many queues, and which", async () => {
    const [one, two] = [await createQueue(service), await createQueue(service)];
    const topic = await topicOf(one, two);
    const send = (headers = {}) => call("POST", `/v1/topics/${topic}/messages`, { body: "a" }, headers);
    const plain = await send();
    expect({ status: plain.status, count: plain.headers.get("x-delivered-queues") }).toEqual({
      status: 204,
      count: "2",
    });
    const full = await send({ prefer: "return=representation" });
    expect(full.status).toBe(201);
    const ids = [(await receive(one))[1]?.id, (await receive(two))[1]?.id];
    expect(full.body).toEqual({
      delivered_queues: 2,
      data: [
        { queue_id: one, id: ids[0], deduplicated: false },
        { queue_id: two, id: ids[1], deduplicated: false },
      ],
    });
    const nobody = await call("POST", `/v1/topics/${await topicOf()}/messages`, { body: "a" });
    expect(nobody.headers.get("x-delivered-queues")).toBe("0");
  });
});

describe("a delay of its own", () => {
  test("replaces the queue's, also with 0", async () => {
    const queue = await createQueue(service, { delivery_delay_seconds: 100 });
    const [own, none, queues] = [
      await put(queue, { body: "own", delay_seconds: 50 }),
      await put(queue, { body: "none", delay_seconds: 0 }),
      await put(queue, { body: "queue's" }),
    ];
    expect((await take(queue, "?ack_deadline_seconds=500")).id).toBe(none);
    const { body } = await look(queue, own);
    expect(body).toMatchObject({ state: "delayed", delivery_attempts: 0 });
    expect(await secondsUntil(body.visible_at)).toBeWithin(45, 50.01);
    await elapse(51);
    expect(await take(queue, "?ack_deadline_seconds=500")).toMatchObject({ id: own });
    await elapse(50);
    expect(await take(queue)).toMatchObject({ id: queues });
  });

  test("may be a time; one in the past is now; created_at stays the time of publication", async () => {
    const queue = await createQueue(service, { delivery_delay_seconds: 100 });
    const future = await put(queue, { body: "a", deliver_at: later(60) });
    const past = await put(queue, { body: "b", deliver_at: "2001-02-03T04:05:06+07:00" });
    expect((await take(queue)).id).toBe(past);
    const { body } = await look(queue, future);
    expect(await secondsUntil(body.visible_at)).toBeWithin(50, 61);
    expect(await secondsUntil(body.created_at)).toBeWithin(-10, 0.01);
  });

  test("goes to all copies of a fan-out", async () => {
    const queues = [await createQueue(service), await createQueue(service, { delivery_delay_seconds: 500 })];
    const topic = await topicOf(...queues);
    await call("POST", `/v1/topics/${topic}/messages`, { body: "a", delay_seconds: 60 });
    await call("POST", `/v1/topics/${topic}/messages`, { body: "b", deliver_at: later(60) });
    for (const queue of queues) expect((await stats(queue)).delayed).toBe(2);
    await elapse(62);
    for (const queue of queues) expect((await bodies(queue)).sort()).toEqual(["a", "b"]);
  });

  test("is at most a year, and one of the two", async () => {
    const queue = await createQueue(service);
    const ask = async (own: Record<string, unknown>) => (await publish(queue, { body: "x", ...own })).body;
    expect(await ask({ delay_seconds: 31_536_001 })).toEqual(
      invalid("delay_seconds: must be no greater than 31536000."),
    );
    expect((await ask({ delay_seconds: -1 })).code).toBe(2);
    expect((await ask({ deliver_at: later(31_536_100) })).details).toMatch(
      /^deliver_at: must be no greater than \d{4}-[^ ]+Z\.$/,
    );
    const odd = ["2026-01-01T00:00:00,5Z", "2026-01-01T00:00:00+24:00", "0000-01-01T00:00:00Z"];
    for (const deliver_at of ["tomorrow", "2026-01-01", "2026-13-01T00:00:00Z", "", ...odd]) {
      expect((await ask({ deliver_at })).details).toBe("deliver_at: must be in a valid format.");
      expect((await ask({ expires_at: deliver_at })).details).toBe("expires_at: must be in a valid format.");
    }
    expect(await ask({ deliver_at: "0001-01-01t00:00:00.123456-15:59" })).toBeUndefined();
    expect(await ask({ deliver_at: later(1), delay_seconds: 1 })).toEqual(
      invalid("delay_seconds: must not be given together with deliver_at."),
    );
    expect(await ask({ deliver_at: later(31_535_000) })).toBeUndefined();
    expect(await ask({ delay_seconds: 31_536_000 })).toBeUndefined();
    expect(await ask({ delay_seconds: null, deliver_at: null, ttl_seconds: null, expires_at: null })).toBeUndefined();
  });
});

describe("a time to live", () => {
  test("ends a message before the queue's retention does, and never after it", async () => {
    const queue = await createQueue(service, { message_retention_seconds: 100 });
    const short = await put(queue, { body: "short", ttl_seconds: 50 });
    const long = await put(queue, { body: "long", ttl_seconds: 1000 });
    const dated = await put(queue, { body: "dated", expires_at: later(50) });
    for (const [id, seconds] of [[short, 50] as const, [long, 100] as const, [dated, 50] as const]) {
      const { expires_at } = (await look(queue, id)).body;
      expect(await secondsUntil(expires_at)).toBeWithin(seconds - 5, seconds + 1);
    }
    expect((await look(queue, await put(queue))).body).not.toHaveProperty("expires_at");
    await elapse(52);
    expect((await receive(queue, "?ack_deadline_seconds=10")).map(({ id }) => id)).toContain(long);
    for (const id of [short, dated]) expect((await look(queue, id)).body.state).toBe("expired");
    await elapse(50);
    expect(await receive(queue)).toEqual([]);
  });

  test("is shown to the consumer", async () => {
    const queue = await createQueue(service);
    await put(queue, { body: "a", ttl_seconds: 50 });
    const message = (await take(queue)) as unknown as { expires_at: string };
    expect(await secondsUntil(message.expires_at)).toBeWithin(45, 50.01);
  });

  test("that is over before its delay: never delivered", async () => {
    const queue = await createQueue(service);
    const id = await put(queue, { body: "a", delay_seconds: 100, ttl_seconds: 50 });
    await elapse(60);
    expect((await look(queue, id)).body.state).toBe("expired");
    expect((await stats(queue)).delayed).toBe(0);
    await elapse(50);
    expect(await receive(queue)).toEqual([]);
    expect((await look(queue, id)).body).toMatchObject({ state: "expired", delivery_attempts: 0 });
  });

  test("that passes under a live lease leaves the message ackable until the lease ends", async () => {
    const queue = await createQueue(service);
    const [a, b] = [await put(queue, { body: "a", ttl_seconds: 10 }), await put(queue, { body: "b", ttl_seconds: 10 })];
    const [first, second] = await receive(queue, "?ack_deadline_seconds=60");
    await elapse(20);
    expect((await extend(queue, a, 100, first?.lease_token)).status).toBe(204);
    await elapse(50);
    expect((await ack(queue, a, first?.lease_token)).status).toBe(204);
    expect((await ack(queue, b, second?.lease_token)).body.code).toBe(11);
  });

  test("is a second or more, or a time in the future, and one of the two", async () => {
    const queue = await createQueue(service);
    const ask = async (own: Record<string, unknown>) => (await publish(queue, { body: "x", ...own })).body;
    expect(await ask({ ttl_seconds: 0 })).toEqual(invalid("ttl_seconds: must be no less than 1."));
    expect(await ask({ ttl_seconds: 2_147_483_648 })).toEqual(
      invalid("ttl_seconds: must be no greater than 2147483647."),
    );
    expect(await ask({ ttl_seconds: 2_147_483_647 })).toBeUndefined();
    expect(await ask({ expires_at: "2001-01-01T00:00:00Z" })).toEqual(invalid("expires_at: must be in the future."));
    expect(await ask({ expires_at: "soon" })).toEqual(invalid("expires_at: must be in a valid format."));
    expect(await ask({ expires_at: later(5), ttl_seconds: 5 })).toEqual(
      invalid("expires_at: must not be given together with ttl_seconds."),
    );
    expect(await ask({ expires_at: "9999-12-31T23:59:59Z" })).toBeUndefined();
    expect(await ask({ delay_seconds: 1, deliver_at: later(1), ttl_seconds: 0 })).toEqual(
      invalid("ttl_seconds: must be no less than 1."),
    );
  });
});

describe("a pause", () => {
  const pause = (queue: string, body?: unknown) => call("PUT", `/v1/queues/${queue}/pause`, body);

  test("stops consuming by default; what is leased can be acked, nacked and extended", async () => {
    const queue = await createQueue(service);
    const ids = [await put(queue), await put(queue), await put(queue), await put(queue)];
    const [a, b, c] = await receive(queue, "?limit=3");
    const answer = await pause(queue);
    const shown = (await call("GET", `/v1/queues/${queue}`)).body;
    expect({ status: answer.status, body: answer.body }).toEqual({ status: 200, body: shown });
    expect(shown.paused).toEqual({ publish: false, consume: true });
    expect(await receive(queue)).toEqual([]);
    expect((await ack(queue, a?.id ?? "", a?.lease_token)).status).toBe(204);
    expect((await nack(queue, b?.id ?? "", { lease_token: b?.lease_token })).status).toBe(204);
    expect((await extend(queue, c?.id ?? "", 60, c?.lease_token)).status).toBe(204);
    await put(queue);
    expect(await receive(queue)).toEqual([]);
    const resumed = await call("PUT", `/v1/queues/${queue}/resume`);
    expect(resumed.status).toBe(200);
    expect(resumed.body.paused).toEqual({ publish: false, consume: false });
    expect((await call("GET", `/v1/queues/${resumed.body.id}`)).body).not.toHaveProperty("paused");
    expect((await receive(queue)).map(({ id }) => id)).toContain(ids[3] as string);
  });

  test("of publishing refuses every publish, and a topic's as a whole", async () => {
    const [open, shut] = [await createQueue(service), await createQueue(service)];
    const topic = await topicOf(open, shut);
    await put(shut);
    expect((await pause(shut, { publish: true, consume: false })).body.paused).toEqual({
      publish: true,
      consume: false,
    });
    const messages = { messages: [{ body: "a" }] };
    for (const [path, body] of [
      [`/v1/queues/${shut}/messages`, { body: "a" }],
      [`/v1/queues/${shut}/messages`, { body: "a", delay_seconds: 1 }],
      [`/v1/queues/${shut}/messages/batch`, messages],
      [`/v1/queues/${shut}/messages/batch?atomic=false`, messages],
      [`/v1/topics/${topic}/messages`, { body: "a" }],
      [`/v1/topics/${topic}/messages/batch`, messages],
    ] as const) {
      const answer = await call("POST", path, body);
      expect({ path, status: answer.status, body: answer.body }).toEqual({ path, status: 409, body: closed });
    }
    expect(await receive(open)).toEqual([]);
    expect(await receive(shut)).toHaveLength(1);
    await pause(shut, {});
    expect((await call("GET", `/v1/queues/${shut}`)).body.paused).toEqual({ publish: false, consume: true });
    await put(shut);
    expect((await pause(shut, { publish: 1 })).body.code).toBe(2);
    expect((await pause(uniqueId())).body).toEqual(refused(5, "queue not found"));
    expect((await call("PUT", `/v1/queues/${uniqueId()}/resume`)).body.code).toBe(5);
  });

  test("is kept by an update of the queue", async () => {
    const queue = await createQueue(service);
    await pause(queue, { publish: true });
    expect((await update(queue, {})).body.paused).toEqual({ publish: true, consume: true });
  });
});
