import { expect, setDefaultTimeout, test } from "bun:test";
import { createCounting, emptyCount, isWhole } from "../src/broker/publish/quotaCounts.ts";
import type { Db } from "../src/db/db.ts";
import { DatabaseError } from "../src/errors.ts";
import { createQueue, serveOn, serviceForFile, until } from "./harness.ts";
import { verbsOf } from "./verbs.ts";

setDefaultTimeout(60_000);

const service = await serviceForFile({ receive_limit_max: 1000 });
const { sql, call } = service;
const { receive, ack } = verbsOf(service);
const quota_exceeded = { code: 18, message: "quota exceeded" };

/** As the counting has it. */
const page_rows_max = 10_000;

/** Stores messages of an hour ago with ids in their order, from place `first` on, as if they had been published. */
const seed = (queue: string, count: number, first = 1) => sql`
  insert into psqlqueue.messages (visible_at, expires_at, created_at, queue_no, id, body)
  select now() - interval '1 hour' + n * interval '1 ms', now() + interval '1 day', now() - interval '1 hour', queue.no,
    '01' || lpad(n::text, 24, '0'), 'xx'
  from psqlqueue.queues as queue, generate_series(${first}::int, ${first + count - 1}::int) as n
  where queue.id = ${queue}`;
const remove = (queue: string, first: number, last: number) => sql`
  delete from psqlqueue.messages
  where queue_no = (select no from psqlqueue.queues where id = ${queue})
    and id between '01' || lpad(${first}::text, 24, '0') and '01' || lpad(${last}::text, 24, '0')`;

/** A server that counts by our leave: each statement that counts is kept, or fails, until it is let go. */
function openCounted() {
  const counts = {
    made: 0,
    held: [] as (() => void)[],
    is_holding: false,
    failure: undefined as DatabaseError | undefined,
  };
  const db: Db = {
    ...service.db,
    async run(name, statement, is_repeatable) {
      if (name === "count_for_quotas") {
        counts.made += 1;
        if (counts.failure !== undefined) throw counts.failure;
        if (counts.is_holding) await new Promise<void>((resolve) => counts.held.push(resolve));
      }
      return await service.db.run(name, statement, is_repeatable);
    },
  };
  const server = serveOn(db);
  const publish = (queue: string, body = "xx") => server.call("POST", `/v1/queues/${queue}/messages`, { body });
  const letGo = () => {
    counts.is_holding = false;
    for (const go of counts.held.splice(0)) go();
  };
  return { ...server, counts, publish, letGo };
}

/** Counts a queue by itself, and tells how many rows each page brought. */
function countingOf(queue: string) {
  const recount = createCounting(service.db);
  const count = emptyCount();
  return {
    count,
    async recount() {
      const pages: number[] = [];
      let depth = count.depth;
      await recount(queue, count, () => {
        pages.push(count.depth - depth);
        depth = count.depth;
      });
      return { pages: pages.length, largest: Math.max(...pages), depth: count.depth, bytes: count.bytes };
    },
  };
}

test("a count reads pages of ten thousand messages at most", async () => {
  const queue = await createQueue(service, { max_depth: 1_000_000 });
  await seed(queue, 45_000);
  const { recount } = countingOf(queue);
  const { pages, largest, ...found } = await recount();
  expect(found).toEqual({ depth: 45_000, bytes: 90_000 });
  expect(pages).toBeGreaterThanOrEqual(5);
  expect(largest).toBeLessThanOrEqual(page_rows_max);
});

test("a count stops at the quota, and goes on when that is raised", async () => {
  for (const [quota, raised] of [
    [{ max_depth: 15_000 }, { max_depth: 60_000 }],
    [{ max_bytes: 30_000 }, { max_bytes: 120_000 }],
  ]) {
    const queue = await createQueue(service, quota);
    await seed(queue, 45_000);
    const { recount, count } = countingOf(queue);
    expect((await recount()).depth).toBeWithin(15_000, 25_001);
    expect(isWhole(count)).toBe(false);
    const settings = { ack_deadline_seconds: 30, message_retention_seconds: 3600 };
    await call("PUT", `/v1/queues/${queue}`, { ...settings, ...raised });
    expect((await recount()).depth).toBe(45_000);
    expect(isWhole(count)).toBe(true);
  }
});

