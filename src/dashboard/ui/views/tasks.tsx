import { ask } from "../api.ts";
import { Allowed } from "../parts/allowed.tsx";
import { Ago, Button, Empty, Loading, Notice, StateBadge, Table } from "../parts/basics.tsx";
import { cancelTask, kindOf, TaskBar } from "../parts/taskProgress.tsx";
import { usePoll } from "../poll.ts";
import { hrefOf, Link } from "../router.tsx";
import type { Page, Task } from "../shapes.ts";

const asked_ms = 2000;
const tasks_max = 100;

function TaskRow({ task, onChange }: { task: Task; onChange: () => void }) {
  const { id, kind, queue_id, state, created_at, error } = task;
  return (
    <tr>
      <th scope="row">{kindOf(kind)}</th>
      <td class="name">
        <Link to={hrefOf(["queues", queue_id])}>{queue_id}</Link>
      </td>
      <td class="p1">
        <StateBadge state={state} />
      </td>
      <td class="line">
        <TaskBar task={task} />
        {error !== null && <span class="error-line">{error}</span>}
      </td>
      <td class="number nowrap">
        <Ago time={created_at} />
      </td>
      <td class="number">
        {state === "running" && (
          <Allowed right="manage">
            <Button label={`Cancel ${kindOf(kind)} of ${queue_id}`} onClick={() => void cancelTask(id).then(onChange)}>
              Cancel
            </Button>
          </Allowed>
        )}
      </td>
    </tr>
  );
}

/** What the server does in the background because somebody asked for it. */
export function TasksView() {
  const { data, error, refresh } = usePoll(
    "tasks",
    (signal) => ask<Page<Task>>("GET", `tasks?limit=${tasks_max}`, undefined, signal),
    asked_ms,
  );
  return (
    <>
      <div class="title">
        <h1 tabIndex={-1}>Tasks</h1>
      </div>
      {error && <Notice>{error}</Notice>}
      {data === undefined && !error && <Loading />}
      {data?.data.length === 0 && (
        <Empty title="No tasks">Redrives, purges and whatever acts on many messages show here for a week.</Empty>
      )}
      {data !== undefined && data.data.length > 0 && (
        <Table label="Tasks" is_stacked>
          <thead>
            <tr>
              <th scope="col">Task</th>
              <th scope="col">Queue</th>
              <th scope="col" class="p1">
                State
              </th>
              <th scope="col">Messages</th>
              <th scope="col" class="number">
                Started
              </th>
              <th scope="col">
                <span class="hidden">Actions</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {data.data.map((task) => (
              <TaskRow key={task.id} task={task} onChange={refresh} />
            ))}
          </tbody>
        </Table>
      )}
    </>
  );
}
