import { Type } from "@sinclair/typebox";
import { Elysia } from "elysia";
import type { Broker } from "../broker/broker.ts";
import { deduplicationKey } from "../broker/publish/dedup.ts";
import type { Outgoing } from "../broker/publish/outgoing.ts";
import type { Published, PublishOptions } from "../broker/publish/publish.ts";
import { BrokerError, type ErrorName, type Failure } from "../errors.ts";
import type { RequestHeader, ResponseHeader } from "./headers.ts";
import { documents, errorBody, itemError, json, noContent, refusalOf, wantsRepresentation } from "./output.ts";
import { type Message, readsPublishes } from "./publishInput.ts";
import { attributesText } from "./schema.ts";

const PublishedSchema = Type.Object(
  { id: Type.String(), deduplicated: Type.Boolean() },
  { title: "Published", example: { id: "01KG9Z5Q8V3M4R7T2W6X9Y1Z0A", deduplicated: false } },
);
const ItemResult = Type.Object(
  {
    id: Type.Optional(Type.String()),
    deduplicated: Type.Optional(Type.Boolean()),
    error: itemError,
  },
  { title: "PublishResult" },
);
const TopicItemResult = Type.Object(
  { delivered_queues: Type.Optional(Type.Integer()), error: itemError },
  { title: "FanOutResult" },
);
const FannedOutSchema = Type.Object(
  {
    delivered_queues: Type.Integer(),
    data: Type.Array(Type.Object({ queue_id: Type.String(), id: Type.String(), deduplicated: Type.Boolean() })),
  },
  {
    title: "FannedOut",
    example: {
      delivered_queues: 1,
      data: [{ queue_id: "orders", id: "01KG9Z5Q8V3M4R7T2W6X9Y1Z0A", deduplicated: false }],
    },
  },
);

const ItemResults = Type.Object(
  { data: Type.Array(ItemResult) },
  { title: "PublishResults", example: { data: [{ id: "01KG9Z5Q8V3M4R7T2W6X9Y1Z0A", deduplicated: false }] } },
);
const TopicItemResults = Type.Object(
  { data: Type.Array(TopicItemResult) },
  { title: "FanOutResults", example: { data: [{ delivered_queues: 1 }] } },
);

const publish_takes: RequestHeader[] = ["Idempotency-Key", "Prefer"];
const stored_headers: ResponseHeader[] = ["X-Message-Id", "X-Deduplicated"];
const fanned_headers: ResponseHeader[] = ["X-Delivered-Queues", "X-Deduplicated"];
const message_example = { body: "hello", attributes: { status: "created" } };
const batch_example = { messages: [{ body: "one" }, { body: "two" }] };

/** The message as the broker takes it. */
const outgoing = (body: Message): Outgoing => ({
  body: body.body,
  label: body.label ?? null,
  attributes: attributesText(body.attributes),
});

const optionsOf = (body: Message, key: string | undefined): PublishOptions => ({
  delay_seconds: body.delay_seconds ?? null,
  deliver_at: body.deliver_at ?? null,
  ttl_seconds: body.ttl_seconds ?? null,
  expires_at: body.expires_at ?? null,
  dedup_key: key === undefined ? null : deduplicationKey("id", key),
  ordering_key: body.ordering_key ?? null,
  priority: body.priority ?? 0,
  fairness_key: body.fairness_key ?? null,
  weight: body.weight ?? null,
});

/** The client's key: the member, else the header. */
function keyOf(body: Message, request: Request): string | undefined {
  if (body.dedup_id !== undefined) return body.dedup_id;
  const header = request.headers.get("idempotency-key");
  if (header === null) return undefined;
  if (!/^[!-~]{1,128}$/.test(header)) {
    throw new BrokerError("validation_failed", "Idempotency-Key: must be in a valid format.");
  }
  return header;
}

