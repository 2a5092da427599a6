import type { Db } from "../../db/db.ts";
import { keepLatest } from "../keepLatest.ts";
import { type Amount, type Count, createCounting, emptyCount, isOver, isWhole } from "./quotaCounts.ts";

// Quotas of queues: how many unfinished messages a queue may hold, and how many bytes. To count them at every publish
// would cost what is stored. So each server counts, lets in what fits a share of the room that was left, and counts
// again when that is used up, or after a second. The share is what keeps many servers together within the quota: each
// takes at most its part of half of the room, or half a percent of the quota where that is more. What consumers finish
// is seen by the next count.
//
// What a server knows of a queue:
//   unknown     nothing has been read. A publish waits for the first page of the first count.
//   counting    the first count runs, for a second at most: a publish waits until it is finished or at the quota.
//   partial     it still runs. What has been counted so far decides: a queue that is over its quota is refused, one
//               that is not is let in, so that a count of millions of messages holds nobody up.
//   counted     what is known, and what was let in since, decides. Further counts run beside that. A refusal waits for
//               one that could say otherwise, for a second at most.
// A count that fails changes nothing of that, and the next one goes on where it ended. There is one count of a queue at
// a time; nobody waits for that of another queue.

/** Milliseconds after which a count is no longer believed. */
const fresh_ms = 1000;
/** Counting beside publishes takes at most this part of the time, */
const count_share_max = 1 / 20;
/** and this part while publishes are refused: consumers may have made room. */
const refused_share_max = 1 / 2;
/** How long the first count of a queue holds up publishes. */
const first_count_ms_max = 1000;
/** How long a publish that would be refused waits for a newer count. */
const refusal_ms_max = 1000;
/** After a count that failed the next one waits, and publishes that know nothing fail like it. */
const failure_ms = 1000;
/** What a server may let in unseen by the others, at least, as a part of the quota. */
const share_min = 0.005;
/** Queues with quotas that one server knows; what is beyond is counted at every publish. */
const known_max = 10_000;

/** What is asked for: one message. */
export type Asked = { queue_id: string; bytes: number };

type Known = {
  count: Count;
  /** The first count has come to an end. */
  is_complete: boolean;
  /** The last count stopped at the quota: what lies behind is not known. */
  is_cut: boolean;
  first_at_ms: number | undefined;
  /** Let in, and not counted for certain. */
  added: Amount;
  /** Of those, what its statement has not answered for yet. */
  pending: Amount;
  /** While a count runs: what `added` will be after it. */
  added_next: Amount | undefined;
  ended_at_ms: number;
  cost_ms: number;
  counts: number;
  /** Nobody has used the last count yet to take more than a share. */
  is_unused: boolean;
  failure: { error: unknown; at_ms: number } | undefined;
  /** Resolves when more is known, or a count has failed. */
  changed: PromiseWithResolvers<void>;
};

export type Quotas = {
  /** Has this queue, as far as this server knows, a quota on what it holds? */
  isLimited(queue_id: string): boolean;
  /** A statement has found that it has. */
  noteLimited(queue_id: string): void;
  /**
   * Which of the messages fit. They take their room at once; say with `settle` what became of each that was let in.
   * `is_whole`: all or none. Rejects with BrokerError or DatabaseError when nothing is known of a queue and it cannot
   * be counted.
   */
  admit(asked: Asked[], is_whole: boolean): Promise<boolean[]>;
  settle(asked: Asked, is_stored: boolean): void;
};

/** Milliseconds that a publish waits at most before it is decided anew; `refused`: as it is, it would be. */
type Wait = { ms: number; is_refused: boolean };
type Verdict = "fits" | "refused" | Wait;

const unknown = (): Known => ({
  count: emptyCount(),
  is_complete: false,
  is_cut: false,
  first_at_ms: undefined,
  added: { depth: 0, bytes: 0 },
  pending: { depth: 0, bytes: 0 },
  added_next: undefined,
  ended_at_ms: Number.NEGATIVE_INFINITY,
  cost_ms: 0,
  counts: 0,
  is_unused: false,
  failure: undefined,
  changed: Promise.withResolvers(),
});

