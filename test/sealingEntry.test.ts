// Every way into a queue that encrypts, and the moment at which it begins and stops: no body is stored in a wrong form.

import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { magic } from "../src/broker/publish/sealing.ts";
import { exportLines } from "../src/db/transfer/exporting.ts";
import { importLines } from "../src/db/transfer/importing.ts";
import { createQueue, is_embedded, openService, type Service, serveOn, uniqueId, until } from "./harness.ts";
import { openSqs } from "./sqs.ts";
import { verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const old_key: [string, Buffer] = ["2025", Buffer.alloc(32, 1)];
const master_keys = new Map([old_key]);
const sqs = await openSqs({}, { master_keys, receive_limit_max: 100 });
afterAll(() => sqs.close());
const { service } = sqs;
const { sql, call, broker, db } = service;
const { put, receive, bodies, update } = verbsOf(service);

const serverWith = (...keys: [string, Buffer][]): Service => ({
  ...service,
  ...serveOn(db, { master_keys: new Map(keys), receive_limit_max: 100 }),
});
/** A second server: with connections of its own, where the database takes them. */
const other = is_embedded ? serverWith(old_key) : await openService({ url: service.url, master_keys });
afterAll(() => (is_embedded ? undefined : other.close()));

/** How many messages of the queue are stored in each form, the archive included. */
async function formsOf(queue: string): Promise<{ sealed: number; plain: number }> {
  const [row] = await sql`
    select count(*) filter (where starts_with(own.body, ${magic}))::int as sealed,
      count(*) filter (where not starts_with(own.body, ${magic}))::int as plain
    from (
      select queue_no, body from psqlqueue.messages union all select queue_no, body from psqlqueue.archived_messages
    ) as own
    join psqlqueue.queues as queue on queue.no = own.queue_no
    where queue.id = ${queue}`;
  return { sealed: row?.["sealed"], plain: row?.["plain"] };
}
async function topicOf(...queues: string[]): Promise<string> {
  const topic = uniqueId("t");
  await call("POST", "/v1/topics", { id: topic });
  for (const queue_id of queues)
    await call("POST", "/v1/subscriptions", { id: uniqueId("s"), topic_id: topic, queue_id });
  return topic;
}

describe("a topic", () => {
  test("gives each queue the body in the form that it wants: alone, in batches, in order", async () => {
    const [plain, encrypting] = [await createQueue(service), await createQueue(service, { encrypt: true })];
    const topic = await topicOf(plain, encrypting);
    for (const server of [service, other]) {
      const send = async (path: string, body: object) =>
        expect((await server.call("POST", `/v1/topics/${topic}/${path}`, body)).status).toBeLessThan(300);
      await send("messages", { body: "one" });
      await send("messages", { body: "two", ordering_key: "k", dedup_id: uniqueId() });
      await send("messages/batch", { messages: [{ body: "three" }, { body: "four", delay_seconds: 0 }] });
    }
    expect([await formsOf(plain), await formsOf(encrypting)]).toEqual([
      { sealed: 0, plain: 8 },
      { sealed: 8, plain: 0 },
    ]);
    for (const queue of [plain, encrypting]) {
      const seen = await bodies(queue, "?limit=100&max_per_key=0");
      expect(seen.sort()).toEqual(["four", "four", "one", "one", "three", "three", "two", "two"]);
    }
  });

  test("that leads to such queues only, and to another one later", async () => {
    const encrypting = await createQueue(service, { encrypt: true });
    const topic = await topicOf(encrypting);
    // It has read at its start where this topic leads.
    const late = serverWith(old_key);
    const send = () => late.call("POST", `/v1/topics/${topic}/messages`, { body: "x" });
    await send();
    const plain = await createQueue(service);
    await call("POST", "/v1/subscriptions", { id: uniqueId("s"), topic_id: topic, queue_id: plain });
    await send();
    expect([await formsOf(plain), await formsOf(encrypting)]).toEqual([
      { sealed: 0, plain: 1 },
      { sealed: 2, plain: 0 },
    ]);
  });

  test("counts the quota of a queue in what is stored there", async () => {
    const encrypting = await createQueue(service, { encrypt: true, max_bytes: 400 });
    const topic = await topicOf(encrypting);
    const send = async () => (await call("POST", `/v1/topics/${topic}/messages`, { body: "x".repeat(100) })).status;
    expect([await send(), await send(), await send()]).toEqual([204, 204, 429]);
    expect(await formsOf(encrypting)).toEqual({ sealed: 2, plain: 0 });
  });
});

describe("deduplication", () => {
  test("by content works as without, also while keys rotate, and its hash does not give the body away", async () => {
    const queue = await createQueue(service, { encrypt: true, content_dedup: true });
    const rotated = verbsOf(serverWith(["2026", Buffer.alloc(32, 2)], old_key));
    const first = await put(queue, { body: "same" });
    expect(await put(queue, { body: "same" })).toBe(first);
    expect(await rotated.put(queue, { body: "same" })).toBe(first);
    expect(await put(queue, { body: "other" })).not.toBe(first);
    const plain = new Bun.CryptoHasher("sha256").update("body:same").digest("base64url");
    const rows = await sql`select key, body_hash from psqlqueue.deduplications where message_id = ${first}`;
    expect(rows.flatMap((row) => [row["key"], row["body_hash"]])).not.toContain(plain);
  });

  test("in strict mode the same id with another body is refused, and with the same it is not", async () => {
    const queue = await createQueue(service, { encrypt: true, dedup_strict: true });
    const send = async (server: Service, body: string) =>
      (await verbsOf(server).publish(queue, { body, dedup_id: "1" })).status;
    expect([await send(service, "a"), await send(service, "a"), await send(service, "b")]).toEqual([204, 204, 409]);
    expect([await send(other, "a"), await send(other, "b")]).toEqual([204, 409]);
  });
});

describe("the functions of SQL", () => {
  const refusal = (work: PromiseLike<unknown>) =>
    Promise.resolve(work).then(
      () => "done",
      (error: { code: string; detail: string }) => [error.code, error.detail],
    );

  test("do not publish to it, nor to a topic that leads to it: its bodies would be seen", async () => {
    const queue = await createQueue(service, { encrypt: true });
    const topic = await topicOf(await createQueue(service), queue);
    const why = [
      "PQ003",
      `queue: ${queue} encrypts its messages; publish to it over HTTP, for SQL would show their bodies to the database.`,
    ];
    expect(await refusal(sql`select psqlqueue.publish(${queue}, 'x')`)).toEqual(why);
    expect(await refusal(sql`select psqlqueue.publish_batch(${queue}, '[{"body":"x"}]')`)).toEqual(why);
    expect(await refusal(sql`select psqlqueue.publish_topic(${topic}, 'x')`)).toEqual(why);
    expect(await broker.moveOutbox()).toEqual({ moved: 0, dropped: 0 });
  });

  test("what was called before it encrypted, and committed after, is sealed on its way", async () => {
    const plain = await createQueue(service);
    const queue = await createQueue(service, { content_dedup: true });
    for (const body of ["a", "b", `${magic}0:c`]) await sql`select psqlqueue.publish(${queue}, ${body})`;
    await sql`select psqlqueue.publish(${plain}, 'plain')`;
    await update(queue, { encrypt: true });
    // A server without keys moves the rest, and says what it cannot do.
    await expect(serverWith().broker.moveOutbox()).rejects.toThrow("master key");
    expect(await bodies(plain)).toEqual(["plain"]);
    expect(await broker.moveOutbox()).toEqual({ moved: 3, dropped: 0 });
    expect(await formsOf(queue)).toEqual({ sealed: 3, plain: 0 });
    expect(await put(queue, { body: "a" })).toBe((await receive(queue, "?limit=1"))[0]?.id ?? "");
    expect(await bodies(queue)).toEqual(["b", `${magic}0:c`]);
  });
});

describe("switching it", () => {
  test("on, under load of two servers: after the answer no plain body is stored", async () => {
    for (const settings of [{}, { max_depth: 1_000_000 }, { content_dedup: true }]) {
      const queue = await createQueue(service, settings);
      const topic = await topicOf(queue);
      let is_over = false;
      let sent = 0;
      let stored = 0;
      const send = async (server: Service, options: object, path = `queues/${queue}`) => {
        while (!is_over) {
          const answer = await server.call("POST", `/v1/${path}/messages`, { body: `b${sent++}`, ...options });
          // On a slow machine a statement may meet its deadline; what it did is unknown then.
          expect([204, 503]).toContain(answer.status);
          if (answer.status === 204) stored += 1;
        }
      };
      const load = [service, other].flatMap((server) => [
        send(server, {}),
        send(server, {}),
        send(server, { ttl_seconds: 60 }),
        send(server, { ordering_key: "k" }),
        send(server, {}, `topics/${topic}`),
      ]);
      await until(() => sent > 40);
      expect((await update(queue, { encrypt: true })).status).toBe(200);
      const { plain } = await formsOf(queue);
      const before = sent;
      await until(() => sent > before + 40);
      is_over = true;
      await Promise.all(load);
      const forms = await formsOf(queue);
      expect(forms.plain).toBe(plain);
      expect(forms.sealed).toBeGreaterThan(20);
      expect(forms.plain + forms.sealed).toBeWithin(stored, sent + 1);
    }
  });

  /** Does somebody wait for the lock of every statement that stores messages? */
  const isWaiting = async () =>
    (await sql`select from pg_locks where relation = 'psqlqueue.publish_batches'::regclass and not granted`).length > 0;

  test.if(!is_embedded)("on waits for a publish that has read the queue before", async () => {
    const queue = await createQueue(service);
    const key = new Bun.CryptoHasher("sha256").update("id:1").digest("base64url");
    const rolled_back = new Error("rolled back");
    let held: Promise<unknown> | undefined;
    let on: ReturnType<typeof update> | undefined;
    const holding = sql.begin(async (session) => {
      // The publish waits for this row, with a snapshot in which its queue does not encrypt.
      await session`
        insert into psqlqueue.deduplications (queue_no, key, message_id, body_hash, created_at)
        select no, ${key}, 'x', 'x', now() from psqlqueue.queues where id = ${queue}`;
      held = other.call("POST", `/v1/queues/${queue}/messages`, { body: "plain", dedup_id: "1" });
      await until(async () => (await session`select from pg_locks where not granted`).length > 0);
      on = update(queue, { encrypt: true });
      await until(isWaiting);
      throw rolled_back;
    });
    await expect(holding).rejects.toBe(rolled_back);
    expect((await on)?.status).toBe(200);
    expect(await formsOf(queue)).toEqual({ sealed: 0, plain: 1 });
    await held;
  });

  test.if(!is_embedded)("on waits for messages of SQL that are on their way, too", async () => {
    const queue = await createQueue(service);
    await sql`select psqlqueue.publish(${queue}, 'by SQL', options => '{"notify":false}')`;
    let moving: Promise<unknown> | undefined;
    let on: ReturnType<typeof update> | undefined;
    let is_on = false;
    await sql.begin(async (session) => {
      await session`lock table psqlqueue.publish_batches in share mode`;
      moving = broker.moveOutbox();
      await until(isWaiting);
      on = update(queue, { encrypt: true }).finally(() => {
        is_on = true;
      });
      // The lock of the switch is asked for behind that of the move.
      await until(async () => {
        const [row] = await sql`
          select count(*)::int as count from pg_locks
          where relation = 'psqlqueue.publish_batches'::regclass and not granted`;
        return row?.["count"] === 2;
      });
      expect(is_on).toBe(false);
    });
    expect((await on)?.status).toBe(200);
    // What is not stored by then is stored sealed.
    const { plain } = await formsOf(queue);
    await moving;
    expect(await formsOf(queue)).toEqual({ sealed: 1 - plain, plain });
  });

  test("off: what is stored can be read, and what comes is plain, from every server", async () => {
    const queue = await createQueue(service, { encrypt: true });
    for (const server of [service, other]) await verbsOf(server).put(queue, { body: "sealed" });
    await update(queue, { encrypt: null });
    for (const server of [other, service]) await verbsOf(server).put(queue, { body: "plain" });
    expect(await formsOf(queue)).toEqual({ sealed: 2, plain: 2 });
    expect(await bodies(queue)).toEqual(["sealed", "sealed", "plain", "plain"]);
  });
});

describe("clients of SQS", () => {
  test("send to it and receive from it as from any queue, both ways, with checksums of what was sent", async () => {
    const md5 = (text: string) => new Bun.CryptoHasher("md5").update(text).digest("hex");
    for (const fifo of [false, true]) {
      const name = uniqueId() + (fifo ? ".fifo" : "");
      const QueueUrl = await sqs.queue(fifo ? { FifoQueue: "true", ContentBasedDeduplication: "true" } : {}, name);
      await update(name, { encrypt: true });
      const group = fifo ? { MessageGroupId: "g" } : {};
      for (const protocol of ["json", "query"] as const) {
        const body = `from ${protocol}`;
        const answer = await sqs.call(protocol, "SendMessage", { QueueUrl, MessageBody: body, ...group });
        expect(answer.text).toContain(md5(body));
      }
      const Entries = [{ Id: "1", MessageBody: "of a batch", ...group }];
      await sqs.call("json", "SendMessageBatch", { QueueUrl, Entries });
      await put(name, { body: "of v1", ...(fifo && { ordering_key: "g" }) });
      expect(await formsOf(name)).toEqual({ sealed: 4, plain: 0 });
      const { body } = await sqs.call("json", "ReceiveMessage", { QueueUrl, MaxNumberOfMessages: 2 });
      expect(body.Messages).toMatchObject([
        { Body: "from json", MD5OfBody: md5("from json") },
        { Body: "from query", MD5OfBody: md5("from query") },
      ]);
      if (!fifo) expect(await bodies(name)).toEqual(["of a batch", "of v1"]);
    }
  });
});

test("an export holds what is stored, and an import takes it as it is", async () => {
  const queue = await createQueue(service, { encrypt: true });
  const id = await put(queue, { body: "secret" });
  const ordered = await put(queue, { body: "secret", ordering_key: "k" });
  let text = "";
  await exportLines(sql, { has_messages: true, queue_ids: [queue], version: "test" }, async (lines) => {
    text += lines;
  });
  expect(text).not.toContain("secret");
  expect(text).toContain(JSON.stringify(`${magic}1:2025:`).slice(1, -1));
  await call("DELETE", `/v1/queues/${queue}`);
  async function* lines() {
    for (const line of text.trimEnd().split("\n")) yield line;
  }
  await importLines(sql, lines(), { on_conflict: "fail", source: "test" }, () => {});
  expect((await call("GET", `/v1/queues/${queue}`)).body.encrypt).toBe(true);
  const taken = (await receive(queue)).map((own) => [own.id, own.body, own.ordering_key]);
  expect(taken.sort()).toEqual([
    [id, "secret", undefined],
    [ordered, "secret", "k"],
  ]);
});

test("a server without a master key finds the queues that it can do nothing for", async () => {
  const queue = await createQueue(service, { encrypt: true });
  expect(await broker.findClosedQueues()).toEqual([]);
  const found = await serverWith().broker.findClosedQueues();
  expect(found.length).toBeGreaterThan(0);
  const rows = await sql`select id from psqlqueue.queues where encrypt`;
  expect(rows.map((row) => row["id"])).toContain(queue);
  expect(rows.map((row) => row["id"])).toEqual(expect.arrayContaining(found));
});
