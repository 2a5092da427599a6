import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createQueue, serviceForFile, uniqueId } from "./harness.ts";
import { refused, verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const master_keys = new Map([["2026", Buffer.alloc(32, 1)]]);
const service = await serviceForFile({ receive_limit_max: 100, master_keys });
const { call, elapse, broker, sql } = service;
const { put, receive, take, ack, nack, extend, look, change, remove, update, secondsUntil } = verbsOf(service);

const invalid = (details: string) => refused(3, "request validation failed", details);
const not_found = refused(6, "message not found");
const lost = refused(11, "lease lost");
const unknown_id = "01JZZZZZZZZZZZZZZZZZZZZZZZ";
const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);

const peek = async (queue: string, query = "") => {
  const answer = await call("GET", `/v1/queues/${queue}/messages/peek${query}`);
  if (answer.status !== 200) throw new Error(answer.text);
  return answer.body as { data: { id: string; body?: string; state: string }[]; next?: string };
};

/** All messages that a peek shows, page after page. */
async function peekAll(queue: string, query: string) {
  const data = [];
  let pages = 0;
  for (let after = ""; ; ) {
    const page = await peek(queue, `?${query}${after && `&after=${after}`}`);
    data.push(...page.data);
    pages += 1;
    if (page.next === undefined) return { data, pages };
    after = page.next;
  }
}

const states = ["ready", "delayed", "leased", "backing_off", "acked", "expired"] as const;

/** A queue with one message in each state; ids by state. */
async function oneOfEach() {
  const queue = await createQueue(service, { message_retention_seconds: 1000 });
  const expired = await put(queue, { body: "expired", ttl_seconds: 10 });
  await elapse(11);
  await broker.sweepExpired();
  const acked = await put(queue, { body: "acked", label: "l" });
  await take(queue);
  await ack(queue, acked);
  const backing_off = await put(queue, { body: "backing_off", label: "l", attributes: { k: "v" } });
  const leased = await put(queue, { body: "leased" });
  await receive(queue, "?ack_deadline_seconds=600");
  await nack(queue, backing_off, { visibility_timeout_seconds: 600, error: "boom" });
  const delayed = await put(queue, { body: "delayed", delay_seconds: 600, ttl_seconds: 900 });
  const ready = await put(queue, { body: "ready", label: "l" });
  return { queue, ids: { ready, delayed, leased, backing_off, acked, expired } };
}

describe("one message", () => {
  test("shows all that has a value, its state, and never its token", async () => {
    const { queue, ids } = await oneOfEach();
    const common = (state: (typeof states)[number]) => ({
      id: ids[state],
      queue_id: queue,
      label: null,
      body: state,
      attributes: null,
      delivery_attempts: 0,
      created_at: time,
      state,
    });
    const expected = {
      ready: { ...common("ready"), label: "l", visible_at: time },
      delayed: { ...common("delayed"), visible_at: time, expires_at: time },
      leased: { ...common("leased"), delivery_attempts: 1, visible_at: time, lease_expires_at: time },
      backing_off: {
        ...common("backing_off"),
        label: "l",
        attributes: { k: "v" },
        delivery_attempts: 1,
        visible_at: time,
        last_error: "boom",
        events: [{ at: time, event: "nacked", attempt: 1, error: "boom" }],
      },
      acked: { ...common("acked"), label: "l", delivery_attempts: 1 },
      expired: common("expired"),
    };
    for (const state of states) expect((await look(queue, ids[state])).body).toEqual(expected[state]);
    const leased = (await look(queue, ids.leased)).body;
    expect(await secondsUntil(leased.lease_expires_at)).toBeWithin(590, 600.01);
    expect((await look(queue, unknown_id)).body).toEqual(not_found);
    expect((await look(await createQueue(service), ids.ready)).body).toEqual(not_found);
    expect((await look(uniqueId(), ids.ready)).body).toEqual(refused(5, "queue not found"));
  });

  test("whose lease ran out is ready, and says nothing of the lease", async () => {
    const queue = await createQueue(service);
    const id = await put(queue);
    await take(queue);
    await elapse(31);
    const { body } = await look(queue, id);
    expect(body).toMatchObject({ state: "ready", delivery_attempts: 1 });
    expect(body).not.toHaveProperty("lease_expires_at");
  });
});

