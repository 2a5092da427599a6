// What a connection asks next. Each connection is a producer, or a consumer that settles what it received before it
// receives again, or both in turn.

import type { Connection } from "./wire.ts";

/** What is asked of the server. */
export type Workload = {
  /**
   * receive: some messages, then one settling request each. lifecycle: as many publishes, then that. mixed: of the
   * connections every other one publishes, and the others receive and settle.
   */
  kind: "publish" | "receive" | "lifecycle" | "mixed";
  /** More than one: a random one for each request. */
  queues: string[];
  body_bytes: number;
  /** Label and attributes of a publish; null: none. */
  label: string | null;
  /** Label filter of a receive. */
  filter?: string;
  /** Messages of one receive. */
  limit: number;
  /** Messages of one publish, 1: by the route for one. Above 1 what a receive brought is acked by one request too. */
  batch: number;
  /** What happens to a received message. */
  after: "ack" | "nack" | "leave";
};

/** The kinds of requests; latencies are kept for each. */
export const kinds = ["publish", "receive", "settle"] as const;
/** Their places in `kinds`. */
export const PUBLISH = 0;
/** A receive. */
export const RECEIVE = 1;
/** An ack or a nack. */
export const SETTLE = 2;

const id_length = 26;

const head = (method: string, path: string, host: string) => `${method} ${path} HTTP/1.1\r\nHost: ${host}\r\n`;

/** The body of a publish: `body_bytes` of filler, a label and an attribute. */
export function publishBody(workload: Pick<Workload, "body_bytes" | "label">): string {
  const body = "x".repeat(workload.body_bytes);
  return JSON.stringify(
    workload.label === null ? { body } : { body, label: workload.label, attributes: { attribute1: "attribute1" } },
  );
}

function settleTemplate(queue: string, host: string, after: Workload["after"]) {
  const before = `/v1/queues/${queue}/messages/`;
  const path = `${before}${"0".repeat(id_length)}/${after}`;
  return { buffer: Buffer.from(`${head("PUT", path, host)}Content-Length: 0\r\n\r\n`), id_at: `PUT ${before}`.length };
}

function ackBatch(queue: string, host: string, ids: string[]): Buffer {
  const json = `{"items":[${ids.map((id) => `{"id":"${id}"}`).join(",")}]}`;
  const headers = `Content-Type: application/json\r\nContent-Length: ${json.length}`;
  return Buffer.from(`${head("POST", `/v1/queues/${queue}/ack`, host)}${headers}\r\n\r\n${json}`, "latin1");
}

/** Makes the requests of a workload. */
export function createRequests(workload: Workload, host: string) {
  const { batch } = workload;
  const one = publishBody(workload);
  const json = batch === 1 ? one : `{"messages":[${Array.from({ length: batch }, () => one).join(",")}]}`;
  const publish_path = batch === 1 ? "messages" : "messages/batch";
  const query = workload.filter === undefined ? "" : `&label=${encodeURIComponent(workload.filter)}`;
  const publishes = workload.queues.map((queue) =>
    Buffer.from(
      `${head("POST", `/v1/queues/${queue}/${publish_path}`, host)}Content-Type: application/json\r\n` +
        `Content-Length: ${Buffer.byteLength(json)}\r\n\r\n${json}`,
    ),
  );
  const receives = workload.queues.map((queue) =>
    Buffer.from(`${head("GET", `/v1/queues/${queue}/messages?limit=${workload.limit}${query}`, host)}\r\n`),
  );
  const settles = workload.queues.map((queue) => settleTemplate(queue, host, workload.after));
  const last = workload.queues.length - 1;
  const randomQueue = () => (last === 0 ? 0 : Math.floor(Math.random() * (last + 1)));

  return {
    /** Sends the connection's next request. */
    next(connection: Connection): void {
      if (batch > 1 && connection.ids.length > 0) {
        connection.kind = SETTLE;
        connection.count = connection.ids.length;
        connection.send(ackBatch(workload.queues[connection.queue] ?? "", host, connection.ids.splice(0)));
        return;
      }
      const id = connection.ids.pop();
      if (id !== undefined) {
        connection.count = 1;
        const { buffer, id_at } = settles[connection.queue] as (typeof settles)[number];
        buffer.write(id, id_at, id_length, "latin1");
        connection.kind = SETTLE;
        connection.send(buffer);
        return;
      }
      const is_publish =
        workload.kind === "publish" ||
        (workload.kind === "mixed" && connection.index % 2 === 0) ||
        (workload.kind === "lifecycle" && connection.published < workload.limit);
      if (is_publish) {
        connection.published += batch;
        connection.count = batch;
        connection.kind = PUBLISH;
        connection.send(publishes[randomQueue()] as Buffer);
        return;
      }
      connection.published = 0;
      connection.count = 0;
      connection.queue = randomQueue();
      connection.kind = RECEIVE;
      connection.send(receives[connection.queue] as Buffer);
    },

    /** Takes the ids out of a receive's answer; how many there were. */
    received(connection: Connection, text: string): number {
      let count = 0;
      for (let at = text.indexOf('"id":"'); at >= 0; at = text.indexOf('"id":"', at + 6)) {
        count += 1;
        if (workload.after !== "leave") connection.ids.push(text.slice(at + 6, at + 6 + id_length));
      }
      return count;
    },
  };
}
