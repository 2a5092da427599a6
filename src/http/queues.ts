import { type Static, type TAny, type TSchema, Type } from "@sinclair/typebox";
import { Elysia } from "elysia";
import type { Broker } from "../broker/broker.ts";
import {
  type LaterInput,
  type LaterName,
  later_names,
  later_settings,
  type RetryPolicy as QueuePolicy,
  type RateLimit as QueueRate,
} from "../broker/settings.ts";
import { assertMay, assertMayCutOff, visibleTo } from "../web/identity.ts";
import { readsBody, readsOptionalBody, readsQuery } from "./input.ts";
import { ListQuery, list_limit, pageOf } from "./lists.ts";
import { documents, json, noContent, page } from "./output.ts";
import { QueueStats } from "./queueStats.ts";
import { lease_seconds_max } from "./receive.ts";
import { member, type Problems } from "./schema.ts";

const orNull = <T extends TSchema>(schema: T) => Type.Optional(Type.Union([schema, Type.Null()]));

const RetryPolicy = Type.Object({
  min_seconds: Type.Optional(member.seconds("Default 0: at once", 0, lease_seconds_max)),
  max_seconds: Type.Optional(member.seconds("Default 600; not below min_seconds", 0, lease_seconds_max)),
  multiplier: Type.Optional(Type.Number({ minimum: 1, maximum: 10, description: "Default 2" })),
  jitter: Type.Optional(
    member.choice(["none", "full", "equal"], "Default none; equal when min_seconds is greater than 0"),
  ),
});

const RateLimit = Type.Object({
  count: member.seconds("Deliveries", 1, 1_000_000),
  per_seconds: member.seconds("In so many seconds", 1, 86_400),
  burst: Type.Optional(member.seconds("Deliveries at once after a rest; default count", 1, 1_000_000)),
});

/** A setting as a request gives it. */
function schemaOf(name: LaterName): TSchema {
  const { doc, ...setting } = later_settings[name];
  const fallback = { default: setting.default };
  if (setting.kind === "whole") return { ...member.seconds(doc, setting.min, setting.max), ...fallback };
  if (setting.kind === "truth") return Type.Boolean({ description: doc, ...fallback });
  if (setting.kind === "choice") return { ...member.choice([...setting.choices], doc), ...fallback };
  if (setting.kind === "rate") return { ...RateLimit, ...fallback };
  return setting.kind === "queue" ? { ...member.id(doc), ...fallback } : { ...RetryPolicy, ...fallback };
}

/** The same as an answer shows it. */
function shownSchemaOf(name: LaterName): TSchema {
  const setting = later_settings[name];
  if (setting.kind === "truth") return Type.Boolean();
  if (setting.kind === "policy") return Type.Composite([Type.Required(RetryPolicy)], { title: "RetryPolicy" });
  if (setting.kind === "rate")
    return Type.Union([Type.Composite([Type.Required(RateLimit)], { title: "RateLimit" }), Type.Null()]);
  const own =
    setting.kind === "whole"
      ? Type.Integer()
      : Type.String(setting.kind === "choice" ? { enum: [...setting.choices] } : {});
  return setting.default === null ? Type.Union([own, Type.Null()]) : own;
}

const settings = {
  ack_deadline_seconds: member.seconds("How long a receive hides a message", 1),
  message_retention_seconds: member.seconds("How long an unacked message is kept, counted from publish", 1),
  delivery_delay_seconds: Type.Optional(member.seconds("How long a published message stays hidden; default 0", 0)),
  ...(Object.fromEntries(later_names.map((name) => [name, orNull(schemaOf(name))])) as unknown as Record<
    LaterName,
    TAny
  >),
  created_at: Type.Optional(member.readOnlyTime),
  updated_at: Type.Optional(member.readOnlyTime),
};

const settings_example = { ack_deadline_seconds: 30, message_retention_seconds: 604_800 };
const example_input = { ack_deadline_seconds: 30, message_retention_seconds: 1_209_600, delivery_delay_seconds: 0 };
const example_queue = {
  id: "orders",
  ...example_input,
  created_at: "2026-01-31T12:00:00.000000Z",
  updated_at: "2026-01-31T12:00:00.000000Z",
  ...Object.fromEntries(later_names.map((name) => [name, later_settings[name].default])),
};

const QueueInput = Type.Object(
  { id: member.id("The queue's name"), ...settings },
  { title: "QueueInput", example: { id: "orders", ...example_input } },
);
const QueueUpdate = Type.Object(
  { id: Type.Optional(member.readOnlyText), ...settings },
  { title: "QueueUpdate", example: example_input },
);
type QueueBody = Static<typeof QueueUpdate>;

