import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createBroker } from "../src/broker/broker.ts";
import { createQueue, limits, serviceForFile, uniqueId, until } from "./harness.ts";
import { refused, verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ receive_limit_max: 100 });
const { call, elapse, broker } = service;
const { put, receive, take, nack, look, bodies, stats } = verbsOf(service);

const invalid = (details: string) => refused(3, "request validation failed", details);
const redrive = (queue: string, body: Record<string, unknown> = {}, query = "") =>
  call("POST", `/v1/queues/${queue}/redrive${query}`, body);
const task = async (id: string) => (await call("GET", `/v1/tasks/${id}`)).body;

/** Runs the job of tasks until nothing runs any more. */
const finish = () => until(async () => (await broker.runTasks()).running === 0);

async function pair(settings: Record<string, unknown> = {}) {
  const dead = await createQueue(service);
  const queue = await createQueue(service, { dead_queue_id: dead, message_max_deliveries: 3, ...settings });
  return { queue, dead };
}

/** Publishes messages and rejects them. */
async function bury(queue: string, messages: Record<string, unknown>[]): Promise<string[]> {
  const batch = await call("POST", `/v1/queues/${queue}/messages/batch`, { messages });
  const ids = batch.body.data.map((one: { id: string }) => one.id);
  const items = ids.map((id: string) => ({ id, dead_letter: true }));
  expect((await call("POST", `/v1/queues/${queue}/nack`, { items, error: "boom" })).status).toBe(200);
  return ids;
}

const numbered = (count: number) => Array.from({ length: count }, (_, i) => ({ body: String(i) }));

