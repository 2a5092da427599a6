import { afterAll, describe, expect, setDefaultTimeout, setSystemTime, test } from "bun:test";
import type { Broker } from "../src/broker/broker.ts";
import { createMetrics } from "../src/metrics.ts";
import { addObserver, observe } from "../src/observe.ts";
import { createQueue, is_embedded, openService, serviceForFile } from "./harness.ts";
import { verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ receive_limit_max: 100 });
const { call, elapse, broker } = service;
const { put, take, receive, ack, nack } = verbsOf(service);

const metricsOf = (queues_max: number, listDepths: Broker["listDepths"] = broker.listDepths) =>
  createMetrics({
    queues_max,
    listDepths,
    sumDepthsAfter: broker.sumDepthsAfter,
    getTableHealth: broker.getTableHealth,
    connectionsInUse: () => 0,
    waiters: () => 0,
  });
const metrics = metricsOf(1000);
afterAll(addObserver(metrics.observer));

/** The samples of a scrape: `name{labels}` → number. */
async function scrape(own = metrics): Promise<Map<string, number>> {
  const lines = (await own.scrape()).split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(lines.map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.split(" ").at(-1))]));
}

const settings = { ack_deadline_seconds: 30, message_retention_seconds: 3600 };
const countsOf = async (queue: string) => {
  const samples = await scrape();
  const events = [
    "published",
    "deduplicated",
    "delivered",
    "acked",
    "nacked",
    "lease_expired",
    "expired",
    "dead_lettered",
  ];
  return Object.fromEntries(
    events.map((event) => [event, samples.get(`psqlqueue_messages_${event}_total{queue="${queue}"}`) ?? 0]),
  );
};

describe("messages are counted by what happened to them", () => {
  test("on the way of one that is delivered, nacked, delivered again after its lease, and acked", async () => {
    const queue = await createQueue(service, settings);
    await put(queue, { body: "x", dedup_id: "once" });
    await put(queue, { body: "x", dedup_id: "once" });
    await nack(queue, (await take(queue)).id);
    await take(queue);
    await elapse(31);
    await ack(queue, (await take(queue)).id);
    const counts = { published: 1, deduplicated: 1, delivered: 3, acked: 1, nacked: 1, lease_expired: 1 };
    expect(await countsOf(queue)).toEqual({ ...counts, expired: 0, dead_lettered: 0 });
  });

  test("when it expires, met by a receive or by a sweep", async () => {
    const queue = await createQueue(service, settings);
    await put(queue, { body: "x", ttl_seconds: 5 });
    await elapse(6);
    expect(await receive(queue)).toEqual([]);
    expect(await countsOf(queue)).toMatchObject({ expired: 1, delivered: 0 });
    await put(queue, { body: "x", ttl_seconds: 5 });
    await elapse(6);
    await broker.sweepExpired();
    expect(await countsOf(queue)).toMatchObject({ expired: 2, delivered: 0 });
  });

  test("when it is dead-lettered: rejected, met by a receive, or by a sweep", async () => {
    const dead = await createQueue(service, settings);
    const queue = await createQueue(service, { ...settings, dead_queue_id: dead, message_max_deliveries: 1 });
    await nack(queue, await put(queue), { dead_letter: true });
    await put(queue);
    await take(queue);
    await elapse(31);
    expect(await receive(queue)).toEqual([]);
    await put(queue);
    await take(queue);
    await elapse(31);
    await broker.sweepExhausted(60);
    expect(await countsOf(queue)).toMatchObject({ dead_lettered: 3, lease_expired: 1 });
    expect(await countsOf(dead)).toMatchObject({ dead_lettered: 0, published: 0 });
  });
});

test("the queues' labels are bounded: what comes later is counted together", async () => {
  const narrow = metricsOf(1);
  const stop = addObserver(narrow.observer);
  const queues = [await createQueue(service), await createQueue(service), await createQueue(service)];
  for (const queue of queues) await put(queue);
  stop();
  const samples = await scrape(narrow);
  const published = [...samples].filter(([name]) => name.startsWith("psqlqueue_messages_published_total"));
  expect(published).toEqual([
    [`psqlqueue_messages_published_total{queue="${queues[0]}"}`, 1],
    ['psqlqueue_messages_published_total{queue="_other"}', 2],
  ]);
});

test("what queues without a label of their own hold is told together, and how old the oldest of it is", async () => {
  const own = await openService();
  try {
    const ids = ["a", "_other", "y", "z"];
    for (const id of ids) {
      await own.call("POST", "/v1/queues", { id, ack_deadline_seconds: 30, message_retention_seconds: 3600 });
    }
    const verbs = verbsOf(own);
    for (const id of ids) await verbs.put(id);
    await own.elapse(100);
    await verbs.put("z");
    await verbs.take("z");
    await verbs.put("y", { body: "x", delay_seconds: 60 });
    const { listDepths, sumDepthsAfter, getTableHealth } = own.broker;
    const depths = async (queues_max: number) => {
      const found = { queues_max, listDepths, sumDepthsAfter, getTableHealth };
      const samples = await scrape(createMetrics({ ...found, connectionsInUse: () => 0, waiters: () => 0 }));
      return Object.fromEntries([...samples].filter(([name]) => /queue_(messages|oldest)/.test(name)));
    };
    const of = (queue: string, state: string) => `psqlqueue_queue_messages{queue="${queue}",state="${state}"}`;
    const age = (queue: string) => `psqlqueue_queue_oldest_ready_age_seconds{queue="${queue}"}`;
    const wide = await depths(4);
    expect([wide[of("z", "ready")], wide[of("z", "leased")], wide[of("_other", "ready")]]).toEqual([1, 1, 1]);
    const narrow = await depths(2);
    expect(narrow).toMatchObject({ [of("_other", "leased")]: 1, [of("_other", "delayed")]: 1, [of("a", "ready")]: 1 });
    // One more of each: the queue that has this name is among them.
    expect(narrow[of("_other", "ready")]).toBe(3);
    expect(narrow[age("_other")]).toBeGreaterThan(99);
    expect(Object.keys(narrow).filter((name) => name.includes('"z"') || name.includes('"y"'))).toEqual([]);
    expect((await depths(0))[of("_other", "ready")]).toBe(4);
  } finally {
    await own.close();
  }
});

