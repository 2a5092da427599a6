import { type Static, Type } from "@sinclair/typebox";
import { Elysia } from "elysia";
import type { Broker } from "../broker/broker.ts";
import { states } from "../broker/manage/seen.ts";
import type { Clock } from "../broker/publish/clock.ts";
import { identityOf } from "../web/identity.ts";
import { filterOf, type PeekState, peek_filter } from "./filter.ts";
import { readsBody, readsQuery } from "./input.ts";
import { documents, json, noContent } from "./output.ts";
import { Dead, example_message } from "./receive.ts";
import { attributesText, member, type Problems } from "./schema.ts";

const peek_limit = 10;
const peek_limit_max = 100;
/** Nothing that fits a request is longer. */
const body_characters_max = 268_435_456;
const year_ms = 31_536_000_000;

const example_seen = { ...example_message, state: "ready", visible_at: "2026-01-31T12:00:00.000000Z" };

const Seen = Type.Object(
  {
    id: Type.String(),
    queue_id: Type.String(),
    label: Type.Union([Type.String(), Type.Null()]),
    body: Type.Optional(Type.String()),
    body_bytes: Type.Optional(Type.Integer({ description: "Of the whole body, when it is cut" })),
    unreadable: Type.Optional(
      Type.String({
        enum: ["key_missing", "changed"],
        description: "Instead of a body that cannot be decrypted: its master key is missing, or it was changed",
      }),
    ),
    attributes: Type.Union([Type.Record(Type.String(), Type.String()), Type.Null()]),
    delivery_attempts: Type.Integer(),
    created_at: Type.String({ format: "date-time" }),
    lease_expires_at: Type.Optional(Type.String({ format: "date-time" })),
    ordering_key: Type.Optional(Type.String()),
    priority: Type.Optional(Type.Integer()),
    fairness_key: Type.Optional(Type.String()),
    weight: Type.Optional(Type.Integer()),
    expires_at: Type.Optional(Type.String({ format: "date-time" })),
    dead: Type.Optional(Dead),
    last_error: Type.Optional(Type.String()),
    state: Type.String({ enum: [...states] }),
    visible_at: Type.Optional(Type.String({ format: "date-time" })),
  },
  { title: "SeenMessage", example: example_seen },
);

const SeenPage = Type.Object(
  {
    data: Type.Array(Seen),
    next: Type.Optional(Type.String()),
    stopped_early: Type.Optional(
      Type.Boolean({ description: "The page ended because enough messages were looked at: go on at next" }),
    ),
  },
  { title: "SeenMessagePage", example: { data: [example_seen], next: "01KG9Z5Q8V3M4R7T2W6X9Y1Z0A" } },
);

const SeenAlone = Type.Object(
  {
    ...Seen.properties,
    events: Type.Optional(
      Type.Array(
        Type.Object({
          at: Type.String({ format: "date-time" }),
          event: Type.String({ description: "nacked, lease_expired, dead_lettered, redriven or renamed" }),
          attempt: Type.Integer({ description: "Deliveries so far" }),
          error: Type.Optional(
            Type.String({
              description: "What the consumer said, why the message died, or its id in the queue that it left",
            }),
          ),
        }),
        { description: "Failures: the first and the latest 19; absent while nothing has failed" },
      ),
    ),
  },
  { title: "SeenMessageWithEvents", example: example_seen },
);

const PeekQuery = Type.Object({
  ...peek_filter,
  limit: Type.Optional(member.limit(peek_limit_max, "Messages of a page; lowered to 100", peek_limit)),
  body: Type.Optional(member.flag("false leaves bodies out")),
  body_characters_max: Type.Optional(
    member.limit(body_characters_max, "Longer bodies are cut, and `body_bytes` says how long they are"),
  ),
});

const ChangeInput = Type.Object(
  {
    deliver_at: Type.Optional(member.time("When it becomes visible, at most a year ahead")),
    label: Type.Optional(member.label),
    attributes: Type.Optional(member.attributes),
    priority: Type.Optional(member.priority),
  },
  { title: "ChangeInput", example: { label: "urgent" } },
);
const TokenQuery = Type.Object({ lease_token: Type.Optional(member.text("Of the lease that holds it")) });

const judgesChange =
  (clock: Clock) =>
  ({ deliver_at }: Static<typeof ChangeInput>, problems: Problems): void => {
    const latest_ms = clock.now_ms() + year_ms;
    if (deliver_at !== undefined && Date.parse(deliver_at) > latest_ms) {
      problems.set("deliver_at", `must be no greater than ${new Date(latest_ms).toISOString()}`);
    }
  };

