import { Type } from "@sinclair/typebox";
import { Elysia } from "elysia";
import type { Broker } from "../broker/broker.ts";
import type { Failure } from "../errors.ts";
import type { RequestHeader } from "./headers.ts";
import { readsBody, readsOptionalBody } from "./input.ts";
import { documents, errorBody, itemError, json, noContent, refusalOf, wantsRepresentation } from "./output.ts";
import { lease_seconds_max } from "./receive.ts";
import { member } from "./schema.ts";

const items_max = 1000;
const error_bytes_max = 2048;

const token = Type.Optional(member.text("The delivery's lease_token; without it the call is unconditional"));
const TokenQuery = Type.Object({ lease_token: token });

const visibility_timeout_seconds = Type.Optional(
  member.seconds("Seconds until the message is visible again; default the queue's retry policy", 0, lease_seconds_max),
);
const nacking = {
  visibility_timeout_seconds,
  error: Type.Optional(member.text("What went wrong; kept as last_error, cut at 2048 bytes")),
  dead_letter: Type.Optional(Type.Boolean({ description: "To the dead-letter queue at once, if there is one" })),
};

const AckInput = Type.Object(
  { lease_token: token },
  { title: "AckInput", example: { lease_token: "3141592653589793238" } },
);
const NackInput = Type.Object(
  { ...nacking, lease_token: token },
  {
    title: "NackInput",
    example: {
      visibility_timeout_seconds: 30,
      error: "the mail server did not answer",
      lease_token: "3141592653589793238",
    },
  },
);
const NackQuery = Type.Object({ visibility_timeout_seconds, lease_token: token });
const deadline = (description: string) => member.seconds(description, 0, lease_seconds_max);
const ExtendInput = Type.Object(
  {
    ack_deadline_seconds: deadline("The lease ends so many seconds from now; 0 gives it back"),
    lease_token: token,
  },
  { title: "ExtendInput", example: { ack_deadline_seconds: 60, lease_token: "3141592653589793238" } },
);

const item = { id: member.id("The message's id"), lease_token: token };
const AckBatch = Type.Object(
  { items: member.list(Type.Object(item), items_max, "Messages to ack") },
  {
    title: "AckBatchInput",
    example: { items: [{ id: "01KG9Z5Q8V3M4R7T2W6X9Y1Z0A", lease_token: "3141592653589793238" }] },
  },
);
const NackBatch = Type.Object(
  {
    items: member.list(Type.Object({ ...item, ...nacking }), items_max, "Messages to nack"),
    ...nacking,
  },
  {
    title: "NackBatchInput",
    example: {
      items: [{ id: "01KG9Z5Q8V3M4R7T2W6X9Y1Z0A", lease_token: "3141592653589793238" }],
      visibility_timeout_seconds: 30,
    },
  },
);
const ExtendBatch = Type.Object(
  {
    items: member.list(
      Type.Object({ ...item, ack_deadline_seconds: Type.Optional(deadline("Instead of the one beside items")) }),
      items_max,
      "Leases to extend",
    ),
    ack_deadline_seconds: Type.Optional(deadline("For items without their own")),
  },
  {
    title: "ExtendBatchInput",
    example: {
      items: [{ id: "01KG9Z5Q8V3M4R7T2W6X9Y1Z0A", lease_token: "3141592653589793238" }],
      ack_deadline_seconds: 60,
    },
  },
);

const Results = Type.Object(
  {
    results: Type.Array(
      Type.Object({
        id: Type.String(),
        status: Type.String({
          enum: ["ok", "lease_lost", "not_found", "failed"],
          description: "failed: `error` says why; the item may be sent again where its code is 19",
        }),
        error: itemError,
      }),
    ),
  },
  { title: "SettleResults", example: { results: [{ id: "01KG9Z5Q8V3M4R7T2W6X9Y1Z0A", status: "ok" }] } },
);

const Extended = Type.Object(
  { lease_expires_at: Type.String({ format: "date-time" }) },
  { title: "ExtendedLease", example: { lease_expires_at: "2026-01-31T12:00:31.000000Z" } },
);

type Nacking = { visibility_timeout_seconds?: number; error?: string; dead_letter?: boolean };
type AskedItem = Omit<BatchItem, "lease_token"> & { queue_id: string; lease_token: string | null };
type BatchItem = Nacking & { id: string; lease_token?: string; ack_deadline_seconds?: number };

/** At most `error_bytes_max` bytes, cut at a character. */
function cut(text: string | undefined): string | null {
  if (text === undefined) return null;
  const bytes = new TextEncoder().encode(text);
  if (bytes.length <= error_bytes_max) return text;
  let end = error_bytes_max;
  while (((bytes[end] ?? 0) & 0xc0) === 0x80) end -= 1;
  return new TextDecoder().decode(bytes.subarray(0, end));
}

const nackOf = (own: Nacking, beside: Nacking = {}) => ({
  visibility_timeout_seconds: own.visibility_timeout_seconds ?? beside.visibility_timeout_seconds ?? null,
  error: cut(own.error ?? beside.error),
  dead_letter: own.dead_letter ?? beside.dead_letter ?? false,
});

type Tokened = { lease_token?: string };
const tokenOf = (body: Tokened, query: Tokened, request: Request): string | null =>
  body.lease_token ?? query.lease_token ?? request.headers.get("x-lease-token");

