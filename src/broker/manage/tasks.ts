import { desc, eq, sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { messages, queues, tasks } from "../../db/schema.ts";
import { BrokerError, DatabaseError } from "../../errors.ts";
import type { OnReady } from "../onReady.ts";
import { nextId } from "../publish/ids.ts";
import { column, rfc3339, value } from "../statement.ts";
import { prepareRedrive, type RedriveOptions, type RedriveStep } from "./redrive.ts";
import { type Removal, type RemovalKind, type Removals, removalOfQueue } from "./removal.ts";

// A task is a row: running → completed | failed | cancelled. Its position moves with its work, so that any server can
// go on with it after a restart; what has ended stays as it is.

export type TaskKind = "redrive" | RemovalKind;
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

/** Rows that one statement looks at. */
const chunk_rows = 1000;
/** Milliseconds that one step of a removal takes, give or take a page, and its pages. */
const step_ms_max = 200;
const step_pages_max = 20;
const estimate_max = 100_000;

type Row = Omit<Task, "created_at" | "finished_at"> & {
  queue_no: number;
  /** The request's, and for a removal its bounds `to` and `until`. */
  options: Record<string, unknown>;
  position: string;
  has_queue: boolean;
  created_at: string;
  finished_at: string | null;
};

const present = ({ queue_no: _, options: __, position: ___, has_queue: ____, ...row }: Row): Task => ({
  ...row,
  created_at: rfc3339(row.created_at),
  finished_at: row.finished_at === null ? null : rfc3339(row.finished_at),
});

/** What is asked of the table of tasks. */
function prepareTasks(db: Db) {
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
      ${value("position")}, (
        select count(*) from (
          select from ${messages} as message where message.queue_no = ${value("queue_no")}::int limit ${estimate_max}
        ) as counted
      )
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
  return { get, running, start, advance, finish, forget, findNo };
}

/** Long work that a request started: kept in the database, done in bounded steps by one server at a time. */
export function createTasks(db: Db, removals: Removals, onReady: OnReady, removal_ms_max: number) {
  const redrive = prepareRedrive(db);
  const { get, running, start, advance, finish, forget, findNo } = prepareTasks(db);

  async function numberOf(queue_id: string): Promise<number> {
    const [queue] = await db.run("find_queue_number", () => findNo.execute({ queue_id }), true);
    if (queue === undefined) throw new BrokerError("queue_not_found");
    return queue.no;
  }

  type Start = { kind: TaskKind; queue_id: string; queue_no: number; options: object; position?: string };

  async function begin({ position = "", options, ...given }: Start, may_join = false): Promise<string> {
    const values = {
      ...given,
      id: nextId(),
      position,
      options: JSON.stringify(options),
      may_join: String(may_join),
    };
    const [row] = await db.run("start_task", () => start.execute(values));
    if (row === undefined) throw new BrokerError("queue_in_use", `a ${given.kind} of this queue is running`);
    return row.id;
  }

  const beginRemoval = (queue_id: string, { kind, queue_no, to, until, position }: Removal, may_join = false) =>
    begin({ kind, queue_id, queue_no, options: { to, until }, position }, may_join);

  /** Removes at once, or what takes longer as a task; answers its id. */
  async function removeOrBegin(queue_id: string, removal: Removal): Promise<string | undefined> {
    const { is_done, position } = await removals.proceed(removal, removal_ms_max);
    return is_done ? undefined : await beginRemoval(queue_id, { ...removal, position }, true);
  }

  async function stepRedrive(id: string, moves_max: number): Promise<RedriveStep | undefined> {
    const values = { id, moves_max, limit: chunk_rows };
    const run = () => db.run("redrive", () => redrive.execute(values), true);
    // It locks messages and then their ordering keys, others the other way round: nothing has happened then.
    const [step] = await run().catch((error) => {
      if (!(error instanceof DatabaseError && error.failure === "conflict")) throw error;
      return run();
    });
    for (const queue_id of step?.queue_ids?.split(",") ?? []) onReady(queue_id, null, step?.now ?? "");
    return step;
  }

  /** Rows that each rate-limited redrive may have moved by now. */
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

  /** Redrives up to the task's rate; answers whether there is more to do at once. */
  async function runRedrive(task: Row): Promise<boolean> {
    const moves_max = allow(task);
    if (moves_max === 0) return false;
    const step = await stepRedrive(task.id, moves_max);
    const goes_on = step !== undefined && !step.is_last && !step.is_closed;
    const allowance = allowances.get(task.id);
    if (allowance !== undefined) allowance.moves -= step?.moved ?? 0;
    return goes_on;
  }

  async function runRemoval(task: Row): Promise<boolean> {
    const kind = task.kind as RemovalKind;
    if (kind !== "delete" && !task.has_queue) {
      const values = { id: task.id, state: "failed", error: "queue not found: it was deleted meanwhile" };
      await db.run("finish_task", () => finish.execute(values), true);
      return false;
    }
    // A task of a server before 0.6 has no bounds; its own id and time are at least those of its call.
    const { to = task.id, until = task.created_at } = task.options as Partial<Removal>;
    const { queue_no } = task;
    const bounds = kind === "delete" ? removalOfQueue(queue_no) : { kind, queue_no, to, until };
    const removal = { ...bounds, position: task.position };
    const { removed, position, is_done } = await removals.proceed(removal, step_ms_max, step_pages_max);
    const values = {
      id: task.id,
      removed,
      position,
      is_done: String(is_done),
      options: JSON.stringify(task.options),
    };
    await db.run("advance_task", () => advance.execute(values), true);
    return !is_done;
  }

  return {
    /**
     * Starts moving messages of a dead-letter queue back. Throws `queue_not_found` for either queue, `queue_in_use`
     * while another redrive of it runs. `is_awaited`: moves now, and answers how many.
     */
    async redrive(
      queue_id: string,
      options: Omit<RedriveOptions, "destination_queue_no">,
      is_awaited: boolean,
    ): Promise<{ task_id: string; moved: number }> {
      const queue_no = await numberOf(queue_id);
      const { destination_queue_id } = options;
      const destination_queue_no = destination_queue_id === null ? null : await numberOf(destination_queue_id);
      const asked = { ...options, destination_queue_no };
      const task_id = await begin({ kind: "redrive", queue_id, queue_no, options: asked });
      for (let goes_on = is_awaited; goes_on; ) {
        const step = await stepRedrive(task_id, chunk_rows);
        if (step?.is_closed) throw new BrokerError("queue_closed");
        goes_on = step !== undefined && !step.is_last;
      }
      // The job may have done some of it meanwhile: the task knows.
      const [row] = is_awaited ? await db.run("get_task", () => get.execute({ id: task_id }), true) : [];
      return { task_id, moved: row?.moved ?? 0 };
    },

    /**
     * Removes every message that the queue holds at the call, whatever its state, and its client keys. What takes
     * longer than `removal_ms_max` goes on as a task, whose id is the answer. Throws `queue_not_found`. Repeatable.
     */
    async purge(queue_id: string): Promise<string | undefined> {
      return await removeOrBegin(queue_id, await removals.plan("purge", queue_id));
    },

    /** Removes acked messages, and expired ones that nobody holds under a live lease. Otherwise as purge. */
    async cleanup(queue_id: string): Promise<string | undefined> {
      return await removeOrBegin(queue_id, await removals.plan("cleanup", queue_id));
    },

    /**
     * Starts a purge or cleanup in the background, of what the queue holds now. Throws `queue_not_found`,
     * `queue_in_use` while another one runs.
     */
    async startTask(kind: "purge" | "cleanup", queue_id: string): Promise<string> {
      return await beginRemoval(queue_id, await removals.plan(kind, queue_id));
    },

    /** Removes what a deleted queue left; what takes long goes on as a task, whose id is the answer. Repeatable. */
    removeDeleted: (queue_id: string, queue_no: number): Promise<string | undefined> =>
      removeOrBegin(queue_id, removalOfQueue(queue_no)),

    /** Removes in the background what a deleted queue left. */
    startDelete: (queue_id: string, queue_no: number): Promise<string> =>
      beginRemoval(queue_id, removalOfQueue(queue_no)),

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

    /**
     * One bounded step of every running task, by the server that leads; answers whether there is more to do at once. A
     * task that fails holds up no other: its error is thrown when the others have had their step.
     */
    async runTasks(): Promise<{ is_busy: boolean; running: number }> {
      const rows = (await db.run("list_running_tasks", () => running.execute(), true)) as Row[];
      const ids = new Set(rows.map(({ id }) => id));
      for (const id of allowances.keys()) if (!ids.has(id)) allowances.delete(id);
      const failures: unknown[] = [];
      let is_busy = false;
      for (const task of rows) {
        const is_redrive = task.kind === "redrive";
        try {
          const goes_on = await (is_redrive ? runRedrive(task) : runRemoval(task));
          is_busy ||= goes_on && (task.options as Partial<RedriveOptions>).rate_per_second == null;
        } catch (error) {
          failures.push(error);
        }
      }
      if (failures.length > 0) throw failures[0];
      return { is_busy, running: rows.length };
    },

    /** Forgets tasks that ended a week ago; answers how many. Repeatable. */
    async forgetTasks(): Promise<number> {
      return (await db.run("forget_tasks", () => forget.execute(), true)).length;
    },
  };
}
