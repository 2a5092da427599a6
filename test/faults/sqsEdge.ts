// Publishers and consumers that speak as clients of Amazon SQS do: what has an ordering key goes to a FIFO queue, in
// the group of that name, and everything else to a standard one.

import type { Client, Reply } from "./client.ts";
import { type Content, type Edge, nameIn } from "./edges.ts";
import { type Delivery, hashOf, now_ms, unsure } from "./history.ts";
import type { Settling } from "./requests.ts";

const received_max = 10;
const status_refused = 400;

type Attribute = { DataType: string; StringValue: string };
type Received = {
  MessageId: string;
  ReceiptHandle: string;
  Body: string;
  Attributes: Record<string, string>;
  MessageAttributes?: Record<string, Attribute>;
};
type Entry = { Id: string; Code?: string; Message?: string; MessageId?: string };
type Batch = { Successful?: Entry[]; Failed?: Entry[] };

const isFifo = (queue: string) => queue.endsWith(".fifo");
const urlOf = (queue: string) => `/000000000000/${queue}`;
const linesOf = (action: string) => `Content-Type: application/x-amz-json-1.0\r\nX-Amz-Target: AmazonSQS.${action}\r\n`;
const call = (client: Client, port: number, action: string, input: object) =>
  client.call(port, "POST", "/", input, linesOf(action));

/** What a batch of one was answered, as if it had been asked by itself. */
function replyOf(reply: Reply, is_batch: boolean): Reply & { answer: Entry } {
  const nothing: Entry = { Id: "" };
  const given = reply.text === "" ? nothing : (JSON.parse(reply.text) as Entry & Batch);
  if (!is_batch || reply.status !== 200) return { ...reply, answer: given };
  const { Successful: [done] = [], Failed: [failed = nothing] = [] } = given as Batch;
  if (done !== undefined) return { ...reply, answer: done };
  const status = failed.Code === "ServiceUnavailable" ? 503 : status_refused;
  return { ...reply, status, text: failed.Message ?? "", answer: failed };
}

/** The handle's time is over, or its message is: as v1's 409. */
const isLate = ({ status, text }: Reply) =>
  status === status_refused && /handle has expired|not available for visibility timeout change/.test(text);

function messageOf({ body, attributes, ordering_key, dedup_id, delay_seconds }: Content): object {
  const typed = Object.entries(attributes ?? {}).map(([name, value]) => [
    name,
    { DataType: "String", StringValue: value },
  ]);
  return {
    MessageBody: body,
    ...(typed.length > 0 && { MessageAttributes: Object.fromEntries(typed) }),
    ...(ordering_key !== undefined && { MessageGroupId: ordering_key, MessageDeduplicationId: dedup_id }),
    ...(delay_seconds !== undefined && { DelaySeconds: delay_seconds }),
  };
}

function readDeliveries(text: string, queue: string, asked_ms: number, ack_deadline_ms: number): Delivery[] {
  const answered_ms = now_ms();
  const { Messages = [] } = JSON.parse(text) as { Messages?: Received[] };
  return Messages.map(({ MessageId, ReceiptHandle, Body, Attributes, MessageAttributes }) => {
    const pairs = Object.entries(MessageAttributes ?? {}).map(([name, { StringValue }]) => [name, StringValue]);
    const attributes = pairs.length === 0 ? null : Object.fromEntries(pairs);
    const ordering_key = Attributes["MessageGroupId"] ?? null;
    return {
      kind: "delivery",
      message: nameIn(Body),
      hash: hashOf({ body: Body, label: null, attributes, ordering_key }),
      queue,
      id: MessageId,
      token: ReceiptHandle,
      attempts: Number(Attributes["ApproximateReceiveCount"]),
      ordering_key,
      created_ms: Number(Attributes["SentTimestamp"]),
      // The answer tells no times: the lease was made between the question and the answer.
      asked_ms,
      leased_ms: answered_ms,
      until_ms: asked_ms + ack_deadline_ms,
    };
  });
}

