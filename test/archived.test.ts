import { expect, setDefaultTimeout, test } from "bun:test";
import { createQueue, serviceForFile } from "./harness.ts";
import { verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ receive_limit_max: 100 });
const { elapse, broker, sql } = service;
const { put, take, receive, ack, nack } = verbsOf(service);

type Row = Record<string, unknown>;
const rowOf = async (table: "messages" | "archived_messages", body: string): Promise<Row> => {
  const rows = await sql`
    select to_jsonb(own) as own from psqlqueue.${sql(table)} as own where own.body = ${body}`;
  expect(rows).toHaveLength(1);
  return rows[0]?.["own"];
};
/** Of the end, and of the lease that it ended; and elapse() moves what was. */
const changed = ["archived_at", "expires_at", "lease_token", "outcome", "created_at"];

const ways: [string, "acked" | "expired", (queue: string, body: string) => Promise<unknown>][] = [
  [
    "an ack",
    "acked",
    async (queue) => {
      const { id, lease_token } = await take(queue);
      return await ack(queue, id, lease_token);
    },
  ],
  [
    "an ack in SQL",
    "acked",
    async (queue) => {
      const { id, lease_token } = await take(queue);
      return await sql`select psqlqueue.ack(${queue}, ${id}, ${lease_token})`;
    },
  ],
  ["a receive that finds it expired", "expired", async (queue) => [await elapse(101), await receive(queue)]],
  ["the sweep of what has expired", "expired", async () => [await elapse(101), await broker.sweepExpired()]],
  ["the scan of the table", "expired", async () => [await elapse(101), await broker.sweepOverdue(undefined)]],
];
const orders: [string, Row][] = [
  ["without order", {}],
  ["with an ordering key", { ordering_key: "k" }],
];
const cases = orders.flatMap(([order, own]) => ways.map(([name, ...way]) => [order, name, own, ...way] as const));

test.each(cases)("all that is known of a message %s stays known after %s", async (_, name, own, outcome, end) => {
  const dead = await createQueue(service, { priority_enabled: true, message_retention_seconds: 100 });
  const settings = { priority_enabled: true, dead_queue_id: dead, message_max_deliveries: 2 };
  const queue = await createQueue(service, settings);
  const body = `${name} ${queue}`;
  await put(queue, { body, label: "l", attributes: { k: "v" }, ...("ordering_key" in own ? own : { priority: 7 }) });
  await nack(queue, (await take(queue)).id, { dead_letter: true, error: "boom" });
  await nack(dead, (await take(dead)).id, { error: "again" });
  const before = await rowOf("messages", body);
  await end(dead, body);
  const after = await rowOf("archived_messages", body);
  expect(after["outcome"]).toBe(outcome);
  // One more delivery, if a consumer acked it.
  const attempts = Number(before["delivery_attempts"]) + (outcome === "acked" ? 1 : 0);
  const expected: Row = { ...before, delivery_attempts: attempts };
  const kept = Object.keys(after).filter((column) => !changed.includes(column));
  const told = (row: Row) => Object.fromEntries(kept.map((column) => [column, row[column] ?? null]));
  expect(told(after)).toEqual(told(expected));
  const filled = [
    "label",
    "attributes",
    "last_error",
    "dead",
    "events",
    "ordering_key" in own ? "ordering_key" : "priority",
  ];
  expect(filled.filter((column) => !after[column])).toEqual([]);
});
