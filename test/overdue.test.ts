import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { overdueJob } from "../src/background/overdue.ts";
import { createQueue, serviceForFile } from "./harness.ts";
import { verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ receive_limit_max: 100 });
const { elapse, broker, call } = service;
const { put, take, receive, look, stats } = verbsOf(service);

const settings = { ack_deadline_seconds: 30, message_retention_seconds: 100_000 };
/** Once round the table. */
async function walk(): Promise<number> {
  let total = 0;
  for (let place: { queue_no: number; id: string } | undefined; ; ) {
    const { count, next } = await broker.sweepOverdue(place);
    total += count;
    place = next;
    if (next === undefined) return total;
  }
}

describe("the walk round the table", () => {
  test("ends what has expired behind a message that lives longer", async () => {
    const queue = await createQueue(service, settings);
    const old = await put(queue);
    const short = await put(queue, { body: "x", ttl_seconds: 5 });
    await elapse(6);
    await broker.sweepExpired();
    expect((await look(queue, short)).body.state).toBe("expired");
    expect(await walk()).toBe(1);
    const [row] = await service.sql`select outcome from psqlqueue.archived_messages where id = ${short}`;
    expect(row).toEqual({ outcome: "expired" });
    expect((await look(queue, old)).body.state).toBe("ready");
  });

  test("dead-letters what used up its deliveries long ago, and what expired where that is a death", async () => {
    const dead = await createQueue(service, settings);
    const own = { ...settings, dead_queue_id: dead, message_max_deliveries: 1, dead_letter_on_expiry: true };
    const queue = await createQueue(service, own);
    await put(queue);
    await put(queue, { body: "x", ttl_seconds: 5, delay_seconds: 10 });
    await take(queue);
    await elapse(4000);
    expect(await broker.sweepExhausted(60)).toBe(0);
    expect(await walk()).toBe(2);
    const reasons = (await receive(dead)).map(({ dead: past }) => (past as { reason: string }).reason);
    expect(reasons.sort()).toEqual(["expired", "max_deliveries"]);
    expect(await stats(queue)).toMatchObject({ ready: 0, leased: 0, delayed: 0 });
  });

  test("leaves alone what somebody holds, and what is neither expired nor exhausted", async () => {
    const dead = await createQueue(service, settings);
    const queue = await createQueue(service, { ...settings, dead_queue_id: dead, message_max_deliveries: 1 });
    await put(queue, { body: "x", ttl_seconds: 5 });
    const held = await take(queue, "?ack_deadline_seconds=1000");
    await put(queue);
    await put(queue, { body: "x", delay_seconds: 60 });
    await elapse(6);
    expect(await walk()).toBe(0);
    const path = `/v1/queues/${queue}/messages/${held.id}/ack`;
    expect((await call("PUT", path, { lease_token: held.lease_token })).status).toBe(204);
  });

  test("goes on where it stopped, page by page, and finds each of many once", async () => {
    const queue = await createQueue(service, settings);
    await put(queue);
    const messages = Array.from({ length: 1000 }, () => ({ body: "x", ttl_seconds: 5 }));
    for (let i = 0; i < 5; i++) await call("POST", `/v1/queues/${queue}/messages/batch`, { messages });
    await elapse(6);
    const first = await broker.sweepOverdue(undefined);
    expect(first.next).toBeDefined();
    expect(first.count).toBeLessThan(5000);
    expect(first.count + (await walk())).toBe(5000);
    expect(await walk()).toBe(0);
  });

  test("is a job", async () => {
    const queue = await createQueue(service, settings);
    await put(queue);
    const short = await put(queue, { body: "x", ttl_seconds: 5 });
    await elapse(6);
    const job = overdueJob(broker);
    await job.run();
    const [row] = await service.sql`select outcome from psqlqueue.archived_messages where id = ${short}`;
    expect(row).toEqual({ outcome: "expired" });
  });
});

test("an expired message that somebody holds is counted when it ends, and not before", async () => {
  const queue = await createQueue(service, settings);
  await put(queue, { body: "x", ttl_seconds: 5 });
  await take(queue, "?ack_deadline_seconds=100");
  await put(queue, { body: "y", ttl_seconds: 5 });
  await elapse(6);
  expect([await broker.sweepExpired(), await broker.sweepExpired()]).toEqual([1, 0]);
  await elapse(100);
  expect([await broker.sweepExpired(), await broker.sweepExpired()]).toEqual([1, 0]);
});
