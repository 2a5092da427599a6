import { sql } from "drizzle-orm";
import type { Db } from "../db/db.ts";
import { messages, queues } from "../db/schema.ts";
import { BrokerError } from "../errors.ts";
import type { LeasedMessage, Receive, Received, ReceiveFrom } from "./receive.ts";
import { column, value } from "./sql.ts";

/** Between two looks at the database for all waiters together: with LISTEN a safety net, without it the only way. */
const poll_ms_listening = 1000;
const poll_ms_deaf = 250;
/** After a claim that left somebody waiting: how long looks for the next due time gather, over all queues. */
const look_gather_ms = 10;
/** No timer is set further ahead than this; the poll finds what comes later. */
const timer_ms_max = 60_000;
/** Rows that one claim for waiters takes at most. */
const claim_rows_max = 100;

type Waiter = {
  limit: number;
  resolve: (received: Received) => void;
  reject: (error: unknown) => void;
};

/** Waiters with the same queue, filter and lease: one claim serves them in order of arrival. */
type Group = { from: ReceiveFrom; waiters: Set<Waiter>; is_claiming: boolean; is_woken: boolean };

export type Wakeups = {
  /**
   * Looks for messages for `from`, and waits for the first one at most `wait_ms`; then resolves with nothing. Rejects
   * with `too_many_requests` when too many wait already, and with what a claim throws. An abort takes the waiter out at
   * once.
   */
  wait(from: ReceiveFrom, limit: number, wait_ms: number, signal: AbortSignal | undefined): Promise<Received>;
  /** Something in this queue became ready, or may have. Cheap when nobody waits for it. */
  wake(queue_id: string): void;
  wakeAll(): void;
  /** Whether other servers tell us of what they publish. */
  setListening(is_listening: boolean): void;
  /** Answers every waiter with nothing, now and from now on. */
  stop(): void;
  size(): number;
};

const nothing: Received = { messages: [], wait_seconds: 0 };

/**
 * Long polling: consumers that wait for messages. Woken by publishes in this process, by those of other servers, by the
 * earliest time at which something becomes ready, and by a poll; none of them has to work for a message to be found.
 * Waiting happens here, never in the database.
 */
