import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createQueue, serviceForFile, uniqueId } from "./harness.ts";
import { refused, verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ receive_limit_max: 100 });
const { call, broker, sql } = service;
const { put, receive, take, ack, nack } = verbsOf(service);

const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:00\.000000Z$/);
const ratesOf = async (queue: string, query = "") => (await call("GET", `/v1/queues/${queue}/rates${query}`)).body;
const invalid = (details: string) => refused(3, "request validation failed", details);

/**
 * Counts of a minute before this one. Of the last one, as the history sees it: just after a full minute its counts are
 * still awaited, unless `late_seconds` is 0.
 */
const count = (queue: string, ago: number, published: number, acked = 0, late_seconds = 8) => sql`
  insert into psqlqueue.rates (queue_id, minute, published, acked, delivered, failed)
  values (${queue}, date_trunc('minute', now() - ${late_seconds}::int * interval '1 second') - ${ago}::int * interval '1 minute',
    ${published}, ${acked}, 7, 3)`;

describe("the last day of a queue", () => {
  test("has what was counted in each minute, and at the last one how deep the queue was", async () => {
    const queue = await createQueue(service);
    for (const ago of [1, 2, 3]) await count(queue, ago, 10 * ago, ago);
    await put(queue);
    await put(queue, { body: "x", delay_seconds: 100 });
    await put(queue);
    await take(queue);
    // The job's own clock waits until the counts of a minute have arrived; right after one it is the minute before.
    await broker.recordMinutes();
    const { data } = await ratesOf(queue);
    const counted = { delivered: 7, failed: 3 };
    const unknown = { ready: null, leased: null, hidden: null, oldest_ready_age_seconds: null };
    const depth = { ready: 1, leased: 1, hidden: 1, oldest_ready_age_seconds: expect.any(Number) };
    const minutes = [3, 2, 1].map((ago) => ({ minute: time, published: 10 * ago, acked: ago, ...counted, ...unknown }));
    const known = data.filter((row: { delivered: number }) => row.delivered > 0);
    expect(known.map((row: object) => ({ ...row, ...unknown }))).toEqual(minutes);
    expect(data.filter((row: { ready: number | null }) => row.ready !== null)).toEqual([
      expect.objectContaining(depth),
    ]);
    // What is written is final.
    await sql`update psqlqueue.rates set published = 99 where queue_id = ${queue}`;
    await broker.recordMinutes();
    expect((await ratesOf(queue)).data).toEqual(data);
    const since = data[1].minute;
    expect((await ratesOf(queue, `?since=${since}`)).data).toEqual(data.slice(1));
  });

  test("ends after 24 hours, and with its queue", async () => {
    const queue = await createQueue(service);
    await sql`insert into psqlqueue.queue_minutes (queue_no, minute, published, delivered, acked, failed)
      select no, date_trunc('minute', now()) - n * interval '1 hour', n, 0, 0, 0
      from psqlqueue.queues, generate_series(1, 30) as n where id = ${queue}`;
    expect((await ratesOf(queue)).data).toHaveLength(23);
    await broker.recordMinutes();
    const left = () => sql`select count(*)::int as count from psqlqueue.queue_minutes where published between 1 and 30`;
    expect((await left())[0]?.["count"]).toBeLessThanOrEqual(23 + 3);
    expect((await call("DELETE", `/v1/queues/${queue}`)).status).toBe(204);
    expect(await ratesOf(queue)).toEqual(refused(5, "queue not found"));
    expect((await ratesOf(await createQueue(service), "?since=yesterday")).code).toBe(3);
  });

  test("counts deliveries, nacks and leases that ran out", async () => {
    const queue = await createQueue(service);
    await put(queue);
    const { id } = await take(queue);
    await nack(queue, id);
    await take(queue, "?limit=1&ack_deadline_seconds=0");
    await receive(queue);
    await broker.flushRates();
    const [row] =
      await sql`select sum(delivered)::int as delivered, sum(failed)::int as failed, sum(acked)::int as acked
      from psqlqueue.rates where queue_id = ${queue}`;
    expect({ ...row }).toEqual({ delivered: 3, failed: 2, acked: 0 });
    await ack(queue, id);
  });
});

