// A message is published, and settled, by itself or in a batch of one; either way the answer is told in one form.

import type { Client, Reply } from "./client.ts";
import { timeOf } from "./history.ts";

/** Of an item that was not done, and may be sent again. */
const code_unavailable = 19;
/** Of an item that was refused for what it is. */
const status_refused = 400;

type Item = { id?: string; status?: string; error?: { code: number } };

const statuses: Record<string, number> = { ok: 204, lease_lost: 409, not_found: 404 };

function itemReply(reply: Reply, item: Item | undefined): Reply {
  const { id = "", status, error } = item ?? {};
  if (error !== undefined) return { ...reply, status: error.code === code_unavailable ? 503 : status_refused };
  return { ...reply, id, status: status === undefined ? reply.status : (statuses[status] ?? status_refused) };
}

/** Publishes one message to a queue or a topic. */
export async function publishOne(
  client: Client,
  port: number,
  target: string,
  content: object,
  is_batch: boolean,
): Promise<Reply> {
  if (!is_batch) return await client.call(port, "POST", target, content);
  const reply = await client.call(port, "POST", `${target}/batch`, { messages: [content] });
  if (reply.status !== 201) return reply;
  return itemReply(reply, (JSON.parse(reply.text) as { data: Item[] }).data[0]);
}

export type Settling = {
  verb: "ack" | "nack" | "extend";
  id: string;
  lease_token: string;
  visibility_timeout_seconds?: number;
  ack_deadline_seconds?: number;
};

/** Settles one message; `until_ms` is the end of an extended lease, where the answer tells it, else 0. */
export async function settleOne(
  client: Client,
  port: number,
  queue: string,
  { verb, ...item }: Settling,
  is_batch: boolean,
): Promise<Reply & { until_ms: number }> {
  const { id, ...asked } = item;
  if (is_batch) {
    const reply = await client.call(port, "POST", `/v1/queues/${queue}/${verb}`, { items: [item] });
    if (reply.status !== 200) return { ...reply, until_ms: 0 };
    return { ...itemReply(reply, (JSON.parse(reply.text) as { results: Item[] }).results[0]), until_ms: 0 };
  }
  const reply = await client.call(port, "PUT", `/v1/queues/${queue}/messages/${id}/${verb}`, asked);
  const is_extended = verb === "extend" && reply.status === 200;
  return { ...reply, until_ms: is_extended ? timeOf(JSON.parse(reply.text).lease_expires_at) : 0 };
}