function settlingOf(queue: string, { verb, lease_token, ...given }: Settling, is_batch: boolean) {
  const { ack_deadline_seconds, visibility_timeout_seconds = ack_deadline_seconds } = given;
  const action = verb === "ack" ? "DeleteMessage" : "ChangeMessageVisibility";
  const item = {
    ReceiptHandle: lease_token,
    ...(verb !== "ack" && { VisibilityTimeout: visibility_timeout_seconds }),
  };
  const input = is_batch ? { Entries: [{ Id: "one", ...item }] } : item;
  return { action: is_batch ? `${action}Batch` : action, input: { QueueUrl: urlOf(queue), ...input } };
}

/** A standard queue and a FIFO queue of this name. */
export function sqsEdge(name: string, ack_deadline_ms: number): Edge {
  const fifo = `${name}.fifo`;
  /** Until when a handle is surely its message's. */
  const until_ms = new Map<string, number>();
  const queueOf = ({ ordering_key }: Content) => (ordering_key === undefined ? name : fifo);
  return {
    queues: [name, fifo],
    creations: ({ ack_deadline_seconds, message_retention_seconds }) =>
      [name, fifo].map((QueueName) => ({
        target: "/",
        lines: linesOf("CreateQueue"),
        body: {
          QueueName,
          Attributes: {
            VisibilityTimeout: String(ack_deadline_seconds),
            MessageRetentionPeriod: String(message_retention_seconds),
            ...(isFifo(QueueName) && { FifoQueue: "true" }),
          },
        },
      })),
    adapt({ label: _, dedup_id: __, ...content }, message) {
      return content.ordering_key === undefined ? content : { ...content, dedup_id: message };
    },
    queuesOf: (content) => [queueOf(content)],
    async publish(client, port, content, is_batch) {
      const queue = queueOf(content);
      const message = messageOf(content);
      const input = is_batch ? { Entries: [{ Id: "one", ...message }] } : message;
      const action = is_batch ? "SendMessageBatch" : "SendMessage";
      const reply = await call(client, port, action, { QueueUrl: urlOf(queue), ...input });
      const { answer, ...told } = replyOf(reply, is_batch);
      return { ...told, copies: [{ queue, id: answer.MessageId ?? "" }] };
    },
    receive: (client, port, queue, limit) =>
      call(client, port, "ReceiveMessage", {
        QueueUrl: urlOf(queue),
        MaxNumberOfMessages: Math.min(limit, received_max),
        WaitTimeSeconds: 1,
        AttributeNames: ["All"],
        MessageAttributeNames: ["All"],
      }),
    read(text, queue, asked_ms) {
      const deliveries = readDeliveries(text, queue, asked_ms, ack_deadline_ms);
      for (const delivery of deliveries) until_ms.set(delivery.token, delivery.until_ms);
      return deliveries;
    },
    async settle(client, port, queue, asked, is_batch) {
      const { verb, lease_token } = asked;
      const sent_ms = now_ms();
      const held_ms = until_ms.get(lease_token) ?? 0;
      // From now on others may have it.
      if (verb === "nack") until_ms.set(lease_token, sent_ms);
      const { action, input } = settlingOf(queue, asked, is_batch);
      const { answer: _, ...reply } = replyOf(await call(client, port, action, input), is_batch);
      if (isLate(reply)) return { ...reply, status: 409, until_ms: 0 };
      if (reply.status !== 200) return { ...reply, until_ms: 0 };
      // A standard queue answers so whatever becomes of it.
      if (verb === "ack" && !isFifo(queue) && now_ms() >= held_ms) return { ...reply, status: unsure, until_ms: 0 };
      const extended_ms = verb === "extend" ? sent_ms + ack_deadline_ms : 0;
      if (verb === "extend") until_ms.set(lease_token, Math.max(held_ms, extended_ms));
      return { ...reply, until_ms: extended_ms };
    },
  };
}