describe("redrive", () => {
  test("moves messages back to where they came from, as they were, and says so", async () => {
    const { queue, dead } = await pair({ message_retention_seconds: 200 });
    const id = await put(queue, { body: "b", label: "l", attributes: { k: "v" }, dedup_id: "once" });
    const { delivery_attempts: _, lease_token: __, lease_expires_at: ___, ...before } = await take(queue);
    await nack(queue, id, { dead_letter: true, error: "boom" });
    await elapse(150);
    const started = await redrive(dead);
    expect({ status: started.status, members: Object.keys(started.body) }).toEqual({
      status: 202,
      members: ["task_id"],
    });
    const running = await task(started.body.task_id);
    const { task_id } = started.body;
    const shape = { id: task_id, kind: "redrive", queue_id: dead, failed: 0, total_estimate: 1, error: null };
    expect(running).toEqual({
      ...shape,
      state: "running",
      moved: 0,
      created_at: expect.stringMatching(/Z$/),
      finished_at: null,
    });
    await finish();
    expect(await task(task_id)).toEqual({
      ...running,
      state: "completed",
      moved: 1,
      finished_at: expect.stringMatching(/Z$/),
    });
    expect(await receive(dead)).toEqual([]);
    // Its retention starts anew, and its own dedup_id does not stop it.
    await elapse(150);
    const after = await take(queue);
    const { lease_token, lease_expires_at, ...rest } = after;
    expect(lease_token).not.toBe(lease_expires_at);
    const created_at = rest as unknown as { created_at: string };
    expect(rest).toEqual({ ...before, delivery_attempts: 1, created_at: created_at.created_at } as never);
    const { expires_at: ____, ...seen } = (await look(queue, id)).body;
    expect(Object.keys(seen)).not.toContainAnyValues(["dead", "last_error"]);
  });

  test("moves to a named queue, also what was published there directly", async () => {
    const { queue, dead } = await pair();
    const [buried] = await bury(queue, numbered(1));
    const direct = await put(dead, { body: "direct" });
    expect((await redrive(dead, { limit: 10 }, "?wait=true")).body).toEqual({ moved: 1 });
    expect((await look(queue, buried as string)).status).toBe(200);
    expect((await look(dead, direct)).status).toBe(200);
    const other = await createQueue(service);
    const options = { destination_queue_id: other, limit: 10 };
    expect((await redrive(dead, options, "?wait=true")).body).toEqual({ moved: 1 });
    expect((await take(other)).id).toBe(direct);
  });

  test("takes only what matches", async () => {
    const { queue, dead } = await pair();
    const second = await createQueue(service, { dead_queue_id: dead, message_max_deliveries: 1 });
    await bury(queue, [{ body: "a", label: "A" }, { body: "b", label: "B" }, { body: "c" }]);
    await put(second, { body: "spent", label: "A" });
    await take(second);
    await elapse(31);
    expect(await receive(second)).toEqual([]);
    const only = async (options: Record<string, unknown>) => {
      const destination_queue_id = await createQueue(service);
      const wanted = { ...options, destination_queue_id, limit: 100 };
      expect((await redrive(dead, wanted, "?wait=true")).status).toBe(200);
      return await bodies(destination_queue_id);
    };
    expect(await only({ label: "B" })).toEqual(["b"]);
    expect(await only({ reason: "max_deliveries" })).toEqual(["spent"]);
    expect(await only({ reason: "expired" })).toEqual([]);
    expect(await only({ source_queue_id: second })).toEqual([]);
    expect(await only({ source_queue_id: queue, reason: "rejected", label: "A" })).toEqual(["a"]);
    expect(await only({})).toEqual(["c"]);
  });

  test("stops at its limit, counted in what it moved", async () => {
    const { queue, dead } = await pair();
    await bury(
      queue,
      numbered(1000).map((one) => ({ ...one, label: "other" })),
    );
    await bury(
      queue,
      numbered(4).map((one) => ({ ...one, label: "wanted" })),
    );
    expect((await redrive(dead, { label: "wanted", limit: 3 }, "?wait=true")).body).toEqual({ moved: 3 });
    expect(await bodies(queue)).toEqual(["0", "1", "2"]);
    expect((await redrive(dead, { label: "wanted", limit: 3 }, "?wait=true")).body).toEqual({ moved: 1 });
  });

  test("delays, and keeps the count of deliveries when asked to", async () => {
    const { queue, dead } = await pair({ message_max_deliveries: 1 });
    const id = await put(queue);
    await take(queue);
    await nack(queue, id);
    const options = { delay_seconds: 60, reset_attempts: false, limit: 1 };
    expect((await redrive(dead, options, "?wait=true")).body).toEqual({ moved: 1 });
    expect((await look(queue, id)).body).toMatchObject({ delivery_attempts: 1 });
    expect(await receive(queue)).toEqual([]);
    await elapse(61);
    // At its maximum already: dead again.
    expect(await receive(queue)).toEqual([]);
    expect((await take(dead)).dead).toMatchObject({ attempts: 1, reason: "max_deliveries" });
  });

  test("passes over what somebody holds, and moves it when its lease is over", async () => {
    const { queue, dead } = await pair();
    const [held, free] = await bury(queue, numbered(2));
    await take(dead);
    expect((await redrive(dead, { limit: 10 }, "?wait=true")).body).toEqual({ moved: 1 });
    expect((await take(queue)).id).toBe(free as string);
    await elapse(31);
    expect((await redrive(dead, { limit: 10 }, "?wait=true")).body).toEqual({ moved: 1 });
    expect((await look(queue, held as string)).status).toBe(200);
  });

  test("counts what has lost its source as failed, and leaves it", async () => {
    const { queue, dead } = await pair();
    const other = await createQueue(service, { dead_queue_id: dead, message_max_deliveries: 3 });
    const [orphan] = await bury(queue, numbered(1));
    await bury(other, numbered(1));
    await call("DELETE", `/v1/queues/${queue}`);
    const { task_id } = (await redrive(dead)).body;
    await finish();
    expect(await task(task_id)).toMatchObject({ state: "completed", moved: 1, failed: 1 });
    expect((await look(dead, orphan as string)).body.dead.source_queue_id).toBe(queue);
  });

  test("into a closed queue fails, and moves nothing", async () => {
    const { queue, dead } = await pair();
    await bury(queue, numbered(3));
    await call("PUT", `/v1/queues/${queue}/pause`, { publish: true, consume: false });
    const awaited = await redrive(dead, { limit: 10 }, "?wait=true");
    expect({ status: awaited.status, body: awaited.body }).toEqual({ status: 409, body: refused(17, "queue closed") });
    const { task_id } = (await redrive(dead)).body;
    await finish();
    const failed = await task(task_id);
    expect(failed).toMatchObject({ state: "failed", moved: 0, error: expect.stringMatching(/^queue closed/) });
    expect((await stats(dead)).dead).toBe(3);
    await call("PUT", `/v1/queues/${queue}/resume`);
    expect((await redrive(dead, { limit: 10 }, "?wait=true")).body).toEqual({ moved: 3 });
  });

  test("refuses what it cannot do", async () => {
    const queue = await createQueue(service);
    expect(await redrive(uniqueId())).toMatchObject({ status: 404, body: { code: 5 } });
    expect(await redrive(queue, { destination_queue_id: uniqueId() })).toMatchObject({
      status: 404,
      body: { code: 5 },
    });
    expect((await redrive(queue, { reason: "x" })).body).toEqual(
      invalid("reason: must be one of max_deliveries, rejected, expired."),
    );
    expect((await redrive(queue, { limit: 0 })).body).toEqual(invalid("limit: must be no less than 1."));
    expect((await redrive(queue, { rate_per_second: 0 })).body.code).toBe(3);
    expect((await redrive(queue, { rate_per_second: 1001 })).body).toEqual(
      invalid("rate_per_second: must be no greater than 1000."),
    );
    expect((await redrive(queue, { delay_seconds: 31_536_001 })).body.code).toBe(3);
    expect((await redrive(queue, { reset_attempts: 1 })).body.code).toBe(2);
    expect((await redrive(queue, {}, "?wait=true")).body).toEqual(invalid("limit: cannot be blank."));
    expect((await redrive(queue, { limit: 1001 }, "?wait=true")).body).toEqual(
      invalid("limit: must be no greater than 1000."),
    );
    expect((await redrive(queue, { limit: 1, rate_per_second: 1 }, "?wait=true")).body).toEqual(
      invalid("rate_per_second: must not be given together with wait."),
    );
  });
});

