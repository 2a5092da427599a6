import { Type } from "@sinclair/typebox";
import { Elysia } from "elysia";
import type { Broker } from "../broker/broker.ts";
import { throttleOf } from "../broker/deliver/consumers.ts";
import type { LeasedMessage } from "../broker/deliver/lease.ts";
import { bytesOf } from "../broker/deliver/receive.ts";
import { whenSent, whenUnsent } from "../web/answer.ts";
import { has_effect } from "../web/gateway.ts";
import { mayWait } from "../web/request.ts";
import { readsQuery } from "./input.ts";
import { documents, jsonStream, jsonText } from "./output.ts";
import { member } from "./schema.ts";

const receive_limit = 10;
/** Of messages with one key in a receive. */
const key_max = 1000;
/** The longest lease that a request can ask for. */
export const lease_seconds_max = 43_200;

export type ReceiveLimits = {
  /** Messages that one receive returns at most. */
  receive_limit_max: number;
  /** Seconds that a receive waits at most. */
  wait_seconds_max: number;
};

/** What a dead-lettered message says of its past. */
export const Dead = Type.Object(
  {
    source_queue_id: Type.String(),
    reason: Type.String({ enum: ["max_deliveries", "rejected", "expired"] }),
    error: Type.Union([Type.String({ description: "Of the last nack" }), Type.Null()]),
    attempts: Type.Integer({ description: "Deliveries before the move" }),
    dead_at: Type.String({ format: "date-time" }),
  },
  {
    title: "DeadLetter",
    example: {
      source_queue_id: "orders",
      reason: "max_deliveries",
      error: "the mail server did not answer",
      attempts: 5,
      dead_at: "2026-01-31T12:00:00.000000Z",
    },
  },
);

/** What an example of the document shows. */
export const example_message = {
  id: "01KG9Z5Q8V3M4R7T2W6X9Y1Z0A",
  queue_id: "orders",
  label: "created",
  body: '{"order":4711}',
  attributes: { country: "DE" },
  delivery_attempts: 1,
  created_at: "2026-01-31T12:00:00.000000Z",
};
const example_lease = { lease_token: "3141592653589793238", lease_expires_at: "2026-01-31T12:00:31.000000Z" };

const Message = Type.Object(
  {
    id: Type.String({ description: "A ULID" }),
    queue_id: Type.String(),
    label: Type.Union([Type.String(), Type.Null()]),
    body: Type.String(),
    attributes: Type.Union([Type.Record(Type.String(), Type.String()), Type.Null()]),
    delivery_attempts: Type.Integer({ description: "Deliveries, this one included" }),
    created_at: Type.String({ format: "date-time" }),
    lease_token: Type.String({ description: "For ack, nack and extend; new on every delivery" }),
    lease_expires_at: Type.String({ format: "date-time" }),
    ordering_key: Type.Optional(Type.String()),
    priority: Type.Optional(Type.Integer({ description: "Other than 0" })),
    expires_at: Type.Optional(Type.String({ format: "date-time" })),
    dead: Type.Optional(Dead),
    last_error: Type.Optional(Type.String()),
  },
  { title: "Message", example: { ...example_message, ...example_lease } },
);

const Received = Type.Object(
  { data: Type.Array(Message), limit: Type.Integer() },
  { title: "ReceivedMessages", example: { data: [{ ...example_message, ...example_lease }], limit: 10 } },
);

/** One received message. Attributes are JSON text already, so they are not parsed to be printed again. */
function render(message: LeasedMessage, queue_id: string): string {
  const label = message.label === null ? "null" : JSON.stringify(message.label);
  let text =
    `{"id":"${message.id}","queue_id":${queue_id},"label":${label},"body":${JSON.stringify(message.body)},` +
    `"attributes":${message.attributes ?? "null"},"delivery_attempts":${message.delivery_attempts},` +
    `"created_at":"${message.created_at}","lease_token":"${message.lease_token}",` +
    `"lease_expires_at":"${message.lease_expires_at}"`;
  if (message.ordering_key !== null) text += `,"ordering_key":${JSON.stringify(message.ordering_key)}`;
  if ((message.priority ?? 0) !== 0) text += `,"priority":${message.priority}`;
  if (message.expires_at !== null) text += `,"expires_at":"${message.expires_at}"`;
  if (message.dead !== null) text += `,"dead":${message.dead}`;
  if (message.last_error !== null) text += `,"last_error":${JSON.stringify(message.last_error)}`;
  return `${text}}`;
}