const Queue = Type.Object(
  {
    id: Type.String(),
    ack_deadline_seconds: Type.Integer(),
    message_retention_seconds: Type.Integer(),
    delivery_delay_seconds: Type.Integer(),
    created_at: Type.String({ format: "date-time" }),
    updated_at: Type.String({ format: "date-time" }),
    ...Object.fromEntries(later_names.map((name) => [name, shownSchemaOf(name)])),
    paused: Type.Optional(Type.Object({ publish: Type.Boolean(), consume: Type.Boolean() })),
  },
  { title: "Queue", example: example_queue },
);

const PauseInput = Type.Object(
  { publish: Type.Optional(Type.Boolean()), consume: Type.Optional(Type.Boolean()) },
  { title: "PauseInput", example: { consume: true } },
);
const AsyncQuery = Type.Object({
  async: Type.Optional(member.flag("Answer at once with a task that does it")),
});
/** Done, or a task that goes on with it. */
const answerRemoval = (task_id: string | undefined) => (task_id === undefined ? noContent() : json(202, { task_id }));

const Started = Type.Object(
  { task_id: Type.String() },
  { title: "StartedTask", example: { task_id: "01KG9Z5Q8V3M4R7T2W6X9Y1Z0A" } },
);
const DeleteQuery = Type.Object({
  ...AsyncQuery.properties,
  force: Type.Optional(member.flag("Also when it is the dead-letter queue of others, which then have none")),
});

/** Rules between members of a new queue. */
function judgeNew(body: QueueBody, problems: Problems): void {
  const { dead_queue_id, message_max_deliveries } = body;
  const pair = [dead_queue_id, message_max_deliveries];
  if (pair.some((own) => own != null) && pair.some((own) => own == null)) {
    const [name, other] =
      dead_queue_id == null ? ["message_max_deliveries", "dead_queue_id"] : ["dead_queue_id", "message_max_deliveries"];
    problems.set(name, `must be given together with ${other}`);
  }
  judgeSettings(body, problems);
}

function judgeSettings(body: QueueBody, problems: Problems): void {
  const policy = policyOf(body.retry_policy);
  if (policy != null && policy.max_seconds < policy.min_seconds) {
    problems.set("retry_policy.max_seconds", `must be no less than ${policy.min_seconds}`);
  }
}

function policyOf(given: Static<typeof RetryPolicy> | null | undefined): QueuePolicy | null | undefined {
  if (given == null) return given;
  const { min_seconds = 0, max_seconds = 600, multiplier = 2 } = given;
  const jitter = (given.jitter ?? (min_seconds > 0 ? "equal" : "none")) as QueuePolicy["jitter"];
  return { min_seconds, max_seconds: given.max_seconds ?? Math.max(max_seconds, min_seconds), multiplier, jitter };
}

const baseOf = (body: QueueBody) => ({
  ack_deadline_seconds: body.ack_deadline_seconds,
  message_retention_seconds: body.message_retention_seconds,
  delivery_delay_seconds: body.delivery_delay_seconds ?? 0,
});

const laterOf = (body: QueueBody): LaterInput => {
  const given = Object.fromEntries(later_names.map((name) => [name, body[name]])) as LaterInput;
  const rate = body.rate_limit as (Omit<QueueRate, "burst"> & { burst?: number }) | null | undefined;
  const rate_limit = rate == null ? rate : { ...rate, burst: rate.burst ?? rate.count };
  return { ...given, rate_limit, retry_policy: policyOf(body.retry_policy) };
};

/** What names another queue needs the right to that one too. */
function assertMayLink(request: Request, { dead_queue_id }: QueueBody): void {
  if (dead_queue_id != null) assertMay(request, "manage", "queue", dead_queue_id);
}

