import { type Static, Type } from "@sinclair/typebox";
import { Elysia } from "elysia";
import type { Broker } from "../broker/broker.ts";
import type { RedriveOptions } from "../broker/manage/redrive.ts";
import { BrokerError } from "../errors.ts";
import { type Action, assertMay, findAllowed, identityOf, visibleTo } from "../web/identity.ts";
import { filter_members, filterOf } from "./filter.ts";
import { readsOptionalBody, readsQuery } from "./input.ts";
import { ListQuery, list_limit, pageOf } from "./lists.ts";
import { documents, json, noContent, page } from "./output.ts";
import { member } from "./schema.ts";

const awaited_limit_max = 1000;

const RedriveInput = Type.Object(
  {
    destination_queue_id: Type.Optional(member.id("Default: the queue that each message came from")),
    ...filter_members,
    label: Type.Optional(member.label),
    limit: Type.Optional(member.seconds("Messages to move at most", 1)),
    rate_per_second: Type.Optional(member.seconds("Messages per second", 1, 1000)),
    delay_seconds: Type.Optional(member.seconds("Seconds until they are visible", 0, 31_536_000)),
    reset_attempts: Type.Optional(
      Type.Boolean({ description: "false: delivery_attempts as before the move; default true" }),
    ),
  },
  { title: "RedriveInput", example: { reason: "max_deliveries", rate_per_second: 100 } },
);
const WaitQuery = Type.Object({ wait: Type.Optional(member.flag("Answer when done; needs a limit of at most 1000")) });

const TaskSchema = Type.Object(
  {
    id: Type.String(),
    kind: Type.String(),
    queue_id: Type.String(),
    state: Type.String({ enum: ["running", "completed", "cancelled", "failed"] }),
    moved: Type.Integer(),
    failed: Type.Integer(),
    total_estimate: Type.Integer(),
    created_at: Type.String({ format: "date-time" }),
    finished_at: Type.Union([Type.String({ format: "date-time" }), Type.Null()]),
    error: Type.Union([Type.String(), Type.Null()]),
  },
  {
    title: "Task",
    example: {
      id: "01KG9Z5Q8V3M4R7T2W6X9Y1Z0A",
      kind: "redrive",
      queue_id: "orders-dead",
      state: "completed",
      moved: 3,
      failed: 0,
      total_estimate: 3,
      created_at: "2026-01-31T12:00:00.000000Z",
      finished_at: "2026-01-31T12:00:01.000000Z",
      error: null,
    },
  },
);
/** What was started in the background. */
export const Started = Type.Object(
  { task_id: Type.String() },
  { title: "StartedTask", example: { task_id: "01KG9Z5Q8V3M4R7T2W6X9Y1Z0A" } },
);

const Moved = Type.Object({ moved: Type.Integer() }, { title: "Moved", example: { moved: 3 } });
type RedriveTarget = Pick<RedriveOptions, "destination_queue_id" | "source_queue_id">;
const TasksQuery = Type.Object({
  ...ListQuery.properties,
  queue_id: Type.Optional(member.id("Only tasks of this queue")),
});

const optionsOf = (body: Static<typeof RedriveInput>): Omit<RedriveOptions, "destination_queue_no"> => ({
  destination_queue_id: body.destination_queue_id ?? null,
  ...filterOf(body),
  limit: body.limit ?? null,
  rate_per_second: body.rate_per_second ?? null,
  delay_seconds: body.delay_seconds ?? 0,
  reset_attempts: body.reset_attempts ?? true,
});

/** Messages go to a queue that the key must be for, too: the destination, or the one that all of them came from. */
function assertMayReturn(request: Request, { destination_queue_id, source_queue_id }: RedriveTarget): void {
  const target = destination_queue_id ?? source_queue_id;
  if (target !== null) assertMay(request, "manage", "queue", target);
  else if (identityOf(request)?.mayAll("manage") === false) {
    const why = "messages would go where they came from: name a destination_queue_id or source_queue_id of this key";
    throw new BrokerError("forbidden", why);
  }
}

/** Redrive of dead-letter queues, and the tasks that long work becomes. */
export const taskRoutes = (broker: Broker) => {
  const find = async (request: Request, action: Action, { task_id }: { task_id: string }) =>
    await findAllowed(request, action, broker.getTask(task_id), ({ queue_id }) => [["queue", queue_id]]);
  return new Elysia({ prefix: "/v1", normalize: false })
    .post(
      "/queues/:queue_id/redrive",
      async ({ params, body, query: { wait = false }, request }) => {
        const options = optionsOf(body);
        assertMayReturn(request, options);
        if (wait && (options.limit === null || options.limit > awaited_limit_max)) {
          const text = options.limit === null ? "cannot be blank" : `must be no greater than ${awaited_limit_max}`;
          throw new BrokerError("validation_failed", `limit: ${text}.`);
        }
        if (wait && options.rate_per_second !== null) {
          throw new BrokerError("validation_failed", "rate_per_second: must not be given together with wait.");
        }
        const { task_id, moved } = await broker.redrive(params.queue_id, options, wait);
        return wait ? json(200, { moved }) : json(202, { task_id });
      },
      {
        ...readsOptionalBody(RedriveInput, WaitQuery),
        detail: documents(
          "redriveMessages",
          "messages",
          "Move messages of a dead-letter queue back",
          [
            { status: 202, schema: Started, description: "Started" },
            { status: 200, schema: Moved, description: "With wait=true: done" },
          ],
          ["malformed_body", "validation_failed", "queue_not_found", "queue_in_use", "queue_closed"],
        ),
      },
    )
    .get(
      "/tasks",
      async ({ query: { limit = list_limit, offset = 0, queue_id = null }, request }) => {
        const seen = visibleTo(request, "peek", "queue");
        return page(await broker.listTasks(queue_id, limit, offset, seen), offset, limit);
      },
      {
        ...readsQuery(TasksQuery),
        detail: documents(
          "listTasks",
          "tasks",
          "List tasks, the latest first; those that ended are kept for a week",
          [{ status: 200, schema: pageOf(TaskSchema), description: "A page" }],
          ["validation_failed"],
        ),
      },
    )
    .get("/tasks/:task_id", async ({ params, request }) => json(200, await find(request, "peek", params)), {
      detail: documents(
        "getTask",
        "tasks",
        "Get a task",
        [{ status: 200, schema: TaskSchema, description: "The task" }],
        ["task_not_found"],
      ),
    })
    .delete(
      "/tasks/:task_id",
      async ({ params, request }) => {
        if (identityOf(request) !== undefined) await find(request, "manage", params);
        await broker.cancelTask(params.task_id);
        return noContent();
      },
      {
        detail: documents(
          "cancelTask",
          "tasks",
          "Cancel a task; what it did stays done",
          [{ status: 204, description: "Cancelled, or ended before" }],
          ["task_not_found"],
        ),
      },
    );
};