/**
 * From so many bytes on an answer is written message by message, in chunks: as one text it would be in memory several
 * times. Bun announces no length of a stream.
 */
const streamed_bytes_min = 8_388_608;

/** The answer, and `onEnd` when the client has read it, or nobody reads it any more. */
function answerReceive(
  request: Request,
  leased: LeasedMessage[],
  queue_id: string,
  limit: number,
  onEnd: () => void,
): Response {
  const bytes = bytesOf(leased);
  const end = `],"limit":${limit}}`;
  if (bytes < streamed_bytes_min) {
    const data = leased.map((message) => render(message, queue_id)).join(",");
    const response = jsonText(200, `{"data":[${data}${end}`);
    if (leased.length > 0) whenSent(request, response, onEnd);
    return response;
  }
  const left = [...leased];
  let start = '{"data":[';
  let has_ended = false;
  const finish = () => {
    left.length = 0;
    if (has_ended) return;
    has_ended = true;
    onEnd();
    // What it held is many megabytes of text, which the runtime would keep until it happens to need memory.
    Bun.gc(true);
  };
  request.signal.addEventListener("abort", finish, { once: true });
  const encoder = new TextEncoder();
  const stream = new ReadableStream<Uint8Array>(
    {
      pull(controller) {
        const message = left.shift();
        if (message !== undefined) {
          controller.enqueue(encoder.encode(start + render(message, queue_id)));
          start = ",";
          return;
        }
        controller.enqueue(encoder.encode(end));
        controller.close();
        finish();
      },
      cancel: finish,
    },
    { highWaterMark: 0 },
  );
  return jsonStream(200, stream);
}

/** `GET /v1/queues/:queue_id/messages`: leases. */
export function receiveRoutes(broker: Broker, { receive_limit_max, wait_seconds_max }: ReceiveLimits) {
  const ReceiveQuery = Type.Object({
    label: Type.Optional(member.text("Only messages with exactly this label; empty matches the empty label")),
    limit: Type.Optional(
      member.limit(
        receive_limit_max,
        `Messages to return at most; lowered to ${receive_limit_max}`,
        Math.min(receive_limit, receive_limit_max),
      ),
    ),
    wait_seconds: Type.Optional(
      member.limit(
        wait_seconds_max,
        `Seconds to wait for a message; default the queue's, lowered to ${wait_seconds_max}`,
      ),
    ),
    max_per_key: Type.Optional(
      member.seconds("Messages with the same ordering key to return at most; default 1, 0: any number", 0, key_max),
    ),
    ack_deadline_seconds: Type.Optional(
      member.seconds("Seconds to hide what is returned, instead of the queue's; 0 hides nothing", 0, lease_seconds_max),
    ),
  });

  return new Elysia({ prefix: "/v1/queues/:queue_id/messages", normalize: false }).get(
    "",
    async ({ params, query, request }) => {
      const { label, limit = Math.min(receive_limit, receive_limit_max), wait_seconds, ack_deadline_seconds } = query;
      const { max_per_key } = query;
      // Without a wait asked for, the queue's own may hold; whether, only the database knows.
      if (wait_seconds !== 0) mayWait(request, (wait_seconds ?? wait_seconds_max) * 1000);
      const leased = await broker.receive({
        queue_id: params.queue_id,
        label,
        limit,
        lease_seconds: ack_deadline_seconds,
        max_per_key,
        wait_ms: wait_seconds === undefined ? undefined : wait_seconds * 1000,
        wait_ms_max: wait_seconds_max * 1000,
        signal: request.signal,
      });
      const queue_id = JSON.stringify(params.queue_id);
      const bytes = bytesOf(leased);
      const throttled = throttleOf(leased);
      const response = answerReceive(request, leased, queue_id, limit, () => broker.answered(bytes));
      if (throttled !== undefined) response.headers.set("x-throttled", throttled);
      return leased.length === 0 ? response : whenUnsent(response, () => broker.takeBack(params.queue_id, leased));
    },
    {
      ...readsQuery(ReceiveQuery),
      detail: {
        ...documents(
          "receiveMessages",
          "messages",
          "Receive messages: leases them for the queue's ack deadline",
          [
            {
              status: 200,
              schema: Received,
              description:
                "The messages, none when none is ready; X-Throttled: in_flight or rate when that kept some back",
            },
          ],
          ["validation_failed", "queue_not_found", "too_many_requests"],
        ),
        ...has_effect,
      },
    },
  );
}
