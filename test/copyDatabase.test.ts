import { expect, setDefaultTimeout, test } from "bun:test";
import { carryOver } from "../src/db/copyDatabase.ts";
import { createMigratedDatabase, createQueue, openService, uniqueId } from "./harness.ts";

setDefaultTimeout(90_000);

const everything = `
  select
    (select json_agg(q order by q.no) from psqlqueue.queues as q)::text as queues,
    (select json_agg(t order by t.id) from psqlqueue.topics as t)::text as topics,
    (select json_agg(s order by s.id) from psqlqueue.subscriptions as s)::text as subscriptions,
    (select json_agg(m order by m.queue_no, m.id) from psqlqueue.messages as m)::text as messages,
    (select json_agg(a order by a.queue_no, a.id) from psqlqueue.archived_messages as a)::text as archived,
    (select json_agg(d) from psqlqueue.deduplications as d)::text as deduplications,
    (select json_agg(k) from psqlqueue.ordering_keys as k)::text as ordering_keys,
    (select json_agg(t) from psqlqueue.tasks as t)::text as tasks`;

test("everything is carried over as it is, leases and archive included, and the target goes on from there", async () => {
  const from = await openService();
  const queue = await createQueue(from, { ack_deadline_seconds: 600 });
  const deleted = await createQueue(from);
  const dead = await createQueue(from);
  const settings = { ack_deadline_seconds: 600, message_retention_seconds: 3600 };
  const early = { ...settings, dead_queue_id: dead, message_max_deliveries: 3 };
  expect((await from.call("PUT", `/v1/queues/${queue}`, early)).status).toBe(200);
  await from.call("POST", `/v1/queues/${dead}/messages`, { body: "once", dedup_id: "a-key" });
  await from.call("POST", `/v1/queues/${dead}/redrive`, {});
  const topic = uniqueId("t");
  await from.call("POST", "/v1/topics", { id: topic });
  const subscription = { id: uniqueId("s"), topic_id: topic, queue_id: queue, message_filters: { a: ["1", ""] } };
  await from.call("POST", "/v1/subscriptions", subscription);
  const bodies = Array.from({ length: 1200 }, (_, i) => `body ${i} "quoted", {braced}, \\ back, é, NULL`);
  const publish = (body: string, i: number) =>
    from.call("POST", `/v1/queues/${queue}/messages`, {
      body,
      ...(i % 2 && { label: "L", attributes: { n: String(i) } }),
    });
  await Promise.all(bodies.map(publish));
  await publish("x".repeat(5_000_000), 1);
  await publish("after the large one", 1);
  const { data } = (await from.call("GET", `/v1/queues/${queue}/messages`)).body;
  const keyed = (ordering_key: string) => ({ body: "x", ordering_key });
  for (let i = 0; i < 3; i++) await from.call("POST", `/v1/queues/${queue}/messages`, keyed("k"));
  for (const { id } of data.slice(0, 5)) await from.call("PUT", `/v1/queues/${queue}/messages/${id}/ack`);
  await from.call("DELETE", `/v1/queues/${deleted}`);

  const url = await createMigratedDatabase();
  const counts = await carryOver(from.url, url);
  expect(counts).toEqual({
    queues: 2,
    topics: 1,
    subscriptions: 1,
    messages: 1201,
    ordering_keys: 1,
    stale_keys: 0,
    archived_messages: 5,
    deduplications: 1,
    topic_deduplications: 0,
    outbox: 0,
    tasks: 1,
  });
  const to = await openService({ url });
  expect([...(await to.sql.unsafe(everything))]).toEqual([...(await from.sql.unsafe(everything))]);
  const leased = data[7].id;
  expect((await to.call("PUT", `/v1/queues/${queue}/messages/${leased}/ack`)).status).toBe(204);
  await createQueue(to);
  const numbers = () => to.sql`select max(ordering_seq)::int as number from psqlqueue.messages`;
  const [before] = await numbers();
  await to.call("POST", `/v1/queues/${queue}/messages`, keyed("l"));
  const [after] = await numbers();
  expect(after?.["number"]).toBeGreaterThan(before?.["number"]);

  expect(carryOver(from.url, url)).rejects.toThrow("the target database holds 3 queues and 1 topics already");
  await from.close();
  await to.close();
}, 120_000);
