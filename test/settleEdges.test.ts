// What calls leave behind that change nothing, what follows a last delivery, and settings at their bounds.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createQueue, serviceForFile } from "./harness.ts";
import { verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ receive_limit_max: 100 });
const { call, elapse, broker } = service;
const { put, take, receive, nack, ack, extend, look } = verbsOf(service);

const ids = (messages: { id: unknown }[]) => messages.map(({ id }) => id);

test.each([
  ["with a token of somebody else", {}, "k5"],
  ["with its own, too late for a strict queue", { strict_leases: true }, undefined],
])(
  "a refused nack of a last delivery, %s, keeps nothing back in the dead-letter queue",
  async (_name, strict, token) => {
    const dead = await createQueue(service);
    const queue = await createQueue(service, { ...strict, dead_queue_id: dead, message_max_deliveries: 1 });
    const id = await put(queue, { body: "x", ordering_key: "k" });
    const { lease_token } = await take(queue);
    if (token === undefined) await elapse(31);
    const answer = await nack(queue, id, { lease_token: token ?? lease_token });
    expect(answer.status).toBe(409);
    const first = await put(dead, { body: "direct", ordering_key: "k" });
    const second = await put(dead, { body: "behind it", ordering_key: "k" });
    expect(ids(await receive(dead))).toEqual([first]);
    await ack(dead, first);
    expect(ids(await receive(dead))).toEqual([second]);
  },
);

test.each([
  ["plain", {}, undefined],
  ["with a key", {}, "k"],
  ["of a queue with a cap", { max_in_flight: 5 }, undefined],
  ["with a key, of a queue with a cap", { max_in_flight: 5 }, "k"],
  ["of a queue with a cap for each key", { fair_by: "ordering_key", max_in_flight_per_key: 5 }, "k"],
])(
  "where no token is asked for, whatever lease is live is extended and released: a message %s",
  async (_name, own, key) => {
    const queue = await createQueue(service, { ...own, allow_tokenless_extend: true });
    const id = await put(queue, { body: "x", ...(key !== undefined && { ordering_key: key }) });
    await take(queue);
    expect((await extend(queue, id, 60)).status).toBe(204);
    await elapse(40);
    expect(await receive(queue)).toEqual([]);
    expect((await extend(queue, id, 0)).status).toBe(204);
    expect(ids(await receive(queue))).toEqual([id]);
    await elapse(31);
    expect((await extend(queue, id, 60)).status).toBe(409);
  },
);

test.each(["ack", "nack", "extend"] as const)(
  "the form of an ordered message's token is not that of another's: %s",
  async (verb) => {
    const queue = await createQueue(service);
    const id = await put(queue);
    const { lease_token } = await take(queue);
    const body = { lease_token: `k${lease_token}`, ...(verb === "extend" && { ack_deadline_seconds: 60 }) };
    const answer = await call("PUT", `/v1/queues/${queue}/messages/${id}/${verb}`, body);
    expect([answer.status, answer.body.code]).toEqual([409, 11]);
  },
);

describe.each([
  ["plain", {}, undefined],
  ["with a key", {}, "k"],
  ["of a queue with a cap", { max_in_flight: 5 }, undefined],
])("a message %s that has used up its deliveries", (_name, own, key) => {
  test.each([
    ["as it was", undefined],
    ["extended", 60],
  ])(
    "dies at the end of its last lease, %s, however long the next delivery would have waited",
    async (_lease, seconds) => {
      const dead = await createQueue(service);
      const retry_policy = { min_seconds: 43_200, max_seconds: 43_200 };
      const queue = await createQueue(service, {
        ...own,
        dead_queue_id: dead,
        message_max_deliveries: 1,
        retry_policy,
      });
      const id = await put(queue, { body: "x", ...(key !== undefined && { ordering_key: key }) });
      const { lease_token } = await take(queue);
      if (seconds !== undefined) expect((await extend(queue, id, seconds, lease_token)).status).toBe(204);
      await elapse((seconds ?? 30) + 1);
      await broker.sweepExhausted(3600);
      expect(ids(await receive(dead))).toEqual([id]);
    },
  );
});

test("a time of delivery that is set after a lease ran out holds for an ordered message as for others", async () => {
  const queue = await createQueue(service, { allow_delayed_ordering: true });
  const id = await put(queue, { body: "x", ordering_key: "k" });
  await take(queue);
  await elapse(31);
  const deliver_at = new Date(Date.now() + 3_600_000).toISOString();
  expect((await call("PUT", `/v1/queues/${queue}/messages/${id}`, { deliver_at })).status).toBe(200);
  expect(await receive(queue)).toEqual([]);
  expect((await look(queue, id)).body.state).toBe("backing_off");
});

describe("at their bounds", () => {
  test.each([
    ["a cap", { max_in_flight: 1 }],
    ["a cap with room", { max_in_flight: 1_000_000 }],
    ["a cap for each key", { fair_by: "fairness_key", max_in_flight_per_key: 1 }],
  ])("leases of many years go with %s", async (name, own) => {
    const queue = await createQueue(service, { ...own, ack_deadline_seconds: 2_147_483_647 });
    const first = await put(queue);
    const second = await put(queue);
    expect(ids(await receive(queue, "?limit=1"))).toEqual([first]);
    expect(ids(await receive(queue, "?limit=1"))).toEqual(name === "a cap with room" ? [second] : []);
  });

  test.each([
    ["all", {}],
    ["one label", { label: "l" }],
    ["fair shares", { fair: true }],
  ])("priorities that age by years order %s", async (_name, { label, fair }: { label?: string; fair?: boolean }) => {
    const ageing = { priority_enabled: true, priority_aging_seconds: 31_536_000 };
    const queue = await createQueue(service, { ...ageing, ...(fair && { fair_by: "fairness_key" }) });
    const low = await put(queue, { body: "x", priority: -100, ...(label !== undefined && { label }) });
    const high = await put(queue, { body: "x", priority: 100, ...(label !== undefined && { label }) });
    expect(ids(await receive(queue, label === undefined ? "" : `?label=${label}`))).toEqual([high, low]);
  });
});
