import { backoffMs, pause } from "./backoff.ts";
import {
  errorOf,
  ForbiddenError,
  InvalidRequestError,
  isPassing,
  LeaseLostError,
  type PsqlqueueError,
  TooLargeError,
} from "./errors.ts";
import { withCleanError } from "./errorText.ts";
import { gather } from "./gather.ts";
import type { Message } from "./outputs.ts";
import type { Lease, NackOptions, SettleResult } from "./receive.ts";
import type { Send } from "./send.ts";

// What is held of a queue. A lease is held → settling → settled, or lost at any time; while it is held, it is extended.

/** One lease that is kept. */
export type Held = Lease & {
  state: "held" | "settling" | "settled" | "lost";
  extend_at_ms: number;
  /** Aborted when the message is somebody else's, or its handler is to end. */
  controller: AbortController;
};

type KeeperOptions = {
  lease_seconds: number;
  extend_every_seconds: number;
  /** A lease that was lost, or could not be extended. */
  onError(error: unknown, held: Held): void;
};

const items_max = 1000;
const tick_ms_min = 20;

const facts = { status: 409, operation: "settle" };
const lost = (id: string) =>
  new LeaseLostError(`lease lost: message ${id} may be with somebody else`, { ...facts, code: 11 });

/** undefined: done. */
type Outcome = PsqlqueueError | undefined;

function outcomeOf({ id, status, error }: SettleResult): Outcome {
  if (status === "ok") return undefined;
  if (status === "failed") return errorOf(error as never, { status: 503, operation: "settle" });
  return lost(id);
}

/** Can it be that one item alone is to blame for the refusal of a batch? */
const isOfItems = (error: unknown) => error instanceof InvalidRequestError || error instanceof TooLargeError;

/**
 * Of a key that may not look at the queue's own, and of a queue whose own ends at once, as clients of SQS make them
 * with VisibilityTimeout 0.
 */
const own_lease_seconds = 30;

/** How long each delivery is leased, and what a receive must ask for to have that. Throws a RangeError. */
export async function leaseOf(send: Send, queue_id: string, asked: number | undefined) {
  if (asked !== undefined && !(asked >= 1)) {
    throw new RangeError(`ack_deadline_seconds is ${asked}; a lease that is to be kept has at least 1 second`);
  }
  if (asked !== undefined) return { lease_seconds: asked, ack_deadline_seconds: asked };
  try {
    const { ack_deadline_seconds } = await send("getQueue", { path: { queue_id } });
    if (ack_deadline_seconds >= 1) return { lease_seconds: ack_deadline_seconds, ack_deadline_seconds: undefined };
  } catch (error) {
    if (!(error instanceof ForbiddenError)) throw error;
  }
  return { lease_seconds: own_lease_seconds, ack_deadline_seconds: own_lease_seconds };
}