describe("peek", () => {
  test("shows the messages of one state, by default the ready ones, each as it is alone", async () => {
    const { queue, ids } = await oneOfEach();
    for (const state of states) {
      const { data } = await peekAll(queue, `state=${state}`);
      const { events: _, ...alone } = (await look(queue, ids[state])).body;
      expect(data).toEqual([alone]);
    }
    expect(await peek(queue)).toEqual(await peek(queue, "?state=ready"));
    const all = await peekAll(queue, "state=all&limit=2");
    expect(all.data.map(({ id }) => id).toSorted()).toEqual(Object.values(ids).toSorted());
    const labelled = await peek(queue, "?state=backing_off&label=l");
    expect(labelled.data).toHaveLength(1);
    expect((await peek(queue, "?label=m")).data).toEqual([]);
    const { body: _, ...without } = (await look(queue, ids.ready)).body;
    expect((await peek(queue, "?body=false")).data).toEqual([without]);
  });

  test("of state dead shows what was dead-lettered, wherever it has got to", async () => {
    const dead = await createQueue(service);
    const queue = await createQueue(service, { dead_queue_id: dead, message_max_deliveries: 3 });
    const ids = [await put(queue), await put(queue)];
    for (const id of ids) await nack(queue, id, { dead_letter: true });
    await put(dead);
    await ack(dead, ids[1] as string);
    const first = await peek(dead, "?state=dead");
    const second = await peek(dead, `?state=dead&after=${first.next}`);
    expect([...first.data, ...second.data].map(({ id }) => id)).toEqual(ids);
    expect(second.next).toBeUndefined();
  });

  test("finds what has expired and was not swept yet", async () => {
    const queue = await createQueue(service, { message_retention_seconds: 50 });
    const id = await put(queue);
    await elapse(51);
    expect((await peek(queue, "?state=expired")).data).toMatchObject([{ id, state: "expired" }]);
    expect((await peek(queue)).data).toEqual([]);
  });

  test("pages to the end, 10 by default and at most 100, and comes by each message once", async () => {
    const queue = await createQueue(service);
    const messages = Array.from({ length: 250 }, (_, i) => ({ body: String(i) }));
    await call("POST", `/v1/queues/${queue}/messages/batch`, { messages });
    expect((await peek(queue)).data).toHaveLength(10);
    expect((await peek(queue, "?limit=1000")).data).toHaveLength(100);
    expect((await peek(queue, "?limit=0")).data).toEqual([]);
    const { data } = await peekAll(queue, "limit=60");
    expect(data.map(({ body }) => body)).toEqual(messages.map(({ body }) => body));
  });

  test("of a rare state in a large queue takes several calls, each of a bounded size, and finds it", async () => {
    const queue = await createQueue(service);
    await sql`insert into psqlqueue.messages (queue_no, id, body, visible_at, expires_at, created_at)
      select no, '01' || lpad(n::text, 24, '0'), 'x',
        case when n % 6000 = 0 then now() + interval '1 hour' else now() - interval '1 minute' end,
        now() + interval '1 day', now()
      from psqlqueue.queues, generate_series(1, 12500) as n where id = ${queue}`;
    const { data, pages } = await peekAll(queue, "state=delayed");
    expect(data.map(({ id }) => Number(id.slice(2)))).toEqual([6000, 12_000]);
    expect(pages).toBe(3);
    await call("PUT", `/v1/queues/${queue}/purge`);
  });

  test("refuses a broken cursor, an unknown state and an unknown queue", async () => {
    const queue = await createQueue(service);
    const ask = async (query: string) => (await call("GET", `/v1/queues/${queue}/messages/peek?${query}`)).body;
    for (const after of ["x", "01", "zzzzzzzzzzzzzzzzzzzzzzzzzz", "%00", "a01", "'; drop"]) {
      expect(await ask(`after=${after}`)).toEqual(invalid("after: must be in a valid format."));
    }
    expect((await ask("state=lost")).details).toMatch(/^state: must be one of ready, .*, all\.$/);
    expect((await ask("body=1")).details).toBe("body: must be in a valid format.");
    expect((await call("GET", `/v1/queues/${uniqueId()}/messages/peek`)).body).toEqual(refused(5, "queue not found"));
  });

  test("and a look change nothing", async () => {
    const { queue, ids } = await oneOfEach();
    const rows = () => sql`select *, xmin::text as version from psqlqueue.messages order by queue_no, id`;
    const before = [...(await rows())];
    for (const state of [...states, "dead", "all"]) await peek(queue, `?state=${state}`);
    for (const id of Object.values(ids)) await look(queue, id);
    expect([...(await rows())]).toEqual(before);
  });
});

describe("a change of a message", () => {
  test("sets what is given and answers with the message", async () => {
    const queue = await createQueue(service);
    const id = await put(queue, { body: "b", label: "a", attributes: { k: "v" } });
    const far = new Date(Date.now() + 600_000).toISOString();
    const delayed = await change(queue, id, { deliver_at: far });
    expect(delayed.status).toBe(200);
    expect(delayed.body).toEqual((await look(queue, id)).body);
    expect(delayed.body).toMatchObject({ state: "delayed", label: "a", attributes: { k: "v" } });
    expect(await receive(queue)).toEqual([]);
    await change(queue, id, { label: "", attributes: { n: null } });
    expect((await look(queue, id)).body).toMatchObject({ state: "delayed", label: "", attributes: { n: "" } });
    await change(queue, id, { deliver_at: "2001-01-01T00:00:00Z" });
    expect(await take(queue, "?label=")).toMatchObject({ id, delivery_attempts: 1 });
  });

  test("of the label is seen by receives with the new one, however long the message has been ready", async () => {
    const queue = await createQueue(service);
    const id = await put(queue, { body: "old", label: "a" });
    await elapse(600);
    // The line of label b has moved on since.
    await put(queue, { body: "x", label: "b" });
    expect(await receive(queue, "?label=b&ack_deadline_seconds=600")).toHaveLength(1);
    expect((await change(queue, id, { label: "b" })).status).toBe(200);
    expect(await receive(queue, "?label=a")).toEqual([]);
    expect(await take(queue, "?label=b")).toMatchObject({ id });
  });

  test("is refused while somebody holds it, and when it has ended", async () => {
    const { queue, ids } = await oneOfEach();
    const leased = await change(queue, ids.leased, { label: "x" });
    expect({ status: leased.status, body: leased.body }).toEqual({ status: 409, body: lost });
    for (const id of [ids.acked, ids.expired, unknown_id]) {
      expect(await change(queue, id, { label: "x" })).toMatchObject({ status: 404, body: not_found });
    }
    for (const id of [ids.ready, ids.delayed, ids.backing_off]) {
      expect((await change(queue, id, { label: "x" })).body.label).toBe("x");
    }
    expect((await change(queue, ids.ready, { label: "x".repeat(256) })).body.code).toBe(3);
    expect((await change(queue, ids.ready, { deliver_at: "2999-01-01T00:00:00Z" })).body.code).toBe(3);
    expect((await change(queue, ids.ready, { deliver_at: 5 })).body.code).toBe(2);
    expect((await change(uniqueId(), ids.ready, {})).body.code).toBe(5);
  });
});

