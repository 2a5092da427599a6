// How publishers and consumers speak to a server: an edge takes and answers one form, whatever is said on the wire.

import type { Client, Reply } from "./client.ts";
import { type Copy, type Delivery, hashOf, timeOf } from "./history.ts";
import { publishOne, type Settling, settleOne } from "./requests.ts";

export type Content = {
  body: string;
  label?: string;
  attributes?: Record<string, string>;
  ordering_key?: string;
  delay_seconds?: number;
  dedup_id?: string;
  priority?: number;
};

/** What a publish was answered; `copies` has an id where the answer names it. */
export type Stored = Reply & { copies: Copy[]; delivered_queues?: number };

/** A request that makes something; it is answered 200 or 201. */
export type Creation = { target: string; body: object; lines?: string };

export type QueueSettings = { ack_deadline_seconds: number; message_retention_seconds: number };

export type Edge = {
  /** Those that are consumed. */
  queues: string[];
  /** What makes the queues, and whatever else there must be, in this order. */
  creations(settings: QueueSettings): Creation[];
  /** What the load made up, as this edge can carry it; `name` is the message's. */
  adapt(content: Content, name: string): Content;
  /** Where the message goes: a publish stores one in each of these. */
  queuesOf(content: Content): string[];
  /** Publishes, by itself or in a batch of one. */
  publish(client: Client, port: number, content: Content, is_batch: boolean): Promise<Stored>;
  /** Receives; waits a second for the first message. The answer is read by `read`. */
  receive(client: Client, port: number, queue: string, limit: number): Promise<Reply>;
  /** The deliveries of an answer with 200 to what was asked at `asked_ms`. */
  read(text: string, queue: string, asked_ms: number): Delivery[];
  /** Settles, by itself or in a batch of one. */
  settle(client: Client, port: number, queue: string, asked: Settling, is_batch: boolean): Promise<SettleReply>;
};

/** `until_ms`: the end of an extended lease, where the answer tells it, else 0. */
export type SettleReply = Reply & { until_ms: number };

/** The name that the load gave a message, which is in its body. */
export function nameIn(body: string): string {
  try {
    const { p, c } = JSON.parse(body) as { p: string; c: number };
    return `${p}.${c}`;
  } catch {
    return "not ours";
  }
}

/** Receives and settles as v1 has them. */
function consumes(ack_deadline_ms: number): Pick<Edge, "receive" | "read" | "settle"> {
  return {
    receive: (client, port, queue, limit) =>
      client.call(port, "GET", `/v1/queues/${queue}/messages?limit=${limit}&wait_seconds=1`),
    read(text, queue) {
      const { data } = JSON.parse(text) as { data: Record<string, string>[] };
      return data.map((given) => {
        const { id = "", body = "", lease_token = "", lease_expires_at = "", created_at = "" } = given;
        const until_ms = timeOf(lease_expires_at);
        const { label, attributes, ordering_key } = given;
        return {
          kind: "delivery",
          message: nameIn(body),
          hash: hashOf({ body, label, attributes, ordering_key }),
          queue,
          id,
          token: lease_token,
          attempts: Number(given["delivery_attempts"]),
          ordering_key: ordering_key ?? null,
          created_ms: timeOf(created_at),
          leased_ms: until_ms - ack_deadline_ms,
          until_ms,
        };
      });
    },
    settle: settleOne,
  };
}

/** A queue of v1. */
export function queueEdge(queue: string, ack_deadline_ms: number): Edge {
  return {
    queues: [queue],
    creations: (settings) => [{ target: "/v1/queues", body: { id: queue, ...settings } }],
    adapt: (content) => content,
    queuesOf: () => [queue],
    async publish(client, port, content, is_batch) {
      const reply = await publishOne(client, port, `/v1/queues/${queue}/messages`, content, is_batch);
      return { ...reply, copies: [{ queue, id: reply.id }] };
    },
    ...consumes(ack_deadline_ms),
  };
}

/** As a subscription has them: all of these attributes, each with one of these values. */
export type Filter = Record<string, string[]>;

const isMatch = (filter: Filter, attributes: Record<string, string> = {}) =>
  Object.entries(filter).every(([name, values]) => values.includes(attributes[name] ?? "none"));

/** A topic, and the filters of its queues. Every message has the attributes `tier` and `region`. */
export function topicEdge(topic: string, filters: Record<string, Filter>, ack_deadline_ms: number): Edge {
  const queuesOf = ({ attributes }: Content) =>
    Object.entries(filters).flatMap(([queue, filter]) => (isMatch(filter, attributes) ? [queue] : []));
  return {
    queues: Object.keys(filters),
    creations: (settings) => [
      { target: "/v1/topics", body: { id: topic } },
      ...Object.entries(filters).flatMap(([queue_id, message_filters]) => [
        { target: "/v1/queues", body: { id: queue_id, ...settings } },
        { target: "/v1/subscriptions", body: { id: queue_id, topic_id: topic, queue_id, message_filters } },
      ]),
    ],
    adapt(content, name) {
      const number = Bun.hash.xxHash32(name);
      const own = { tier: ["gold", "silver", "iron"][number % 3] ?? "", region: number % 5 < 2 ? "north" : "south" };
      return { ...content, attributes: { ...content.attributes, ...own } };
    },
    queuesOf,
    async publish(client, port, content, is_batch) {
      const reply = await publishOne(client, port, `/v1/topics/${topic}/messages`, content, is_batch);
      const told = reply.text === "" ? undefined : (JSON.parse(reply.text) as FannedOut);
      const { delivered_queues, data = [] } = is_batch ? { ...told?.data?.[0], data: [] } : { ...told };
      const ids = new Map(data.map(({ queue_id, id }) => [queue_id, id]));
      const copies = [...new Set([...queuesOf(content), ...ids.keys()])].map((queue) => ({
        queue,
        id: ids.get(queue) ?? "",
      }));
      return { ...reply, copies, ...(delivered_queues !== undefined && { delivered_queues }) };
    },
    ...consumes(ack_deadline_ms),
  };
}

type FannedOut = { delivered_queues?: number; data?: { queue_id: string; id: string; delivered_queues?: number }[] };