/** Extends leases until they are settled, and settles them in batches, again where the server does not answer. */
export function createKeeper(send: Send, queue_id: string, options: KeeperOptions) {
  const { lease_seconds, extend_every_seconds, onError } = options;
  const path = { queue_id };
  const held = new Set<Held>();
  const nextExtension = () => performance.now() + extend_every_seconds * 1000;

  /** Sends a batch until it is answered, for as long as its leases may last. */
  function settler<Item extends Lease>(sendBatch: (items: Item[]) => Promise<SettleResult[]>) {
    return gather<Item, Outcome>(async (items) => {
      const outcomes = new Map<string, Outcome>();
      const end_ms = performance.now() + Math.max(lease_seconds, 5) * 1000;
      let left = items;
      let failure: unknown;
      /** A batch that is refused is halved until what is refused stands alone. */
      async function sendAll(part: Item[]): Promise<void> {
        try {
          for (const result of await sendBatch(part)) outcomes.set(result.id, outcomeOf(result));
        } catch (error) {
          const half = part.length >> 1;
          if (half > 0 && isOfItems(error)) {
            await sendAll(part.slice(0, half));
            return await sendAll(part.slice(half));
          }
          failure = error;
          for (const { id } of part) outcomes.set(id, error as PsqlqueueError);
        }
      }
      for (let failures = 1; ; failures++) {
        failure = undefined;
        await sendAll(left);
        left = left.filter(({ id }) => isPassing(outcomes.get(id)));
        if (left.length === 0 || performance.now() > end_ms) break;
        await pause(backoffMs(failures, failure));
      }
      return items.map(({ id }) => outcomes.get(id));
    }, items_max);
  }

  const ackItem = settler<Lease>(async (items) => (await send("ackMessages", { path, body: { items } })).results);
  const nackItem = settler<Lease & NackOptions>(
    async (items) => (await send("nackMessages", { path, body: { items } })).results,
  );
  const releaseItem = settler<Lease>(
    async (items) => (await send("extendLeases", { path, body: { items, ack_deadline_seconds: 0 } })).results,
  );

  const pending = new Set<Promise<Outcome>>();

  async function settle(own: Held, work: () => Promise<Outcome>): Promise<void> {
    if (own.state === "lost") throw lost(own.id);
    // The first word counts.
    if (own.state !== "held") return;
    own.state = "settling";
    const settling = work();
    pending.add(settling);
    const outcome = await settling.finally(() => pending.delete(settling));
    held.delete(own);
    own.state = outcome === undefined ? "settled" : "lost";
    if (outcome !== undefined) throw outcome;
  }

  async function extend(due: Held[]): Promise<void> {
    for (const own of due) own.extend_at_ms = nextExtension();
    const items = due.map(({ id, lease_token }) => ({ id, lease_token }));
    const { results } = await send("extendLeases", { path, body: { items, ack_deadline_seconds: lease_seconds } });
    for (const [i, result] of results.entries()) {
      const own = due[i];
      const outcome = outcomeOf(result);
      if (own === undefined || outcome === undefined || own.state !== "held" || isPassing(outcome)) continue;
      if (outcome instanceof LeaseLostError) {
        own.state = "lost";
        held.delete(own);
        own.controller.abort(outcome);
      } else own.extend_at_ms = Number.POSITIVE_INFINITY;
      onError(outcome, own);
    }
  }

  let is_extending = false;
  const tick = () => {
    const now_ms = performance.now();
    const due = [...held].filter(({ state, extend_at_ms }) => state === "held" && extend_at_ms <= now_ms);
    if (due.length === 0 || is_extending) return;
    is_extending = true;
    extend(due.slice(0, items_max))
      .catch((error: unknown) => {
        // Tried again at the next tick: there is time for two more.
        for (const own of due) own.extend_at_ms = Math.min(own.extend_at_ms, performance.now());
        if (!isPassing(error) && due[0] !== undefined) onError(error, due[0]);
      })
      .finally(() => {
        is_extending = false;
      });
  };
  const timer = setInterval(tick, Math.max(tick_ms_min, Math.min(1000, (extend_every_seconds * 1000) / 4)));

  return {
    /** Begins to extend the lease. */
    hold({ id, lease_token }: Message | Lease): Held {
      const controller = new AbortController();
      const own: Held = { id, lease_token, state: "held", extend_at_ms: nextExtension(), controller };
      held.add(own);
      return own;
    },
    /** These three resolve when it is done; after one of them the others do nothing. They throw LeaseLostError. */
    ack: (own: Held) => settle(own, () => ackItem({ id: own.id, lease_token: own.lease_token })),
    nack: (own: Held, how: NackOptions = {}) =>
      settle(own, () => nackItem({ id: own.id, lease_token: own.lease_token, ...withCleanError(how) })),
    /** Gives the message back: no failure, and nothing is counted beyond its delivery. */
    release: (own: Held) => settle(own, () => releaseItem({ id: own.id, lease_token: own.lease_token })),
    /** Resolves when nothing is being settled, and ends extending. Gives nothing back. */
    async close(): Promise<void> {
      while (pending.size > 0) await Promise.allSettled(pending);
      clearInterval(timer);
    },
  };
}

export type Keeper = ReturnType<typeof createKeeper>;
