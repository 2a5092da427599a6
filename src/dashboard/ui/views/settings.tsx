import { useEffect, useState } from "preact/hooks";
import { ask, askAll, queuePath } from "../api.ts";
import { count, plural } from "../format.ts";
import { Allowed } from "../parts/allowed.tsx";
import { Button, Card } from "../parts/basics.tsx";
import { Confirm } from "../parts/dialog.tsx";
import { SettingsFields, settingsOf, type Values, valuesOf } from "../parts/settingsForm.tsx";
import { TaskProgress } from "../parts/taskProgress.tsx";
import { attempt, tell } from "../parts/toasts.tsx";
import { usePoll } from "../poll.ts";
import { go, hrefOf } from "../router.tsx";
import type { Queue, QueueStats } from "../shapes.ts";

const ids_ms = 60_000;

/** Ids of all queues, to choose one from. */
export function useQueueIds(): string[] {
  const { data } = usePoll("queue ids", () => askAll<{ id: string }>("queues"), ids_ms);
  return data?.map(({ id }) => id) ?? [];
}

type Removal = "purge" | "cleanup" | "delete";

const removals: Record<Removal, { title: string; action: string; text: (stats: QueueStats | undefined) => string }> = {
  purge: {
    title: "Purge the queue",
    action: "Purge",
    text: (stats) => `Every message is removed, whatever its state: ${liveText(stats)}, and the archive.`,
  },
  cleanup: {
    title: "Clean the archive up",
    action: "Clean up",
    text: () => "Acked and expired messages are removed. What is still to be delivered stays.",
  },
  delete: {
    title: "Delete the queue",
    action: "Delete",
    text: (stats) => `The queue goes with its subscriptions and every message: ${liveText(stats)}, and the archive.`,
  },
};

function liveText(stats: QueueStats | undefined): string {
  if (stats === undefined) return "an unknown number";
  const { ready, leased, delayed, backing_off } = stats;
  const about = stats.approximate ? "about " : "";
  return `${about}${plural(ready + leased + delayed + backing_off, "message")} (${count(ready)} ready, ${count(leased)} leased)`;
}

type Started = { task_id: string } | undefined;

type DangerProps = { queue: Queue; stats: QueueStats | undefined; onChange: () => void };

function Danger({ queue, stats, onChange }: DangerProps) {
  const [asked, setAsked] = useState<Removal>();
  const [task_id, setTaskId] = useState<string>();
  const run = async (removal: Removal) => {
    setAsked(undefined);
    const is_delete = removal === "delete";
    const path = is_delete ? queuePath(queue.id) : queuePath(queue.id, removal);
    const is_done = await attempt(async () => {
      const started = await ask<Started>(is_delete ? "DELETE" : "PUT", `${path}?async=true`);
      if (is_delete) {
        tell(`Deleted ${queue.id}`);
        go(hrefOf([]));
      } else setTaskId(started?.task_id);
    });
    // Nobody asks after what is gone.
    if (!(is_delete && is_done)) onChange();
  };
  const names: Removal[] = ["cleanup", "purge", "delete"];
  return (
    <Card title="Removal">
      {task_id !== undefined && (
        <TaskProgress key={task_id} task_id={task_id} onEnd={onChange} onDismiss={() => setTaskId(undefined)} />
      )}
      <ul class="removals">
        {names.map((name) => (
          <li key={name}>
            <div>
              <strong>{removals[name].title}</strong>
              <p class="muted">{removals[name].text(stats)}</p>
            </div>
            <Button kind={name === "cleanup" ? "plain" : "danger"} onClick={() => setAsked(name)}>
              {`${removals[name].action}…`}
            </Button>
          </li>
        ))}
      </ul>
      {asked !== undefined && (
        <Confirm
          title={removals[asked].title}
          action={removals[asked].action}
          {...(asked !== "cleanup" && { typed: queue.id })}
          onConfirm={() => void run(asked)}
          onClose={() => setAsked(undefined)}
        >
          <p>{removals[asked].text(stats)}</p>
        </Confirm>
      )}
    </Card>
  );
}

function same(a: Values, b: Values): boolean {
  return Object.keys({ ...a, ...b }).every((name) => (a[name] ?? "") === (b[name] ?? ""));
}

/** The settings of a queue, and what removes its messages or itself. */
export function QueueSettings({ queue, stats, onChange }: DangerProps) {
  const stored = valuesOf(queue);
  const [values, setValues] = useState(stored);
  const [is_edited, setIsEdited] = useState(false);
  const [is_busy, setIsBusy] = useState(false);
  const queue_ids = useQueueIds().filter((id) => id !== queue.id);
  // The change of somebody else is shown unless one is under way here.
  useEffect(() => {
    if (!is_edited) setValues(stored);
  }, [queue.updated_at]);
  const save = async () => {
    setIsBusy(true);
    const is_saved = await attempt(() => ask("PUT", queuePath(queue.id), settingsOf(values)), "Settings saved");
    setIsBusy(false);
    if (is_saved) setIsEdited(false);
    onChange();
  };
  const has_changed = is_edited && !same(values, stored);
  return (
    <div class="stack">
      <Card title="Settings">
        <form
          class="form"
          onSubmit={(event) => {
            event.preventDefault();
            void save();
          }}
        >
          <SettingsFields
            values={values}
            queue_ids={queue_ids}
            onChange={(next) => {
              setIsEdited(true);
              setValues(next);
            }}
          />
          <Allowed right="manage">
            <div class="form-actions">
              <Button kind="primary" type="submit" disabled={!has_changed || is_busy}>
                Save
              </Button>
              <Button
                disabled={!has_changed}
                onClick={() => {
                  setValues(stored);
                  setIsEdited(false);
                }}
              >
                Undo
              </Button>
            </div>
          </Allowed>
        </form>
      </Card>
      <Allowed right="manage">
        <Danger queue={queue} stats={stats} onChange={onChange} />
      </Allowed>
    </div>
  );
}
