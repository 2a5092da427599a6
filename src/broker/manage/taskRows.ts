import { desc, eq, sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { messages, queues, tasks } from "../../db/schema.ts";
import { column, rfc3339, value } from "../statement.ts";
import type { RemovalKind } from "./removal.ts";
import { isVisible } from "./visible.ts";

export type TaskKind = "redrive" | "delete_matching" | "nack_matching" | RemovalKind;
export type TaskState = "running" | "completed" | "cancelled" | "failed";

export type Task = {
  id: string;
  kind: TaskKind;
  queue_id: string;
  state: TaskState;
  moved: number;
  failed: number;
  total_estimate: number;
  created_at: string;
  finished_at: string | null;
  error: string | null;
};

const estimate_max = 100_000;

/** A row of the table of tasks. */
export type TaskRow = Omit<Task, "created_at" | "finished_at"> & {
  queue_no: number;
  /** The request's, and for a removal its bounds `to` and `until`. */
  options: Record<string, unknown>;
  position: string;
  has_queue: boolean;
  created_at: string;
  finished_at: string | null;
};

/** As the API shows it. */
export const presentTask = ({ queue_no: _, options: __, position: ___, has_queue: ____, ...row }: TaskRow): Task => ({
  ...row,
  created_at: rfc3339(row.created_at),
  finished_at: row.finished_at === null ? null : rfc3339(row.finished_at),
});

const fields = {
  id: tasks.id,
  kind: sql<TaskKind>`${tasks.kind}`.as("kind"),
  queue_id: tasks.queue_id,
  state: sql<TaskState>`${tasks.state}`.as("state"),
  moved: tasks.moved,
  failed: tasks.failed,
  total_estimate: tasks.total_estimate,
  created_at: tasks.created_at,
  finished_at: tasks.finished_at,
  error: tasks.error,
  queue_no: tasks.queue_no,
  options: tasks.options,
  position: tasks.position,
  has_queue: sql<boolean>`exists (select from ${queues} as queue where queue.no = ${tasks.queue_no})`.as("has_queue"),
};

/** Tasks that a list may show, the latest first. */
const prepareList = (db: Db) =>
  db.orm
    .select(fields)
    .from(tasks)
    .where(
      sql`(${value("queue_id")}::text is null or ${tasks.queue_id} = ${value("queue_id")}::text)
        and ${isVisible(tasks.queue_id, "queue")}`,
    )
    .orderBy(desc(tasks.created_at), desc(tasks.id))
    .limit(value("limit"))
    .offset(value("offset"))
    .prepare("list_tasks");

/** What is asked of the table of tasks. */
export function prepareTasks(db: Db) {
  const get = db.orm
    .select(fields)
    .from(tasks)
    .where(eq(tasks.id, value("id")))
    .prepare("get_task");
  const running = db.orm
    .select(fields)
    .from(tasks)
    .where(sql`${tasks.state} = 'running'`)
    .orderBy(desc(tasks.created_at))
    .prepare("list_running_tasks");
  const started = db.orm.$with("started", { id: column<string>("id") }).as(sql`
    insert into ${tasks} as task (id, kind, queue_no, queue_id, options, position, total_estimate)
    select ${value("id")}, ${value("kind")}, ${value("queue_no")}::int, ${value("queue_id")}, ${value("options")}::text::jsonb,
      ${value("position")}, coalesce(${value("total")}::bigint, (
        select count(*) from (
          select from ${messages} as message where message.queue_no = ${value("queue_no")}::int
          -- What a task may move at most, where it says so.
          limit least(${estimate_max}, (${value("options")}::text::jsonb ->> 'limit')::bigint)
        ) as counted
      ))
    -- What a call could not finish joins the task of the kind that runs, which begins again with the later bounds.
    on conflict (queue_no, kind) where state = 'running' do update
      set options = excluded.options, position = ''
      where ${value("may_join")}::text::boolean
    returning id`);
  const start = db.orm.with(started).select().from(started).prepare("start_task");
  const advance = db.orm
    .update(tasks)
    .set({
      moved: sql`${tasks.moved} + ${value("removed")}::bigint`,
      position: sql`${value("position")}`,
      state: sql`case when ${value("is_done")}::text::boolean then 'completed' else ${tasks.state} end`,
      finished_at: sql`case when ${value("is_done")}::text::boolean then now() end`,
    })
    // Other bounds: a call has joined it meanwhile, and it begins again.
    .where(
      sql`${tasks.id} = ${value("id")} and ${tasks.state} = 'running' and ${tasks.options} = ${value("options")}::text::jsonb`,
    )
    .prepare("advance_task");
  const finish = db.orm
    .update(tasks)
    .set({ state: sql`${value("state")}`, error: sql`${value("error")}`, finished_at: sql`now()` })
    .where(sql`${tasks.id} = ${value("id")} and ${tasks.state} = 'running'`)
    .returning({ id: tasks.id })
    .prepare("finish_task");
  const forget = db.orm
    .delete(tasks)
    .where(sql`${tasks.state} <> 'running' and ${tasks.finished_at} < now() - interval '7 days'`)
    .returning({ id: tasks.id })
    .prepare("forget_tasks");
  const findNo = db.orm
    .select({ no: queues.no })
    .from(queues)
    .where(eq(queues.id, value("queue_id")))
    .prepare("find_queue_number");
  return { get, list: prepareList(db), running, start, advance, finish, forget, findNo };
}
