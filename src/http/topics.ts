import { Type } from "@sinclair/typebox";
import { Elysia } from "elysia";
import type { Broker } from "../broker/broker.ts";
import { assertMay, visibleTo } from "../web/identity.ts";
import { readsBody, readsQuery } from "./input.ts";
import { ListQuery, list_limit, pageOf } from "./lists.ts";
import { documents, json, noContent, page } from "./output.ts";
import { member } from "./schema.ts";

const TopicInput = Type.Object(
  {
    id: member.id("The topic's name"),
    created_at: Type.Optional(member.readOnlyTime),
  },
  { title: "TopicInput", example: { id: "orders" } },
);
const Topic = Type.Object(
  { id: Type.String(), created_at: Type.String({ format: "date-time" }) },
  { title: "Topic", example: { id: "orders", created_at: "2026-01-31T12:00:00.000000Z" } },
);

/** `/v1/topics`: make, look at and delete topics. */
export const topicRoutes = (broker: Broker) =>
  new Elysia({ prefix: "/v1/topics", normalize: false })
    .post(
      "",
      async ({ body, request }) => {
        assertMay(request, "manage", "topic", body.id);
        return json(201, await broker.createTopic(body.id));
      },
      {
        ...readsBody(TopicInput),
        detail: documents(
          "createTopic",
          "topics",
          "Create a topic",
          [{ status: 201, schema: Topic, description: "The topic" }],
          ["malformed_body", "validation_failed", "topic_exists"],
          { example: { id: "my-first-topic" } },
        ),
      },
    )
    .get(
      "",
      async ({ query: { limit = list_limit, offset = 0 }, request }) =>
        page(await broker.listTopics(limit, offset, visibleTo(request, "peek", "topic")), offset, limit),
      {
        ...readsQuery(ListQuery),
        detail: documents(
          "listTopics",
          "topics",
          "List topics by id",
          [{ status: 200, schema: pageOf(Topic), description: "A page" }],
          ["validation_failed"],
        ),
      },
    )
    .get("/:topic_id", async ({ params }) => json(200, await broker.getTopic(params.topic_id)), {
      detail: documents(
        "getTopic",
        "topics",
        "Get a topic",
        [{ status: 200, schema: Topic, description: "The topic" }],
        ["topic_not_found"],
      ),
    })
    .delete(
      "/:topic_id",
      async ({ params }) => {
        await broker.deleteTopic(params.topic_id);
        return noContent();
      },
      {
        detail: documents(
          "deleteTopic",
          "topics",
          "Delete a topic and its subscriptions; queues and messages stay",
          [{ status: 204, description: "Deleted" }],
          ["topic_not_found"],
        ),
      },
    );
