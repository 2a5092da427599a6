import { useState } from "preact/hooks";
import { ask, queuePath } from "../api.ts";
import { plural } from "../format.ts";
import type { Filter, Message } from "../shapes.ts";
import { Allowed } from "./allowed.tsx";
import { Button } from "./basics.tsx";
import type { BulkAction } from "./bulk.tsx";
import { Confirm } from "./dialog.tsx";
import { attempt } from "./toasts.tsx";

type Results = { results: { id: string; status: string }[] };

/** Does something to each of the messages; answers how many it worked for. */
async function each(messages: Message[], work: (message: Message) => Promise<unknown>): Promise<number> {
  let done = 0;
  for (const message of messages) {
    const is_done = await work(message).then(
      () => true,
      () => false,
    );
    done += Number(is_done);
  }
  return done;
}

async function settle(queue_id: string, verb: "ack" | "nack", messages: Message[]): Promise<number> {
  const items = messages.map(({ id }) => ({ id, ...(verb === "nack" && { visibility_timeout_seconds: 0 }) }));
  const { results } = await ask<Results>("POST", queuePath(queue_id, verb), { items });
  return results.filter(({ status }) => status === "ok").length;
}

const remove = (queue_id: string) => (message: Message) => ask("DELETE", queuePath(queue_id, "messages", message.id));

const redrive = (queue_id: string) => (message: Message) =>
  ask("POST", `${queuePath(queue_id, "redrive")}?wait=true`, {
    message_id: message.id,
    source_queue_id: message.dead?.source_queue_id,
    limit: 1,
  });

/** States of messages that a nack makes visible. */
const hidden_states = new Set(["leased", "delayed", "backing_off", "all"]);

type SelectionProps = {
  queue_id: string;
  selected: Message[];
  filter: Filter;
  onAll: (action: BulkAction) => void;
  onDone: () => void;
};

/** What can be done with the messages that are ticked, or with all that match. */
export function Selection({ queue_id, selected, filter, onAll, onDone }: SelectionProps) {
  const run = async (done: string, work: () => Promise<number>) => {
    let count = 0;
    const is_done = await attempt(async () => {
      count = await work();
      if (count < selected.length)
        throw new Error(`${done} ${count} of ${selected.length}; the others have moved on or are held.`);
    });
    if (is_done) await attempt(async () => {}, `${done} ${plural(count, "message")}`);
    onDone();
  };
  const [is_asked, setIsAsked] = useState(false);
  const is_dead = filter.state === "dead";
  if (selected.length === 0) {
    return (
      <Allowed right="manage">
        <div class="actions">
          <span class="muted">All that match:</span>
          {is_dead ? (
            <Button onClick={() => onAll("redrive")}>Redrive…</Button>
          ) : (
            hidden_states.has(filter.state) && <Button onClick={() => onAll("nack")}>Make visible…</Button>
          )}
          <Button onClick={() => onAll("delete")}>Delete…</Button>
        </div>
      </Allowed>
    );
  }
  return (
    <div class="actions">
      <strong>{plural(selected.length, "message")} selected</strong>
      {selected.every(({ dead }) => dead !== undefined) && (
        <Allowed right="manage">
          <Button onClick={() => void run("Redrove", () => each(selected, redrive(queue_id)))}>Redrive</Button>
        </Allowed>
      )}
      <Allowed right="consume">
        <Button onClick={() => void run("Acked", () => settle(queue_id, "ack", selected))}>Ack</Button>
        <Button onClick={() => void run("Nacked", () => settle(queue_id, "nack", selected))}>Nack</Button>
      </Allowed>
      <Allowed right="manage">
        <Button kind="danger" onClick={() => setIsAsked(true)}>
          Delete…
        </Button>
      </Allowed>
      <Button kind="quiet" onClick={onDone}>
        Clear
      </Button>
      {is_asked && (
        <Confirm
          title={`Delete ${plural(selected.length, "message")}`}
          action="Delete"
          onClose={() => setIsAsked(false)}
          onConfirm={() => {
            setIsAsked(false);
            void run("Deleted", () => each(selected, remove(queue_id)));
          }}
        >
          <p>They are gone for good, also from the archive.</p>
        </Confirm>
      )}
    </div>
  );
}
