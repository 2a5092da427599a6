import { type Static, Type } from "@sinclair/typebox";
import { Elysia } from "elysia";
import type { Broker } from "../broker/broker.ts";
import { type PeekQuery as Peek, states } from "../broker/manage/messages.ts";
import { readsBody, readsQuery } from "./input.ts";
import { documents, json, noContent } from "./output.ts";
import { Dead } from "./receive.ts";
import { attributesText, member, type Problems } from "./schema.ts";

type PeekState = Peek["state"];

const peek_limit = 10;
const peek_limit_max = 100;
const year_ms = 31_536_000_000;

const Seen = Type.Object({
  id: Type.String(),
  queue_id: Type.String(),
  label: Type.Union([Type.String(), Type.Null()]),
  body: Type.Optional(Type.String()),
  attributes: Type.Union([Type.Record(Type.String(), Type.String()), Type.Null()]),
  delivery_attempts: Type.Integer(),
  created_at: Type.String({ format: "date-time" }),
  lease_expires_at: Type.Optional(Type.String({ format: "date-time" })),
  ordering_key: Type.Optional(Type.String()),
  priority: Type.Optional(Type.Integer()),
  expires_at: Type.Optional(Type.String({ format: "date-time" })),
  dead: Type.Optional(Dead),
  last_error: Type.Optional(Type.String()),
  state: Type.String(),
  visible_at: Type.Optional(Type.String({ format: "date-time" })),
});

const PeekQuery = Type.Object({
  state: Type.Optional(member.choice([...states, "dead", "all"], "Default ready")),
  label: Type.Optional(member.text("Only this label")),
  ordering_key: Type.Optional(member.text("Only this ordering key")),
  after: Type.Optional(
    Type.String({ pattern: "^(a?[0-7][0-9A-HJKMNP-TV-Z]{25}|a)$", description: "`next` of the page before" }),
  ),
  limit: Type.Optional(member.limit(peek_limit_max, "Default 10, lowered to 100")),
  body: Type.Optional(member.flag("false leaves bodies out")),
});

const ChangeInput = Type.Object({
  deliver_at: Type.Optional(member.time("When it becomes visible, at most a year ahead")),
  label: Type.Optional(member.label),
  attributes: Type.Optional(member.attributes),
  priority: Type.Optional(member.priority),
});
const TokenQuery = Type.Object({ lease_token: Type.Optional(member.text("Of the lease that holds it")) });

function judgeChange({ deliver_at }: Static<typeof ChangeInput>, problems: Problems): void {
  const latest_ms = Date.now() + year_ms;
  if (deliver_at !== undefined && Date.parse(deliver_at) > latest_ms) {
    problems.set("deliver_at", `must be no greater than ${new Date(latest_ms).toISOString()}`);
  }
}

/** Looking at messages without leasing them; changing and deleting single ones. */
export const messageRoutes = (broker: Broker) =>
  new Elysia({ prefix: "/v1/queues/:queue_id/messages", normalize: false })
    .get(
      "/peek",
      async ({
        params,
        query: { state = "ready", label, ordering_key, after = "", limit = peek_limit, body = true },
      }) =>
        json(
          200,
          await broker.peek(params.queue_id, {
            state: state as PeekState,
            label,
            ordering_key,
            after,
            limit,
            has_body: body,
          }),
        ),
      {
        ...readsQuery(PeekQuery),
        detail: documents(
          "messages",
          "Look at messages by state, without leasing",
          [
            {
              status: 200,
              schema: Type.Object({ data: Type.Array(Seen), next: Type.Optional(Type.String()) }),
              description: "A page; `next` is absent at the end",
            },
          ],
          ["validation_failed", "queue_not_found"],
        ),
      },
    )
    .get("/:message_id", async ({ params }) => json(200, await broker.getMessage(params.queue_id, params.message_id)), {
      detail: documents(
        "messages",
        "Look at one message",
        [{ status: 200, schema: Seen, description: "The message" }],
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
        ...readsBody(ChangeInput, { rules: judgeChange }),
        detail: documents(
          "messages",
          "Reschedule or relabel a message that nobody holds",
          [{ status: 200, schema: Seen, description: "The message" }],
          ["malformed_body", "validation_failed", "queue_not_found", "message_not_found", "lease_lost"],
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
          "messages",
          "Delete a message, whatever its state, unless somebody holds it",
          [{ status: 204, description: "Deleted" }],
          ["validation_failed", "queue_not_found", "message_not_found", "lease_lost"],
        ),
      },
    );

/** `/v1/info`: what this server can do; unknown members are ignored, so a client cannot tell otherwise. */
export const infoRoutes = (version: string) =>
  new Elysia({ prefix: "/v1/info", normalize: false }).get(
    "",
    () =>
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
          "sql",
        ],
      }),
    {
      detail: documents(
        "health",
        "Name, version and features",
        [
          {
            status: 200,
            schema: Type.Object({ name: Type.String(), version: Type.String(), features: Type.Array(Type.String()) }),
            description: "What there is",
          },
        ],
        [],
      ),
    },
  );
