import { useEffect, useState } from "preact/hooks";
import { ask, query, queuePath, reasonOf } from "../api.ts";
import { count, plural } from "../format.ts";
import type { Filter } from "../shapes.ts";
import { Field, Notice } from "./basics.tsx";
import { Confirm } from "./dialog.tsx";

export type BulkAction = "redrive" | "delete" | "nack";

/** Calls that one count makes: each looks at a bounded number of messages. */
const counts_max = 60;

type Counted = { count: number; is_complete: boolean };

/** Counts what matches, call after call. */
async function countAll(queue_id: string, filter: Filter, signal: AbortSignal): Promise<Counted> {
  let total = 0;
  let after: string | undefined;
  for (let calls = 0; calls < counts_max; calls++) {
    const path = `${queuePath(queue_id, "messages", "count")}${query({ ...filter, after })}`;
    const { count: found, next } = await ask<{ count: number; next?: string }>("GET", path, undefined, signal);
    total += found;
    after = next;
    if (next === undefined) return { count: total, is_complete: true };
  }
  return { count: total, is_complete: false };
}

/** How a redrive goes, as its form has it: empty is the usual way. */
type How = { destination_queue_id: string; rate_per_second: string };

type Start = { action: BulkAction; queue_id: string; filter: Filter; total: number; how: How };

async function start({ action, queue_id, filter, total, how }: Start): Promise<string> {
  const { state, ...rest } = filter;
  const { destination_queue_id, rate_per_second } = how;
  const asked = {
    ...rest,
    ...(destination_queue_id && { destination_queue_id }),
    ...(rate_per_second && { rate_per_second: Number(rate_per_second) }),
  };
  const { task_id } =
    action === "redrive"
      ? await ask<{ task_id: string }>("POST", queuePath(queue_id, "redrive"), asked)
      : await ask<{ task_id: string }>("POST", queuePath(queue_id, "messages", "matching"), {
          ...{ action, state, ...rest },
          total_estimate: total,
        });
  return task_id;
}

const texts: Record<BulkAction, { title: string; verb: string; text: string }> = {
  redrive: { title: "Redrive messages", verb: "Redrive", text: "" },
  delete: {
    title: "Delete messages",
    verb: "Delete",
    text: "They are gone for good. What a consumer holds under a live lease is left alone.",
  },
  nack: {
    title: "Make messages visible",
    verb: "Make visible",
    text: "They can be received at once. Consumers that hold some of them lose their leases.",
  },
};

function HowFields({ how, onChange }: { how: How; onChange: (how: How) => void }) {
  return (
    <div class="fields">
      <Field label="To queue">
        <input
          placeholder="where each came from"
          spellcheck={false}
          value={how.destination_queue_id}
          onInput={(event) => onChange({ ...how, destination_queue_id: event.currentTarget.value })}
        />
      </Field>
      <Field label="Messages per second">
        <input
          type="number"
          min={1}
          max={1000}
          placeholder="as fast as it goes"
          value={how.rate_per_second}
          onInput={(event) => onChange({ ...how, rate_per_second: event.currentTarget.value })}
        />
      </Field>
    </div>
  );
}

type BulkProps = {
  action: BulkAction;
  queue_id: string;
  filter: Filter;
  onStart: (task_id: string) => void;
  onClose: () => void;
};

/** Counts what matches the filter, asks, and starts a task that acts on all of it. */
export function Bulk({ action, queue_id, filter, onStart, onClose }: BulkProps) {
  const [counted, setCounted] = useState<Counted>();
  const [error, setError] = useState<string>();
  const [how, setHow] = useState<How>({ destination_queue_id: "", rate_per_second: "" });
  const { title, verb, text } = texts[action];
  const key = JSON.stringify(filter);

  // The key says it.
  useEffect(() => {
    const controller = new AbortController();
    countAll(queue_id, filter, controller.signal)
      .then(setCounted)
      .catch((cause) => {
        if (!controller.signal.aborted) setError(reasonOf(cause));
      });
    return () => controller.abort();
  }, [queue_id, key]);

  const number = counted === undefined ? "" : `${counted.is_complete ? "" : "at least "}${count(counted.count)}`;
  const confirm = async () => {
    try {
      onStart(await start({ action, queue_id, filter, total: counted?.count ?? 0, how }));
      onClose();
    } catch (cause) {
      setError(reasonOf(cause));
    }
  };
  return (
    <Confirm
      title={title}
      action={counted === undefined ? verb : `${verb} ${number}`}
      kind={action === "delete" ? "danger" : "primary"}
      is_ready={counted !== undefined && counted.count > 0}
      onConfirm={() => void confirm()}
      onClose={onClose}
    >
      {error !== undefined && <Notice>{error}</Notice>}
      {counted === undefined ? (
        <p role="status">Counting what matches…</p>
      ) : (
        <p>
          <strong>
            {counted.is_complete ? plural(counted.count, "message") : `At least ${plural(counted.count, "message")}`}
          </strong>{" "}
          in <code>{queue_id}</code> {counted.count === 1 && counted.is_complete ? "matches" : "match"}. {text}
        </p>
      )}
      {action === "redrive" && <HowFields how={how} onChange={setHow} />}
    </Confirm>
  );
}