export function createWakeups(
  db: Db,
  receive: Receive,
  giveBack: (queue_id: string, leased: LeasedMessage[]) => Promise<void>,
  waiters_max: number,
  floorOf: (queue_id: string) => string,
): Wakeups {
  const groups = new Map<string, Group>();
  const groups_of = new Map<string, Set<Group>>();
  let waiting = 0;
  let is_stopped = false;
  let poll_ms = poll_ms_listening;
  let poll_timer: ReturnType<typeof setTimeout> | undefined;
  const due_timers = new Map<string, { at_ms: number; timer: ReturnType<typeof setTimeout> }>();
  const to_look = new Set<string>();
  let look_timer: ReturnType<typeof setTimeout> | undefined;
  /** Per queue, when the first of its ready messages became so that the waiters have been woken for already. */
  const woken_for = new Map<string, string>();

  // For all queues with waiters at once: is something ready, and when will the next be? Both, because what is ready may
  // be for others (another label), and must not hide what comes.
  const due = db.orm
    .$with("due", {
      queue_id: column<string>("queue_id"),
      ready_at: column<string | null>("ready_at"),
      in_ms: column<number | null>("in_ms"),
    })
    .as(sql`
      select queue.id as queue_id, ready.visible_at as ready_at,
        (extract(epoch from next.visible_at - clock_timestamp()) * 1000)::float8 as in_ms
      from unnest(${value("queue_ids")}::text[], ${value("floors")}::text[]::timestamptz[]) as given (queue_id, floor)
      cross join lateral (select * from ${queues} as queue where queue.id = given.queue_id limit 1) as queue
      left join lateral (
        select message.visible_at
        from ${messages} as message
        where message.queue_no + 0 = queue.no and message.priority = 0 and message.visible_at >= given.floor
          and message.visible_at <= now()
        order by message.visible_at, message.id collate "POSIX"
        limit 1
      ) as ready on true
      left join lateral (
        select message.visible_at
        from ${messages} as message
        where message.queue_no + 0 = queue.no and message.priority = 0 and message.visible_at > now()
        order by message.visible_at, message.id collate "POSIX"
        limit 1
      ) as next on true`);
  const findDue = db.orm.with(due).select().from(due).prepare("find_due");

  const keyOf = ({ queue_id, label, lease_seconds }: ReceiveFrom) =>
    `${queue_id}\n${label ?? "\0"}\n${lease_seconds ?? ""}`;

  function join(from: ReceiveFrom): Group {
    const key = keyOf(from);
    let group = groups.get(key);
    if (group === undefined) {
      group = { from, waiters: new Set(), is_claiming: false, is_woken: false };
      groups.set(key, group);
      const beside = groups_of.get(from.queue_id) ?? new Set();
      groups_of.set(from.queue_id, beside.add(group));
    }
    return group;
  }

  function leave(group: Group, waiter: Waiter): void {
    if (!group.waiters.delete(waiter)) return;
    waiting -= 1;
    if (group.waiters.size > 0) return;
    groups.delete(keyOf(group.from));
    const beside = groups_of.get(group.from.queue_id);
    beside?.delete(group);
    if (beside?.size === 0) {
      groups_of.delete(group.from.queue_id);
      clearTimeout(due_timers.get(group.from.queue_id)?.timer);
      due_timers.delete(group.from.queue_id);
      woken_for.delete(group.from.queue_id);
    }
  }

  /** One claim for the whole group; woken again while it ran, it claims again. */
  async function claim(group: Group): Promise<void> {
    if (group.is_claiming) {
      group.is_woken = true;
      return;
    }
    group.is_claiming = true;
    do {
      group.is_woken = false;
      const waiters = takeUpTo(group.waiters);
      if (waiters.length === 0) break;
      try {
        const results = await receive(group.from, waiters);
        for (const [i, waiter] of waiters.entries()) answer(group, waiter, results[i]);
        // Full for all: there may be more for those who did not fit into this claim.
        if (results.every((result) => !(result instanceof BrokerError) && result.messages.length > 0))
          group.is_woken = true;
      } catch (error) {
        for (const waiter of waiters) {
          leave(group, waiter);
          waiter.reject(error);
        }
      }
    } while (group.is_woken);
    group.is_claiming = false;
    if (group.waiters.size > 0) lookSoon(group.from.queue_id);
  }

  function answer(group: Group, waiter: Waiter, result: Received | BrokerError | undefined): void {
    if (!group.waiters.has(waiter)) {
      // It went away, or its time was over, while the claim ran: nobody would ever see what it got.
      if (result === undefined || result instanceof BrokerError || result.messages.length === 0) return;
      giveBack(group.from.queue_id, result.messages).catch(() => {
        // The database is away: the leases run out.
      });
    } else if (result instanceof BrokerError) {
      leave(group, waiter);
      waiter.reject(result);
    } else if (result !== undefined && result.messages.length > 0) {
      leave(group, waiter);
      waiter.resolve(result);
    }
  }

  function wake(queue_id: string): void {
    for (const group of groups_of.get(queue_id) ?? []) void claim(group);
  }

  function setDueTimer(queue_id: string, in_ms: number): void {
    const at_ms = performance.now() + Math.min(Math.max(in_ms, 0) + 1, timer_ms_max);
    const current = due_timers.get(queue_id);
    if (current !== undefined && current.at_ms <= at_ms && current.at_ms > performance.now()) return;
    clearTimeout(current?.timer);
    const timer = setTimeout(() => {
      due_timers.delete(queue_id);
      wake(queue_id);
    }, at_ms - performance.now());
    due_timers.set(queue_id, { at_ms, timer });
  }

  /** One look for the queues of many claims. */
  function lookSoon(queue_id: string): void {
    to_look.add(queue_id);
    look_timer ??= setTimeout(() => {
      look_timer = undefined;
      const queue_ids = [...to_look];
      to_look.clear();
      look(queue_ids, false).catch(() => {
        // The database is away; the claims themselves tell the waiters.
      });
    }, look_gather_ms);
  }

  async function look(queue_ids: string[], is_poll: boolean): Promise<void> {
    const waited_for = queue_ids.filter((queue_id) => groups_of.has(queue_id));
    if (waited_for.length === 0) return;
    const values = { queue_ids: waited_for, floors: waited_for.map(floorOf) };
    const rows = await db.run("find_due", () => findDue.execute(values), true);
    // A queue that is gone has no row: its waiters are told.
    const known = new Set(rows.map(({ queue_id }) => queue_id));
    for (const queue_id of waited_for) if (!known.has(queue_id)) wake(queue_id);
    for (const { queue_id, ready_at, in_ms } of rows) {
      // What stays ready after a claim is for others, and a claim for it again and again would be a busy loop.
      if (ready_at !== null && (is_poll || woken_for.get(queue_id) !== ready_at)) {
        woken_for.set(queue_id, ready_at);
        wake(queue_id);
      }
      if (in_ms !== null && groups_of.has(queue_id)) setDueTimer(queue_id, in_ms);
    }
  }

  function schedulePoll(): void {
    if (poll_timer !== undefined || is_stopped) return;
    poll_timer = setTimeout(
      () => {
        poll_timer = undefined;
        if (waiting === 0) return;
        look([...groups_of.keys()], true)
          .catch(() => {
            // The database is away; the claims themselves tell the waiters.
          })
          .finally(schedulePoll);
      },
      poll_ms * (0.9 + 0.2 * Math.random()),
    );
  }

  return {
    wait(from, limit, wait_ms, signal) {
      if (is_stopped || signal?.aborted) return Promise.resolve(nothing);
      if (waiting >= waiters_max) {
        return Promise.reject(new BrokerError("too_many_requests", `${waiters_max} consumers wait already`));
      }
      return new Promise((resolve, reject) => {
        const group = join(from);
        const end = () => {
          leave(group, waiter);
          finish(() => resolve(nothing));
        };
        const timer = setTimeout(end, wait_ms);
        const finish = (settle: () => void) => {
          clearTimeout(timer);
          signal?.removeEventListener("abort", end);
          settle();
        };
        const waiter: Waiter = {
          limit,
          resolve: (received) => finish(() => resolve(received)),
          reject: (error) => finish(() => reject(error)),
        };
        group.waiters.add(waiter);
        waiting += 1;
        signal?.addEventListener("abort", end, { once: true });
        void claim(group);
        schedulePoll();
      });
    },
    wake,
    wakeAll() {
      for (const queue_id of groups_of.keys()) wake(queue_id);
    },
    setListening(is_listening) {
      poll_ms = is_listening ? poll_ms_listening : poll_ms_deaf;
    },
    stop() {
      is_stopped = true;
      clearTimeout(poll_timer);
      clearTimeout(look_timer);
      for (const group of [...groups.values()]) {
        for (const waiter of [...group.waiters]) {
          leave(group, waiter);
          waiter.resolve(nothing);
        }
      }
    },
    size: () => waiting,
  };
}

/** The longest waiting, as many as one claim can serve. */
function takeUpTo(waiters: Set<Waiter>): Waiter[] {
  const taken: Waiter[] = [];
  let rows = 0;
  for (const waiter of waiters) {
    rows += waiter.limit;
    if (taken.length > 0 && rows > claim_rows_max) break;
    taken.push(waiter);
  }
  return taken;
}
