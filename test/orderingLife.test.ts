import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createQueue, serviceForFile, uniqueId, until } from "./harness.ts";
import { all, keyedVerbsOf, textOf } from "./keyed.ts";
import { type Delivered, refused, verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

// Messages with ordering keys where they end, move, or come in by another way than a single publish.

const service = await serviceForFile({ receive_limit_max: 100 });
const { call, sql, broker, elapse } = service;
const { ack, bodies, extend, look, nack, publish, put, receive, remove, stats, take } = verbsOf(service);
const { ackOf, drain, end, keysOf, putAll, repair } = keyedVerbsOf(service);

describe("dead letters", () => {
  const withDead = async (settings: Record<string, unknown> = {}, more: Record<string, unknown> = {}) => {
    const dead = await createQueue(service, more);
    return { dead, queue: await createQueue(service, { dead_queue_id: dead, message_max_deliveries: 1, ...settings }) };
  };
  const redrive = (dead: string, body: Record<string, unknown> = {}) =>
    call("POST", `/v1/queues/${dead}/redrive?wait=true`, { limit: 1000, ...body });
  const reject = async (queue: string) => {
    const message = await take(queue, "?limit=1");
    await nack(queue, message.id, { lease_token: message.lease_token, dead_letter: true });
    return message;
  };

  test("a head that dies makes room for the next, however it dies", async () => {
    const { dead, queue } = await withDead();
    await putAll(queue, "k", "rejected", "used up", "met", "swept", "last");
    await reject(queue);
    const used = await take(queue, "?limit=1");
    await nack(queue, used.id, { lease_token: used.lease_token });
    await take(queue, "?limit=1");
    await elapse(31);
    expect(await bodies(queue, all)).toEqual(["swept"]);
    await elapse(31);
    await broker.sweepExhausted(60);
    expect(await bodies(queue, all)).toEqual(["last"]);
    expect(await drain(dead)).toEqual(["rejected", "used up", "met", "swept"]);
  });

  test("redriven ones go back by their original number, before younger ones", async () => {
    const { dead, queue } = await withDead();
    await putAll(queue, "k", "1", "2", "3", "4");
    await reject(queue);
    await reject(queue);
    const third = await take(queue, "?limit=1");
    expect((await redrive(dead)).body).toEqual({ moved: 2 });
    expect(await bodies(queue, all)).toEqual([]);
    await end(third);
    expect(await drain(queue)).toEqual(["1", "2", "4"]);
    expect([await keysOf(queue), await keysOf(dead)]).toEqual([[], []]);
  });

  test("one that was displaced under its lease keeps the key until that ends", async () => {
    const { dead, queue } = await withDead({ message_max_deliveries: 5 });
    await putAll(queue, "k", "1", "2");
    await reject(queue);
    const second = await take(queue, "?limit=1");
    await redrive(dead);
    expect((await extend(queue, second.id, 100, second.lease_token)).status).toBe(204);
    await elapse(40);
    expect(await bodies(queue, all)).toEqual([]);
    await elapse(61);
    expect(await drain(queue)).toEqual(["1", "2"]);
  });

  test("block keeps the key closed until the dead message is redriven", async () => {
    const { dead, queue } = await withDead({ on_dead: "block" });
    const [first, second] = await putAll(queue, "k", "1", "2");
    await putAll(queue, "other", "x");
    await reject(queue);
    expect(await bodies(queue, all)).toEqual(["x"]);
    await putAll(queue, "k", "3");
    const [key] = await keysOf(queue, "?state=blocked");
    const since = key?.blocked_since;
    expect(key).toEqual({
      ordering_key: "k",
      state: "blocked",
      pending: 2,
      head_id: second,
      blocked_since: since,
      dead_message_id: first,
    });
    expect(Math.abs(Date.parse(since) - Date.now())).toBeLessThan(60_000);
    expect(await stats(queue)).toMatchObject({ blocked_keys: 1 });
    await redrive(dead);
    expect(await drain(queue)).toEqual(["1", "2", "3"]);
    expect(await stats(queue)).toMatchObject({ blocked_keys: 0 });
  });

  test("an empty key that is blocked stays so", async () => {
    const { dead, queue } = await withDead({ on_dead: "block" });
    await putAll(queue, "k", "1");
    await reject(queue);
    await putAll(queue, "k", "2");
    expect(await bodies(queue, all)).toEqual([]);
    await redrive(dead);
    expect(await drain(queue)).toEqual(["1", "2"]);
  });

  test.each(["deleted", "acked", "purged", "moved elsewhere"])(
    "a dead message that is %s lifts the block",
    async (how) => {
      const { dead, queue } = await withDead({ on_dead: "block" });
      const [first = ""] = await putAll(queue, "k", "1", "2");
      await reject(queue);
      if (how === "deleted") expect((await remove(dead, first)).status).toBe(204);
      if (how === "acked") await drain(dead);
      if (how === "purged") expect((await call("PUT", `/v1/queues/${dead}/purge`)).status).toBe(204);
      if (how === "moved elsewhere") await redrive(dead, { destination_queue_id: await createQueue(service) });
      expect(await drain(queue)).toEqual(["2"]);
    },
  );

  test("expired ones go to the dead-letter queue without blocking", async () => {
    const { dead, queue } = await withDead({ on_dead: "block", dead_letter_on_expiry: true });
    await put(queue, { body: "1", ordering_key: "k", ttl_seconds: 10 });
    await putAll(queue, "k", "2");
    await elapse(11);
    expect(await drain(queue)).toEqual(["2"]);
    expect(await drain(dead)).toEqual(["1"]);
  });
});

describe("what ends messages otherwise", () => {
  test("a purge while leased: the ack finds nothing, the key is free", async () => {
    const queue = await createQueue(service);
    await putAll(queue, "k", "1", "2");
    const first = await take(queue, "?limit=1");
    expect((await call("PUT", `/v1/queues/${queue}/purge`)).status).toBe(204);
    expect((await ackOf(first)).body).toEqual(refused(6, "message not found"));
    await putAll(queue, "k", "3");
    expect(await drain(queue)).toEqual(["3"]);
  });

  test("deleting a message makes room for the next, and spares what is leased", async () => {
    const queue = await createQueue(service);
    const [first = "", second = ""] = await putAll(queue, "k", "1", "2", "3");
    expect((await remove(queue, second)).status).toBe(204);
    const leased = await take(queue, "?limit=1");
    expect((await remove(queue, first)).status).toBe(409);
    expect((await remove(queue, first, `?lease_token=${leased.lease_token}`)).status).toBe(204);
    expect(await drain(queue)).toEqual(["3"]);
    expect((await remove(queue, first)).status).toBe(404);
  });

  test("an ack without a token ends a message wherever it stands", async () => {
    const queue = await createQueue(service);
    const [first = "", second = ""] = await putAll(queue, "k", "1", "2", "3");
    expect([(await ack(queue, second)).status, (await ack(queue, first)).status]).toEqual([204, 204]);
    expect(await drain(queue)).toEqual(["3"]);
  });

  test("what was leased for a consumer that went away comes back in order, and uncounted", async () => {
    const queue = await createQueue(service);
    await putAll(queue, "k", "1", "2", "3");
    const from = { queue_id: queue, label: undefined, lease_seconds: undefined, limit: 2, wait_ms: 0, wait_ms_max: 0 };
    const leased = await broker.receive({ ...from, max_per_key: 0 });
    expect(leased.map(({ body }) => body)).toEqual(["1", "2"]);
    broker.takeBack(queue, leased);
    await until(async () => (await stats(queue)).leased === 0);
    const again = await receive(queue, "?limit=3&max_per_key=0");
    expect(again.map(({ body, delivery_attempts }) => [body, delivery_attempts])).toEqual([
      ["1", 1],
      ["2", 1],
      ["3", 1],
    ]);
  });

  test("a deleted queue leaves no keys behind", async () => {
    const queue = await createQueue(service, { max_in_flight: 1 });
    await putAll(queue, "k", "1", "2");
    await take(queue, "?limit=1");
    const [row] = await sql`select no from psqlqueue.queues where id = ${queue}`;
    expect((await call("DELETE", `/v1/queues/${queue}`)).status).toBe(204);
    for (const table of ["messages", "ordering_keys", "governors"]) {
      const left = await sql`select from psqlqueue.${sql(table)} where queue_no = ${row?.["no"]}`;
      expect([table, left.length]).toEqual([table, 0]);
    }
  });

  test("acks are repeatable with the token that did it, and refused with another", async () => {
    const queue = await createQueue(service);
    await putAll(queue, "k", "1");
    const first = await take(queue, "?limit=1");
    await nack(queue, first.id, { lease_token: first.lease_token });
    const again = await take(queue, "?limit=1");
    await end(again);
    await end(again);
    expect((await ackOf(first)).status).toBe(409);
  });

  test("batches of ack, nack and extend mix messages with and without keys", async () => {
    const queue = await createQueue(service);
    await putAll(queue, "k", "1", "2");
    await put(queue, { body: "x" });
    const items = (await receive(queue, all)).map(({ id, lease_token }) => ({ id, lease_token }));
    const missing = { id: "01ARZ3NDEKTSV4RRFFQ69G5FAV", lease_token: "k5" };
    const settle = async (verb: string, own: object[], more: object = {}) =>
      (await call("POST", `/v1/queues/${queue}/${verb}`, { items: own, ...more })).body.results.map(
        ({ status }: { status: string }) => status,
      );
    expect(await settle("extend", items, { ack_deadline_seconds: 50 })).toEqual(["ok", "ok"]);
    expect(await settle("nack", [missing, ...items])).toEqual(["not_found", "ok", "ok"]);
    expect(await settle("ack", items)).toEqual(["lease_lost", "lease_lost"]);
    const again = (await receive(queue, all)).map(({ id, lease_token }) => ({ id, lease_token }));
    expect(await settle("ack", again)).toEqual(["ok", "ok"]);
    expect(await drain(queue)).toEqual(["2"]);
  });

  test("cleanup and the sweeps of expired messages leave no key without its head", async () => {
    const queue = await createQueue(service);
    await put(queue, { body: "1", ordering_key: "k", ttl_seconds: 10 });
    await putAll(queue, "k", "2");
    await put(queue, { body: "1", ordering_key: "l", ttl_seconds: 10 });
    await putAll(queue, "l", "2");
    await elapse(11);
    await call("PUT", `/v1/queues/${queue}/cleanup`);
    await put(queue, { body: "1", ordering_key: "m", ttl_seconds: 10 });
    await elapse(11);
    await broker.sweepOverdue(undefined);
    await broker.sweepExpired();
    expect(await drain(queue)).toEqual(["2", "2"]);
    expect(await keysOf(queue)).toEqual([]);
  });
});

describe("other ways to publish", () => {
  test("a topic's copies have an order in each queue", async () => {
    const [first, second] = [await createQueue(service), await createQueue(service)];
    const topic = uniqueId("t");
    await call("POST", "/v1/topics", { id: topic });
    for (const queue_id of [first, second]) {
      await call("POST", "/v1/subscriptions", { id: uniqueId("s"), topic_id: topic, queue_id });
    }
    await call("POST", `/v1/topics/${topic}/messages`, { body: "1", ordering_key: "k" });
    const messages = ["2", "3"].map((body) => ({ body, ordering_key: "k" }));
    expect((await call("POST", `/v1/topics/${topic}/messages/batch`, { messages })).status).toBe(201);
    for (const queue of [first, second]) {
      expect(await bodies(queue, "?limit=10&ack_deadline_seconds=0")).toEqual(["1"]);
      expect(await drain(queue)).toEqual(["1", "2", "3"]);
    }
    const delayed = { body: "x", ordering_key: "k", delay_seconds: 5 };
    expect((await call("POST", `/v1/topics/${topic}/messages`, delayed)).body.details).toBe(
      "ordering_key: must not be given together with delay_seconds.",
    );
  });

  test("a duplicate takes no place, and scope ordering_key lets each key have its own ids", async () => {
    const queue = await createQueue(service);
    const keyed = (body: string, ordering_key: string, dedup_id: string) => ({ body, ordering_key, dedup_id });
    const first = await publish(queue, keyed("1", "k", "a"));
    const again = await publish(queue, keyed("1", "k", "a"));
    expect(again.headers.get("x-message-id")).toBe(first.headers.get("x-message-id"));
    expect(again.headers.get("x-deduplicated")).toBe("true");
    expect((await publish(queue, keyed("1", "l", "a"))).headers.get("x-deduplicated")).toBe("true");
    expect(await drain(queue)).toEqual(["1"]);
    const scoped = await createQueue(service, { dedup_scope: "ordering_key" });
    for (const [key, id] of ["ka", "la", "ka", "kb"].map((text) => [...text])) {
      await publish(scoped, keyed(`${key}${id}`, key ?? "", id ?? ""));
    }
    expect((await drain(scoped)).sort()).toEqual(["ka", "kb", "la"]);
  });

  test("SQL functions publish in order and ack in the caller's own transaction", async () => {
    const queue = await createQueue(service);
    await sql`select psqlqueue.publish(${queue}, '1', null, null, '{"ordering_key":"k"}')`;
    await sql`select psqlqueue.publish_batch(${queue}, '[{"body":"2","ordering_key":"k"},{"body":"3","ordering_key":"k"}]')`;
    await broker.moveOutbox();
    const first = await take(queue, "?limit=1");
    const [row] = await sql`select psqlqueue.ack(${queue}, ${first.id}, ${first.lease_token}) as ok`;
    expect([first.body, row?.["ok"]]).toEqual(["1", true]);
    await broker.moveOutbox();
    expect(await drain(queue)).toEqual(["2", "3"]);
    expect((await look(queue, first.id)).body.ordering_key).toBe("k");
  });
});

describe("keys", () => {
  test("are listed by state, a page at a time", async () => {
    const queue = await createQueue(service, { allow_delayed_ordering: true });
    const [leased] = await putAll(queue, "a", "1", "2");
    await take(queue, "?limit=1");
    const [ready] = await putAll(queue, "b", "1");
    const waiting = await put(queue, { body: "1", ordering_key: "c", delay_seconds: 60 });
    const none = { blocked_since: null, dead_message_id: null };
    const expected = [
      { ordering_key: "a", state: "leased", pending: 2, head_id: leased, ...none },
      { ordering_key: "b", state: "ready", pending: 1, head_id: ready, ...none },
      { ordering_key: "c", state: "waiting", pending: 1, head_id: waiting, ...none },
    ];
    expect(await keysOf(queue)).toEqual(expected);
    expect(await keysOf(queue, "?limit=1&offset=1")).toEqual(expected.slice(1, 2));
    expect(await keysOf(queue, "?state=waiting")).toEqual(expected.slice(2));
    expect((await call("GET", "/v1/queues/none/keys")).status).toBe(404);
    expect((await call("GET", `/v1/queues/${queue}/keys?state=x`)).body.details).toBe(
      "state: must be one of ready, leased, waiting, blocked.",
    );
  });

  test("repair changes nothing on a healthy queue", async () => {
    const queue = await createQueue(service);
    for (const key of ["a", "b", "c"]) await putAll(queue, key, "1", "2", "3");
    const [first, ...rest] = await receive(queue, "?limit=5&max_per_key=2");
    await end(first as Delivered);
    await nack(queue, rest[0]?.id ?? "", { lease_token: rest[0]?.lease_token, visibility_timeout_seconds: 60 });
    const rows = async () =>
      (await sql`select ctid::text || message::text as row from psqlqueue.messages as message order by 1`).map(
        ({ row }) => row,
      );
    const before = await rows();
    expect(await repair(queue)).toEqual({ checked: 3, repaired: 0 });
    expect(await rows()).toEqual(before);
    expect((await call("POST", "/v1/queues/none/repair")).status).toBe(404);
  });

  test("repair and the sweep give a head to a key that has lost it", async () => {
    const queue = await createQueue(service);
    const [first = ""] = await putAll(queue, "a", "1", "2");
    const [other = ""] = await putAll(queue, "b", "1", "2");
    await sql`delete from psqlqueue.messages where id in (${first}, ${other})`;
    expect(await bodies(queue, all)).toEqual([]);
    expect(await repair(queue)).toEqual({ checked: 2, repaired: 2 });
    expect(await bodies(queue, all)).toEqual(["2", "2"]);
    const [third = ""] = await putAll(queue, "c", "1", "2");
    await sql`delete from psqlqueue.messages where id = ${third}`;
    let place: Parameters<typeof broker.sweepOrderingKeys>[0];
    let count = 0;
    do {
      const swept = await broker.sweepOrderingKeys(place);
      count += swept.count;
      place = swept.next;
    } while (place !== undefined);
    expect([count, await bodies(queue, all)]).toEqual([1, ["2"]]);
  });

  test("a waiter wakes when its key becomes free", async () => {
    const queue = await createQueue(service);
    await putAll(queue, "k", "1", "2");
    const first = await take(queue, "?limit=1");
    const waiting = receive(queue, "?limit=1&wait_seconds=20");
    await until(() => broker.wakeups.size() === 1);
    const started_ms = performance.now();
    await end(first);
    expect(textOf(await waiting)).toEqual(["2"]);
    expect(performance.now() - started_ms).toBeLessThan(900);
  });
});