test("a queue that is deleted, or idle for long, gives its label to another one", async () => {
  const narrow = metricsOf(2);
  const stop = addObserver(narrow.observer);
  const note = (queue_id: string) => observe({ kind: "messages", event: "published", queue_id, count: 1 });
  const published = async () =>
    [...(await scrape(narrow)).keys()].flatMap(
      (name) => /^psqlqueue_messages_published_total{queue="(.*)"}/.exec(name)?.[1] ?? [],
    );
  try {
    for (const queue of ["one", "two", "three"]) note(queue);
    expect(await published()).toEqual(["one", "two", "_other"]);
    setSystemTime(new Date(Date.now() + 300_000));
    note("two");
    setSystemTime(new Date(Date.now() + 400_000));
    for (const queue of ["three", "four"]) note(queue);
    expect((await published()).sort()).toEqual(["_other", "three", "two"]);
  } finally {
    setSystemTime();
    stop();
  }
  const wide = metricsOf(1000);
  const end = addObserver(wide.observer);
  const queue = await createQueue(service, settings);
  await put(queue);
  await service.call("DELETE", `/v1/queues/${queue}`);
  end();
  expect([...(await scrape(wide)).keys()].filter((name) => name.includes(queue))).toEqual([]);
});

test("a queue with more than a scrape counts shows an estimate, and the others stay exact", async () => {
  // So many queues that the share of each is a thousand entries.
  await service.sql`
    insert into psqlqueue.queues (id, ack_deadline_seconds, message_retention_seconds)
    select 'many-' || n, 30, 3600 from generate_series(1, 600) as n`;
  await service.sql`
    insert into psqlqueue.messages (queue_no, id, body, visible_at, expires_at, created_at)
    select queue.no, 'M' || lpad(n::text, 25, '0'), 'x', now() - interval '1 minute', now() + interval '1 hour', now()
    from psqlqueue.queues as queue, generate_series(1, case when queue.id = 'many-1' then 20000 else 3 end) as n
    where queue.id in ('many-1', 'many-2')`;
  const samples = await scrape(metricsOf(1000));
  const ready = (queue: string) => samples.get(`psqlqueue_queue_messages{queue="${queue}",state="ready"}`);
  expect(ready("many-1")).toBeWithin(18_000, 22_000);
  expect(ready("many-2")).toBe(3);
  expect(ready("many-600")).toBe(0);
});

test("the depths of a queue are in the scrape, each state by itself", async () => {
  const queue = await createQueue(service, settings);
  for (let i = 0; i < 3; i++) await put(queue);
  await take(queue);
  await put(queue, { body: "x", delay_seconds: 60 });
  const samples = await scrape(metricsOf(1000));
  const depth = (state: string) => samples.get(`psqlqueue_queue_messages{queue="${queue}",state="${state}"}`);
  expect({ ready: depth("ready"), leased: depth("leased"), delayed: depth("delayed") }).toEqual({
    ready: 2,
    leased: 1,
    delayed: 1,
  });
  expect(await call("GET", "/v1/healthz")).toMatchObject({ status: 200 });
});

test.if(!is_embedded)("with 3,000 queues a scrape costs little more than counting them", async () => {
  await service.sql`
    insert into psqlqueue.queues (id, ack_deadline_seconds, message_retention_seconds)
    select 'costs-' || n, 30, 3600 from generate_series(1, 3000) as n`;
  // Of several, which only differ in what else the machine did.
  const quickest = async (works: (() => Promise<unknown>)[]) => {
    const times: number[] = [];
    for (const work of works) {
      const started_ms = performance.now();
      await work();
      times.push(performance.now() - started_ms);
    }
    return Math.min(...times);
  };
  // A new one each time: numbers of the database are kept for a few seconds.
  const scraped_ms = await quickest(Array.from({ length: 10 }, () => metricsOf(1000).scrape));
  // What else a scrape tells costs the more the longer a process has run the tests of others.
  const bare_ms = await quickest(Array.from({ length: 10 }, () => metricsOf(1000, async () => []).scrape));
  const count = async () => {
    const own = await broker.listDepths(1000);
    await broker.sumDepthsAfter(own.at(-1)?.queue_id ?? "");
  };
  const counted_ms = await quickest(Array.from({ length: 10 }, () => count));
  expect(scraped_ms - bare_ms).toBeLessThan(3 * counted_ms + 30);
});