/** Looking at messages without leasing them; changing and deleting single ones. */
export const messageRoutes = (broker: Broker) =>
  new Elysia({ prefix: "/v1/queues/:queue_id/messages", normalize: false })
    .get(
      "/peek",
      async ({ params, query }) => {
        const { state = "ready", after = "", limit = peek_limit, body = true } = query;
        const asked = { ...filterOf(query), state: state as PeekState, after, limit, has_body: body };
        const cut = { body_characters_max: query.body_characters_max ?? body_characters_max };
        return json(200, await broker.peek(params.queue_id, { ...asked, ...cut }));
      },
      {
        ...readsQuery(PeekQuery),
        detail: documents(
          "peekMessages",
          "messages",
          "Look at messages by state, without leasing",
          [
            {
              status: 200,
              schema: SeenPage,
              description: "A page; `next` is absent at the end",
            },
          ],
          ["validation_failed", "queue_not_found"],
        ),
      },
    )
    .get("/:message_id", async ({ params }) => json(200, await broker.getMessage(params.queue_id, params.message_id)), {
      detail: documents(
        "getMessage",
        "messages",
        "Look at one message",
        [{ status: 200, schema: SeenAlone, description: "The message" }],
        ["queue_not_found", "message_not_found"],
      ),
    })
    .put(
      "/:message_id",
      async ({ params, body }) => {
        const attributes = attributesText(body.attributes);
        const change = {
          ...(body.deliver_at !== undefined && { deliver_at: body.deliver_at }),
          ...(body.label !== undefined && { label: body.label }),
          ...(attributes !== null && { attributes }),
          ...(body.priority !== undefined && { priority: body.priority }),
        };
        return json(200, await broker.changeMessage(params.queue_id, params.message_id, change));
      },
      {
        ...readsBody(ChangeInput, {
          rules: judgesChange(broker.clock),
          before: ({ deliver_at }) => (deliver_at === undefined ? undefined : broker.clock.refresh()),
        }),
        detail: documents(
          "changeMessage",
          "messages",
          "Reschedule or relabel a message that nobody holds",
          [{ status: 200, schema: SeenAlone, description: "The message" }],
          ["malformed_body", "validation_failed", "queue_not_found", "message_not_found", "lease_lost"],
          { example: { label: "later" } },
        ),
      },
    )
    .delete(
      "/:message_id",
      async ({ params, query, request }) => {
        const lease_token = query.lease_token ?? request.headers.get("x-lease-token");
        await broker.deleteMessage(params.queue_id, params.message_id, lease_token);
        return noContent();
      },
      {
        ...readsQuery(TokenQuery),
        detail: documents(
          "deleteMessage",
          "messages",
          "Delete a message, whatever its state, unless somebody holds it",
          [{ status: 204, description: "Deleted" }],
          ["validation_failed", "queue_not_found", "message_not_found", "lease_lost"],
          { takes: ["X-Lease-Token"] },
        ),
      },
    );

const rights = ["publish", "consume", "peek", "manage"] as const;

function allowedTo(request: Request): string[] {
  const identity = identityOf(request);
  return rights.filter((right) => identity?.may(right) ?? true);
}

const Info = Type.Object(
  {
    name: Type.String(),
    version: Type.String(),
    features: Type.Array(Type.String()),
    allowed: Type.Array(Type.String({ enum: [...rights] }), {
      description: "What the key of the request allows, on some queue or topic; where no key is asked for, everything",
    }),
  },
  {
    title: "Info",
    example: {
      name: "psqlqueue",
      version: "0.6.0",
      features: ["lease_tokens", "long_poll"],
      allowed: ["publish", "consume", "peek", "manage"],
    },
  },
);

/** `/v1/info`: what this server can do; unknown members are ignored, so a client cannot tell otherwise. */
export const infoRoutes = (version: string) =>
  new Elysia({ prefix: "/v1/info", normalize: false }).get(
    "",
    ({ request }) =>
      json(200, {
        name: "psqlqueue",
        version,
        features: [
          "lease_tokens",
          "dead_letter",
          "long_poll",
          "batch",
          "extend",
          "ordering_keys",
          "priority",
          "caps",
          "dedup",
          "retry_policy",
          "delay",
          "ttl",
          "archive",
          "peek",
          "pause",
          "quotas",
          "search",
          "error_groups",
          "history",
          "sql",
        ],
        allowed: allowedTo(request),
      }),
    {
      detail: documents(
        "getInfo",
        "health",
        "Name, version and features",
        [
          {
            status: 200,
            schema: Info,
            description: "What there is",
          },
        ],
        [],
      ),
    },
  );