/** Nearly every publish has none, and goes the short way. */
const hasOptions = (body: Message, key: string | undefined) =>
  key !== undefined ||
  body.ordering_key !== undefined ||
  body.priority !== undefined ||
  body.fairness_key !== undefined ||
  body.weight !== undefined ||
  body.delay_seconds !== undefined ||
  body.deliver_at !== undefined ||
  body.ttl_seconds !== undefined ||
  body.expires_at !== undefined;

/** What v1 tells of it. */
const shown = ({ id, deduplicated }: Published) => ({ id, deduplicated });

function answerPublish(request: Request, published: Published): Response {
  const headers: Record<string, string> = { "x-message-id": published.id };
  if (published.deduplicated) headers["x-deduplicated"] = "true";
  if (!wantsRepresentation(request)) return noContent(headers);
  return json(201, shown(published), { ...headers, "preference-applied": "return=representation" });
}

type Item = Outgoing & PublishOptions;

const itemsOf = (messages: Message[]): Item[] =>
  messages.map((message) => ({ ...outgoing(message), ...optionsOf(message, message.dedup_id) }));

/**
 * Stores those items that can be, and says of each what became of it. `whole`: refusals that are no matter of single
 * items, and are thrown: nothing was stored.
 */
async function publishEach<Result extends object>(
  messages: Message[],
  judgeItem: (message: unknown) => BrokerError | undefined,
  whole: ErrorName[],
  store: (items: Item[]) => Promise<(Result | Failure)[]>,
): Promise<(Result | Failure)[]> {
  const refusals = messages.map(judgeItem);
  const items = itemsOf(messages.filter((_, i) => refusals[i] === undefined));
  const results = items.length === 0 ? [] : await store(items);
  const failed = results.find((result) => result instanceof BrokerError && whole.includes(result.error));
  if (failed !== undefined) throw failed;
  return refusals.map((refusal) => refusal ?? (results.shift() as Result | Failure));
}

/**
 * Of a batch that is stored as a whole or not at all: the refusal is thrown. A database that failed after the batch was
 * stored is a matter of the items that it failed: to refuse all would have them published twice.
 */
function assertStored<Result extends object>(results: (Result | Failure)[]): (Result | Failure)[] {
  const at = results.findIndex((result) => result instanceof BrokerError);
  if (at < 0) return results;
  const { error, details, problem } = results[at] as BrokerError;
  const named = problem && { problem: { ...problem, field: `messages[${at}].${problem.field}` } };
  throw new BrokerError(error, details, named);
}

const itemResult = <Result extends object>(result: Result | Failure) =>
  result instanceof Error ? { error: errorBody(refusalOf(result, "batch")) } : result;

/** `POST /v1/queues/:queue_id/messages` and its batch. */
export function publishRoutes(broker: Broker) {
  const { judgeItem, readsMessage, readsBatch } = readsPublishes(broker.clock);
  return new Elysia({ prefix: "/v1/queues/:queue_id/messages", normalize: false })
    .post(
      "",
      async ({ params, body, request }) => {
        const key = keyOf(body, request);
        const message = { queue_id: params.queue_id, ...outgoing(body) };
        const options = hasOptions(body, key) ? optionsOf(body, key) : undefined;
        return answerPublish(request, await broker.publish(message, options));
      },
      {
        ...readsMessage(),
        detail: documents(
          "publishMessage",
          "messages",
          "Publish a message",
          [
            { status: 204, description: "Committed; the id is in X-Message-Id", headers: stored_headers },
            {
              status: 201,
              schema: PublishedSchema,
              description: "The same, asked for by Prefer: return=representation",
              headers: [...stored_headers, "Preference-Applied"],
            },
          ],
          [
            "malformed_body",
            "validation_failed",
            "queue_not_found",
            "queue_closed",
            "quota_exceeded",
            "dedup_conflict",
          ],
          { takes: publish_takes, example: message_example },
        ),
      },
    )
    .post(
      "/batch",
      async ({ params, body, query: { atomic = true } }) => {
        const messages = body.messages as Message[];
        const store = async (items: Item[]) => {
          const results = await broker.publishBatch(params.queue_id, items, atomic);
          return results.map((result) => (result instanceof Error ? result : shown(result)));
        };
        if (atomic) return json(201, { data: assertStored(await store(itemsOf(messages))).map(itemResult) });
        return json(200, {
          data: (await publishEach(messages, judgeItem, ["queue_not_found", "queue_closed"], store)).map(itemResult),
        });
      },
      {
        ...readsBatch(),
        detail: documents(
          "publishMessages",
          "messages",
          "Publish up to 1000 messages, all or nothing",
          [
            { status: 201, schema: ItemResults, description: "One per message" },
            {
              status: 200,
              schema: ItemResults,
              description: "With atomic=false",
            },
          ],
          [
            "malformed_body",
            "validation_failed",
            "queue_not_found",
            "queue_closed",
            "quota_exceeded",
            "dedup_conflict",
          ],
          { example: batch_example },
        ),
      },
    );
}

