import { sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { messages, queues } from "../../db/schema.ts";
import { levels } from "../levels.ts";
import { column, value } from "../statement.ts";
import type { Consumers } from "./consumers.ts";

// What wakes consumers that wait: publishes in this process, those of other servers, a timer on the earliest time at
// which something becomes ready, and a poll. None of them has to work for a message to be found. Waiting happens here,
// never in the database.

/** Between two polls of the database for all waiters together: with LISTEN a safety net, without it the only way. */
const poll_ms_listening = 1000;
const poll_ms_deaf = 250;
/** After a claim that left somebody waiting: how long look-ups of the next due time gather, over all queues. */
const look_up_gather_ms = 10;
/** No timer is set further ahead than this; the poll finds what comes later. */
const timer_ms_max = 60_000;

export type Wakeups = {
  /** Wakes the consumers of a queue after a while. */
  wakeIn(queue_id: string, in_ms: number): void;
  /** Looks up what is due in a queue whose waiters a claim has left empty-handed. */
  onWaiting(queue_id: string): void;
  /** Drops what was kept for a queue. */
  onForgotten(queue_id: string): void;
  wakeAll(): void;
  /** Whether other servers tell us of what they publish. */
  setListening(is_listening: boolean): void;
  stop(): void;
};

function prepareFindDue(db: Db) {
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
      cross join lateral (
        select min(first.visible_at) as visible_at
        from ${levels}
        cross join lateral (
          select message.visible_at
          from ${messages} as message
          where message.queue_no + 0 = queue.no and message.priority = level.priority
            -- Floors are those of the receives without priorities.
            and message.visible_at >= case when queue.is_governed then '-infinity' else given.floor end
            and message.visible_at <= now()
          order by message.visible_at, message.id collate "POSIX"
          limit 1
        ) as first
      ) as ready
      cross join lateral (
        select min(first.visible_at) as visible_at
        from ${levels}
        cross join lateral (
          select message.visible_at
          from ${messages} as message
          where message.queue_no + 0 = queue.no and message.priority = level.priority and message.visible_at > now()
            and message.visible_at < 'infinity'   -- parked behind another of its key
          order by message.visible_at, message.id collate "POSIX"
          limit 1
        ) as first
      ) as next`);
  return db.orm.with(due).select().from(due).prepare("find_due");
}

/** Wakes the consumers of one process. `floorOf`: below this, nothing of the queue is ready. */
export function createWakeups(
  db: Db,
  consumers: Pick<Consumers, "wake" | "has" | "queue_ids" | "waiting">,
  floorOf: (queue_id: string) => string,
): Wakeups {
  const findDue = prepareFindDue(db);
  let is_stopped = false;
  let poll_ms = poll_ms_listening;
  let poll_timer: ReturnType<typeof setTimeout> | undefined;
  const due_timers = new Map<string, { at_ms: number; timer: ReturnType<typeof setTimeout> }>();
  const to_look_up = new Set<string>();
  let look_up_timer: ReturnType<typeof setTimeout> | undefined;
  /** Per queue: visible_at of the oldest ready message that waiters were already woken for. */
  const woken_for = new Map<string, string>();

  function setDueTimer(queue_id: string, in_ms: number): void {
    const delay_ms = Math.min(Math.max(in_ms, 0) + 1, timer_ms_max);
    const at_ms = performance.now() + delay_ms;
    const current = due_timers.get(queue_id);
    if (current !== undefined && current.at_ms <= at_ms && current.at_ms > performance.now()) return;
    clearTimeout(current?.timer);
    const timer = setTimeout(() => {
      due_timers.delete(queue_id);
      consumers.wake(queue_id);
    }, delay_ms);
    due_timers.set(queue_id, { at_ms, timer });
  }

  async function lookUp(queue_ids: string[], is_poll: boolean): Promise<void> {
    const waited_for = queue_ids.filter(consumers.has);
    if (waited_for.length === 0) return;
    const values = { queue_ids: waited_for, floors: waited_for.map(floorOf) };
    const rows = await db.run("find_due", () => findDue.execute(values), true);
    // A queue that is gone has no row: its waiters are told.
    const known = new Set(rows.map(({ queue_id }) => queue_id));
    for (const queue_id of waited_for) if (!known.has(queue_id)) consumers.wake(queue_id);
    for (const { queue_id, ready_at, in_ms } of rows) {
      if (!consumers.has(queue_id)) continue;
      // What stays ready after a claim is for others, and a claim for it again and again would be a busy loop.
      if (ready_at !== null && (is_poll || woken_for.get(queue_id) !== ready_at)) {
        woken_for.set(queue_id, ready_at);
        consumers.wake(queue_id);
      }
      if (in_ms !== null) setDueTimer(queue_id, in_ms);
    }
  }

  function schedulePoll(): void {
    if (poll_timer !== undefined || is_stopped) return;
    poll_timer = setTimeout(
      () => {
        poll_timer = undefined;
        if (consumers.waiting() === 0) return;
        lookUp(consumers.queue_ids(), true)
          .catch(() => {
            // The database is away; the claims themselves tell the waiters.
          })
          .finally(schedulePoll);
      },
      poll_ms * (0.9 + 0.2 * Math.random()),
    );
  }

  return {
    wakeIn: setDueTimer,
    // One look-up for the queues of many claims.
    onWaiting(queue_id) {
      if (is_stopped) return;
      schedulePoll();
      to_look_up.add(queue_id);
      look_up_timer ??= setTimeout(() => {
        look_up_timer = undefined;
        const queue_ids = [...to_look_up];
        to_look_up.clear();
        lookUp(queue_ids, false).catch(() => {
          // As above.
        });
      }, look_up_gather_ms);
    },
    onForgotten(queue_id) {
      clearTimeout(due_timers.get(queue_id)?.timer);
      due_timers.delete(queue_id);
      woken_for.delete(queue_id);
    },
    wakeAll() {
      for (const queue_id of consumers.queue_ids()) consumers.wake(queue_id);
    },
    setListening(is_listening) {
      poll_ms = is_listening ? poll_ms_listening : poll_ms_deaf;
    },
    stop() {
      is_stopped = true;
      clearTimeout(poll_timer);
      clearTimeout(look_up_timer);
      for (const { timer } of due_timers.values()) clearTimeout(timer);
      due_timers.clear();
    },
  };
}
