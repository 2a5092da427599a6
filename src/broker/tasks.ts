import { desc, eq, sql } from "drizzle-orm";
import type { Db, Prepared } from "../db/db.ts";
import { messages, queues, tasks } from "../db/schema.ts";
import { BrokerError, type DatabaseError } from "../errors.ts";
import type { Housekeeping } from "./housekeeping.ts";
import { nextId } from "./ids.ts";
import type { OnReady } from "./settle.ts";
import { column, rfc3339, value } from "./sql.ts";

export type TaskKind = "redrive" | "purge" | "cleanup" | "delete";
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

export type RedriveOptions = {
  /** null: each message's own source. */
  destination_queue_id: string | null;
  label: string | null;
  reason: string | null;
  source_queue_id: string | null;
  limit: number | null;
  rate_per_second: number | null;
  delay_seconds: number;
  reset_attempts: boolean;
};

/** Rows that one statement looks at. */
const chunk_rows = 1000;
const estimate_max = 100_000;

type Row = Omit<Task, "created_at" | "finished_at"> & {
  queue_no: number;
  options: Record<string, unknown>;
  created_at: string;
  finished_at: string | null;
};

type Step = {
  moved: number;
  failed: number;
  is_last: boolean;
  is_closed: boolean;
  queue_ids: string | null;
  now: string;
};

function prepareRedrive(db: Db): Prepared<Step[]> {
  const option = (name: keyof RedriveOptions) => sql`task.options ->> ${name}::text`;
  // The position moves in the statement that moves the messages: interrupted anywhere, each is moved exactly once.
  const task = db.orm.$with("task", {}).as(sql`
    select task.*, open.moves, least(open.moves, ${value("moves_max")}::bigint) as moves_now
    from ${tasks} as task
    cross join lateral (
      select coalesce((${option("limit")})::bigint - task.moved, 9223372036854775807) as moves
    ) as open
    where task.id = ${value("id")} and task.state = 'running'
    for update of task`);
  const page = db.orm.$with("page", {}).as(sql`
    select message.ctid as tid, message.id, message.label, message.dead, message.lease_token, message.lease_expires_at
    from task
    cross join lateral (
      select message.ctid, message.*
      from ${messages} as message
      where message.queue_no = task.queue_no and message.id > task.position
      order by message.id
      limit ${value("limit")}::bigint
      for update skip locked
    ) as message`);
  const pick = db.orm.$with("pick", {}).as(sql`
    select page.tid, page.id, page.dead, destination.no, destination.id as queue_id, destination.message_retention_seconds,
      coalesce(destination.publish_paused, false) as is_closed
    from page
    cross join task
    left join lateral (
      select * from ${queues} as queue
      where queue.id = coalesce(${option("destination_queue_id")}, page.dead ->> 'source_queue_id')
      limit 1
    ) as destination on true
    where (page.lease_token is null or page.lease_expires_at <= now())
      and (${option("label")} is null or page.label = ${option("label")})
      and (${option("reason")} is null or page.dead ->> 'reason' = ${option("reason")})
      and (${option("source_queue_id")} is null or page.dead ->> 'source_queue_id' = ${option("source_queue_id")})
      -- Published here directly: it has no place to go back to.
      and (page.dead is not null or ${option("destination_queue_id")} is not null)
    order by page.id
    limit (select task.moves_now from task)`);
  const moved = db.orm.$with("moved", {}).as(sql`
    update ${messages} as message
    set queue_no = pick.no, lease_token = null, leased_at = null, lease_expires_at = null, dead = null, last_error = null,
      has_ttl = false, visible_at = now() + (${option("delay_seconds")})::int * interval '1 second',
      expires_at = now() + pick.message_retention_seconds * interval '1 second',
      delivery_attempts = case
        when (${option("reset_attempts")})::boolean then 0 else coalesce((pick.dead ->> 'attempts')::int, 0)
      end
    from pick, task
    where message.ctid = pick.tid and pick.no is not null and not (select coalesce(bool_or(pick.is_closed), false) from pick)
    returning pick.queue_id`);
  const done = db.orm.$with("done", {}).as(sql`
    select
      (select count(*) from moved)::int as moved,
      (select count(*) from pick where pick.no is null)::int as failed,
      task.moves <= (select count(*) from moved) or (
        (select count(*) from page) < ${value("limit")}::bigint and (select count(*) from pick) < task.moves_now
      ) as is_last,
      (select coalesce(bool_or(pick.is_closed), false) from pick) as is_closed,
      -- Not past what was left for another step.
      case
        when (select count(*) from pick) < task.moves_now then (select max(page.id) from page)
        else (select max(pick.id) from pick)
      end as position
    from task`);
  const noted = db.orm.$with("noted", {}).as(sql`
    update ${tasks} as task
    set moved = task.moved + done.moved, failed = task.failed + done.failed,
      position = case when done.is_closed then task.position else coalesce(done.position, task.position) end,
      state = case when done.is_closed then 'failed' when done.is_last then 'completed' else task.state end,
      error = case when done.is_closed then 'queue closed: publishing to the destination is paused' end,
      finished_at = case when done.is_closed or done.is_last then now() end
    from done
    where task.id = ${value("id")}`);
  const answer = db.orm
    .$with("answer", {
      moved: column<number>("moved"),
      failed: column<number>("failed"),
      is_last: column<boolean>("is_last"),
      is_closed: column<boolean>("is_closed"),
      queue_ids: column<string | null>("queue_ids"),
      now: column<string>("now"),
    })
    .as(sql`
      select done.moved, done.failed, done.is_last, done.is_closed, now() as now,
        (select string_agg(distinct moved.queue_id, ',') from moved) as queue_ids
      from done`);
  return db.orm
    .with(task, page, pick, moved, done, noted, answer)
    .select()
    .from(answer)
    .prepare("redrive") as unknown as Prepared<Step[]>;
}

