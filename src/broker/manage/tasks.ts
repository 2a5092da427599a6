import type { Db } from "../../db/db.ts";
import { BrokerError, DatabaseError, type DatabaseFailure } from "../../errors.ts";
import type { OnReady } from "../onReady.ts";
import { createPages } from "../pages.ts";
import { nextId } from "../publish/ids.ts";
import { type Matching, prepareMatching } from "./matching.ts";
import { prepareRedrive, type RedriveOptions, type RedriveStep } from "./redrive.ts";
import { type Removal, type RemovalKind, type Removals, removalOfQueue } from "./removal.ts";
import { prepareTasks, presentTask, type Task, type TaskKind, type TaskRow } from "./taskRows.ts";
import { everything, type Visible, visibleValues } from "./visible.ts";

// A task is a row: running → completed | failed | cancelled. Its position moves with its work, so that any server can
// go on with it after a restart; what has ended stays as it is.

/** Rows that one statement looks at. */
const chunk_rows = 1000;
/** Milliseconds that one step of a removal takes, give or take a page, and its pages. */
const step_ms_max = 200;
const step_pages_max = 20;
/** Failures that a statement meets again when it is run again. */
const has_no_hope = new Set<DatabaseFailure>(["rejected", "failed"]);
/** Where a task stands that is through with the live messages and goes on in the archive. */
const archive_position = "a";

/** Long work that a request started: kept in the database, done in bounded steps by one server at a time. */
export function createTasks(db: Db, removals: Removals, onReady: OnReady, removal_ms_max: number) {
  const redrive = prepareRedrive(db);
  const redrive_pages = createPages(chunk_rows);
  const matching_pages = createPages(chunk_rows);
  const matching = prepareMatching(db);
  const { get, list, running, start, advance, finish, forget, findNo } = prepareTasks(db);

  async function numberOf(queue_id: string): Promise<number> {
    const [queue] = await db.run("find_queue_number", () => findNo.execute({ queue_id }), true);
    if (queue === undefined) throw new BrokerError("queue_not_found");
    return queue.no;
  }

  type Start = {
    kind: TaskKind;
    queue_id: string;
    queue_no: number;
    options: object;
    position?: string;
    /** Messages that it will take, as far as the caller knows; null: as many as the queue has. */
    total?: number | null;
  };

  async function begin({ position = "", total = null, options, ...given }: Start, may_join = false): Promise<string> {
    const values = {
      ...given,
      total,
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

  /** What PostgreSQL refuses, it refuses again: such a task ends, so that the next one of its kind can start. */
  async function endFailed(id: string, error: unknown): Promise<void> {
    if (!(error instanceof DatabaseError && has_no_hope.has(error.failure))) return;
    const reason = `the database refused a step of it (SQLSTATE ${error.code}); the server's log tells more`;
    await db.run("finish_task", () => finish.execute({ id, state: "failed", error: reason }), true);
  }

  async function stepRedrive(id: string, moves_max: number): Promise<RedriveStep | undefined> {
    const run = () =>
      redrive_pages((limit) => db.run("redrive", () => redrive.execute({ id, moves_max, limit }), true));
    // It locks messages and then their ordering keys, others the other way round: nothing has happened then.
    const again = (error: unknown) => {
      if (!(error instanceof DatabaseError && error.failure === "conflict")) throw error;
      return run();
    };
    const [step] = await run()
      .catch(again)
      .catch(async (error) => {
        await endFailed(id, error);
        throw error;
      });
    for (const queue_id of step?.queue_ids?.split(",") ?? []) onReady(queue_id, null, step?.now ?? "");
    return step;
  }

  /** Rows that each rate-limited redrive may have moved by now. */
  const allowances = new Map<string, { moves: number; at_ms: number }>();

  function allow(task: TaskRow): number {
    const rate = (task.options as Partial<RedriveOptions>).rate_per_second;
    if (rate == null) return chunk_rows;
    const at_ms = performance.now();
    const before = allowances.get(task.id) ?? { moves: 0, at_ms };
    const moves = Math.min(rate, before.moves + (rate * (at_ms - before.at_ms)) / 1000);
    allowances.set(task.id, { moves, at_ms });
    return Math.floor(moves);
  }

  /** Redrives up to the task's rate; answers whether there is more to do at once. */
  async function runRedrive(task: TaskRow): Promise<boolean> {
    const moves_max = allow(task);
    if (moves_max === 0) return false;
    const step = await stepRedrive(task.id, moves_max);
    const goes_on = step !== undefined && !step.is_last && !step.is_closed;
    const allowance = allowances.get(task.id);
    if (allowance !== undefined) allowance.moves -= step?.moved ?? 0;
    return goes_on;
  }

  /** Deletes or frees a page of what matches; answers whether there is more. */
  async function runMatching(task: TaskRow): Promise<boolean> {
    const in_archive = task.position.startsWith(archive_position);
    const statement = in_archive ? matching.forget : task.kind === "delete_matching" ? matching.remove : matching.free;
    const has_archive = task.kind === "delete_matching" && !in_archive;
    const values = { id: task.id, has_archive: String(has_archive), archive_position };
    const [step] = await matching_pages((limit) =>
      db.run(task.kind, () => statement.execute({ ...values, limit }), true),
    );
    if (step !== undefined && step.count > 0 && task.kind === "nack_matching") onReady(task.queue_id, null, step.now);
    // Keys may have lost their first message. Should this server end now, the sweep of the keys finds them.
    if (step?.is_end && task.kind === "delete_matching" && !in_archive) await removals.repairKeys(task.queue_no);
    return step !== undefined && !step.is_last;
  }

  async function runRemoval(task: TaskRow): Promise<boolean> {
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

  function runOne(task: TaskRow): Promise<boolean> {
    if (task.kind === "redrive") return runRedrive(task);
    return task.kind === "delete_matching" || task.kind === "nack_matching" ? runMatching(task) : runRemoval(task);
  }

  return {
    /**
     * Starts to delete what matches, or to make it visible at once. What somebody holds under a live lease is freed by
     * a nack, and never deleted. `total` is what the caller counted. Throws `queue_not_found`, `queue_in_use`.
     */
    async startMatching(queue_id: string, { action, ...options }: Matching, total: number | null): Promise<string> {
      const queue_no = await numberOf(queue_id);
      // What expired may stand in either table; what was acked only in the archive.
      const position = action === "delete" && options.state === "acked" ? archive_position : "";
      return await begin({ kind: `${action}_matching`, queue_id, queue_no, options, position, total });
    },

    /** Tasks, the latest first: those that run, and those that ended within a week. */
    async listTasks(
      queue_id: string | null,
      limit: number,
      offset: number,
      visible: Visible = everything,
    ): Promise<Task[]> {
      const values = { queue_id, limit, offset, ...visibleValues(visible, "queue") };
      const rows = await db.run("list_tasks", () => list.execute(values), true);
      return (rows as TaskRow[]).map(presentTask);
    },

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
      return presentTask(row as TaskRow);
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
      const rows = (await db.run("list_running_tasks", () => running.execute(), true)) as TaskRow[];
      const ids = new Set(rows.map(({ id }) => id));
      for (const id of allowances.keys()) if (!ids.has(id)) allowances.delete(id);
      const failures: unknown[] = [];
      let is_busy = false;
      for (const task of rows) {
        try {
          const goes_on = await runOne(task);
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