/** Runs a batch in which an id counts once, with its first appearance, and answers one result per item. */
async function settleBatch(
  queue_id: string,
  items: BatchItem[],
  settle: (items: AskedItem[]) => Promise<(object | undefined | Failure)[]>,
): Promise<Response> {
  const firsts = new Map<string, BatchItem>();
  for (const given of items) if (!firsts.has(given.id)) firsts.set(given.id, given);
  const asked = [...firsts.values()].map((given) => ({ ...given, queue_id, lease_token: given.lease_token ?? null }));
  const outcomes = await settle(asked);
  const results = new Map(asked.map(({ id }, i) => [id, { id, ...resultOf(outcomes[i]) }]));
  return json(200, { results: items.map(({ id }) => results.get(id)) });
}

/** An item that fails never fails the others. Only the queue is a matter of all. */
function resultOf(outcome: object | undefined | Failure) {
  if (!(outcome instanceof Error)) return { status: "ok" };
  const refusal = refusalOf(outcome, "batch");
  if (refusal.error === "queue_not_found") throw refusal;
  if (refusal.error === "lease_lost") return { status: "lease_lost" };
  if (refusal.error === "message_not_found") return { status: "not_found" };
  return { status: "failed", error: errorBody(refusal) };
}

/** Of no message: the answer says so for this item. */
const id_example = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
const settled = (description: string) => [{ status: 204 as const, description }];
const refusals = ["malformed_body", "validation_failed", "queue_not_found", "message_not_found", "lease_lost"] as const;
const takes: RequestHeader[] = ["X-Lease-Token"];
const batchDetail = (operation_id: string, summary: string, example: object = { items: [{ id: id_example }] }) =>
  documents(
    operation_id,
    "messages",
    summary,
    [{ status: 200, schema: Results, description: "One result per item, in order" }],
    ["malformed_body", "validation_failed", "queue_not_found"],
    { example },
  );

/** Ack, nack and extend of one message. */
export const settleRoutes = (broker: Broker) =>
  new Elysia({ prefix: "/v1/queues/:queue_id/messages/:message_id", normalize: false })
    .put(
      "/ack",
      async ({ params, body, query, request }) => {
        const lease_token = tokenOf(body, query, request);
        await broker.ack({ queue_id: params.queue_id, id: params.message_id, lease_token });
        return noContent();
      },
      {
        ...readsOptionalBody(AckInput, TokenQuery),
        detail: documents(
          "ackMessage",
          "messages",
          "Ack a message: it never comes back",
          settled("Acked"),
          [...refusals],
          { takes, example: {} },
        ),
      },
    )
    .put(
      "/nack",
      async ({ params, body, query, request }) => {
        const lease_token = tokenOf(body, query, request);
        const nack = nackOf(body, query);
        await broker.nack({ queue_id: params.queue_id, id: params.message_id, lease_token, ...nack });
        return noContent();
      },
      {
        ...readsOptionalBody(NackInput, NackQuery),
        detail: documents(
          "nackMessage",
          "messages",
          "Nack a message: visible again at once, or after a while",
          settled("Nacked"),
          [...refusals],
          { takes, example: { visibility_timeout_seconds: 10 } },
        ),
      },
    )
    .put(
      "/extend",
      async ({ params, body, query, request }) => {
        const { lease_expires_at } = await broker.extend({
          queue_id: params.queue_id,
          id: params.message_id,
          lease_token: tokenOf(body, query, request),
          ack_deadline_seconds: body.ack_deadline_seconds,
        });
        if (!wantsRepresentation(request)) return noContent();
        const headers = { "preference-applied": "return=representation" };
        return json(200, { lease_expires_at }, headers);
      },
      {
        ...readsBody(ExtendInput, { query: TokenQuery }),
        detail: documents(
          "extendLease",
          "messages",
          "Extend a lease, or give it back",
          [
            { status: 204, description: "Extended" },
            {
              status: 200,
              schema: Extended,
              description: "The same, asked for by Prefer: return=representation",
              headers: ["Preference-Applied"],
            },
          ],
          [...refusals],
          { takes: [...takes, "Prefer"], example: { ack_deadline_seconds: 60 } },
        ),
      },
    );

/** Ack, nack and extend of up to 1000 messages in one statement. */
export const settleBatchRoutes = (broker: Broker) =>
  new Elysia({ prefix: "/v1/queues/:queue_id", normalize: false })
    .post("/ack", ({ params, body }) => settleBatch(params.queue_id, body.items as BatchItem[], broker.ackBatch), {
      ...readsBody(AckBatch),
      detail: batchDetail("ackMessages", "Ack up to 1000 messages"),
    })
    .post(
      "/nack",
      ({ params, body }) =>
        settleBatch(params.queue_id, body.items as BatchItem[], (items) =>
          broker.nackBatch(items.map((own) => ({ ...own, ...nackOf(own, body as Nacking) }))),
        ),
      { ...readsBody(NackBatch), detail: batchDetail("nackMessages", "Nack up to 1000 messages") },
    )
    .post(
      "/extend",
      ({ params, body }) =>
        settleBatch(params.queue_id, body.items as BatchItem[], (items) =>
          broker.extendBatch(
            items.map((own) => ({
              ...own,
              ack_deadline_seconds: own.ack_deadline_seconds ?? body.ack_deadline_seconds ?? 0,
            })),
          ),
        ),
      {
        ...readsBody(ExtendBatch, {
          rules: (body, problems) => {
            if (body.ack_deadline_seconds !== undefined) return;
            for (const [i, own] of (body.items as BatchItem[]).entries()) {
              if (own.ack_deadline_seconds === undefined)
                problems.set(`items[${i}].ack_deadline_seconds`, "cannot be blank");
            }
          },
        }),
        detail: batchDetail("extendLeases", "Extend up to 1000 leases", {
          items: [{ id: id_example }],
          ack_deadline_seconds: 60,
        }),
      },
    );
