import { type Static, Type } from "@sinclair/typebox";
import { Elysia } from "elysia";
import type { Broker } from "../broker/broker.ts";
import { BrokerError } from "../errors.ts";
import { identityOf } from "../web/identity.ts";
import { readsBody, readsQuery } from "./input.ts";
import { ListQuery, list_limit, pageOf } from "./lists.ts";
import { documents, json, noContent, page } from "./output.ts";
import { member } from "./schema.ts";

const scopes_max = 100;
const patterns_max = 100;
const actions = ["publish", "consume", "peek", "manage", "*"];

const pattern = Type.String({
  pattern: "^[a-zA-Z0-9\\-._*]+$",
  maxLength: 255,
  description: "An id, or one with * for any run of characters",
});
/** Elsewhere unknown members are ignored. Here a misspelt one gives more than was meant: `queue`, the right to all. */
const strict = { additionalProperties: false };
const Scope = Type.Object(
  {
    actions: Type.Array(Type.String({ enum: actions, pattern: "^(publish|consume|peek|manage|\\*)$" }), {
      minItems: 1,
      maxItems: actions.length,
    }),
    queues: Type.Optional(Type.Array(pattern, { maxItems: patterns_max })),
    topics: Type.Optional(Type.Array(pattern, { maxItems: patterns_max })),
  },
  strict,
);
const RateLimit = Type.Object(
  {
    count: member.seconds("Requests", 1, 1_000_000),
    per_seconds: member.seconds("In so many seconds", 1, 86_400),
    burst: member.seconds("Of them at once", 1, 1_000_000),
  },
  strict,
);

const example_input = { name: "orders service", scopes: [{ actions: ["publish", "consume"], queues: ["orders*"] }] };
const example_key = {
  id: "3mJr7AoUXx2W",
  ...example_input,
  namespace: null,
  expires_at: null,
  rate_limit: null,
  sigv4: false,
  created_at: "2026-01-31T12:00:00.000000Z",
  last_used_at: null,
};

const KeyInput = Type.Object(
  {
    name: Type.String({ format: "text", minLength: 1, maxLength: 255, description: "For people; not unique" }),
    scopes: member.list(Scope, scopes_max, "Rights; they add up. Without queues and topics they are for all of them"),
    namespace: Type.Optional(member.id("It sees and creates only ids that begin with this and a dot")),
    expires_at: Type.Optional(member.time("When it stops working")),
    rate_limit: Type.Optional(RateLimit),
    sigv4: Type.Optional(
      Type.Boolean({ description: "Its id and secret sign requests of SQS clients; needs PSQLQUEUE_MASTER_KEY" }),
    ),
    id: Type.Optional(member.readOnlyText),
    created_at: Type.Optional(member.readOnlyTime),
    last_used_at: Type.Optional(member.readOnlyTime),
  },
  { title: "ApiKeyInput", example: example_input, ...strict },
);

const orNull = <T extends Parameters<typeof Type.Union>[0][number]>(schema: T) => Type.Union([schema, Type.Null()]);
const shown = {
  id: Type.String(),
  name: Type.String(),
  scopes: Type.Array(
    Type.Object({
      actions: Type.Array(Type.String()),
      queues: Type.Optional(Type.Array(Type.String())),
      topics: Type.Optional(Type.Array(Type.String())),
    }),
  ),
  namespace: orNull(Type.String()),
  expires_at: orNull(Type.String({ format: "date-time" })),
  rate_limit: orNull(Type.Object({ count: Type.Integer(), per_seconds: Type.Integer(), burst: Type.Integer() })),
  sigv4: Type.Boolean(),
  created_at: Type.String({ format: "date-time" }),
  last_used_at: orNull(Type.String({ format: "date-time", description: "To the minute" })),
};
const Key = Type.Object(shown, { title: "ApiKey", example: example_key });
const NewKey = Type.Object(
  { ...shown, key: Type.String({ description: "The whole key, shown this once" }) },
  { title: "NewApiKey", example: { ...example_key, key: "pq_…" } },
);

type Body = Static<typeof KeyInput>;

/** Nobody gives away more than they have. */
function assertMayGive(request: Request, scopes: Body["scopes"]): void {
  const identity = identityOf(request);
  if (identity === undefined) return;
  const asked = new Set(scopes.flatMap((scope) => scope.actions));
  const wanted = asked.has("*") ? (["publish", "consume", "peek", "manage"] as const) : [...asked];
  if (wanted.every((action) => identity.mayAll(action as "publish"))) return;
  throw new BrokerError("forbidden", "a key cannot give rights that it does not have itself");
}

/** `/v1/keys`: make, list and revoke API keys. */
export const keyRoutes = (broker: Broker) =>
  new Elysia({ prefix: "/v1/keys", normalize: false })
    .post(
      "",
      async ({ body, request }) => {
        assertMayGive(request, body.scopes);
        const { name, scopes, namespace = null, expires_at = null, rate_limit = null, sigv4 = false } = body;
        if (sigv4 && !broker.keepsSecrets) {
          throw new BrokerError("validation_failed", "sigv4: is not enabled for this server.");
        }
        return json(201, await broker.createKey({ name, scopes, namespace, expires_at, rate_limit, sigv4 }));
      },
      {
        ...readsBody(KeyInput),
        detail: documents(
          "createKey",
          "keys",
          "Create an API key",
          [{ status: 201, schema: NewKey, description: "The key, with its text" }],
          ["malformed_body", "validation_failed"],
          { example: example_input },
        ),
      },
    )
    .get(
      "",
      async ({ query: { limit = list_limit, offset = 0 } }) =>
        page(await broker.listKeys(limit, offset), offset, limit),
      {
        ...readsQuery(ListQuery),
        detail: documents(
          "listKeys",
          "keys",
          "List API keys, without their secrets",
          [{ status: 200, schema: pageOf(Key), description: "A page" }],
          ["validation_failed"],
        ),
      },
    )
    .delete(
      "/:key_id",
      async ({ params }) => {
        await broker.deleteKey(params.key_id);
        return noContent();
      },
      {
        detail: documents(
          "deleteKey",
          "keys",
          "Revoke an API key: on every server within a second",
          [{ status: 204, description: "Revoked" }],
          ["key_not_found"],
        ),
      },
    );