test("a later count finds at once what has changed at the front and at the end, and all of it by and by", async () => {
  const queue = await createQueue(service, { max_depth: 1_000_000 });
  await seed(queue, 120_000);
  const { recount, count } = countingOf(queue);
  await recount();
  await remove(queue, 1, 12_000);
  await remove(queue, 60_000, 60_999);
  await seed(queue, 3000, 120_001);
  // The front of two pages, one that is empty now; two between; the end.
  const { pages, depth } = await recount();
  expect(pages).toBeLessThanOrEqual(8);
  expect(depth).toBeWithin(110_000, 113_001);
  await until(async () => (await recount()).depth === 110_000);
  await remove(queue, 1, 130_000);
  await until(async () => (await recount()).depth === 0);
  expect(count.ranges).toHaveLength(1);
});

test("a publish does not wait for the count of another queue", async () => {
  const server = openCounted();
  const [large, small] = [await createQueue(service, { max_depth: 10 }), await createQueue(service, { max_depth: 10 })];
  server.counts.is_holding = true;
  const held = server.publish(large);
  await until(() => server.counts.held.length === 1);
  server.counts.is_holding = false;
  expect((await server.publish(small)).status).toBe(204);
  expect((await server.publish(small)).status).toBe(204);
  expect(server.counts.held).toHaveLength(1);
  server.letGo();
  expect((await held).status).toBe(204);
});

test("the first count of a queue holds a publish up for a second at most, unless what it has found is enough", async () => {
  const server = openCounted();
  const [roomy, full] = [
    await createQueue(service, { max_depth: 1_000_000 }),
    await createQueue(service, { max_depth: 9000 }),
  ];
  for (const queue of [roomy, full]) await seed(queue, 25_000);
  const started_ms = performance.now();
  server.counts.is_holding = true;
  const held = server.publish(roomy);
  // The first page is read, the second is not.
  await until(() => server.counts.held.length === 1);
  server.counts.held.pop()?.();
  await until(() => server.counts.held.length === 1);
  expect((await held).status).toBe(204);
  expect(performance.now() - started_ms).toBeGreaterThan(900);
  expect((await server.publish(roomy)).status).toBe(204);
  server.counts.is_holding = false;
  expect((await server.publish(full)).body).toEqual(quota_exceeded);
  expect(server.counts.held).toHaveLength(1);
  server.letGo();
});

test("later counts hold no publish up", async () => {
  const server = openCounted();
  const queue = await createQueue(service, { max_depth: 1_000_000 });
  expect((await server.publish(queue)).status).toBe(204);
  server.counts.is_holding = true;
  // Until it is counted again, and while that takes its time.
  const publishWell = async () => (await server.publish(queue)).status === 204;
  await until(async () => (await publishWell()) && server.counts.held.length === 1);
  for (let i = 0; i < 20; i++) expect(await publishWell()).toBe(true);
  expect(server.counts.held).toHaveLength(1);
  server.letGo();
});

test("a count that fails refuses nobody when something is known, and is not tried by each publish", async () => {
  const server = openCounted();
  const [known, unknown] = [
    await createQueue(service, { max_depth: 1_000_000 }),
    await createQueue(service, { max_depth: 10 }),
  ];
  expect((await server.publish(known)).status).toBe(204);
  server.counts.failure = new DatabaseError("timeout", "57014", "count_for_quotas");
  const made = server.counts.made;
  await until(async () => {
    expect((await server.publish(known)).status).toBe(204);
    return server.counts.made > made;
  });
  for (let i = 0; i < 20; i++) expect((await server.publish(known)).status).toBe(204);
  const made_then = server.counts.made;
  const started_ms = performance.now();
  for (let i = 0; i < 20; i++) expect((await server.publish(unknown)).status).toBe(503);
  const seconds = Math.ceil((performance.now() - started_ms) / 1000);
  // One of each queue in a second.
  expect(server.counts.made - made_then).toBeLessThanOrEqual(2 * seconds);
  server.counts.failure = undefined;
  await until(async () => (await server.publish(unknown)).status === 204, 5000);
});

test("a large queue that is full lets in again what consumers make room for, soon", async () => {
  const queue = await createQueue(service, { max_depth: 90_000 });
  await seed(queue, 90_000);
  const publish = () => call("POST", `/v1/queues/${queue}/messages`, { body: "xx" });
  await until(async () => (await publish()).status === 429);
  // More than was let in while a slow machine counted for the first time.
  for (const { id } of await receive(queue, "?limit=100")) await ack(queue, id);
  await until(async () => (await publish()).status === 204, 5000);
});