const present = ({ queue_no: _, options: __, ...row }: Row): Task => ({
  ...row,
  created_at: rfc3339(row.created_at),
  finished_at: row.finished_at === null ? null : rfc3339(row.finished_at),
});

/** Long work that a request started: kept in the database, done in bounded steps by one server at a time. */
export function createTasks(db: Db, housekeeping: Housekeeping, onReady: OnReady) {
  const { orm } = db;
  const redrive = prepareRedrive(db);
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
  };
  const get = orm
    .select(fields)
    .from(tasks)
    .where(eq(tasks.id, value("id")))
    .prepare("get_task");
  const running = orm
    .select(fields)
    .from(tasks)
    .where(sql`${tasks.state} = 'running'`)
    .orderBy(desc(tasks.created_at))
    .prepare("list_running_tasks");
  const started = orm.$with("started", { id: column<string>("id") }).as(sql`
    insert into ${tasks} (id, kind, queue_no, queue_id, options, total_estimate)
    select ${value("id")}, ${value("kind")}, ${value("queue_no")}::int, ${value("queue_id")}, ${value("options")}::text::jsonb,
      (
        select count(*) from (
          select from ${messages} as message where message.queue_no = ${value("queue_no")}::int limit ${estimate_max}
        ) as counted
      )
    returning id`);
  const start = orm.with(started).select().from(started).prepare("start_task");
  const finish = orm
    .update(tasks)
    .set({ state: sql`${value("state")}`, error: sql`${value("error")}`, finished_at: sql`now()` })
    .where(sql`${tasks.id} = ${value("id")} and ${tasks.state} = 'running'`)
    .returning({ id: tasks.id })
    .prepare("finish_task");
  const forget = orm
    .delete(tasks)
    .where(sql`${tasks.state} <> 'running' and ${tasks.finished_at} < now() - interval '7 days'`)
    .prepare("forget_tasks");
  const findNo = orm
    .select({ no: queues.no })
    .from(queues)
    .where(eq(queues.id, value("queue_id")))
    .prepare("find_queue_number");

  async function numberOf(queue_id: string): Promise<number> {
    const [queue] = await db.run("find_queue_number", () => findNo.execute({ queue_id }), true);
    if (queue === undefined) throw new BrokerError("queue_not_found");
    return queue.no;
  }

  async function begin(kind: TaskKind, queue_id: string, queue_no: number, options: object): Promise<string> {
    const id = nextId();
    const values = { id, kind, queue_id, queue_no, options: JSON.stringify(options) };
    await db
      .run("start_task", () => start.execute(values))
      .catch((error: DatabaseError) => {
        if (error.code !== "23505") throw error;
        throw new BrokerError("queue_in_use", `a ${kind} of this queue is running`);
      });
    return id;
  }

  async function stepRedrive(id: string, moves_max: number): Promise<Step | undefined> {
    const values = { id, moves_max, limit: chunk_rows };
    const [step] = await db.run("redrive", () => redrive.execute(values), true);
    for (const queue_id of step?.queue_ids?.split(",") ?? []) onReady(queue_id, null, step?.now ?? "");
    return step;
  }

  // What the slow ones may move by now; how often their steps are run, others decide.
  const allowances = new Map<string, { moves: number; at_ms: number }>();

  function allow(task: Row): number {
    const rate = (task.options as Partial<RedriveOptions>).rate_per_second;
    if (rate == null) return chunk_rows;
    const at_ms = performance.now();
    const before = allowances.get(task.id) ?? { moves: 0, at_ms };
    const moves = Math.min(rate, before.moves + (rate * (at_ms - before.at_ms)) / 1000);
    allowances.set(task.id, { moves, at_ms });
    return Math.floor(moves);
  }

  /** One step of a task; false when there is nothing to do at once. */
  async function runStep(task: Row): Promise<boolean> {
    if (task.kind === "redrive") {
      const moves_max = allow(task);
      if (moves_max === 0) return false;
      const step = await stepRedrive(task.id, moves_max);
      const goes_on = step !== undefined && !step.is_last && !step.is_closed;
      const allowance = allowances.get(task.id);
      if (allowance !== undefined) allowance.moves -= step?.moved ?? 0;
      if (!goes_on) allowances.delete(task.id);
      return goes_on;
    }
    try {
      if (task.kind === "purge") await housekeeping.purge(task.queue_id);
      else if (task.kind === "cleanup") await housekeeping.cleanup(task.queue_id);
      else await housekeeping.purgeNumber(task.queue_no);
      await db.run("finish_task", () => finish.execute({ id: task.id, state: "completed", error: null }), true);
    } catch (error) {
      if (!(error instanceof BrokerError)) throw error;
      const values = { id: task.id, state: "failed", error: error.message };
      await db.run("finish_task", () => finish.execute(values), true);
    }
    return false;
  }

  return {
    /**
     * Starts moving messages of a dead-letter queue back. Throws `queue_not_found` for either queue, `queue_in_use`
     * while another redrive of it runs. `is_awaited`: moves now, and answers how many.
     */
    async redrive(
      queue_id: string,
      options: RedriveOptions,
      is_awaited: boolean,
    ): Promise<{ task_id: string; moved: number }> {
      const queue_no = await numberOf(queue_id);
      if (options.destination_queue_id !== null) await numberOf(options.destination_queue_id);
      const task_id = await begin("redrive", queue_id, queue_no, options);
      for (let goes_on = is_awaited; goes_on; ) {
        const step = await stepRedrive(task_id, chunk_rows);
        if (step?.is_closed) throw new BrokerError("queue_closed");
        goes_on = step !== undefined && !step.is_last;
      }
      // The job may have done some of it meanwhile: the task knows.
      const [row] = is_awaited ? await db.run("get_task", () => get.execute({ id: task_id }), true) : [];
      return { task_id, moved: row?.moved ?? 0 };
    },

    /** Starts a purge or cleanup in the background. Throws `queue_not_found`, `queue_in_use`. */
    async startTask(kind: "purge" | "cleanup", queue_id: string): Promise<string> {
      return await begin(kind, queue_id, await numberOf(queue_id), {});
    },

    /** Removes in the background what a deleted queue left. */
    startDelete: (queue_id: string, queue_no: number): Promise<string> => begin("delete", queue_id, queue_no, {}),

    /** Throws `task_not_found`. */
    async getTask(id: string): Promise<Task> {
      const [row] = await db.run("get_task", () => get.execute({ id }), true);
      if (row === undefined) throw new BrokerError("task_not_found");
      return present(row as Row);
    },

    /** What was moved stays moved; a task that has ended stays as it is. Repeatable. Throws `task_not_found`. */
    async cancelTask(id: string): Promise<void> {
      const [row] = await db.run("get_task", () => get.execute({ id }), true);
      if (row === undefined) throw new BrokerError("task_not_found");
      await db.run("finish_task", () => finish.execute({ id, state: "cancelled", error: null }), true);
    },

    /** One step of every running task, by the server that leads; answers whether there is more to do at once. */
    async runTasks(): Promise<{ is_busy: boolean; running: number }> {
      const rows = (await db.run("list_running_tasks", () => running.execute(), true)) as Row[];
      let is_busy = false;
      for (const task of rows) {
        const goes_on = await runStep(task);
        is_busy ||= goes_on && (task.options as Partial<RedriveOptions>).rate_per_second == null;
      }
      return { is_busy, running: rows.length };
    },

    async forgetTasks(): Promise<void> {
      await db.run("forget_tasks", () => forget.execute(), true);
    },
  };
}