describe("a task", () => {
  test("is alone on its queue", async () => {
    const { queue, dead } = await pair();
    await bury(queue, numbered(2));
    const { task_id } = (await redrive(dead, { rate_per_second: 1 })).body;
    const second = await redrive(dead);
    expect({ status: second.status, code: second.body.code }).toEqual({ status: 409, code: 12 });
    expect((await redrive(queue)).status).toBe(202);
    await call("DELETE", `/v1/tasks/${task_id}`);
    expect((await redrive(dead, { limit: 10 }, "?wait=true")).body).toEqual({ moved: 2 });
    await finish();
  });

  test("can be cancelled: what was moved stays moved, what has ended stays as it is", async () => {
    const { queue, dead } = await pair();
    await bury(queue, numbered(1000));
    await bury(queue, numbered(1000));
    const { task_id } = (await redrive(dead)).body;
    expect((await broker.runTasks()).is_busy).toBe(true);
    expect((await call("DELETE", `/v1/tasks/${task_id}`)).status).toBe(204);
    await finish();
    const cancelled = await task(task_id);
    expect(cancelled).toMatchObject({ state: "cancelled", moved: 1000, finished_at: expect.stringMatching(/Z$/) });
    expect([(await stats(queue)).ready, (await stats(dead)).dead]).toEqual([1000, 1000]);
    expect((await call("DELETE", `/v1/tasks/${task_id}`)).status).toBe(204);
    expect(await task(task_id)).toEqual(cancelled);
    for (const method of ["GET", "DELETE"]) {
      expect(await call(method, "/v1/tasks/none")).toMatchObject({ status: 404, body: refused(21, "task not found") });
    }
  });

  test("is listed, newest first, a page at a time", async () => {
    const { queue, dead } = await pair();
    await bury(queue, numbered(1));
    const ids: string[] = [];
    for (let i = 0; i < 3; i++) {
      ids.unshift((await redrive(dead)).body.task_id);
      await finish();
    }
    const page = (await call("GET", "/v1/tasks?limit=2")).body;
    expect(page).toEqual({ data: [await task(ids[0] ?? ""), await task(ids[1] ?? "")], limit: 2 });
    expect((await call("GET", "/v1/tasks?limit=1&offset=2")).body).toEqual({
      data: [await task(ids[2] ?? "")],
      offset: 2,
      limit: 1,
    });
    expect((await call("GET", "/v1/tasks?limit=x")).status).toBe(400);
  });

  test("moves each message exactly once, whoever runs it, and in the order of publication", async () => {
    const { queue, dead } = await pair();
    for (let i = 0; i < 4; i++) await bury(queue, numbered(1000));
    // Another server on the same database: as after a restart, or a change of the leader in the middle of a step.
    const other = createBroker(service.db, limits);
    const { task_id } = (await redrive(dead)).body;
    await broker.runTasks();
    await Promise.all([other.runTasks(), broker.runTasks(), other.runTasks(), broker.runTasks()]);
    await finish();
    expect(await task(task_id)).toMatchObject({ state: "completed", moved: 4000, failed: 0 });
    expect([(await stats(queue)).ready, (await stats(dead)).ready]).toEqual([4000, 0]);
  });

  test("and a consumer never both get a message", async () => {
    const { queue, dead } = await pair();
    await bury(queue, numbered(1000));
    const [moved, ...held] = await Promise.all([
      redrive(dead, { limit: 1000 }, "?wait=true"),
      ...Array.from({ length: 5 }, () => receive(dead, "?limit=100")),
    ]);
    const taken = held.flat().map(({ id }) => id);
    expect(moved.body.moved + taken.length).toBeLessThanOrEqual(1000);
    for (const id of taken) expect((await look(dead, id)).body.state).toBe("leased");
    expect((await stats(queue)).ready).toBe(moved.body.moved);
  });

  test("keeps to its rate, however often tasks are run, and also beside a fast one", async () => {
    const [slow, fast] = [await pair(), await pair()];
    await bury(slow.queue, numbered(200));
    await bury(fast.queue, numbered(50));
    const started_ms = performance.now();
    const { task_id } = (await redrive(slow.dead, { rate_per_second: 100 })).body;
    const beside = (await redrive(fast.dead)).body.task_id;
    let most = 0;
    await until(async () => {
      await broker.runTasks();
      const { moved } = await task(task_id);
      most = Math.max(most, moved / ((performance.now() - started_ms) / 1000));
      return moved >= 60;
    });
    expect(most).toBeLessThanOrEqual(100);
    expect((await task(beside)).moved).toBe(50);
    await call("DELETE", `/v1/tasks/${task_id}`);
  });
});
