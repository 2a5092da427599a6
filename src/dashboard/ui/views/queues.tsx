import { useMemo, useState } from "preact/hooks";
import { ask, query } from "../api.ts";
import { compact, duration, plural, rate } from "../format.ts";
import { Allowed } from "../parts/allowed.tsx";
import { Button, Empty, Loading, Notice, Table, Tag } from "../parts/basics.tsx";
import { Sparkline } from "../parts/sparkline.tsx";
import { patience, usePoll } from "../poll.ts";
import { go, hrefOf, Link, usePlace } from "../router.tsx";
import type { Page, QueueSummary, Trend } from "../shapes.ts";

const summaries_max = 1000;
const asked_ms = 5000;
const trends_ms = 60_000;
const rows_shown = 50;
/** The API answers so many trends at once, in an address of bounded length. */
const trends_max = 50;

type Column =
  | "queue_id"
  | "ready"
  | "leased"
  | "waiting"
  | "oldest_ready_age_seconds"
  | "publish_rate_1m"
  | "ack_rate_1m";

const waitingOf = (queue: QueueSummary) => queue.delayed + queue.backing_off;
const numberOf = (queue: QueueSummary, column: Column) => (column === "waiting" ? waitingOf(queue) : queue[column]);

const columns: { name: Column; title: string; hint: string; class?: string }[] = [
  { name: "ready", title: "Ready", hint: "Can be received now" },
  { name: "leased", title: "Leased", hint: "With a consumer now", class: "p1" },
  { name: "waiting", title: "Waiting", hint: "Delayed, or backing off after a failure", class: "p2" },
  { name: "oldest_ready_age_seconds", title: "Oldest", hint: "How long the oldest ready message has waited" },
  { name: "publish_rate_1m", title: "In /s", hint: "Published per second, over the last full minute", class: "p1" },
  { name: "ack_rate_1m", title: "Acked /s", hint: "Acked per second, over the last full minute", class: "p1" },
];

type Show = (next: { search?: string; order?: Order }) => void;
type Order = { column: Column; is_down: boolean };

function sorted(queues: QueueSummary[], { column, is_down }: Order): QueueSummary[] {
  const way = is_down ? -1 : 1;
  return queues.toSorted((a, b) => {
    const [x, y] = [numberOf(a, column), numberOf(b, column)];
    if (x === y) return a.queue_id < b.queue_id ? -1 : 1;
    return (x < y ? -1 : 1) * way;
  });
}

type HeadProps = { order: Order; onOrder: (column: Column) => void };

function SortHead({ name, title, hint, order, onOrder, ...rest }: HeadProps & (typeof columns)[number]) {
  const is_own = order.column === name;
  const direction = is_own ? (order.is_down ? "descending" : "ascending") : undefined;
  const align = name === "queue_id" ? "" : "number";
  return (
    <th scope="col" class={`${align} ${rest.class ?? ""}`} aria-sort={direction}>
      <button type="button" class="sort" title={hint} onClick={() => onOrder(name)}>
        {title}
        {is_own && <span aria-hidden="true">{order.is_down ? " ↓" : " ↑"}</span>}
      </button>
    </th>
  );
}

type RowProps = { queue: QueueSummary; trend: Trend | undefined; is_target: boolean };

function QueueRow({ queue, trend, is_target }: RowProps) {
  const has_dead = is_target && queue.ready > 0;
  return (
    <tr>
      <th scope="row" class="name">
        <Link to={hrefOf(["queues", queue.queue_id])}>{queue.queue_id}</Link>
        {is_target && <Tag kind={has_dead ? "danger" : ""}>dead letters</Tag>}
        {queue.paused?.consume && <Tag kind="warning">consuming paused</Tag>}
        {queue.paused?.publish && <Tag kind="warning">publishing paused</Tag>}
      </th>
      {columns.map(({ name, ...rest }) => {
        const value = numberOf(queue, name) as number;
        const text =
          name === "oldest_ready_age_seconds"
            ? value === 0 && queue.ready === 0
              ? "–"
              : duration(value)
            : name.endsWith("_1m")
              ? rate(value)
              : compact(value);
        return (
          <td key={name} class={`number ${rest.class ?? ""} ${value === 0 ? "zero" : ""}`}>
            {text}
          </td>
        );
      })}
      <td class="p2 trend">{trend && <Sparkline published={trend.published} acked={trend.acked} />}</td>
    </tr>
  );
}

