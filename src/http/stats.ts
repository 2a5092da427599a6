import { Type } from "@sinclair/typebox";
import { Elysia } from "elysia";
import type { Broker } from "../broker/broker.ts";
import { identityOf, visibleTo } from "../web/identity.ts";
import { readsQuery } from "./input.ts";
import { ListQuery, list_limit, pageOf } from "./lists.ts";
import { documents, json, page } from "./output.ts";
import { member } from "./schema.ts";

const trend_minutes_max = 180;
const trend_minutes = 60;
/** Of 255 characters each they would not fit into a URL; usual ones do. */
const trend_queues_max = 100;
const beginning = "0001-01-01T00:00:00Z";

const example_summary = {
  queue_id: "orders",
  ready: 3,
  leased: 1,
  delayed: 0,
  backing_off: 0,
  oldest_ready_age_seconds: 4,
  publish_rate_1m: 2.5,
  ack_rate_1m: 2.4,
  dead_queue_id: null,
};
const example_minute = {
  minute: "2026-01-31T12:00:00.000000Z",
  published: 150,
  delivered: 151,
  acked: 144,
  failed: 1,
  ready: 3,
  leased: 1,
  hidden: 0,
  oldest_ready_age_seconds: 4,
};
const example_trend = { queue_id: "orders", published: [150, 148], acked: [144, 149] };

const Summary = Type.Object(
  {
    queue_id: Type.String(),
    ready: Type.Integer(),
    leased: Type.Integer(),
    delayed: Type.Integer(),
    backing_off: Type.Integer(),
    oldest_ready_age_seconds: Type.Integer(),
    publish_rate_1m: Type.Number({ description: "Per second, over the last full minute" }),
    ack_rate_1m: Type.Number(),
    dead_queue_id: Type.Union([Type.String(), Type.Null()]),
    paused: Type.Optional(Type.Object({ publish: Type.Boolean(), consume: Type.Boolean() })),
  },
  { title: "QueueSummary", example: example_summary },
);
const SummariesQuery = Type.Object({
  ...ListQuery.properties,
  search: Type.Optional(member.text("Part of the queue's id, in any case")),
});

const orNull = Type.Union([Type.Integer(), Type.Null()]);
const Minute = Type.Object(
  {
    minute: Type.String({ format: "date-time" }),
    published: Type.Integer(),
    delivered: Type.Integer(),
    acked: Type.Integer(),
    failed: Type.Integer({ description: "Nacks, and leases that ran out" }),
    ready: orNull,
    leased: orNull,
    hidden: Type.Union([Type.Integer(), Type.Null()], { description: "Delayed and backing off" }),
    oldest_ready_age_seconds: orNull,
  },
  { title: "QueueMinute", example: example_minute },
);
const RatesQuery = Type.Object({ since: Type.Optional(member.time("Default: a day ago, which is the earliest")) });

const Trend = Type.Object(
  {
    queue_id: Type.String(),
    published: Type.Array(Type.Integer()),
    acked: Type.Array(Type.Integer()),
  },
  { title: "QueueTrend", example: example_trend },
);
const TrendsQuery = Type.Object({
  queue_ids: Type.Optional(
    Type.String({
      pattern: `^[a-zA-Z0-9._-]+(,[a-zA-Z0-9._-]+){0,${trend_queues_max - 1}}$`,
      description: "At most 100 ids, separated by commas",
    }),
  ),
  minutes: Type.Optional(
    member.limit(trend_minutes_max, "Minutes, up to the last full one; lowered to 180", trend_minutes),
  ),
});

/** Numbers of many queues at once, and the last day of one. */
export const statsRoutes = (broker: Broker) =>
  new Elysia({ prefix: "/v1", normalize: false })
    .get(
      "/stats",
      async ({ query: { limit = list_limit, offset = 0, search = "" }, request }) => {
        const seen = visibleTo(request, "peek", "queue");
        return page(await broker.listSummaries(search, limit, offset, seen), offset, limit);
      },
      {
        ...readsQuery(SummariesQuery),
        detail: documents(
          "listStats",
          "queues",
          "Numbers of many queues, by id; large ones are estimates",
          [{ status: 200, schema: pageOf(Summary), description: "A page" }],
          ["validation_failed"],
        ),
      },
    )
    .get(
      "/rates",
      async ({ query: { queue_ids = "", minutes = trend_minutes }, request }) => {
        const asked = queue_ids === "" ? [] : queue_ids.split(",");
        const ids = asked.filter((id) => identityOf(request)?.may("peek", "queue", id) ?? true);
        return json(200, { data: minutes === 0 ? [] : await broker.listTrends(ids, minutes) });
      },
      {
        ...readsQuery(TrendsQuery),
        detail: documents(
          "listTrends",
          "queues",
          "Publishes and acks a minute of several queues, oldest first",
          [
            {
              status: 200,
              schema: Type.Object(
                { data: Type.Array(Trend) },
                { title: "QueueTrends", example: { data: [example_trend] } },
              ),
              description: "Of those that exist",
            },
          ],
          ["validation_failed"],
        ),
      },
    )
    .get(
      "/queues/:queue_id/rates",
      async ({ params, query: { since = beginning } }) =>
        json(200, { data: await broker.getMinutes(params.queue_id, since) }),
      {
        ...readsQuery(RatesQuery),
        detail: documents(
          "listRates",
          "queues",
          "What happened to a queue, minute by minute, for the last day; of the first 1000 queues by id",
          [
            {
              status: 200,
              schema: Type.Object(
                { data: Type.Array(Minute) },
                { title: "QueueMinutes", example: { data: [example_minute] } },
              ),
              description: "Oldest first; minutes in which nothing happened to an empty queue are left out",
            },
          ],
          ["validation_failed", "queue_not_found"],
        ),
      },
    );