function change(amount: Amount, { bytes }: Asked, by: 1 | -1): void {
  amount.depth += by;
  amount.bytes += by * bytes;
}

/** Resolves when more is known of one of the queues, at the latest after `ms`. */
async function waitForOne(entries: Known[], ms: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  await Promise.race([promise, ...entries.map(({ changed }) => changed.promise)]);
  clearTimeout(timer);
}

/** How many counts will have ended when one has that begins from now on. */
const countsToCome = (entry: Known | undefined) => (entry ? entry.counts + (entry.added_next ? 2 : 1) : 0);

const isFailing = ({ failure }: Known) => failure !== undefined && performance.now() - failure.at_ms < failure_ms;

/** The quotas as one server keeps them. `others`: how many further servers publish to the same database. */
export function createQuotas(db: Db, others: () => number): Quotas {
  const recount = createCounting(db);
  const known = new Map<string, Known>();

  function wake(entry: Known): void {
    entry.changed.resolve();
    entry.changed = Promise.withResolvers();
  }

  /** Counts in the background, unless that is being done. */
  async function count(queue_id: string, entry: Known): Promise<void> {
    if (entry.added_next !== undefined || isFailing(entry)) return;
    const started_ms = performance.now();
    entry.first_at_ms ??= started_ms;
    keepLatest(known, queue_id, entry, known_max);
    // What is stored while the count runs, or just before, may be in it or not: rather counted twice than not at all.
    entry.added_next = { ...entry.pending };
    const { max_depth, max_bytes } = entry.count;
    try {
      const is_limited = await recount(queue_id, entry.count, () => {
        const is_changed = entry.count.max_depth !== max_depth || entry.count.max_bytes !== max_bytes;
        if (is_changed && entry.is_complete) {
          // As far as the old quota went it was counted.
          entry.is_complete = false;
          entry.is_cut = false;
          entry.first_at_ms = started_ms;
        }
        wake(entry);
      });
      if (!is_limited && known.get(queue_id) === entry) known.delete(queue_id);
      entry.added = entry.added_next;
      entry.is_complete = true;
      entry.is_cut = !isWhole(entry.count);
      entry.is_unused = true;
      entry.failure = undefined;
    } catch (error) {
      entry.failure = { error, at_ms: performance.now() };
    }
    entry.added_next = undefined;
    entry.ended_at_ms = performance.now();
    entry.cost_ms = entry.ended_at_ms - started_ms;
    entry.counts += 1;
    wake(entry);
  }

  /** What this server may let in after a count that found `held`. Just counted: all that is left. */
  function roomOf(max: number, held: number, is_just_counted: boolean): number {
    const left = Math.max(0, max - held);
    if (is_just_counted || others() === 0) return left;
    return Math.min(left, Math.max(left / 2 / (others() + 1), max * share_min));
  }

  function fits({ count, added, is_cut }: Known, asked: Asked, is_just_counted: boolean): boolean {
    // The room that consumers make is not free while there may be more behind.
    if (is_cut) return false;
    const { max_depth, max_bytes, depth, bytes } = count;
    const has_place = max_depth === null || added.depth + 1 <= roomOf(max_depth, depth, is_just_counted);
    return has_place && (max_bytes === null || added.bytes + asked.bytes <= roomOf(max_bytes, bytes, is_just_counted));
  }

  /** Decides one message, which takes its room when it fits, and has the queue counted when that is due. */
  function judge(own: Asked, is_just_counted: boolean): Verdict {
    const entry = known.get(own.queue_id);
    // It has no quota any more.
    if (entry === undefined) return "fits";
    const is_counting = entry.added_next !== undefined;
    const now_ms = performance.now();
    if (!entry.is_complete) {
      void count(own.queue_id, entry);
      const hold_ms = first_count_ms_max + (entry.first_at_ms ?? now_ms) - now_ms;
      if (entry.count.queue_no === undefined) return { ms: first_count_ms_max, is_refused: false };
      if (hold_ms > 0 && !isOver(entry.count) && !isFailing(entry)) return { ms: hold_ms, is_refused: false };
    }
    const age_ms = now_ms - entry.ended_at_ms;
    if (fits(entry, own, is_just_counted)) {
      if (age_ms > Math.max(fresh_ms, entry.cost_ms / count_share_max)) void count(own.queue_id, entry);
      for (const amount of [entry.added, entry.pending, entry.added_next]) if (amount) change(amount, own, 1);
      return "fits";
    }
    if (is_counting) return { ms: refusal_ms_max, is_refused: true };
    // Would a newer count say something else?
    if (age_ms <= fresh_ms && entry.added.depth <= entry.pending.depth) return "refused";
    const pause_ms = entry.cost_ms / refused_share_max - entry.cost_ms - age_ms;
    if (pause_ms > 0) return { ms: pause_ms, is_refused: true };
    if (isFailing(entry)) return "refused";
    void count(own.queue_id, entry);
    return { ms: refusal_ms_max, is_refused: true };
  }

  function settle(asked: Asked, is_stored: boolean): void {
    const entry = known.get(asked.queue_id);
    if (entry === undefined) return;
    change(entry.pending, asked, -1);
    if (is_stored) return;
    for (const amount of [entry.added, entry.added_next]) if (amount) change(amount, asked, -1);
  }

  function undo(asked: Asked[], verdicts: Verdict[]): void {
    for (const [i, own] of asked.entries()) if (verdicts[i] === "fits") settle(own, false);
  }

  /** Throws what the count of a queue failed with that nothing is known of. */
  function throwFailure(entries: Known[]): void {
    for (const entry of entries) {
      if (entry.count.queue_no === undefined && isFailing(entry)) throw entry.failure?.error;
    }
  }

  async function admit(asked: Asked[], is_whole: boolean): Promise<boolean[]> {
    const started_ms = performance.now();
    const queue_ids = [...new Set(asked.map(({ queue_id }) => queue_id))];
    // One count that began after this is as good as any.
    const counts_max = new Map(queue_ids.map((id) => [id, countsToCome(known.get(id))]));
    const awaited = new Set<string>();
    for (;;) {
      throwFailure(queue_ids.flatMap((id) => known.get(id) ?? []));
      const just_counted = new Set([...awaited].filter((id) => known.get(id)?.is_unused));
      for (const id of just_counted) (known.get(id) as Known).is_unused = false;
      const verdicts = asked.map((own) => judge(own, just_counted.has(own.queue_id)));
      const left_ms = started_ms + refusal_ms_max - performance.now();
      const waits = new Map<Known, number>();
      for (const [i, verdict] of verdicts.entries()) {
        if (typeof verdict === "string") continue;
        const { queue_id } = asked[i] as Asked;
        const entry = known.get(queue_id) as Known;
        if (verdict.is_refused && (left_ms <= 0 || entry.counts >= (counts_max.get(queue_id) ?? 0))) continue;
        awaited.add(queue_id);
        waits.set(entry, verdict.is_refused ? Math.min(verdict.ms, left_ms) : verdict.ms);
      }
      if (waits.size === 0) {
        const let_in = verdicts.map((verdict) => verdict === "fits");
        if (!is_whole || let_in.every(Boolean)) return let_in;
        undo(asked, verdicts);
        return asked.map(() => false);
      }
      undo(asked, verdicts);
      await waitForOne([...waits.keys()], Math.min(...waits.values()));
    }
  }

  return {
    isLimited: (queue_id) => known.has(queue_id),
    noteLimited: (queue_id) => {
      if (!known.has(queue_id)) keepLatest(known, queue_id, unknown(), known_max);
    },
    admit,
    settle,
  };
}
