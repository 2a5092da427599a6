// An id that stands in a queue and in its dead-letter queue: what was exported is redriven, and then imported.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { overdueJob } from "../src/background/overdue.ts";
import { addObserver, type Observation } from "../src/observe.ts";
import { createQueue, serviceForFile, until } from "./harness.ts";
import { exportText, importText } from "./transferring.ts";
import { verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ receive_limit_max: 100 });
const { call, elapse, broker, sql } = service;
const { put, receive, take, nack, look, bodies } = verbsOf(service);

const redrive = (queue: string, query = "?wait=true") =>
  call("POST", `/v1/queues/${queue}/redrive${query}`, { limit: 1000 });

/** A queue and its dead-letter queue that both have the message, with other bodies; its id. */
async function twins(own: Record<string, unknown> = {}, message: Record<string, unknown> = {}) {
  const dead = await createQueue(service);
  const queue = await createQueue(service, { dead_queue_id: dead, message_max_deliveries: 1, ...own });
  const id = await put(queue, { body: "old", ...message });
  await take(queue);
  await nack(queue, id);
  const text = await exportText(service, [dead]);
  expect((await redrive(dead)).status).toBe(200);
  expect((await importText(service, text)).imported.message).toBe(1);
  await sql`update psqlqueue.messages set body = 'new' where id = ${id} and dead is null`;
  return { queue, dead, id };
}

/** Both messages are in the dead-letter queue, and the one that came later tells the id that it had. */
async function expectBoth(dead: string, id: string, event: string) {
  const found = await receive(dead, "?limit=10&max_per_key=10");
  expect(found.map((message) => message.body).sort()).toEqual(["new", "old"]);
  expect(found.find(({ body }) => body === "old")?.id).toBe(id);
  const renamed = found.find(({ body }) => body === "new")?.id ?? "";
  expect(renamed).not.toBe(id);
  const { events } = (await look(dead, renamed)).body;
  const told = events.map((one: Record<string, unknown>) => [one["event"], one["error"]]);
  expect(told).toContainEqual(["renamed", id]);
  expect(told.map(([name]: string[]) => name)).toContain(event);
}

const orders: [string, Record<string, unknown>][] = [
  ["without order", {}],
  ["with an ordering key", { ordering_key: "k" }],
];

describe.each(orders)("a message %s comes to a queue that has its id, and gets one of its own", (_, message) => {
  test("by a nack, which holds up no other of its batch", async () => {
    const { queue, dead, id } = await twins({}, message);
    const other = await put(queue, { body: "other" });
    const items = (await receive(queue, "?limit=10")).map(({ id, lease_token }) => ({ id, lease_token }));
    expect(items.map((item) => item.id).sort()).toEqual([id, other].sort());
    const { body } = await call("POST", `/v1/queues/${queue}/nack`, { items });
    expect(body.results.map(({ status }: { status: string }) => status)).toEqual(["ok", "ok"]);
    await call("DELETE", `/v1/queues/${dead}/messages/${other}`);
    await expectBoth(dead, id, "nacked");
  });

  test("by a receive that finds its deliveries used up", async () => {
    const { queue, dead, id } = await twins({}, message);
    await take(queue);
    await elapse(31);
    expect(await receive(queue)).toEqual([]);
    await expectBoth(dead, id, "dead_lettered");
  });

  test("by the sweeps", async () => {
    const first = await twins({}, message);
    await take(first.queue);
    await elapse(31);
    expect(await broker.sweepExhausted(60)).toBe(1);
    await expectBoth(first.dead, first.id, "dead_lettered");
    const second = await twins({ dead_letter_on_expiry: true, message_retention_seconds: 100 }, message);
    await sql`update psqlqueue.messages set expires_at = now() where id = ${second.id} and dead is null`;
    expect(await broker.sweepOverdue(undefined)).toMatchObject({ count: 1, failures: [] });
    await expectBoth(second.dead, second.id, "dead_lettered");
  });

  test("by a redrive, which ends", async () => {
    const { queue, dead, id } = await twins({}, message);
    for (const body of ["a", "b"]) {
      const other = await put(queue, { body });
      await nack(queue, other, { dead_letter: true });
    }
    const { status, body } = await redrive(dead);
    expect({ status, moved: body.moved }).toEqual({ status: 200, moved: 3 });
    const [task] = (await call("GET", `/v1/tasks?queue_id=${dead}`)).body.data;
    expect(task).toMatchObject({ state: "completed", moved: 3, failed: 0 });
    expect((await look(queue, id)).body.body).toBe("new");
    const found: string[] = [];
    for (let round = 0; round < 2; round++) {
      for (const one of await receive(queue, "?limit=10")) {
        found.push(one.body);
        await call("PUT", `/v1/queues/${queue}/messages/${one.id}/ack`, { lease_token: one.lease_token });
      }
    }
    expect(found.sort()).toEqual(["a", "b", "new", "old"]);
  });
});