describe("the trends of several queues", () => {
  test("are a number a minute, without gaps, of those that exist", async () => {
    const [first, second] = [await createQueue(service), await createQueue(service)];
    await count(first, 2, 20, 4);
    await count(first, 1, 10, 5);
    await broker.recordMinutes();
    const asked = `${first},${uniqueId()},${second}`;
    const { data } = (await call("GET", `/v1/rates?queue_ids=${asked}&minutes=5`)).body;
    const [one, two] = data.toSorted((a: { queue_id: string }) => (a.queue_id === first ? -1 : 1));
    // Just after a full minute its last counts are still awaited.
    expect([
      { published: [0, 0, 0, 20, 10], acked: [0, 0, 0, 4, 5] },
      { published: [0, 0, 20, 10, 0], acked: [0, 0, 4, 5, 0] },
    ]).toContainEqual({ published: one.published, acked: one.acked });
    expect(two).toEqual({ queue_id: second, published: [0, 0, 0, 0, 0], acked: [0, 0, 0, 0, 0] });
    expect((await call("GET", "/v1/rates")).body).toEqual({ data: [] });
    expect((await call("GET", `/v1/rates?queue_ids=${first}&minutes=0`)).body).toEqual({ data: [] });
    expect((await call("GET", "/v1/rates?queue_ids=a,,b")).body).toEqual(
      invalid("queue_ids: must be in a valid format."),
    );
  });
});

describe("the numbers of many queues", () => {
  test("come by id, with what a list shows of each, and are found by a part of the id", async () => {
    const prefix = uniqueId("Overview");
    const settings = { ack_deadline_seconds: 30, message_retention_seconds: 3600 };
    for (const name of ["a", "b", "c"]) await call("POST", "/v1/queues", { id: `${prefix}-${name}`, ...settings });
    const [a, b, c] = ["a", "b", "c"].map((name) => `${prefix}-${name}`) as [string, string, string];
    await call("PUT", `/v1/queues/${b}`, { ...settings, dead_queue_id: c, message_max_deliveries: 3 });
    await call("PUT", `/v1/queues/${c}/pause`);
    await put(a);
    await put(a, { body: "x", delay_seconds: 100 });
    await put(a);
    await put(a);
    await nack(a, (await take(a)).id, { visibility_timeout_seconds: 100 });
    await take(a);
    await count(a, 1, 60, 30, 0);
    const { body } = await call("GET", `/v1/stats?search=${prefix.toLowerCase()}&limit=10`);
    const empty = { ready: 0, leased: 0, delayed: 0, backing_off: 0, oldest_ready_age_seconds: 0 };
    const still = { publish_rate_1m: 0, ack_rate_1m: 0, dead_queue_id: null };
    expect(body).toEqual({
      data: [
        {
          queue_id: a,
          ...{ ready: 1, leased: 1, delayed: 1, backing_off: 1, oldest_ready_age_seconds: expect.any(Number) },
          ...{ publish_rate_1m: 1, ack_rate_1m: 0.5, dead_queue_id: null },
        },
        { queue_id: b, ...empty, ...still, dead_queue_id: c },
        { queue_id: c, ...empty, ...still, paused: { publish: false, consume: true } },
      ],
      limit: 10,
    });
    const second = (await call("GET", `/v1/stats?search=${prefix}&limit=1&offset=1`)).body;
    expect([second.data.length, second.data[0].queue_id, second.offset]).toEqual([1, b, 1]);
    expect((await call("GET", `/v1/stats?search=%25`)).body.data).toEqual([]);
    expect((await call("GET", "/v1/stats?limit=x")).body.code).toBe(3);
  });
});
