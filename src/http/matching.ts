import { Type } from "@sinclair/typebox";
import { Elysia } from "elysia";
import type { Broker } from "../broker/broker.ts";
import { after_member, filter_members, filterOf, type PeekState, peek_filter, state_member } from "./filter.ts";
import { readsBody, readsQuery } from "./input.ts";
import { documents, json } from "./output.ts";
import { member } from "./schema.ts";

const CountQuery = Type.Object(peek_filter);
const GroupsQuery = Type.Object({ after: after_member });
const MatchingInput = Type.Object({
  action: member.choice<"delete" | "nack">(
    ["delete", "nack"],
    "nack makes messages visible at once, also those that somebody holds; those with an ordering key it leaves alone",
  ),
  state: state_member("Default all"),
  ...filter_members,
  label: Type.Optional(member.label),
  total_estimate: Type.Optional(member.seconds("What the caller has counted; shown by the task", 0)),
});

const Group = Type.Object({
  error_group: Type.String({ description: "For the filter of the same name" }),
  error: Type.String({ description: "With numbers and ids folded" }),
  count: Type.Integer(),
  first_seen: Type.String({ format: "date-time" }),
  last_seen: Type.String({ format: "date-time" }),
  reasons: Type.Array(Type.String()),
  source_queue_ids: Type.Array(Type.String(), { description: "At most ten of them" }),
  sample: Type.Object({ id: Type.String(), error: Type.Union([Type.String(), Type.Null()]) }),
});
const next = Type.Optional(Type.String({ description: "Where to go on; absent at the end" }));

/** Looking at, and acting upon, everything that matches a filter. */
export const matchingRoutes = (broker: Broker) =>
  new Elysia({ prefix: "/v1/queues/:queue_id/messages", normalize: false })
    .get(
      "/count",
      async ({ params, query }) => {
        const { state = "ready", after = "" } = query;
        const asked = { ...filterOf(query), state: state as PeekState, after };
        return json(200, await broker.countMatching(params.queue_id, asked));
      },
      {
        ...readsQuery(CountQuery),
        detail: documents(
          "messages",
          "Count messages that match, a bounded number of rows a call",
          [{ status: 200, schema: Type.Object({ count: Type.Integer(), next }), description: "How many so far" }],
          ["validation_failed", "queue_not_found"],
        ),
      },
    )
    .get(
      "/groups",
      async ({ params, query: { after = "" } }) => json(200, await broker.groupDeadLetters(params.queue_id, after)),
      {
        ...readsQuery(GroupsQuery),
        detail: documents(
          "messages",
          "Group dead letters by their error, a bounded number of rows a call",
          [{ status: 200, schema: Type.Object({ data: Type.Array(Group), next }), description: "The largest first" }],
          ["validation_failed", "queue_not_found"],
        ),
      },
    )
    .post(
      "/matching",
      async ({ params, body }) => {
        const { action, state = "all" } = body;
        const asked = { ...filterOf(body), action: action as "delete" | "nack", state: state as PeekState };
        const task_id = await broker.startMatching(params.queue_id, asked, body.total_estimate ?? null);
        return json(202, { task_id });
      },
      {
        ...readsBody(MatchingInput),
        detail: documents(
          "messages",
          "Delete or nack every message that matches, as a task",
          [{ status: 202, schema: Type.Object({ task_id: Type.String() }), description: "Started" }],
          ["malformed_body", "validation_failed", "queue_not_found", "queue_in_use"],
        ),
      },
    );
