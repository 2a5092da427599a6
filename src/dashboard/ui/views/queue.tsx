import { ask, queuePath } from "../api.ts";
import { compact, count, duration, rate } from "../format.ts";
import { Allowed } from "../parts/allowed.tsx";
import { Loading, Notice, Tag } from "../parts/basics.tsx";
import { PauseButton } from "../parts/pause.tsx";
import { type Polled, usePoll } from "../poll.ts";
import { hrefOf, Link, usePlace } from "../router.tsx";
import type { Queue, QueueStats } from "../shapes.ts";
import { Charts } from "./charts.tsx";
import { DeadLetters } from "./deadLetters.tsx";
import { Messages } from "./messages.tsx";
import { QueueSettings } from "./settings.tsx";

const stats_ms = 3000;
const queue_ms = 15_000;

const tabs = [
  { part: "", title: "Overview" },
  { part: "messages", title: "Messages" },
  { part: "dead", title: "Dead letters" },
  { part: "settings", title: "Settings" },
];

function Figures({ queue_id, stats }: { queue_id: string; stats: QueueStats }) {
  const about = stats.approximate ? "about " : "";
  const states: [title: string, state: string, value: number][] = [
    ["Ready", "ready", stats.ready],
    ["Leased", "leased", stats.leased],
    ["Delayed", "delayed", stats.delayed],
    ["Backing off", "backing_off", stats.backing_off],
    ["Dead letters", "dead", stats.dead],
  ];
  const others: [title: string, value: string][] = [
    ["Oldest ready", stats.ready === 0 ? "–" : duration(stats.oldest_ready_age_seconds)],
    ["Longest lease", stats.leased === 0 ? "–" : duration(stats.oldest_lease_age_seconds)],
    ["Published /s", rate(stats.publish_rate_1m)],
    ["Acked /s", rate(stats.ack_rate_1m)],
  ];
  return (
    <dl class="figures">
      {states.map(([title, state, value]) => (
        <div key={state} data-state={value > 0 ? state : undefined}>
          <dt>{title}</dt>
          <dd title={`${about}${count(value)}`}>
            <Link
              to={hrefOf(
                ["queues", queue_id, state === "dead" ? "dead" : "messages"],
                state === "dead" ? {} : { state },
              )}
            >
              {compact(value)}
            </Link>
          </dd>
        </div>
      ))}
      {others.map(([title, value]) => (
        <div key={title}>
          <dt>{title}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

/** The settings that explain the numbers. */
function Glance({ queue }: { queue: Queue }) {
  const { dead_queue_id, message_max_deliveries } = queue;
  const times: [name: string, seconds: unknown][] = [
    ["Ack deadline", queue["ack_deadline_seconds"]],
    ["Retention", queue["message_retention_seconds"]],
    ["Delay", queue["delivery_delay_seconds"]],
  ];
  return (
    <dl class="facts">
      {times.map(([name, seconds]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{duration(Number(seconds))}</dd>
        </div>
      ))}
      <div>
        <dt>Dead letters go to</dt>
        <dd>
          {dead_queue_id === null ? (
            <span class="muted">nowhere: retried for ever</span>
          ) : (
            <>
              <Link to={hrefOf(["queues", dead_queue_id, "dead"])}>{dead_queue_id}</Link>, after{" "}
              {message_max_deliveries} deliveries
            </>
          )}
        </dd>
      </div>
    </dl>
  );
}

type TitleProps = { queue_id: string; queue: Queue | undefined; onChange: () => void };

function Title({ queue_id, queue, onChange }: TitleProps) {
  return (
    <div class="title">
      <h1 tabIndex={-1}>
        <span class="crumb">
          <Link to={hrefOf([])}>Queues</Link> /{" "}
        </span>
        {queue_id}
      </h1>
      {queue?.paused?.consume && <Tag kind="warning">consuming paused</Tag>}
      {queue?.paused?.publish && <Tag kind="warning">publishing paused</Tag>}
      {queue !== undefined && (
        <div class="title-actions">
          <Allowed right="manage">
            <PauseButton queue={queue} onChange={onChange} />
          </Allowed>
          <Allowed right="publish">
            <Link to={hrefOf(["queues", queue_id, "publish"])} class="button primary">
              Publish
            </Link>
          </Allowed>
        </div>
      )}
    </div>
  );
}

function Tabs({ queue_id, current, dead }: { queue_id: string; current: string; dead: number }) {
  return (
    <nav class="tabs" aria-label="Queue">
      {tabs.map(({ part, title }) => (
        <Link key={part} to={hrefOf(["queues", queue_id, ...(part ? [part] : [])])} is_current={part === current}>
          {title}
          {part === "dead" && dead > 0 && <span class="tab-count">{compact(dead)}</span>}
        </Link>
      ))}
    </nav>
  );
}

type TabProps = {
  tab: string;
  queue: Queue;
  stats: QueueStats | undefined;
  onStats: () => void;
  onChange: () => void;
};

function Tab({ tab, queue, stats, onStats, onChange }: TabProps) {
  if (tab === "messages") return <Messages queue={queue} stats={stats} onChange={onStats} />;
  if (tab === "dead") return <DeadLetters queue={queue} stats={stats} onChange={onStats} />;
  if (tab === "settings") return <QueueSettings queue={queue} stats={stats} onChange={onChange} />;
  return (
    <>
      {stats && <Figures queue_id={queue.id} stats={stats} />}
      <Glance queue={queue} />
      <Charts queue_id={queue.id} created_at={queue.created_at} />
    </>
  );
}

/** One queue: its numbers, its messages, its dead letters, its settings. */
export function QueueView({ queue_id }: { queue_id: string }) {
  const { parts } = usePlace();
  const tab = parts[2] ?? "";
  const queue: Polled<Queue> = usePoll(
    `queue ${queue_id}`,
    (signal) => ask<Queue>("GET", queuePath(queue_id), undefined, signal),
    queue_ms,
  );
  const stats = usePoll(
    `stats ${queue_id}`,
    (signal) => ask<QueueStats>("GET", queuePath(queue_id, "stats"), undefined, signal),
    stats_ms,
  );
  const refresh = () => {
    queue.refresh();
    stats.refresh();
  };
  const error = queue.error ?? stats.error;
  // The heading stays the same element while the queue is asked for: the focus is on it.
  return (
    <>
      <Title queue_id={queue_id} queue={queue.data} onChange={refresh} />
      {error && <Notice>{error}</Notice>}
      {queue.data === undefined && !error && <Loading />}
      {queue.data !== undefined && (
        <>
          <Tabs queue_id={queue_id} current={tab} dead={stats.data?.dead ?? 0} />
          <Tab tab={tab} queue={queue.data} stats={stats.data} onStats={stats.refresh} onChange={refresh} />
        </>
      )}
    </>
  );
}
