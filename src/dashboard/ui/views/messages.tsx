import { useEffect, useState } from "preact/hooks";
import { compact, plural, whyUnreadable, words } from "../format.ts";
import { Ago, Button, Empty, Loading, Notice, StateBadge, Table } from "../parts/basics.tsx";
import { Bulk, type BulkAction } from "../parts/bulk.tsx";
import { useMessageList } from "../parts/messageList.ts";
import { Selection } from "../parts/selection.tsx";
import { TaskProgress } from "../parts/taskProgress.tsx";
import { go, hrefOf, Link, usePlace } from "../router.tsx";
import { type Filter, type Message, type Queue, type QueueStats, states } from "../shapes.ts";

const shown_states = [...states, "dead", "all"] as const;
const typing_ms = 300;

const countOf = (stats: QueueStats | undefined, state: string): number | undefined =>
  stats?.[state as "ready" | "leased" | "delayed" | "backing_off" | "dead"];

type Change = (next: Partial<Record<keyof Filter, string | undefined>>) => void;

function StateTabs({ current, stats, onChange }: { current: string; stats: QueueStats | undefined; onChange: Change }) {
  return (
    <fieldset class="segments">
      <legend class="hidden">State</legend>
      {shown_states.map((state) => {
        const count = countOf(stats, state);
        return (
          <Button key={state} pressed={state === current} onClick={() => onChange({ state })}>
            {words(state)}
            {count !== undefined && count > 0 && <span class="segment-count">{compact(count)}</span>}
          </Button>
        );
      })}
    </fieldset>
  );
}

/** Text that is sent on when somebody has stopped typing. */
function Typed({ label, value, onChange }: { label: string; value: string; onChange: (value: string) => void }) {
  const [text, setText] = useState(value);
  useEffect(() => setText(value), [value]);
  useEffect(() => {
    if (text === value) return;
    const timer = setTimeout(() => onChange(text), typing_ms);
    return () => clearTimeout(timer);
  }, [text, value, onChange]);
  return (
    <input
      type="search"
      maxLength={200}
      data-search={label.startsWith("Search") ? "" : undefined}
      aria-label={label}
      placeholder={label}
      value={text}
      onInput={(event) => setText(event.currentTarget.value)}
    />
  );
}

function Preview({ message }: { message: Message }) {
  const more = message.body_bytes === undefined ? "" : "…";
  return (
    <span class="preview">
      {message.label !== null && <span class="label">{message.label}</span>}
      {message.unreadable === undefined ? (message.body ?? "").slice(0, 200) : whyUnreadable[message.unreadable]}
      {more}
    </span>
  );
}

type RowProps = { message: Message; is_selected: boolean; onSelect: (is_selected: boolean) => void };

function MessageRow({ message, is_selected, onSelect }: RowProps) {
  const { id, queue_id, state, delivery_attempts, created_at, last_error, dead } = message;
  return (
    <tr class={is_selected ? "selected" : undefined}>
      <td class="tick">
        <input
          type="checkbox"
          aria-label={`Select ${id}`}
          checked={is_selected}
          onChange={(event) => onSelect(event.currentTarget.checked)}
        />
      </td>
      <th scope="row" class="id">
        <Link to={hrefOf(["queues", queue_id, "messages", id])} title={id}>
          …{id.slice(-10)}
        </Link>
      </th>
      <td class="p1">
        <StateBadge state={dead === undefined ? state : "dead"} />
      </td>
      <td class="grow">
        <Preview message={message} />
        {last_error && <span class="error-line">{last_error.slice(0, 200)}</span>}
      </td>
      <td class="number p2" title="Deliveries">
        {delivery_attempts}
      </td>
      <td class="number nowrap">
        <Ago time={dead?.dead_at ?? created_at} />
      </td>
    </tr>
  );
}

type RowsProps = { rows: Message[]; selected: Set<string>; onSelect: (ids: Set<string>) => void };