test("a blocked key names the message that blocks it by its new id", async () => {
  const { queue, dead, id } = await twins({ on_dead: "block" }, { ordering_key: "k" });
  await put(queue, { body: "next", ordering_key: "k" });
  const { lease_token } = await take(queue);
  await nack(queue, id, { lease_token });
  expect(await bodies(queue)).toEqual([]);
  const [key] = (await call("GET", `/v1/queues/${queue}/keys`)).body.data;
  const blocking = await look(dead, key.dead_message_id);
  expect(blocking.body.body).toBe("new");
});

test("two messages of one id come to a queue at the same time", async () => {
  const dead = await createQueue(service);
  const own = { dead_queue_id: dead, message_max_deliveries: 1 };
  const queues = [await createQueue(service, own), await createQueue(service, own), await createQueue(service, own)];
  const ids = await Promise.all(Array.from({ length: 10 }, (_, i) => put(queues[0] as string, { body: `0 ${i}` })));
  const text = await exportText(service, [queues[0] as string]);
  for (const [i, queue] of queues.entries()) {
    if (i > 0) await importText(service, text.replaceAll(queues[0] as string, queue).replaceAll('"0 ', `"${i} `));
  }
  const answers = await Promise.all(queues.flatMap((queue) => ids.map((id) => nack(queue, id, { dead_letter: true }))));
  expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 204));
  const found = await bodies(dead, "?limit=100");
  expect(found.sort()).toEqual(queues.flatMap((_, i) => ids.map((__, k) => `${i} ${k}`)).sort());
});

describe("where the database refuses to move messages of one queue", () => {
  /** Moves of these bodies fail, whatever moves them. */
  async function refuseMoves() {
    await sql`
      create or replace function public.refuse_move() returns trigger language plpgsql as
      $$ begin raise exception 'not this one' using errcode = '23514'; end $$`;
    await sql`create or replace trigger refuse_move before update on psqlqueue.messages for each row
      when (new.queue_no <> old.queue_no and new.body = 'refused') execute function public.refuse_move()`;
  }
  const allowMoves = () => sql`drop trigger refuse_move on psqlqueue.messages`;

  test("sweeps do their work in the others, and the scan of the table goes on behind it", async () => {
    await refuseMoves();
    const observed: Observation[] = [];
    const forget = addObserver((observation) => observed.push(observation));
    try {
      const dead = await createQueue(service);
      const own = { dead_queue_id: dead, message_max_deliveries: 1 };
      const [first, second, third] = [await createQueue(service, own), await createQueue(service, own), dead];
      for (const [queue, body] of [
        [first, "refused"],
        [second, "x"],
      ] as const) {
        await put(queue, { body });
        await take(queue);
      }
      await elapse(31);
      expect(await broker.sweepExhausted(60).catch((error) => error.code)).toBe("23514");
      expect(await bodies(third)).toEqual(["x"]);
      await put(second, { body: "y" });
      await take(second);
      await elapse(200);
      await overdueJob(broker).run();
      expect(observed).toContainEqual({
        kind: "job",
        job: "overdue messages",
        error: expect.objectContaining({ code: "23514" }),
      });
      expect(await bodies(third)).toContain("y");
    } finally {
      forget();
      await allowMoves();
    }
  });

  test.each([true, false])("a redrive ends as failed, and the next one can start", async (is_awaited) => {
    const dead = await createQueue(service);
    const queue = await createQueue(service, { dead_queue_id: dead, message_max_deliveries: 1 });
    const id = await put(queue, { body: "refused" });
    await nack(queue, id, { dead_letter: true });
    await refuseMoves();
    const started = await redrive(dead, is_awaited ? "?wait=true" : "");
    expect(started.status).toBe(is_awaited ? 500 : 202);
    if (!is_awaited) await until(async () => (await broker.runTasks().catch(() => ({ running: 1 }))).running === 0);
    const [task] = (await call("GET", `/v1/tasks?queue_id=${dead}`)).body.data;
    expect(task).toMatchObject({
      state: "failed",
      moved: 0,
      error: "the database refused a step of it (SQLSTATE 23514); the server's log tells more",
    });
    await allowMoves();
    expect((await redrive(dead)).body.moved).toBe(1);
    expect(await bodies(queue)).toEqual(["refused"]);
  });
});
