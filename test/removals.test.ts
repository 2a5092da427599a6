import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createBroker } from "../src/broker/broker.ts";
import { createQueue, limits, openService, serviceForFile, until } from "./harness.ts";
import { verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ receive_limit_max: 100 });
const { call, broker, sql } = service;
const { publish, put, receive, ack, look } = verbsOf(service);

const no_options = { delay_seconds: null, deliver_at: null, ttl_seconds: null, expires_at: null, dedup_key: null };
const batch = (count: number) =>
  Array.from({ length: count }, () => ({ body: "x", label: null, attributes: null, ...no_options }));

async function publishMany(queue_id: string, count: number): Promise<string[]> {
  const published = await broker.publishBatch(queue_id, batch(count), true);
  return published.map((one) => (one as { id: string }).id);
}

async function fill(queue_id: string, count: number): Promise<void> {
  for (let left = count; left > 0; left -= 1000) await publishMany(queue_id, Math.min(left, 1000));
}

describe("in the background", () => {
  const task = async (id: string) => (await call("GET", `/v1/tasks/${id}`)).body;
  const finish = () => until(async () => (await broker.runTasks()).running === 0);
  const started = async (method: string, path: string) => {
    const answer = await call(method, path);
    expect({ status: answer.status, members: Object.keys(answer.body) }).toEqual({ status: 202, members: ["task_id"] });
    return answer.body.task_id as string;
  };

  test("a purge removes every message", async () => {
    const queue = await createQueue(service);
    const id = await put(queue);
    const task_id = await started("PUT", `/v1/queues/${queue}/purge?async=true`);
    expect(await task(task_id)).toMatchObject({ kind: "purge", queue_id: queue, state: "running", total_estimate: 1 });
    expect((await call("PUT", `/v1/queues/${queue}/purge?async=true`)).body).toMatchObject({ code: 12 });
    await finish();
    expect(await task(task_id)).toMatchObject({ state: "completed", error: null });
    expect((await look(queue, id)).status).toBe(404);
  });

  test("a cleanup removes what has ended", async () => {
    const queue = await createQueue(service);
    const [acked, ready] = [await put(queue), await put(queue)];
    await ack(queue, acked);
    const task_id = await started("PUT", `/v1/queues/${queue}/cleanup?async=true`);
    await finish();
    expect(await task(task_id)).toMatchObject({ kind: "cleanup", state: "completed" });
    expect([(await look(queue, acked)).status, (await look(queue, ready)).status]).toEqual([404, 200]);
  });

  test("a delete makes the queue unknown at once, and removes its messages by and by", async () => {
    const queue = await createQueue(service);
    const id = await put(queue);
    const task_id = await started("DELETE", `/v1/queues/${queue}?async=true`);
    for (const path of ["", "/messages", "/stats", `/messages/${id}`]) {
      expect((await call("GET", `/v1/queues/${queue}${path}`)).body.code).toBe(5);
    }
    expect(await task(task_id)).toMatchObject({ kind: "delete", queue_id: queue, state: "running" });
    await finish();
    expect(await task(task_id)).toMatchObject({ state: "completed" });
    expect(await sql`select from psqlqueue.messages where id = ${id}`).toHaveLength(0);
  });

  test("a task of a queue that was deleted meanwhile fails, and says why", async () => {
    const queue = await createQueue(service);
    const task_id = await started("PUT", `/v1/queues/${queue}/purge?async=true`);
    await call("DELETE", `/v1/queues/${queue}`);
    await finish();
    expect(await task(task_id)).toMatchObject({ state: "failed", error: "queue not found: it was deleted meanwhile" });
  });

  test("a purge leaves what was published after it was asked for, also when a server restarts between its steps", async () => {
    const queue = await createQueue(service);
    await fill(queue, 2500);
    const old = await put(queue, { body: "x", dedup_id: "old" });
    const task_id = await started("PUT", `/v1/queues/${queue}/purge?async=true`);
    const younger = await publishMany(queue, 5);
    await put(queue, { body: "x", dedup_id: "new" });
    expect((await put(queue, { body: "x", dedup_id: "old" })) === old).toBe(true);
    // Another server goes on where the first one stood.
    await broker.runTasks();
    const other = createBroker(service.db, limits);
    await until(async () => (await other.runTasks()).running === 0);
    expect(await task(task_id)).toMatchObject({ state: "completed", moved: 2502 });
    expect(
      await sql`select count(*)::int from psqlqueue.messages as m join psqlqueue.queues as q on q.no = m.queue_no
      where q.id = ${queue}`,
    ).toMatchObject([{ count: 6 }]);
    for (const id of younger) expect((await look(queue, id)).status).toBe(200);
    const again = await publish(queue, { body: "x", dedup_id: "new" });
    expect(again.headers.get("x-deduplicated")).toBe("true");
    expect((await publish(queue, { body: "x", dedup_id: "old" })).headers.has("x-deduplicated")).toBe(false);
  });

  test("a purge removes what is acked before its turn comes, and leaves a younger one that is acked", async () => {
    const queue = await createQueue(service);
    const old = await put(queue);
    await started("PUT", `/v1/queues/${queue}/purge?async=true`);
    const young = await put(queue);
    await ack(queue, old);
    await ack(queue, young);
    await finish();
    expect([(await look(queue, old)).status, (await look(queue, young)).status]).toEqual([404, 200]);
  });

  test("a cleanup leaves what is acked after it was asked for", async () => {
    const queue = await createQueue(service);
    const [first, second] = [await put(queue), await put(queue)];
    await ack(queue, first);
    await started("PUT", `/v1/queues/${queue}/cleanup?async=true`);
    await ack(queue, second);
    await finish();
    expect([(await look(queue, first)).status, (await look(queue, second)).status]).toEqual([404, 200]);
  });

  test("a purge knows its queue by number: one of the same name that is made meanwhile keeps its messages", async () => {
    const queue = await createQueue(service);
    await put(queue);
    for (const kind of ["purge", "cleanup"]) await started("PUT", `/v1/queues/${queue}/${kind}?async=true`);
    await call("DELETE", `/v1/queues/${queue}`);
    await call("POST", "/v1/queues", { id: queue, ack_deadline_seconds: 30, message_retention_seconds: 3600 });
    const ids = await publishMany(queue, 7);
    await ack(queue, ids[0] ?? "");
    await finish();
    for (const id of ids) expect((await look(queue, id)).status).toBe(200);
  });

  test("a redrive knows its destination by number too", async () => {
    const [queue, target] = [await createQueue(service), await createQueue(service)];
    await put(queue);
    const asked = { destination_queue_id: target };
    const { task_id } = (await call("POST", `/v1/queues/${queue}/redrive`, asked)).body;
    await call("DELETE", `/v1/queues/${target}`);
    await call("POST", "/v1/queues", { id: target, ack_deadline_seconds: 30, message_retention_seconds: 3600 });
    await finish();
    expect(await task(task_id)).toMatchObject({ state: "completed", moved: 0, failed: 1 });
    expect(await receive(target)).toEqual([]);
  });

  test("a purge is cancelled between its steps, and holds up no other task", async () => {
    const [queue, other] = [await createQueue(service), await createQueue(service)];
    await fill(queue, 60_000);
    await put(other);
    const task_id = await started("PUT", `/v1/queues/${queue}/purge?async=true`);
    const other_id = await started("PUT", `/v1/queues/${other}/purge?async=true`);
    await broker.runTasks();
    const { state, moved, total_estimate } = await task(task_id);
    expect({ state, total_estimate }).toEqual({ state: "running", total_estimate: 60_000 });
    expect(moved).toBeGreaterThan(0);
    expect(await task(other_id)).toMatchObject({ state: "completed", moved: 1 });
    expect((await call("DELETE", `/v1/tasks/${task_id}`)).status).toBe(204);
    await finish();
    const left = await sql`select count(*)::int as count from psqlqueue.messages as m
      join psqlqueue.queues as q on q.no = m.queue_no where q.id = ${queue}`;
    expect(await task(task_id)).toMatchObject({ state: "cancelled", moved: 60_000 - left[0]?.["count"] });
    expect(left[0]?.["count"]).toBeGreaterThan(0);
  });

  test("what takes too long at once goes on as a task, and a second call joins it", async () => {
    const hasty = await openService({ removal_ms_max: 0, ...(service.url !== "" && { url: service.url }) });
    try {
      const queue = await createQueue(hasty);
      await hasty.broker.publishBatch(queue, batch(2), true);
      const first = await hasty.call("PUT", `/v1/queues/${queue}/purge`);
      await hasty.broker.publishBatch(queue, batch(1), true);
      const second = await hasty.call("PUT", `/v1/queues/${queue}/purge`);
      expect([first.status, second.status, second.body]).toEqual([202, 202, first.body]);
      await until(async () => (await hasty.broker.runTasks()).running === 0);
      expect((await hasty.call("GET", `/v1/queues/${queue}/messages/peek?state=ready`)).body).toEqual({ data: [] });
      expect((await hasty.call("DELETE", `/v1/queues/${queue}`)).status).toBe(202);
      await until(async () => (await hasty.broker.runTasks()).running === 0);
    } finally {
      await hasty.close();
    }
  });
});