/** `POST /v1/topics/:topic_id/messages` and its batch. */
export function topicPublishRoutes(broker: Broker) {
  const { judgeItem, readsMessage, readsBatch } = readsPublishes(broker.clock);
  return new Elysia({ prefix: "/v1/topics/:topic_id/messages", normalize: false })
    .post(
      "",
      async ({ params, body, request }) => {
        const message = { topic_id: params.topic_id, ...outgoing(body), ...optionsOf(body, keyOf(body, request)) };
        const { delivered_queues, deduplicated, copies } = await broker.publishToTopic(message);
        const headers: Record<string, string> = { "x-delivered-queues": String(delivered_queues) };
        if (deduplicated) headers["x-deduplicated"] = "true";
        if (!wantsRepresentation(request)) return noContent(headers);
        const data = copies.map((copy) => ({ ...copy, deduplicated: false }));
        return json(201, { delivered_queues, data }, { ...headers, "preference-applied": "return=representation" });
      },
      {
        ...readsMessage(),
        detail: documents(
          "publishToTopic",
          "topics",
          "Publish to a topic: a copy for each subscription whose filter matches",
          [
            {
              status: 204,
              description: "Committed, also when no subscription matched; see X-Delivered-Queues",
              headers: fanned_headers,
            },
            {
              status: 201,
              schema: FannedOutSchema,
              description: "The same, asked for by Prefer: return=representation",
              headers: [...fanned_headers, "Preference-Applied"],
            },
          ],
          ["malformed_body", "validation_failed", "topic_not_found", "queue_closed", "quota_exceeded"],
          { takes: publish_takes, example: message_example },
        ),
      },
    )
    .post(
      "/batch",
      async ({ params, body, query: { atomic = true } }) => {
        const messages = body.messages as Message[];
        const store = async (items: Item[]) => {
          const results = await broker.publishBatchToTopic(params.topic_id, items, atomic);
          return results.map((result) =>
            result instanceof Error ? result : { delivered_queues: result.delivered_queues },
          );
        };
        if (atomic) return json(201, { data: assertStored(await store(itemsOf(messages))).map(itemResult) });
        return json(200, {
          data: (await publishEach(messages, judgeItem, ["topic_not_found"], store)).map(itemResult),
        });
      },
      {
        ...readsBatch(),
        detail: documents(
          "publishManyToTopic",
          "topics",
          "Publish up to 1000 messages to a topic, in one transaction",
          [
            {
              status: 201,
              schema: TopicItemResults,
              description: "One per message",
            },
            {
              status: 200,
              schema: TopicItemResults,
              description: "With atomic=false",
            },
          ],
          ["malformed_body", "validation_failed", "topic_not_found", "queue_closed", "quota_exceeded"],
          { example: batch_example },
        ),
      },
    );
}