describe.each([["in plain"], ["encrypted"]])("a change of a message whose body is stored %s", (form) => {
  test("makes it no larger than a publish may be, and may make smaller what is too large", async () => {
    const settings = { encrypt: form === "encrypted", max_message_bytes: 40 };
    const queue = await createQueue(service, settings);
    // With the attributes as a client writes them, the body is the rest of 40 bytes.
    const attributes = { a: "1", b: "é" };
    const body = "x".repeat(40 - Buffer.byteLength(JSON.stringify(attributes)) - 2);
    const id = await put(queue, { body });
    expect((await change(queue, id, { label: "ab", attributes })).status).toBe(200);
    const refusal = await change(queue, id, { label: "abc" });
    expect({ status: refusal.status, body: refusal.body }).toEqual({
      status: 413,
      body: refused(13, "payload too large", "the message is larger than the queue's max_message_bytes"),
    });
    expect((await change(queue, id, { attributes: { ...attributes, c: "" } })).status).toBe(413);
    await update(queue, { ...settings, max_message_bytes: 30 });
    expect((await change(queue, id, { label: "a" })).body).toMatchObject({ label: "a", attributes });
    expect((await change(queue, id, { label: "ab" })).status).toBe(413);
    expect((await change(queue, id, { deliver_at: "2000-01-01T00:00:00Z" })).status).toBe(200);
    await take(queue);
    expect((await change(queue, id, { label: "abcdefgh" })).status).toBe(409);
  });
});

describe("a delete of a message", () => {
  test("removes it whatever its state, its archived row too", async () => {
    const { queue, ids } = await oneOfEach();
    const refusal = await remove(queue, ids.leased);
    expect({ status: refusal.status, body: refusal.body }).toEqual({ status: 409, body: lost });
    for (const state of states) {
      if (state === "leased") continue;
      expect((await remove(queue, ids[state])).status).toBe(204);
      expect(await remove(queue, ids[state])).toMatchObject({ status: 404, body: not_found });
    }
    expect((await peek(queue, "?state=all")).data.map(({ id }) => id)).toEqual([ids.leased]);
    expect((await remove(uniqueId(), ids.leased)).body.code).toBe(5);
  });

  test("that is leased needs its current token, by query or header", async () => {
    const queue = await createQueue(service);
    for (const how of ["query", "header"]) {
      const id = await put(queue);
      const stale = await take(queue);
      await extend(queue, id, 0, stale.lease_token);
      const { lease_token } = await take(queue);
      const send = (token: string) =>
        how === "query"
          ? remove(queue, id, `?lease_token=${token}`)
          : call("DELETE", `/v1/queues/${queue}/messages/${id}`, undefined, { "x-lease-token": token });
      for (const other of [stale.lease_token, "1", "x"]) expect((await send(other)).body).toEqual(lost);
      expect((await send(lease_token)).status).toBe(204);
      expect((await look(queue, id)).status).toBe(404);
    }
  });

  test("is free again when the lease is over", async () => {
    const queue = await createQueue(service);
    const id = await put(queue);
    await take(queue);
    await elapse(31);
    expect((await remove(queue, id)).status).toBe(204);
  });
});

test("what is past its time in the archive is there for nobody, whether or not it was swept", async () => {
  const queue = await createQueue(service, { archive_retention_seconds: 5 });
  const id = await put(queue);
  await take(queue);
  await ack(queue, id);
  const count = async () => (await call("GET", `/v1/queues/${queue}/messages/count?state=acked`)).body.count;
  expect([(await peek(queue, "?state=acked")).data.length, await count()]).toEqual([1, 1]);
  await elapse(6);
  expect([(await peek(queue, "?state=acked")).data.length, await count()]).toEqual([0, 0]);
  expect((await look(queue, id)).body).toEqual(not_found);
  expect((await remove(queue, id)).body).toEqual(not_found);
});