/** `/v1/queues`: make, change, look at, empty and delete queues. */
export const queueRoutes = (broker: Broker) =>
  new Elysia({ prefix: "/v1/queues", normalize: false })
    .post(
      "",
      async ({ body, request }) => {
        assertMay(request, "manage", "queue", body.id);
        assertMayLink(request, body);
        return json(201, await broker.createQueue(body.id, baseOf(body), laterOf(body)));
      },
      {
        ...readsBody(QueueInput, { rules: judgeNew }),
        detail: documents(
          "createQueue",
          "queues",
          "Create a queue",
          [{ status: 201, schema: Queue, description: "The queue" }],
          ["malformed_body", "validation_failed", "queue_exists", "queue_not_found"],
          { example: { id: "my-first-queue", ...settings_example } },
        ),
      },
    )
    .get(
      "",
      async ({ query: { limit = list_limit, offset = 0 }, request }) =>
        page(await broker.listQueues(limit, offset, visibleTo(request, "peek", "queue")), offset, limit),
      {
        ...readsQuery(ListQuery),
        detail: documents(
          "listQueues",
          "queues",
          "List queues by id",
          [{ status: 200, schema: pageOf(Queue), description: "A page" }],
          ["validation_failed"],
        ),
      },
    )
    .get("/:queue_id", async ({ params }) => json(200, await broker.getQueue(params.queue_id)), {
      detail: documents(
        "getQueue",
        "queues",
        "Get a queue",
        [{ status: 200, schema: Queue, description: "The queue" }],
        ["queue_not_found"],
      ),
    })
    .put(
      "/:queue_id",
      async ({ params, body, request }) => {
        assertMayLink(request, body);
        return json(200, await broker.updateQueue(params.queue_id, baseOf(body), laterOf(body)));
      },
      {
        ...readsBody(QueueUpdate, { path_id: "queue_id", rules: judgeSettings }),
        detail: documents(
          "updateQueue",
          "queues",
          "Replace a queue's settings",
          [{ status: 200, schema: Queue, description: "The queue" }],
          ["malformed_body", "validation_failed", "queue_not_found", "queue_in_use"],
          { example: { ...settings_example, ack_deadline_seconds: 60 } },
        ),
      },
    )
    .delete(
      "/:queue_id",
      async ({ params: { queue_id }, query: { force = false, async: is_async }, request }) => {
        if (force) await assertMayCutOff(request, broker, queue_id);
        const queue_no = await broker.removeQueue(queue_id, force);
        const remove = is_async ? broker.startDelete : broker.removeDeleted;
        return answerRemoval(await remove(queue_id, queue_no));
      },
      {
        ...readsQuery(DeleteQuery),
        detail: documents(
          "deleteQueue",
          "queues",
          "Delete a queue, its messages and its subscriptions",
          [
            { status: 204, description: "Deleted" },
            {
              status: 202,
              schema: Started,
              description: "With async=true, or when it takes longer than 30 s: goes on as a task",
            },
          ],
          ["validation_failed", "queue_not_found", "queue_in_use"],
        ),
      },
    )
    .put(
      "/:queue_id/pause",
      async ({ params, body }) => {
        const paused = { publish: body.publish ?? false, consume: body.consume ?? true };
        return json(200, await broker.pauseQueue(params.queue_id, paused));
      },
      {
        ...readsOptionalBody(PauseInput, Type.Object({})),
        detail: documents(
          "pauseQueue",
          "queues",
          "Pause consuming (default) or publishing",
          [{ status: 200, schema: Queue, description: "The queue" }],
          ["malformed_body", "queue_not_found"],
          { example: { consume: true } },
        ),
      },
    )
    .put(
      "/:queue_id/resume",
      async ({ params }) => json(200, await broker.pauseQueue(params.queue_id, { publish: false, consume: false })),
      {
        detail: documents(
          "resumeQueue",
          "queues",
          "Resume both",
          [{ status: 200, schema: Queue, description: "The queue" }],
          ["queue_not_found"],
        ),
      },
    )
    .get("/:queue_id/stats", async ({ params }) => json(200, await broker.getStats(params.queue_id)), {
      detail: documents(
        "getQueueStats",
        "queues",
        "Numbers of a queue",
        [{ status: 200, schema: QueueStats, description: "The numbers" }],
        ["queue_not_found"],
      ),
    })
    .put(
      "/:queue_id/purge",
      async ({ params, query }) => {
        const { queue_id } = params;
        return answerRemoval(query.async ? await broker.startTask("purge", queue_id) : await broker.purge(queue_id));
      },
      {
        ...readsQuery(AsyncQuery),
        detail: documents(
          "purgeQueue",
          "queues",
          "Remove every message",
          [
            { status: 204, description: "Removed" },
            {
              status: 202,
              schema: Started,
              description: "With async=true, or when it takes longer than 30 s: goes on as a task",
            },
          ],
          ["validation_failed", "queue_not_found", "queue_in_use"],
        ),
      },
    )
    .put(
      "/:queue_id/cleanup",
      async ({ params, query }) => {
        const { queue_id } = params;
        return answerRemoval(
          query.async ? await broker.startTask("cleanup", queue_id) : await broker.cleanup(queue_id),
        );
      },
      {
        ...readsQuery(AsyncQuery),
        detail: documents(
          "cleanUpQueue",
          "queues",
          "Remove acked and expired messages",
          [
            { status: 204, description: "Removed" },
            {
              status: 202,
              schema: Started,
              description: "With async=true, or when it takes longer than 30 s: goes on as a task",
            },
          ],
          ["validation_failed", "queue_not_found", "queue_in_use"],
        ),
      },
    );
