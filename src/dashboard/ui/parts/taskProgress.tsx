import { useEffect } from "preact/hooks";
import { ask } from "../api.ts";
import { count, words } from "../format.ts";
import { usePoll } from "../poll.ts";
import type { Task } from "../shapes.ts";
import { Allowed } from "./allowed.tsx";
import { Button, StateBadge } from "./basics.tsx";
import { attempt } from "./toasts.tsx";

/** What a task does, for people. */
export const kindOf = (kind: string): string =>
  ({ delete_matching: "delete messages", nack_matching: "make messages visible", delete: "delete queue" })[kind] ??
  words(kind);

/** How far a task is: a bar, or what became of it. */
export function TaskBar({ task }: { task: Task }) {
  const total = Math.max(task.total_estimate, task.moved);
  return (
    <span class="task-bar">
      <progress
        aria-label="Progress"
        max={Math.max(1, total)}
        value={task.state === "completed" ? Math.max(1, total) : task.moved}
      />
      <span class="number">
        {count(task.moved)}
        {task.state === "running" && total > 0 && ` of about ${count(total)}`}
        {task.failed > 0 && `, ${count(task.failed)} failed`}
      </span>
    </span>
  );
}

/** Stops a task; what it did stays done. */
export const cancelTask = (task_id: string): Promise<boolean> =>
  attempt(() => ask("DELETE", `tasks/${encodeURIComponent(task_id)}`), "Cancelled. What was done stays done.");

type TaskProgressProps = { task_id: string; onEnd?: (task: Task) => void; onDismiss: () => void };

const asked_ms = 700;

/** A task that was just started, until somebody has seen its end. */
export function TaskProgress({ task_id, onEnd, onDismiss }: TaskProgressProps) {
  const {
    data: task,
    error,
    refresh,
  } = usePoll(
    task_id,
    (signal) => ask<Task>("GET", `tasks/${encodeURIComponent(task_id)}`, undefined, signal),
    asked_ms,
  );
  const state = task?.state;
  // Once, when it has ended.
  useEffect(() => {
    if (task !== undefined && task.state !== "running") onEnd?.(task);
  }, [state]);
  if (task === undefined) return error === undefined ? null : <p class="muted">{error}</p>;
  return (
    <div class="task" role="status">
      <strong>{kindOf(task.kind)}</strong>
      <StateBadge state={task.state} />
      <TaskBar task={task} />
      {task.error !== null && <span class="danger-text">{task.error}</span>}
      <span class="spring" />
      {task.state === "running" ? (
        <Allowed right="manage">
          <Button onClick={() => void cancelTask(task_id).then(refresh)}>Cancel</Button>
        </Allowed>
      ) : (
        <Button kind="quiet" onClick={onDismiss}>
          Dismiss
        </Button>
      )}
    </div>
  );
}
