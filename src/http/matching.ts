import { Type } from "@sinclair/typebox";
import { Elysia } from "elysia";
import type { Broker } from "../broker/broker.ts";
import { after_member, filter_members, filterOf, type PeekState, peek_filter, state_member } from "./filter.ts";
import { readsBody, readsQuery } from "./input.ts";
import { documents, json } from "./output.ts";
import { member } from "./schema.ts";
import { Started } from "./tasks.ts";

const CountQuery = Type.Object(peek_filter);
const GroupsQuery = Type.Object({ after: after_member });
const MatchingInput = Type.Object(
  {
    action: member.choice<"delete" | "nack">(
      ["delete", "nack"],
      "nack makes messages visible at once, also those that somebody holds; those with an ordering key it leaves alone",
    ),
    state: state_member("Default all"),
    ...filter_members,
    label: Type.Optional(member.label),
    total_estimate: Type.Optional(member.seconds("What the caller has counted; shown by the task", 0)),
  },
  { title: "MatchingInput", example: { action: "delete", state: "dead", search: "timeout" } },
);

const example_group = {
  error_group: "0".repeat(32),
  error: "timeout after # ms",
  count: 3,
  first_seen: "2026-01-31T12:00:00.000000Z",
  last_seen: "2026-01-31T12:00:01.000000Z",
  reasons: ["rejected"],
  source_queue_ids: ["orders"],
  sample: { id: "01KG9Z5Q8V3M4R7T2W6X9Y1Z0A", error: "timeout after 300 ms" },
};
const Group = Type.Object(
  {
    error_group: Type.String({ description: "For the filter of the same name" }),
    error: Type.String({ description: "With numbers and ids folded" }),
    count: Type.Integer(),
    first_seen: Type.String({ format: "date-time" }),
    last_seen: Type.String({ format: "date-time" }),
    reasons: Type.Array(Type.String()),
    source_queue_ids: Type.Array(Type.String(), { description: "At most ten of them" }),
    sample: Type.Object({ id: Type.String(), error: Type.Union([Type.String(), Type.Null()]) }),
  },
  { title: "ErrorGroup", example: example_group },
);
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
          "countMessages",
          "messages",
          "Count messages that match, a bounded number of rows a call",
          [
            {
              status: 200,
              schema: Type.Object({ count: Type.Integer(), next }, { title: "MessageCount", example: { count: 12 } }),
              description: "How many so far",
            },
          ],
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
          "groupDeadLetters",
          "messages",
          "Group dead letters by their error, a bounded number of rows a call",
          [
            {
              status: 200,
              schema: Type.Object(
                { data: Type.Array(Group), next },
                { title: "ErrorGroups", example: { data: [example_group] } },
              ),
              description: "The largest first",
            },
          ],
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
          "actOnMatching",
          "messages",
          "Delete or nack every message that matches, as a task",
          [{ status: 202, schema: Started, description: "Started" }],
          ["malformed_body", "validation_failed", "queue_not_found", "queue_in_use"],
        ),
      },
    );
