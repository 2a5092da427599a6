import { sql } from "drizzle-orm";
import type { Db, Prepared } from "../../db/db.ts";
import { messages, queues } from "../../db/schema.ts";
import { keepLatest } from "../keepLatest.ts";
import { column, prepare, value } from "../statement.ts";

// Quotas of queues: how many unfinished messages a queue may hold, and how many bytes. To count them at every
// publish would cost what is stored. So each server counts once, lets in what fits a share of the room that was
// left, and counts again when that is used up, or after a second. The share is what keeps many servers together
// within the quota: each takes at most its part of half of the room, or half a percent of the quota where that is
// more. What consumers finish is seen by the next count.

/** Milliseconds after which a count is no longer believed. */
const count_ms_max = 1000;
/** Counting takes at most this part of the time. */
const count_share_max = 1 / 20;
/** What a server may let in unseen by the others, at least, as a part of the quota. */
const share_min = 0.005;
/** Queues with quotas that one server knows; what is beyond is counted at every publish. */
const known_max = 10_000;

type Counted = { queue_id: string; max_depth: number | null; max_bytes: number | null; depth: number; bytes: number };

/** What is asked for: one message. */
export type Asked = { queue_id: string; bytes: number };

type Amount = { depth: number; bytes: number };

/** `added`: let in since the count. `pending`: of those, what its statement has not answered for yet. */
type Known = Counted & { at_ms: number; fresh_ms: number; added: Amount; pending: Amount };

function prepareCount(db: Db): Prepared<Counted[]> {
  const counted = db.orm
    .$with("counted", {
      queue_id: column<string>("queue_id"),
      max_depth: column<number | null>("max_depth"),
      max_bytes: column<number | null>("max_bytes"),
      depth: column<number>("depth"),
      bytes: column<number>("bytes"),
    })
    .as(sql`
      select queue.id as queue_id, queue.max_depth::float8 as max_depth, queue.max_bytes::float8 as max_bytes,
        held.depth::float8 as depth, held.bytes::float8 as bytes
      from unnest(${value("queue_ids")}::text[]) as given (queue_id)
      cross join lateral (select * from ${queues} as queue where queue.id = given.queue_id limit 1) as queue
      cross join lateral (
        select count(*) as depth, coalesce(sum(seen.bytes), 0) as bytes
        from (
          select octet_length(message.body) + coalesce(octet_length(message.label), 0)
            + coalesce(pg_column_size(message.attributes), 0) as bytes
          from ${messages} as message
          where message.queue_no = queue.no and (message.expires_at > now() or message.lease_expires_at > now())
          order by message.id   -- counted for a quota
        ) as seen
        where queue.max_depth is not null or queue.max_bytes is not null
      ) as held`);
  return prepare<Counted>(db.orm.with(counted).select().from(counted), "count_for_quotas");
}

export type Quotas = {
  /** Has this queue, as far as this server knows, a quota on what it holds? */
  isLimited(queue_id: string): boolean;
  /** A statement has found that it has. */
  noteLimited(queue_id: string): void;
  /**
   * Which of the messages fit. They take their room at once; say with `settle` what became of each that was let in.
   * `is_whole`: all or none.
   */
  admit(asked: Asked[], is_whole: boolean): Promise<boolean[]>;
  settle(asked: Asked, is_stored: boolean): void;
};