function Rows({ rows, selected, onSelect }: RowsProps) {
  const is_all = rows.length > 0 && rows.every(({ id }) => selected.has(id));
  return (
    <Table label="Messages" is_stacked>
      <thead>
        <tr>
          <th scope="col" class="tick">
            <input
              type="checkbox"
              aria-label="Select all that are shown"
              checked={is_all}
              onChange={() => onSelect(new Set(is_all ? [] : rows.map(({ id }) => id)))}
            />
          </th>
          <th scope="col">Id</th>
          <th scope="col" class="p1">
            State
          </th>
          <th scope="col">Message</th>
          <th scope="col" class="number p2">
            Deliveries
          </th>
          <th scope="col" class="number">
            When
          </th>
        </tr>
      </thead>
      <tbody>
        {rows.map((message) => (
          <MessageRow
            key={message.id}
            message={message}
            is_selected={selected.has(message.id)}
            onSelect={(is_selected) => {
              const next = new Set(selected);
              if (is_selected) next.add(message.id);
              else next.delete(message.id);
              onSelect(next);
            }}
          />
        ))}
      </tbody>
    </Table>
  );
}

function filterOf(query: URLSearchParams): Filter {
  const filter: Filter = { state: query.get("state") ?? "ready" };
  for (const name of ["label", "search", "error_group"] as const) {
    const value = query.get(name);
    if (value) filter[name] = value;
  }
  return filter;
}

type MessagesProps = { queue: Queue; stats: QueueStats | undefined; onChange: () => void };

/** Messages by state, without leasing them: found, looked at, acted upon. */
export function Messages({ queue, stats, onChange }: MessagesProps) {
  const filter = filterOf(usePlace().query);
  const [selected, setSelected] = useState<Set<string>>(new Set());
  const [bulk, setBulk] = useState<BulkAction>();
  const [task_id, setTaskId] = useState<string>();
  const list = useMessageList(queue.id, filter, selected.size > 0);
  const change: Change = (next) => {
    setSelected(new Set());
    go(hrefOf(["queues", queue.id, "messages"], { ...filter, ...next }), true);
  };
  const refresh = () => {
    setSelected(new Set());
    list.refresh();
    onChange();
  };
  const { rows } = list;
  const chosen = rows?.filter(({ id }) => selected.has(id)) ?? [];
  return (
    <>
      <div class="tools">
        <StateTabs current={filter.state} stats={stats} onChange={change} />
        <span class="spring" />
        <Typed label="Label" value={filter.label ?? ""} onChange={(label) => change({ label })} />
        <Typed
          label="Search body, attributes, error, id"
          value={filter.search ?? ""}
          onChange={(search) => change({ search })}
        />
        <Button onClick={refresh} disabled={list.is_loading}>
          Refresh
        </Button>
      </div>
      {filter.error_group !== undefined && (
        <p class="chip">
          Only one group of errors
          <Button kind="quiet" onClick={() => change({ error_group: undefined })}>
            Show all
          </Button>
        </p>
      )}
      {task_id !== undefined && (
        <TaskProgress key={task_id} task_id={task_id} onEnd={refresh} onDismiss={() => setTaskId(undefined)} />
      )}
      {list.error && <Notice>{list.error}</Notice>}
      {rows === undefined && !list.error && <Loading />}
      {rows !== undefined && rows.length > 0 && (
        <>
          <Selection queue_id={queue.id} selected={chosen} filter={filter} onAll={setBulk} onDone={refresh} />
          <Rows rows={rows} selected={selected} onSelect={setSelected} />
        </>
      )}
      {rows?.length === 0 && !list.stopped_early && <Nothing filter={filter} />}
      <div class="more">
        {list.stopped_early && (
          <Notice kind="warning">
            The search stopped after many messages; {plural(rows?.length ?? 0, "match")} so far.
          </Notice>
        )}
        {list.has_more && (
          <Button onClick={list.more} disabled={list.is_loading}>
            {list.stopped_early ? "Search on" : "Load more"}
          </Button>
        )}
      </div>
      {bulk !== undefined && (
        <Bulk
          action={bulk}
          queue_id={queue.id}
          filter={filter}
          onStart={setTaskId}
          onClose={() => setBulk(undefined)}
        />
      )}
    </>
  );
}

function Nothing({ filter }: { filter: Filter }) {
  const is_filtered = filter.search !== undefined || filter.label !== undefined || filter.error_group !== undefined;
  return (
    <Empty
      title={is_filtered ? "No message matches" : `No ${filter.state === "all" ? "" : words(filter.state)} messages`}
    >
      {is_filtered ? "Nothing in this state fits the filter." : "Looking here leases nothing and counts no delivery."}
    </Empty>
  );
}