function Totals({ queues, targets }: { queues: QueueSummary[]; targets: Set<string> }) {
  const sum = (of: (queue: QueueSummary) => number) => queues.reduce((total, queue) => total + of(queue), 0);
  const dead = sum(({ queue_id, ready }) => (targets.has(queue_id) ? ready : 0));
  const figures: [name: string, value: string, state?: string | undefined][] = [
    ["Ready", compact(sum(({ ready }) => ready))],
    ["Leased", compact(sum(({ leased }) => leased))],
    ["Waiting", compact(sum(waitingOf))],
    ["Dead letters", compact(dead), dead > 0 ? "dead" : undefined],
    ["Published /s", rate(sum(({ publish_rate_1m }) => publish_rate_1m))],
    ["Acked /s", rate(sum(({ ack_rate_1m }) => ack_rate_1m))],
  ];
  return (
    <>
      <dl class="figures">
        {figures.map(([name, value, state]) => (
          <div key={name} data-state={state}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      {queues.length === summaries_max && (
        <p class="muted">
          These figures, and the order of the table, are of the first {summaries_max} queues by name. Find others by a
          part of their name.
        </p>
      )}
    </>
  );
}

/** Trends of the queues that are shown, asked for once a minute. */
function useTrends(ids: string[]): Map<string, Trend> {
  const key = ids.join(",");
  const { data } = usePoll(
    `trends ${key}`,
    (signal) =>
      key === ""
        ? Promise.resolve({ data: [] })
        : ask<{ data: Trend[] }>("GET", `rates${query({ queue_ids: key })}`, undefined, signal),
    trends_ms,
  );
  return useMemo(() => new Map(data?.data.map((trend) => [trend.queue_id, trend])), [data]);
}

const NewQueue = () => (
  <Allowed right="manage">
    <Link to={hrefOf(["new"])} class="button primary">
      New queue
    </Link>
  </Allowed>
);

const Welcome = () => (
  <Empty title="No queues yet">
    <p>A queue holds messages until a consumer has acked them. Make the first one here, or with one request:</p>
    <pre>
      {`curl ${location.origin}/v1/queues -d '{"id":"orders","ack_deadline_seconds":30,"message_retention_seconds":1209600}'`}
    </pre>
    <NewQueue />
  </Empty>
);

type QueuesTableProps = HeadProps & { rows: QueueSummary[]; trends: Map<string, Trend>; targets: Set<string> };

const QueuesTable = ({ rows, trends, targets, ...head }: QueuesTableProps) => (
  <Table label="Queues">
    <thead>
      <tr>
        <SortHead name="queue_id" title="Queue" hint="Its id" {...head} />
        {columns.map((column) => (
          <SortHead key={column.name} {...column} {...head} />
        ))}
        <th scope="col" class="p2">
          Last hour
        </th>
      </tr>
    </thead>
    <tbody>
      {rows.map((queue) => (
        <QueueRow
          key={queue.queue_id}
          queue={queue}
          trend={trends.get(queue.queue_id)}
          is_target={targets.has(queue.queue_id)}
        />
      ))}
    </tbody>
  </Table>
);

/** Every queue: found by name, sorted by any number. */
export function QueuesView() {
  const place = usePlace();
  const search = place.query.get("search") ?? "";
  const order: Order = {
    column: (place.query.get("sort") as Column | null) ?? "queue_id",
    is_down: place.query.get("order") === "down",
  };
  const [shown, setShown] = useState(rows_shown);
  // With more queues than one answer holds, the server does the search.
  const [is_large, setIsLarge] = useState(false);
  const asked = is_large ? search : "";
  const { data, error } = usePoll(
    `summaries ${asked}`,
    async (signal) => {
      const path = `stats${query({ limit: summaries_max, search: asked })}`;
      const page = await ask<Page<QueueSummary>>("GET", path, undefined, signal);
      if (page.data.length === summaries_max) setIsLarge(true);
      return page.data;
    },
    asked_ms,
    patience,
  );
  const targets = useMemo(() => new Set(data?.flatMap((queue) => queue.dead_queue_id ?? [])), [data]);
  const lower = search.toLowerCase();
  const found = sorted(data?.filter(({ queue_id }) => queue_id.toLowerCase().includes(lower)) ?? [], order);
  const rows = found.slice(0, shown);
  const trends = useTrends(rows.slice(0, trends_max).map(({ queue_id }) => queue_id));

  const show: Show = (next) => {
    const { column, is_down } = next.order ?? order;
    const is_default = column === "queue_id" && !is_down;
    const sort = is_default ? undefined : column;
    go(hrefOf([], { search: next.search ?? search, sort, order: is_down ? "down" : undefined }), true);
  };
  const onOrder = (column: Column) => {
    const is_down = order.column === column ? !order.is_down : column !== "queue_id";
    show({ order: { column, is_down } });
  };

  return (
    <>
      <div class="title">
        <h1 tabIndex={-1}>Queues</h1>
        {data && data.length > 0 && (
          <span class="muted">
            {plural(data.length, "queue")}
            {is_large ? " or more" : ""}
          </span>
        )}
        <div class="title-actions">
          <NewQueue />
        </div>
      </div>
      {error && <Notice>{error}</Notice>}
      {data === undefined && !error && <Loading />}
      {data?.length === 0 && search === "" && <Welcome />}
      {data !== undefined && (data.length > 0 || search !== "") && (
        <>
          <Totals queues={data} targets={targets} />
          <div class="tools">
            <input
              type="search"
              data-search
              aria-label="Find queues"
              placeholder="Find queues"
              value={search}
              onInput={(event) => show({ search: event.currentTarget.value })}
            />
          </div>
          <QueuesTable rows={rows} trends={trends} targets={targets} order={order} onOrder={onOrder} />
          {found.length === 0 && <Empty title="No queue matches">Its id must contain “{search}”.</Empty>}
          {found.length > shown && (
            <div class="more">
              <Button onClick={() => setShown(shown + 4 * rows_shown)}>{`Show more of ${found.length}`}</Button>
            </div>
          )}
        </>
      )}
    </>
  );
}
