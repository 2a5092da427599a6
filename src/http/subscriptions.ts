import { type Static, Type } from "@sinclair/typebox";
import { Elysia } from "elysia";
import type { Broker } from "../broker/broker.ts";
import type { MessageFilters } from "../broker/manage/subscriptions.ts";
import { type Action, assertMay, assertMayName, findAllowed, identityOf, visibleTo } from "../web/identity.ts";
import { readsBody, readsQuery } from "./input.ts";
import { ListQuery, list_limit, pageOf } from "./lists.ts";
import { documents, json, noContent, page } from "./output.ts";
import { member } from "./schema.ts";

const SubscriptionInput = Type.Object(
  {
    id: member.id("The subscription's name"),
    topic_id: member.id("The topic to copy from"),
    queue_id: member.id("The queue to copy to"),
    message_filters: Type.Optional(member.filters),
    created_at: Type.Optional(member.readOnlyTime),
  },
  {
    title: "SubscriptionInput",
    example: {
      id: "orders-to-germany",
      topic_id: "orders",
      queue_id: "german-orders",
      message_filters: { country: ["DE"] },
    },
  },
);

const Subscription = Type.Object(
  {
    id: Type.String(),
    topic_id: Type.String(),
    queue_id: Type.String(),
    message_filters: Type.Union([
      Type.Record(Type.String(), Type.Union([Type.Array(Type.String()), Type.Null()])),
      Type.Null(),
    ]),
    created_at: Type.String({ format: "date-time" }),
  },
  {
    title: "Subscription",
    example: {
      id: "orders-to-germany",
      topic_id: "orders",
      queue_id: "german-orders",
      message_filters: { country: ["DE"] },
      created_at: "2026-01-31T12:00:00.000000Z",
    },
  },
);

/** A null element of a list reads as ""; a null list stays. */
const filtersOf = ({ message_filters }: Static<typeof SubscriptionInput>): MessageFilters | null =>
  message_filters === undefined
    ? null
    : JSON.parse(JSON.stringify(message_filters), function (this: unknown, _, value: unknown) {
        return Array.isArray(this) && value === null ? "" : value;
      });

/** `/v1/subscriptions`: make, look at and delete subscriptions. */
export const subscriptionRoutes = (broker: Broker) => {
  const find = async (request: Request, action: Action, { subscription_id }: { subscription_id: string }) =>
    await findAllowed(request, action, broker.getSubscription(subscription_id), (found) => [
      ["topic", found.topic_id],
      ["queue", found.queue_id],
    ]);
  return new Elysia({ prefix: "/v1/subscriptions", normalize: false })
    .post(
      "",
      async ({ body, request }) => {
        const { id, topic_id, queue_id } = body;
        assertMay(request, "manage", "topic", topic_id);
        assertMay(request, "manage", "queue", queue_id);
        assertMayName(request, id);
        const message_filters = filtersOf(body);
        return json(201, await broker.createSubscription({ id, topic_id, queue_id, message_filters }));
      },
      {
        ...readsBody(SubscriptionInput),
        detail: documents(
          "createSubscription",
          "subscriptions",
          "Subscribe a queue to a topic",
          [{ status: 201, schema: Subscription, description: "The subscription" }],
          ["malformed_body", "validation_failed", "subscription_exists", "topic_not_found", "queue_not_found"],
          {
            example: {
              id: "my-first-subscription",
              topic_id: "my-first-topic",
              queue_id: "my-first-queue",
              message_filters: { status: ["created"] },
            },
          },
        ),
      },
    )
    .get(
      "",
      async ({ query: { limit = list_limit, offset = 0 }, request }) => {
        const visible = [visibleTo(request, "peek", "topic"), visibleTo(request, "peek", "queue")] as const;
        return page(await broker.listSubscriptions(limit, offset, ...visible), offset, limit);
      },
      {
        ...readsQuery(ListQuery),
        detail: documents(
          "listSubscriptions",
          "subscriptions",
          "List subscriptions by id",
          [{ status: 200, schema: pageOf(Subscription), description: "A page" }],
          ["validation_failed"],
        ),
      },
    )
    .get("/:subscription_id", async ({ params, request }) => json(200, await find(request, "peek", params)), {
      detail: documents(
        "getSubscription",
        "subscriptions",
        "Get a subscription",
        [{ status: 200, schema: Subscription, description: "The subscription" }],
        ["subscription_not_found"],
      ),
    })
    .delete(
      "/:subscription_id",
      async ({ params, request }) => {
        if (identityOf(request) !== undefined) await find(request, "manage", params);
        await broker.deleteSubscription(params.subscription_id);
        return noContent();
      },
      {
        detail: documents(
          "deleteSubscription",
          "subscriptions",
          "Delete a subscription",
          [{ status: 204, description: "Deleted" }],
          ["subscription_not_found"],
        ),
      },
    );
};
