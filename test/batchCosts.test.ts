// What an item of a batch costs does not grow with the batch.

import { expect, setDefaultTimeout, test } from "bun:test";
import { createQueue, serviceForFile } from "./harness.ts";
import { type Delivered, verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ receive_limit_max: 1000 });
const { call } = service;
const { receive } = verbsOf(service);

const dead = await createQueue(service);
const settings = { dead_queue_id: dead, message_max_deliveries: 100 };

/** Milliseconds for an item of each verb, in batches of `count`. */
async function costsOf(count: number, member: object): Promise<Record<string, number>> {
  const queue = await createQueue(service, settings);
  const path = `/v1/queues/${queue}`;
  const costs: Record<string, number> = {};
  const timed = async (name: string, method: string, to: string, body: unknown) => {
    const began_ms = performance.now();
    const { status, text } = await call(method, to, body);
    costs[name] = (performance.now() - began_ms) / count;
    if (status >= 300) throw new Error(`${name}: ${status} ${text}`);
  };
  const settle = async (name: string, verb: string, more: object) => {
    const got = await receive(queue, `?limit=${count}&max_per_key=0`);
    expect(got).toHaveLength(count);
    const item = ({ id, lease_token }: Delivered) => ({ id, lease_token, ...more });
    await timed(name, "POST", `${path}/${verb}`, { items: got.map(item) });
  };
  const messages = Array.from({ length: count }, (_, i) => ({ body: String(i), ...member }));
  await timed("publish", "POST", `${path}/messages/batch`, { messages });
  await settle("nack", "nack", { visibility_timeout_seconds: 0 });
  await settle("give back", "extend", { ack_deadline_seconds: 0 });
  await settle("dead-letter", "nack", { dead_letter: true });
  await timed("redrive", "POST", `/v1/queues/${dead}/redrive?wait=true`, { limit: 1000 });
  await settle("ack", "ack", {});
  return costs;
}

test.each([
  ["without a key", {}],
  ["of one ordering key", { ordering_key: "k" }],
])("messages %s", async (_, member) => {
  // The best of a few: what a busy machine does in between is not what a batch costs.
  const leastOf = async (count: number) => {
    const least: Record<string, number> = {};
    for (let i = 0; i < 4; i++) {
      for (const [name, ms] of Object.entries(await costsOf(count, member))) {
        least[name] = Math.min(ms, least[name] ?? Number.POSITIVE_INFINITY);
      }
    }
    return least;
  };
  const few = await leastOf(100);
  const many = await leastOf(1000);
  const grown = Object.keys(few).filter((name) => (many[name] ?? 0) > 3 * (few[name] ?? 0));
  expect({ grown, few, many }).toEqual({ grown: [], few, many });
});
