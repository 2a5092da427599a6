import { ask, query, queuePath } from "../api.ts";
import { plural } from "../format.ts";
import { usePoll } from "../poll.ts";
import { hrefOf, Link } from "../router.tsx";
import type { ErrorGroup, Message, Peeked } from "../shapes.ts";
import { Button, Notice } from "./basics.tsx";

// A canary: a few dead letters of a group go back first, and the rest only when those survive.
//
//   sent → each: waiting → survived (acked, or ended without an archive) | died again → all settled

/** Messages that a canary sends back. */
export const canary_size = 10;

export type Canary = { error_group: string; error: string; sent: { id: string; source_queue_id: string }[] };
type Fate = "waiting" | "survived" | "died";

const asked_ms = 1500;

/** Sends the first ones of a group back; answers which. */
export async function sendCanary(queue_id: string, group: ErrorGroup): Promise<Canary> {
  const { error_group, error } = group;
  const asked = query({ state: "dead", error_group, limit: canary_size, body: false });
  const found: Message[] = [];
  for (let after: string | undefined = ""; after !== undefined && found.length < canary_size; ) {
    const page: Peeked = await ask<Peeked>(
      "GET",
      `${queuePath(queue_id, "messages", "peek")}${asked}${after && `&after=${after}`}`,
    );
    found.push(...page.data);
    after = page.next;
  }
  // A key for few queues may send back only what comes from one of them.
  const [source_queue_id, ...others] = group.source_queue_ids;
  const from = source_queue_id !== undefined && others.length === 0 ? { source_queue_id } : {};
  await ask("POST", `${queuePath(queue_id, "redrive")}?wait=true`, { error_group, limit: canary_size, ...from });
  const sent = found
    .slice(0, canary_size)
    .map(({ id, dead }) => ({ id, source_queue_id: dead?.source_queue_id ?? "" }));
  return { error_group, error, sent };
}

/** The message where it is now; undefined when it is not there. A look-up by id would call that an error. */
async function find(queue_id: string, message_id: string, signal: AbortSignal): Promise<Message | undefined> {
  for (let after: string | undefined = ""; after !== undefined; ) {
    const asked = query({ state: "all", message_id, body: false, after });
    const path = `${queuePath(queue_id, "messages", "peek")}${asked}`;
    const page: Peeked = await ask<Peeked>("GET", path, undefined, signal);
    if (page.data[0] !== undefined) return page.data[0];
    after = page.next;
  }
  return undefined;
}

async function fateOf(dead_queue_id: string, sent: Canary["sent"][number], signal: AbortSignal): Promise<Fate> {
  const message = await find(sent.source_queue_id, sent.id, signal);
  if (message !== undefined) return message.state === "acked" ? "survived" : "waiting";
  return (await find(dead_queue_id, sent.id, signal)) === undefined ? "survived" : "died";
}

type CanaryPanelProps = {
  queue_id: string;
  canary: Canary;
  onRest: () => void;
  onMore: () => void;
  onDismiss: () => void;
};

/** Watches a canary until each of its messages has been acked or has died again. */
export function CanaryPanel({ queue_id, canary, onRest, onMore, onDismiss }: CanaryPanelProps) {
  const key = `canary ${canary.sent.map(({ id }) => id).join()}`;
  const { data: fates, error } = usePoll(
    key,
    (signal) => Promise.all(canary.sent.map((sent) => fateOf(queue_id, sent, signal))),
    asked_ms,
  );
  const countOf = (fate: Fate) => fates?.filter((own) => own === fate).length ?? 0;
  const [waiting, survived, died] = [
    fates === undefined ? canary.sent.length : countOf("waiting"),
    countOf("survived"),
    countOf("died"),
  ];
  const has_survived = waiting === 0 && died === 0;
  const verdict =
    waiting > 0
      ? "Waiting for consumers."
      : died === 0
        ? "All survived: the rest can follow."
        : died === canary.sent.length
          ? "All died again: the cause is still there."
          : "Some died again.";
  return (
    <section class="canary" aria-label="Canary">
      <div class="canary-head">
        <strong>Canary</strong>
        <code>{canary.error || "no error given"}</code>
      </div>
      <ul class="canary-fates">
        {canary.sent.map(({ id, source_queue_id }, i) => {
          const fate = fates?.[i] ?? "waiting";
          const at = fate === "died" ? queue_id : source_queue_id;
          return (
            <li key={id} data-fate={fate}>
              <Link to={hrefOf(["queues", at, "messages", id])} label={`Message ${id}: ${fate}`}>
                <span aria-hidden="true">{fate === "survived" ? "✓" : fate === "died" ? "✕" : "…"}</span>
              </Link>
            </li>
          );
        })}
      </ul>
      <p role="status">
        {plural(survived, "message")} survived, {waiting} waiting, {died} died again. {verdict}
      </p>
      {error && <Notice>{error}</Notice>}
      <div class="actions">
        <Button kind={has_survived ? "primary" : "plain"} disabled={waiting > 0} onClick={onRest}>
          Redrive the rest…
        </Button>
        <Button disabled={waiting > 0} onClick={onMore}>{`Another ${canary_size}`}</Button>
        <span class="spring" />
        <Button kind="quiet" onClick={onDismiss}>
          Dismiss
        </Button>
      </div>
    </section>
  );
}