/** The quotas as one server keeps them. `others`: how many further servers publish to the same database. */
export function createQuotas(db: Db, others: () => number): Quotas {
  const count = prepareCount(db);
  const known = new Map<string, Known | undefined>();

  async function recount(queue_ids: string[]): Promise<void> {
    const started_ms = performance.now();
    const rows = await db.run("count_for_quotas", () => count.execute({ queue_ids }), true);
    const at_ms = performance.now();
    const fresh_ms = Math.max(count_ms_max, (at_ms - started_ms) / count_share_max);
    const found = new Map(rows.map((row) => [row.queue_id, row]));
    for (const queue_id of queue_ids) {
      const row = found.get(queue_id);
      if (row === undefined || (row.max_depth === null && row.max_bytes === null)) known.delete(queue_id);
      else {
        // Not stored yet, or just now: rather counted twice than not at all.
        const pending = known.get(queue_id)?.pending ?? { depth: 0, bytes: 0 };
        keepLatest(known, queue_id, { ...row, at_ms, fresh_ms, added: { ...pending }, pending }, known_max);
      }
    }
  }

  /** What this server may let in after a count that found `held`. Just counted: all that is left. */
  function roomOf(max: number, held: number, is_just_counted: boolean): number {
    const left = Math.max(0, max - held);
    if (is_just_counted || others() === 0) return left;
    return Math.min(left, Math.max(left / 2 / (others() + 1), max * share_min));
  }

  function fits({ max_depth, max_bytes, depth, bytes, added }: Known, asked: Asked, is_just_counted: boolean): boolean {
    const has_place = max_depth === null || added.depth + 1 <= roomOf(max_depth, depth, is_just_counted);
    return has_place && (max_bytes === null || added.bytes + asked.bytes <= roomOf(max_bytes, bytes, is_just_counted));
  }

  function change(amount: Amount, { bytes }: Asked, by: 1 | -1): void {
    amount.depth += by;
    amount.bytes += by * bytes;
  }

  function settle(asked: Asked, is_stored: boolean): void {
    const entry = known.get(asked.queue_id);
    if (entry === undefined) return;
    change(entry.pending, asked, -1);
    if (!is_stored) change(entry.added, asked, -1);
  }

  /** Lets in what fits; a queue without an entry has no quota any more. */
  function tryAll(asked: Asked[], is_just_counted: boolean): boolean[] {
    return asked.map((own) => {
      const entry = known.get(own.queue_id);
      if (entry === undefined) return true;
      const is_let_in = fits(entry, own, is_just_counted);
      if (is_let_in) for (const amount of [entry.added, entry.pending]) change(amount, own, 1);
      return is_let_in;
    });
  }

  /** Would a newer count say something else? */
  function isOld(queue_id: string): boolean {
    const entry = known.get(queue_id);
    if (entry === undefined) return true;
    return performance.now() - entry.at_ms > entry.fresh_ms || entry.added.depth > entry.pending.depth;
  }

  async function admitNow(asked: Asked[], is_whole: boolean): Promise<boolean[]> {
    const ids = [...new Set(asked.map(({ queue_id }) => queue_id))];
    const uncounted = ids.filter((id) => {
      const entry = known.get(id);
      return entry === undefined || performance.now() - entry.at_ms > entry.fresh_ms;
    });
    if (uncounted.length > 0) await recount(uncounted);
    const let_in = tryAll(asked, uncounted.length === ids.length);
    const refused = asked.filter((_, i) => !let_in[i]).map(({ queue_id }) => queue_id);
    // Its share may be used up, and not the room.
    const again = [...new Set(refused)].filter(isOld);
    if (again.length === 0) return finish(asked, let_in, is_whole);
    undo(asked, let_in);
    await recount(again);
    return finish(asked, tryAll(asked, true), is_whole);
  }

  function undo(asked: Asked[], let_in: boolean[]): void {
    for (const [i, own] of asked.entries()) if (let_in[i]) settle(own, false);
  }

  function finish(asked: Asked[], let_in: boolean[], is_whole: boolean): boolean[] {
    if (!is_whole || let_in.every(Boolean)) return let_in;
    undo(asked, let_in);
    return asked.map(() => false);
  }

  // One after the other: what one is let in with, the next must not count on.
  let last: Promise<unknown> = Promise.resolve();

  return {
    isLimited: (queue_id) => known.has(queue_id),
    noteLimited: (queue_id) => {
      if (!known.has(queue_id)) keepLatest(known, queue_id, undefined, known_max);
    },
    admit(asked, is_whole) {
      const own = last.then(() => admitNow(asked, is_whole));
      last = own.catch(() => {});
      return own;
    },
    settle,
  };
}
