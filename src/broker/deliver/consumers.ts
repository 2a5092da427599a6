import type { Budget } from "../../budget.ts";
import { BrokerError, DatabaseError } from "../../errors.ts";
import { observe } from "../../observe.ts";
import type { Throttle } from "./governed.ts";
import type { LeasedMessage } from "./lease.ts";
import type { Receive, ReceiveFrom } from "./receive.ts";

// Every receive is a consumer, whether it waits or not. Consumers of one queue with the same filter and lease time are
// a group, served by one claim at a time in order of arrival. A consumer is
//
//   new      → served    a claim found something for it
//            → empty     a claim that began after it came found nothing, and it does not wait
//            → waiting   the same, and it waits
//   waiting  → served    a claim after a wake-up found something
//            → empty     its time is over, it went away, or the server stops
//   any      → refused   the claim failed
//
// A group whose last consumer leaves is forgotten: its key is chosen by clients.

/** Rows that one claim takes at most. */
const claim_rows_max = 1000;

export type Asked = {
  from: ReceiveFrom;
  limit: number;
  /** Milliseconds; undefined: what the queue says. */
  wait_ms: number | undefined;
  wait_ms_max: number;
  signal: AbortSignal | undefined;
};

type Consumer = {
  asked: Asked;
  since_ms: number;
  is_waiting: boolean;
  timer: ReturnType<typeof setTimeout> | undefined;
  finish(settle: () => void): void;
  resolve(messages: LeasedMessage[]): void;
  reject(error: unknown): void;
};

type Group = {
  key: string;
  from: ReceiveFrom;
  /** In order of arrival. */
  consumers: Set<Consumer>;
  /** Those that no claim has looked for yet. */
  unasked: Set<Consumer>;
  is_claiming: boolean;
  /** Something happened while a claim ran: it must look again. */
  is_woken: boolean;
  /** What kept the last claim from delivering more. */
  throttled: Throttle | null;
  /** Its messages are large: it claims only when there is room for their answers. */
  is_heavy: boolean;
};

export type ConsumerOptions = {
  receive: Receive;
  giveBack(queue_id: string, leased: LeasedMessage[]): Promise<void>;
  answers: Budget;
  /** Consumers that wait at once. */
  waiting_max: number;
  /** Receives that have not been answered and do not wait (yet). */
  unasked_max: number;
  /** How long a claim waits for room, at most. */
  room_ms_max: number;
  /** Somebody waits, where nobody did. */
  onFirstWaiting?(): void;
  /** A claim of this queue is over, and somebody still waits. */
  onWaiting(queue_id: string): void;
  /** A cap or a rate keeps consumers waiting; it may let more through then. */
  onThrottled(queue_id: string, in_ms: number): void;
  /** Nobody asks for anything of this queue any more. */
  onForgotten(queue_id: string): void;
};

export type Consumers = {
  /**
   * Leases up to `limit` messages; waits for the first of them if asked to. Rejects with `queue_not_found`,
   * `too_many_requests`, `unavailable`, and with what a claim throws. An abort takes the consumer out at once.
   */
  receive(asked: Asked): Promise<LeasedMessage[]>;
  /** Something in this queue became ready, or may have. Cheap when nobody asks for it. */
  wake(queue_id: string): void;
  /** Queues that somebody waits for. */
  queue_ids(): string[];
  has(queue_id: string): boolean;
  /** Consumers that wait. */
  waiting(): number;
  /** Answers every waiting consumer with nothing, now and from now on. */
  stop(): void;
};

const keyOf = ({ queue_id, label, lease_seconds, max_per_key = 1 }: ReceiveFrom) =>
  `${queue_id}\n${label ?? "\0"}\n${lease_seconds ?? ""}\n${max_per_key}`;

/** Answers that a cap or a rate has cut short. */
const throttles = new WeakMap<LeasedMessage[], Throttle>();

/** What kept this answer of a receive from holding more; undefined: nothing. */
export const throttleOf = (messages: LeasedMessage[]): Throttle | undefined => throttles.get(messages);

