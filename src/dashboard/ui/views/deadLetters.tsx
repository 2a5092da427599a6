import { useState } from "preact/hooks";
import { count, plural, words } from "../format.ts";
import { Allowed } from "../parts/allowed.tsx";
import { Ago, Button, Empty, Loading, Notice } from "../parts/basics.tsx";
import { Bulk, type BulkAction } from "../parts/bulk.tsx";
import { type Canary, CanaryPanel, canary_size, sendCanary } from "../parts/canary.tsx";
import { askGroups } from "../parts/groups.ts";
import { TaskProgress } from "../parts/taskProgress.tsx";
import { attempt } from "../parts/toasts.tsx";
import { patience, usePoll } from "../poll.ts";
import { hrefOf, Link } from "../router.tsx";
import type { ErrorGroup, Filter, Queue, QueueStats } from "../shapes.ts";

/** Grouping reads every dead letter: not as often as a number. */
const asked_ms = 10_000;

type GroupProps = {
  queue_id: string;
  group: ErrorGroup;
  is_busy: boolean;
  onCanary: () => void;
  onBulk: (action: BulkAction) => void;
};

function Group({ queue_id, group, is_busy, onCanary, onBulk }: GroupProps) {
  const { error, error_group, sample, reasons, source_queue_ids, first_seen, last_seen } = group;
  const where = hrefOf(["queues", queue_id, "messages"], { state: "dead", error_group });
  return (
    <li class="group">
      <div class="group-count">
        <Link to={where} label={`Show ${group.count} messages`}>
          {count(group.count)}
        </Link>
      </div>
      <div class="group-text">
        <h3 class="group-error">{error || <span class="muted">No error given</span>}</h3>
        <p class="group-facts">
          first <Ago time={first_seen} />, last <Ago time={last_seen} /> · {reasons.map(words).join(", ")} · from{" "}
          {source_queue_ids.join(", ")}
        </p>
        <details class="group-sample">
          <summary>Sample</summary>
          <pre>{sample.error ?? "The consumer gave no error."}</pre>
          <Link to={hrefOf(["queues", queue_id, "messages", sample.id])}>{sample.id}</Link>
        </details>
      </div>
      <Allowed right="manage">
        <div class="actions">
          {group.count > canary_size && (
            <Button disabled={is_busy} onClick={onCanary}>{`Redrive ${canary_size} first`}</Button>
          )}
          <Button onClick={() => onBulk("redrive")}>Redrive…</Button>
          <Button kind="danger" onClick={() => onBulk("delete")}>
            Delete…
          </Button>
        </div>
      </Allowed>
    </li>
  );
}

function None({ queue }: { queue: Queue }) {
  const { dead_queue_id } = queue;
  return (
    <Empty title="No dead letters here">
      {dead_queue_id !== null ? (
        <p>
          After {plural(queue.message_max_deliveries ?? 0, "delivery").replace("deliverys", "deliveries")} without an
          ack, messages of this queue go to <Link to={hrefOf(["queues", dead_queue_id, "dead"])}>{dead_queue_id}</Link>.
        </p>
      ) : (
        <p>
          Messages that were dead-lettered into this queue are grouped here by their error. This queue itself retries
          for ever: <Link to={hrefOf(["queues", queue.id, "settings"])}>name a dead-letter queue</Link> to change that.
        </p>
      )}
    </Empty>
  );
}

type DeadLettersProps = { queue: Queue; stats: QueueStats | undefined; onChange: () => void };

/** Dead letters by their error: looked at, tried with a few, sent back or deleted. */
export function DeadLetters({ queue, stats, onChange }: DeadLettersProps) {
  const { data, error, refresh } = usePoll(
    `groups ${queue.id}`,
    (signal) => askGroups(queue.id, signal),
    asked_ms,
    patience,
  );
  const [bulk, setBulk] = useState<{ action: BulkAction; filter: Filter }>();
  const [task_id, setTaskId] = useState<string>();
  const [canary, setCanary] = useState<Canary>();
  const [is_busy, setIsBusy] = useState(false);
  const again = () => {
    refresh();
    onChange();
  };
  const ask = (action: BulkAction, error_group?: string) =>
    setBulk({ action, filter: { state: "dead", ...(error_group !== undefined && { error_group }) } });
  const send = async (group: ErrorGroup) => {
    setIsBusy(true);
    await attempt(async () => setCanary(await sendCanary(queue.id, group)));
    setIsBusy(false);
    again();
  };
  const groups = data?.groups ?? [];
  const canaried = groups.find(({ error_group }) => error_group === canary?.error_group);
  return (
    <>
      {task_id !== undefined && (
        <TaskProgress key={task_id} task_id={task_id} onEnd={again} onDismiss={() => setTaskId(undefined)} />
      )}
      {canary !== undefined && (
        <CanaryPanel
          queue_id={queue.id}
          canary={canary}
          onRest={() => ask("redrive", canary.error_group)}
          onMore={() => canaried && void send(canaried)}
          onDismiss={() => setCanary(undefined)}
        />
      )}
      {error && <Notice>{error}</Notice>}
      {data === undefined && !error && <Loading />}
      {data?.is_complete === false && (
        <Notice kind="warning">
          There are more dead letters than were looked at; the counts are of the oldest ones.
        </Notice>
      )}
      {data !== undefined && groups.length === 0 && <None queue={queue} />}
      {groups.length > 0 && (
        <>
          <div class="section-head">
            <h2>
              {plural(groups.length, "group")} of errors, {plural(stats?.dead ?? 0, "dead letter")}
            </h2>
            <span class="spring" />
            <Allowed right="manage">
              <Button onClick={() => ask("redrive")}>Redrive all groups…</Button>
              <Button kind="danger" onClick={() => ask("delete")}>
                Delete all…
              </Button>
            </Allowed>
          </div>
          <ul class="groups">
            {groups.map((group) => (
              <Group
                key={group.error_group}
                queue_id={queue.id}
                group={group}
                is_busy={is_busy}
                onCanary={() => void send(group)}
                onBulk={(action) => ask(action, group.error_group)}
              />
            ))}
          </ul>
        </>
      )}
      {bulk !== undefined && (
        <Bulk {...bulk} queue_id={queue.id} onStart={setTaskId} onClose={() => setBulk(undefined)} />
      )}
    </>
  );
}
