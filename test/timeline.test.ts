import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createQueue, serviceForFile, uniqueId } from "./harness.ts";
import { verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ receive_limit_max: 100 });
const { call, elapse, broker, sql } = service;
const { put: putBody, receive, take, ack, nack, extend, look } = verbsOf(service);

type Event = { at: string; event: string; attempt: number; error?: string };
const eventsOf = async (queue: string, id: string): Promise<Event[] | undefined> => (await look(queue, id)).body.events;
const brief = (events: Event[] | undefined) =>
  events?.map(({ event, attempt, error }) => [event, attempt, ...(error === undefined ? [] : [error])]);

/** Queues and messages whose leases are made and ended in ways of their own. */
const kinds: [string, { settings: Record<string, unknown>; isKeyed: boolean }][] = [
  ["plain", { settings: {}, isKeyed: false }],
  ["with a key", { settings: {}, isKeyed: true }],
  ["of a queue with a cap", { settings: { max_in_flight: 50 }, isKeyed: false }],
  ["with a key, of a queue with a cap", { settings: { max_in_flight: 50 }, isKeyed: true }],
];

describe.each(kinds)("the past of a message %s", (_, { settings, isKeyed }) => {
  const put = async (queue: string) =>
    await putBody(queue, { body: "x", ...(isKeyed && { ordering_key: uniqueId("key") }) });

  async function pair(message_max_deliveries = 3) {
    const dead = await createQueue(service, settings);
    const queue = await createQueue(service, { ...settings, dead_queue_id: dead, message_max_deliveries });
    return { queue, dead };
  }

  test("is not kept while nothing fails: publish, delivery, release and ack write nothing of it", async () => {
    const queue = await createQueue(service, settings);
    const id = await put(queue);
    const { lease_token } = await take(queue);
    await extend(queue, id, 0, lease_token);
    await take(queue);
    expect((await look(queue, id)).body).not.toHaveProperty("events");
    await ack(queue, id);
    expect((await look(queue, id)).body).not.toHaveProperty("events");
    const [row] =
      await sql`select count(*)::int as count from psqlqueue.archived_messages where id = ${id} and events is not null`;
    expect(row?.["count"]).toBe(0);
  });

  test("is kept when its time is over, whether a receive meets it or a sweep", async () => {
    const queue = await createQueue(service, { ...settings, message_retention_seconds: 100 });
    const id = await put(queue);
    await take(queue);
    await nack(queue, id, { error: "why" });
    await elapse(101);
    expect((await look(queue, id)).body.state).toBe("expired");
    expect(await broker.sweepExpired()).toBe(1);
    expect(brief(await eventsOf(queue, id))).toEqual([["nacked", 1, "why"]]);
  });

  test("tells nacks with what the consumer said, leases that ran out, the death and the redrive", async () => {
    const { queue, dead } = await pair();
    const id = await put(queue);
    await take(queue);
    await nack(queue, id, { error: "first" });
    await take(queue);
    await elapse(31);
    await take(queue);
    await nack(queue, id, { error: "last" });
    const died = [
      ["nacked", 1, "first"],
      ["lease_expired", 2],
      ["nacked", 3, "last"],
      ["dead_lettered", 3, "max_deliveries"],
    ];
    const events = await eventsOf(dead, id);
    expect(brief(events)).toEqual(died);
    expect(events?.map(({ at }) => at)).toEqual(events?.map(({ at }) => at).toSorted());
    expect((await call("POST", `/v1/queues/${dead}/redrive?wait=true`, { limit: 1 })).body).toEqual({ moved: 1 });
    expect(brief(await eventsOf(queue, id))).toEqual([...died, ["redriven", 3]]);
    await take(queue);
    await ack(queue, id);
    expect(brief(await eventsOf(queue, id))).toEqual([...died, ["redriven", 3]]);
  });

  test("tells a rejection, and a death that no consumer saw", async () => {
    const { queue, dead } = await pair(1);
    const rejected = await put(queue);
    await nack(queue, rejected, { dead_letter: true, error: "no" });
    expect(brief(await eventsOf(dead, rejected))).toEqual([["dead_lettered", 0, "rejected"]]);
    const [met, swept] = [await put(queue), await put(queue)];
    await receive(queue);
    await elapse(31);
    // The one by a receive, the other by the sweep.
    expect(await receive(queue, "?limit=1")).toEqual([]);
    await broker.sweepExhausted(60);
    const died = [
      ["lease_expired", 1],
      ["dead_lettered", 1, "max_deliveries"],
    ];
    expect([brief(await eventsOf(dead, met)), brief(await eventsOf(dead, swept))]).toEqual([died, died]);
  });

  test("is bounded: the first failure and the latest 19, and 500 characters of an error", async () => {
    const queue = await createQueue(service, settings);
    const id = await put(queue);
    for (let i = 1; i <= 25; i++) {
      await take(queue);
      await nack(queue, id, { error: `${i} `.padEnd(700, "x") });
    }
    const events = (await eventsOf(queue, id)) ?? [];
    const kept = [1, ...Array.from({ length: 19 }, (_, i) => i + 7)];
    expect(events.map(({ attempt }) => attempt)).toEqual(kept);
    expect(events.map(({ error }) => error?.length)).toEqual(kept.map(() => 500));
  });
});

test("what is delivered along with the first message of a key has a past of its own", async () => {
  const queue = await createQueue(service);
  const ids = [
    await putBody(queue, { body: "1", ordering_key: "k" }),
    await putBody(queue, { body: "2", ordering_key: "k" }),
  ];
  await receive(queue, "?limit=2&max_per_key=2");
  await elapse(31);
  const [, second] = await receive(queue, "?limit=2&max_per_key=2");
  expect(second?.delivery_attempts).toBe(2);
  for (const id of ids) expect(brief(await eventsOf(queue, id))).toEqual([["lease_expired", 1]]);
});

test.each([{}, { ordering_key: "k" }])("an ack in SQL keeps the past: %o", async (key) => {
  const queue = await createQueue(service);
  const id = await putBody(queue, { body: "x", ...key });
  await take(queue);
  await nack(queue, id, { error: "first" });
  const { lease_token } = await take(queue);
  const [row] = await sql`select psqlqueue.ack(${queue}, ${id}, ${lease_token}) as is_acked`;
  expect(row?.["is_acked"]).toBe(true);
  expect((await look(queue, id)).body).toMatchObject({ state: "acked", events: [{ event: "nacked", error: "first" }] });
});
