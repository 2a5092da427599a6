// Pages of rows that take longer than a statement may: large bodies, or keys behind what others have left dead.

import { expect, setDefaultTimeout, test } from "bun:test";
import { createPages } from "../src/broker/pages.ts";
import { DatabaseError } from "../src/errors.ts";
import { createQueue, serviceForFile, until } from "./harness.ts";
import { refused, verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ statement_timeout_ms: 1000, receive_limit_max: 1000 });
const { call, sql, broker, elapse } = service;
const { stats } = verbsOf(service);
const count = 1000;

// Each row that is deleted or moved takes 2 ms: a page of a thousand takes twice what a statement may.
await sql`
  create function slow_row() returns trigger language plpgsql as $$
  begin
    perform pg_sleep(0.002);
    return coalesce(new, old);
  end $$`;
const slowly = (events: string) =>
  sql.unsafe(`
    drop trigger if exists slow_row on psqlqueue.messages;
    create trigger slow_row before ${events} on psqlqueue.messages for each row execute function slow_row()`);

async function filled(settings: object = {}): Promise<{ queue: string; dead: string }> {
  const dead = await createQueue(service, { archive_retention_seconds: 3600 });
  const queue = await createQueue(service, { dead_queue_id: dead, message_max_deliveries: 3, ...settings });
  const messages = Array.from({ length: count }, (_, i) => ({ body: String(i) }));
  expect((await call("POST", `/v1/queues/${queue}/messages/batch`, { messages })).status).toBe(201);
  return { queue, dead };
}

async function bury(queue: string): Promise<void> {
  const { data } = (await call("GET", `/v1/queues/${queue}/messages?limit=${count}`)).body;
  const items = data.map(({ id, lease_token }: { id: string; lease_token: string }) => ({
    id,
    lease_token,
    dead_letter: true,
  }));
  expect((await call("POST", `/v1/queues/${queue}/nack`, { items })).status).toBe(200);
}

test("a purge takes smaller ones", async () => {
  const { queue } = await filled();
  await slowly("delete");
  expect((await call("PUT", `/v1/queues/${queue}/purge`)).status).toBe(204);
  expect(await stats(queue)).toMatchObject({ ready: 0 });
});

test("expired messages are archived", async () => {
  const { queue } = await filled({ message_retention_seconds: 60, archive_retention_seconds: 3600 });
  await elapse(61);
  await slowly("delete");
  await broker.sweepExpired();
  const [row] = await sql`
    select count(*)::int as count
    from psqlqueue.messages as message
    join psqlqueue.queues as queue on queue.no = message.queue_no
    where queue.id = ${queue}`;
  expect(row).toEqual({ count: 0 });
});

test("a redrive, and a deletion of what matches, come to their end", async () => {
  const { queue, dead } = await filled();
  await slowly("delete");
  await bury(queue);
  await slowly("update or delete");
  const { task_id } = (await call("POST", `/v1/queues/${dead}/redrive`, {})).body;
  const task = async (id: string) => (await call("GET", `/v1/tasks/${id}`)).body;
  await until(async () => !(await broker.runTasks()).is_busy);
  expect(await task(task_id)).toMatchObject({ state: "completed", moved: count, failed: 0 });
  const deletion = await call("POST", `/v1/queues/${queue}/messages/matching`, { action: "delete", state: "ready" });
  expect(deletion.status).toBe(202);
  await until(async () => !(await broker.runTasks()).is_busy);
  expect(await task(deletion.body.task_id)).toMatchObject({ state: "completed", moved: count });
});

test("what is asked for at once, and takes too long, is refused in words, and undone", async () => {
  const queue = await createQueue(service);
  await slowly("insert");
  const messages = Array.from({ length: count }, () => ({ body: "x" }));
  const answer = await call("POST", `/v1/queues/${queue}/messages/batch`, { messages });
  const details = expect.stringMatching(
    /longer than PSQLQUEUE_DATABASE_STATEMENT_TIMEOUT_MS allows.* ask for less at once \(57014\)$/,
  );
  expect([answer.status, answer.body]).toEqual([503, refused(19, "service unavailable", details)]);
  expect(await stats(queue)).toMatchObject({ ready: 0 });
});

const canceled = () => new DatabaseError("timeout", "57014", "x");

test("pages become smaller by time only, down to a row, and larger again", async () => {
  const pages = createPages(1000);
  const limits: number[] = [];
  const work = (bearable: number) => async (limit: number) => {
    limits.push(limit);
    if (limit <= bearable) return limit;
    await Bun.sleep(20);
    throw canceled();
  };
  expect(await pages(work(20))).toBe(16);
  expect(await pages(work(1000))).toBe(32);
  expect(await pages(work(1000))).toBe(64);
  expect(limits).toEqual([1000, 125, 16, 32, 64]);
  expect(await pages(work(0)).catch((error) => error.code)).toBe("57014");
  expect(limits.slice(5)).toEqual([128, 16, 2, 1]);
  // One that took half of that time stays: twice as many would take all of it.
  const pausing = async (limit: number) => {
    limits.push(limit);
    await Bun.sleep(12);
  };
  for (let i = 0; i < 3; i++) await pages(pausing);
  expect(limits.slice(9)).toEqual([1, 1, 1]);
  const failing = () => Promise.reject(new DatabaseError("timeout", "55P03", "x"));
  expect(await pages(failing).catch((error) => error.code)).toBe("55P03");
});