/** The consumers of one process. */
export function createConsumers(options: ConsumerOptions): Consumers {
  const { receive, answers } = options;
  const groups = new Map<string, Group>();
  const groups_of = new Map<string, Set<Group>>();
  let waiting = 0;
  let unasked = 0;
  let is_stopped = false;

  function join(from: ReceiveFrom): Group {
    const key = keyOf(from);
    let group = groups.get(key);
    if (group === undefined) {
      const empty = { consumers: new Set<Consumer>(), unasked: new Set<Consumer>() };
      group = { key, from, ...empty, is_claiming: false, is_woken: false, is_heavy: false, throttled: null };
      groups.set(key, group);
      groups_of.set(from.queue_id, (groups_of.get(from.queue_id) ?? new Set()).add(group));
    }
    return group;
  }

  /** A group without consumers goes when its claim is over. */
  function forget(group: Group): void {
    if (group.consumers.size > 0 || group.is_claiming || groups.get(group.key) !== group) return;
    groups.delete(group.key);
    const { queue_id } = group.from;
    const beside = groups_of.get(queue_id);
    beside?.delete(group);
    if (beside?.size !== 0) return;
    groups_of.delete(queue_id);
    options.onForgotten(queue_id);
  }

  function noteAsked(group: Group, consumer: Consumer): void {
    if (group.unasked.delete(consumer)) unasked -= 1;
  }

  function leave(group: Group, consumer: Consumer): void {
    if (!group.consumers.delete(consumer)) return;
    noteAsked(group, consumer);
    if (consumer.is_waiting) waiting -= 1;
    forget(group);
  }

  /** A claim found nothing for it: it waits, or that is its answer. */
  function settleEmpty(group: Group, consumer: Consumer, wait_seconds: number): void {
    if (!group.consumers.has(consumer)) return;
    noteAsked(group, consumer);
    if (consumer.timer !== undefined) return;
    const { wait_ms = wait_seconds * 1000, wait_ms_max } = consumer.asked;
    const left_ms = Math.min(wait_ms, wait_ms_max) - (performance.now() - consumer.since_ms);
    if (left_ms <= 0 || is_stopped) {
      leave(group, consumer);
      consumer.resolve(nothing(group));
    } else if (consumer.is_waiting || startsWaiting(group, consumer)) {
      consumer.timer = setTimeout(() => {
        leave(group, consumer);
        consumer.resolve(nothing(group));
      }, left_ms);
    }
  }

  /** Counts it as waiting; refuses it when too many wait. */
  function startsWaiting(group: Group, consumer: Consumer): boolean {
    if (waiting < options.waiting_max) {
      waiting += 1;
      if (waiting === 1) options.onFirstWaiting?.();
      consumer.is_waiting = true;
      return true;
    }
    leave(group, consumer);
    consumer.reject(new BrokerError("too_many_requests", `${options.waiting_max} consumers wait already`));
    return false;
  }

  function giveBack(queue_id: string, messages: LeasedMessage[]): void {
    if (messages.length === 0) return;
    options.giveBack(queue_id, messages).catch(() => {
      // The database is away: the leases run out.
    });
  }

  /** Claims for as many consumers as fit, and answers them. Answers whether there may be more for the others. */
  async function claimOnce(group: Group): Promise<boolean> {
    const consumers = takeUpTo(group);
    const unasked_before = [...group.unasked];
    const started_ms = performance.now();
    const claimed = await receive(
      group.from,
      consumers.map(({ asked }) => asked.limit),
    );
    observe({ kind: "batch", verb: "receive", items: consumers.length, duration_ms: performance.now() - started_ms });
    if (claimed instanceof BrokerError) {
      // Those who came meanwhile ask for themselves: the queue may have been made before they asked.
      const before = [...group.consumers].filter(({ since_ms }) => since_ms <= started_ms);
      refuse(group, before, claimed);
      return group.consumers.size > 0;
    }
    for (const [i, consumer] of consumers.entries()) {
      const messages = claimed.shares[i] ?? [];
      if (messages.length === 0) continue;
      if (group.consumers.has(consumer)) {
        leave(group, consumer);
        if (claimed.throttled !== null) throttles.set(messages, claimed.throttled);
        consumer.resolve(messages);
      } else {
        // It went away, or its time was over, while the claim ran: nobody would ever see what it got.
        giveBack(group.from.queue_id, messages);
      }
    }
    group.is_heavy = claimed.is_cut;
    group.throttled = claimed.throttled;
    if (claimed.retry_ms !== null && group.consumers.size > 0)
      options.onThrottled(group.from.queue_id, claimed.retry_ms);
    if (claimed.has_more) return group.consumers.size > 0;
    for (const consumer of unasked_before) settleEmpty(group, consumer, claimed.wait_seconds);
    return false;
  }

  function nothing({ throttled }: Group): LeasedMessage[] {
    const messages: LeasedMessage[] = [];
    if (throttled !== null) throttles.set(messages, throttled);
    return messages;
  }

  function refuse(group: Group, consumers: Iterable<Consumer>, error: unknown): void {
    for (const consumer of [...consumers]) {
      leave(group, consumer);
      consumer.reject(error);
    }
  }

  /** Is there room for the answers that a claim will make? Small ones are let through for long. */
  async function assertRoom(group: Group): Promise<void> {
    const is_flooded = answers.held() >= 2 * answers.bytes_max;
    if (!group.is_heavy && !is_flooded) return;
    if (await answers.whenRoom(options.room_ms_max)) return;
    throw new BrokerError("unavailable", "the answers that consumers do not read fill their memory");
  }

  /** Claims for the group until nobody can be served any more; woken while it ran, it claims again. */
  async function claim(group: Group): Promise<void> {
    group.is_woken = true;
    if (group.is_claiming) return;
    group.is_claiming = true;
    while (group.is_woken && group.consumers.size > 0) {
      group.is_woken = false;
      const asked = takeUpTo(group);
      try {
        await assertRoom(group);
        group.is_woken = (await claimOnce(group)) || group.is_woken;
      } catch (error) {
        const is_down =
          error instanceof DatabaseError && (error.failure === "unavailable" || error.code === "DEADLINE");
        // A database that is away is away for those who came meanwhile too: one more claim each would be a storm.
        refuse(group, is_down ? group.consumers : asked, error);
      }
    }
    group.is_claiming = false;
    if (group.consumers.size > 0) options.onWaiting(group.from.queue_id);
    else forget(group);
  }

  function add(asked: Asked, resolve: (messages: LeasedMessage[]) => void, reject: (error: unknown) => void): void {
    const { signal } = asked;
    const group = join(asked.from);
    const end = () => {
      leave(group, consumer);
      consumer.resolve([]);
    };
    const consumer: Consumer = {
      asked,
      since_ms: performance.now(),
      is_waiting: false,
      timer: undefined,
      finish(settle) {
        clearTimeout(consumer.timer);
        signal?.removeEventListener("abort", end);
        settle();
      },
      resolve: (messages) => consumer.finish(() => resolve(messages)),
      reject: (error) => consumer.finish(() => reject(error)),
    };
    signal?.addEventListener("abort", end, { once: true });
    group.consumers.add(consumer);
    group.unasked.add(consumer);
    unasked += 1;
    const waits = Math.min(asked.wait_ms ?? 0, asked.wait_ms_max) > 0;
    if (!waits || startsWaiting(group, consumer)) void claim(group);
  }

  return {
    receive(asked) {
      if (asked.signal?.aborted) return Promise.resolve([]);
      if (is_stopped && (asked.wait_ms ?? 0) > 0) return Promise.resolve([]);
      if (unasked >= options.unasked_max) {
        return Promise.reject(new BrokerError("unavailable", "too many requests wait for the database (receive)"));
      }
      return new Promise((resolve, reject) => add(asked, resolve, reject));
    },
    wake(queue_id) {
      for (const group of groups_of.get(queue_id) ?? []) void claim(group);
    },
    queue_ids: () => [...groups_of.keys()],
    has: (queue_id) => groups_of.has(queue_id),
    waiting: () => waiting,
    stop() {
      is_stopped = true;
      for (const group of [...groups.values()]) {
        for (const consumer of [...group.consumers]) {
          if (!consumer.is_waiting) continue;
          leave(group, consumer);
          consumer.resolve([]);
        }
      }
    },
  };
}

/** The first ones, as many as one claim can serve. */
function takeUpTo({ consumers, from }: Group): Consumer[] {
  const taken: Consumer[] = [];
  let rows = 0;
  // Several messages of a key go to one consumer: two would work on the key at once.
  const taken_max = (from.max_per_key ?? 1) === 1 ? Number.POSITIVE_INFINITY : 1;
  for (const consumer of consumers) {
    rows += consumer.asked.limit;
    if (taken.length === taken_max || (taken.length > 0 && rows > claim_rows_max)) break;
    taken.push(consumer);
  }
  return taken;
}
