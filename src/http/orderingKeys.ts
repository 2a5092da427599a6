import { Type } from "@sinclair/typebox";
import { Elysia } from "elysia";
import type { Broker } from "../broker/broker.ts";
import { type KeyState, key_states } from "../broker/manage/orderingKeys.ts";
import { readsQuery } from "./input.ts";
import { ListQuery, list_limit, pageOf } from "./lists.ts";
import { documents, json, page } from "./output.ts";
import { member } from "./schema.ts";

const Key = Type.Object(
  {
    ordering_key: Type.String(),
    label: Type.Optional(Type.String({ description: "Of its first message" })),
    state: Type.String({ enum: [...key_states], description: "blocked: by a dead message" }),
    pending: Type.Integer({ description: "Unfinished messages, up to 100000" }),
    head_id: Type.Union([Type.String(), Type.Null()]),
    blocked_since: Type.Union([Type.String({ format: "date-time" }), Type.Null()]),
    dead_message_id: Type.Union([Type.String(), Type.Null()]),
  },
  {
    title: "OrderingKey",
    example: {
      ordering_key: "order-4711",
      state: "ready",
      pending: 2,
      head_id: "01KG9Z5Q8V3M4R7T2W6X9Y1Z0A",
      blocked_since: null,
      dead_message_id: null,
    },
  },
);

const KeysQuery = Type.Object({
  state: Type.Optional(member.choice([...key_states], "Only keys in this state")),
  ...ListQuery.properties,
});

const Repaired = Type.Object(
  {
    checked: Type.Integer({
      description: "Keys that were looked at: those that messages are ordered by, and those that share the queue",
    }),
    repaired: Type.Integer({
      description: "Those that had lost their first message, or their turns; 0 on a healthy queue",
    }),
  },
  { title: "RepairedQueue", example: { checked: 3, repaired: 0 } },
);

/** Ordering keys of a queue: looking at them, and the safety net. */
export const orderingKeyRoutes = (broker: Broker) =>
  new Elysia({ prefix: "/v1/queues/:queue_id", normalize: false })
    .get(
      "/keys",
      async ({ params, query: { state, limit = list_limit, offset = 0 } }) => {
        const asked = { state: state as KeyState | undefined, limit, offset };
        return page(await broker.listOrderingKeys(params.queue_id, asked), offset, limit);
      },
      {
        ...readsQuery(KeysQuery),
        detail: documents(
          "listOrderingKeys",
          "queues",
          "List ordering keys with unfinished messages",
          [{ status: 200, schema: pageOf(Key), description: "A page, by key" }],
          ["validation_failed", "queue_not_found"],
        ),
      },
    )
    .post("/repair", async ({ params }) => json(200, await broker.repairQueue(params.queue_id)), {
      detail: documents(
        "repairQueue",
        "queues",
        "Look at every key of the queue, and mend those that have lost their first message or their turns",
        [{ status: 200, schema: Repaired, description: "What was done; a healthy queue is left as it is" }],
        ["queue_not_found"],
      ),
    });
