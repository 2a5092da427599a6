import type { Budget } from "../../budget.ts";
import type { Db } from "../../db/db.ts";
import { BrokerError, DatabaseError, invalid } from "../../errors.ts";
import { type NoteMessages, observe } from "../../observe.ts";
import { randomTokens } from "../publish/ids.ts";
import { orderedToken } from "../settle/fenced.ts";
import type { Settle } from "../settle/settle.ts";
import { rfc3339 } from "../statement.ts";
import { createExpiredHeads } from "./expiredHeads.ts";
import { type KnownGoverned, prepareGoverned, type Throttle } from "./governed.ts";
import { type LeasedMessage, type LeaseRow, prepareLease, type Verdict } from "./lease.ts";
import { createFollowers } from "./ordered.ts";
import { beginning, type ScanFloors } from "./scanFloors.ts";
import { createOpening, type Opening } from "./unreadable.ts";

/** Asked again, for rows that had expired, at most this many times in one receive. */
const rounds_max = 50;
/** What a group of consumers asks for: their answers are dealt from one lease. */
export type ReceiveFrom = {
  queue_id: string;
  /** undefined: any. */
  label: string | undefined;
  /** undefined: the queue's ack deadline. */
  lease_seconds: number | undefined;
  /** Messages with the same ordering key that one receive returns, in order; 0: any number; undefined: 1. */
  max_per_key?: number | undefined;
};

export type Claimed = {
  /** What each consumer gets, in the order of their limits. */
  shares: LeasedMessage[][];
  /** The queue's default for how long a receive waits. */
  wait_seconds: number;
  /** More may be ready: this claim ended because it was full, in rows or in bytes. */
  has_more: boolean;
  /** In bytes. */
  is_cut: boolean;
  /** What kept more from being delivered, and when to ask again. */
  throttled: Throttle | null;
  retry_ms: number | null;
};

/** What the queue as a whole refuses is the answer for all. Throws DecryptionError when all it found is unreadable. */
export type Receive = (from: ReceiveFrom, limits: number[]) => Promise<Claimed | BrokerError>;

export type ReceiveLimits = {
  /** Bytes of messages that one answer holds; one message at least. */
  answer_bytes_max: number;
  /** All answers that are not written yet, of all consumers. See bytesOf. */
  answers: Budget;
  known_governed: KnownGoverned;
  /** The body that was sent, of the stored one. Throws DecryptionError. */
  open(stored: string): string;
};

/**
 * Bytes that the first statement of a claim leases: enough for a thousand small messages, and little enough to be
 * leased at any time; one message at least, however large. Further statements take larger steps, while there is room
 * for the answers.
 */
const light_bytes = 4_194_304;
const heavy_bytes = 16_777_216;

/** What the answer with these messages takes of the budget of answers. */
export const bytesOf = (leased: LeasedMessage[]): number => leased.reduce((sum, message) => sum + message.bytes, 0);

/** `is_one_free`: one message is leased even if it is larger. */
type Bound = { bytes_max: number; is_one_free: string };

type Leased = {
  rows: (LeasedMessage & Pick<LeaseRow, "verdict" | "was_leased">)[];
  wait_seconds: number;
  /** More may be ready: it ended with the last row or byte that it was allowed. */
  is_full: boolean;
  is_cut: boolean;
  is_counted?: boolean;
  throttled?: Throttle | null;
  retry_ms?: number | null;
};

/** Deals messages out in order of arrival: the next one gets some when the one before has its limit or its bytes. */
function createDeal(limits: number[], bytes_max: number) {
  const shares = limits.map(() => [] as LeasedMessage[]);
  let at = 0;
  let bytes = 0;
  let wanted = limits.reduce((sum, limit) => sum + limit, 0);
  const next = () => {
    wanted -= (limits[at] ?? 0) - (shares[at]?.length ?? 0);
    at += 1;
    bytes = 0;
  };
  return {
    shares,
    /** Messages that can still be dealt. */
    wanted: () => wanted,
    /** Bytes that the next message may have without passing to the next consumer. */
    room: () => ((shares[at]?.length ?? 0) === limits[at] ? bytes_max : bytes_max - bytes),
    /** False when nobody can take it. */
    give(message: LeasedMessage): boolean {
      const own_bytes = message.bytes;
      for (let share = shares[at]; share !== undefined; share = shares[at]) {
        const is_full = share.length === limits[at] || (share.length > 0 && bytes + own_bytes > bytes_max);
        if (is_full) next();
        else {
          share.push(message);
          bytes += own_bytes;
          wanted -= 1;
          return true;
        }
      }
      return false;
    },
  };
}

/**
 * Receives on one database. A call leases ready messages of one queue for several consumers, bounded in rows and bytes,
 * and deals them out in order of arrival, in the order in which they became visible. Expired and exhausted messages met
 * on the way are ended or dead-lettered before the answer. Never repeated after a lost connection: what it leased comes
 * back when its lease ends. What it answers is held of the budget of answers until somebody gives it back.
 */
export function createReceive(
  db: Db,
  floors: ScanFloors,
  settle: Settle,
  note: NoteMessages,
  { answer_bytes_max, answers, known_governed, open }: ReceiveLimits,
): Receive {
  const followers = createFollowers(db);
  const governed = prepareGoverned(db);
  const endExpiredHeads = createExpiredHeads(db, settle);
  const statements = { any: prepareLease(db, "receive", false), labelled: prepareLease(db, "receive_labelled", true) };

  /** The lease of a queue with priorities, a cap or a rate; undefined when it has none any more. */
  async function leaseGoverned(
    from: ReceiveFrom,
    limit: number,
    bound: Bound,
  ): Promise<Leased | BrokerError | undefined> {
    const { queue_id, label = null, lease_seconds = null } = from;
    const values = { queue_id, label, lease_seconds, limit, lease_tokens: randomTokens(limit), ...bound };
    const [first, ...rows] = await db.run("receive_governed", () => governed.execute(values));
    known_governed.learn(queue_id, first?.is_governed ?? false);
    if (first === undefined) return new BrokerError("queue_not_found");
    if (!first.is_governed) return undefined;
    if (first.is_lease_too_long) return invalid("ack_deadline_seconds", "at_most", first.max_lease_seconds);
    const leased = noteLeased(queue_id, rows as Leased["rows"]);
    const { throttled, retry_ms, wait_seconds, is_cut, is_counted } = first;
    const is_full = throttled === null && limit > 0 && (leased.length === limit || is_cut);
    return { rows: leased, wait_seconds, is_full, is_cut, is_counted, throttled, retry_ms };
  }

  function noteLeased(queue_id: string, leased: Leased["rows"]): Leased["rows"] {
    for (const row of leased) if (row.ordering_key !== null) row.lease_token = orderedToken(row.lease_token);
    const run_out = leased.reduce((count, row) => count + Number(row.was_leased), 0);
    if (run_out > 0) note("lease_expired", queue_id, run_out);
    return leased;
  }

  async function lease(from: ReceiveFrom, limit: number, bound: Bound): Promise<Leased | BrokerError> {
    const { queue_id, label, lease_seconds = null } = from;
    const own = known_governed.has(queue_id) ? await leaseGoverned(from, limit, bound) : undefined;
    if (own !== undefined) return own;
    // A claim for nothing only asks whether the queue exists, and must not use up a rescan.
    const scan = limit === 0 ? undefined : floors.next(queue_id, label);
    const floor = scan?.from ?? beginning;
    const values = { queue_id, limit, lease_seconds, floor, lease_tokens: randomTokens(limit), ...bound };
    const rows =
      label === undefined
        ? await db.run("receive", () => statements.any.execute(values))
        : await db.run("receive_labelled", () => statements.labelled.execute({ ...values, label }));
    const first = rows.find(({ id }) => id === null);
    if (first === undefined) return new BrokerError("queue_not_found");
    if (first.is_lease_too_long) {
      return invalid("ack_deadline_seconds", "at_most", first.max_lease_seconds);
    }
    if (first.is_governed) {
      const leased = await leaseGoverned(from, limit, bound);
      if (leased !== undefined) return leased;
    }
    const messages = rows.filter((row) => row !== first).sort((a, b) => a.n - b.n);
    for (const row of messages) {
      row.now = first.now;
      row.first_leased_at ??= first.now;
    }
    const leased = noteLeased(queue_id, messages as Leased["rows"]);
    const is_full = limit > 0 && (leased.length === limit || first.is_cut);
    if (scan) floors.done(queue_id, label, scan, { now: first.now, highest: leased.at(-1)?.ready_at, is_full });
    return { rows: leased, wait_seconds: first.wait_seconds, is_full, is_cut: first.is_cut };
  }

  /** Ends what must not be delivered. */
  async function putAway(queue_id: string, rows: Leased["rows"]): Promise<void> {
    const of = (...verdicts: Verdict[]) => rows.filter((row) => verdicts.includes(row.verdict));
    const [expired, dead, dead_expired] = [of("expired"), of("dead"), of("dead_expired")];
    if (expired.length > 0) await settle.expire(queue_id, expired);
    if (dead.length > 0) await settle.deadLetter(queue_id, dead, "max_deliveries");
    if (dead_expired.length > 0) await settle.deadLetter(queue_id, dead_expired, "expired");
  }

  /** What can be delivered; for a consumer that takes several of a key, with those that follow its heads. */
  async function withFollowers(from: ReceiveFrom, leased: Leased, limit: number, bytes_max: number) {
    const { rows, is_counted = false } = leased;
    const ready: LeasedMessage[] = rows.filter(({ verdict }) => verdict === "ready");
    const heads = ready.filter(({ ordering_key }) => ordering_key !== null);
    const key_max = from.max_per_key ?? 1;
    // Any number of a key: from as few keys as possible. The heads for which no room is left are given back.
    const left = key_max === 0 ? limit - 1 : limit - rows.length;
    const bytes_left = bytes_max - bytesOf(ready);
    // A cap or a rate would have to count them, too.
    if (is_counted || key_max === 1 || heads.length === 0 || left <= 0 || bytes_left <= 0) return ready;
    try {
      const { queue_id, label } = from;
      const asked = { queue_id, label, key_max, limit: left, bytes_max: bytes_left };
      const followers_of = await followers(asked, heads);
      return ready.flatMap((head) => [head, ...(followers_of.get(head.id) ?? [])]);
    } catch (error) {
      // The heads are leased, and the caller's; what may have been leased with them comes back with them.
      if (error instanceof DatabaseError) return ready;
      throw error;
    }
  }

  /** Leases once and deals; answers how it went, or undefined when there is nothing more to do. */
  async function step(
    from: ReceiveFrom,
    deal: ReturnType<typeof createDeal>,
    opening: Opening,
    bound: Bound,
    is_first: boolean,
  ) {
    const limit = deal.wanted();
    // One key may hold all that is wanted: then no other is touched.
    const looks_first = is_first && from.max_per_key === 0 && from.lease_seconds !== 0 && limit > 1;
    const leased = await lease(from, looks_first ? 1 : limit, bound);
    if (leased instanceof BrokerError) return leased;
    const left: LeasedMessage[] = [];
    let has_dealt = false;
    for (const row of await withFollowers(from, leased, limit, bound.bytes_max)) {
      if (!opening.open(row)) continue;
      has_dealt = true;
      row.created_at = rfc3339(row.created_at);
      row.lease_expires_at = rfc3339(row.lease_expires_at);
      if (row.expires_at !== null) row.expires_at = rfc3339(row.expires_at);
      if (deal.give(row)) answers.hold(row.bytes);
      else left.push(row);
    }
    if (left.length > 0) await settle.unlease(from.queue_id, left);
    const unfit = leased.rows.filter(({ verdict }) => verdict !== "ready");
    if (unfit.length > 0) await putAway(from.queue_id, leased.rows);
    // What made room for the next of its key, or took a place that is free again, may have been all that was ready.
    const has_more = leased.is_full || leased.throttled != null;
    const goes_on = looks_first && leased.rows.length > 0;
    const has_room = unfit.length > 0 && (has_more || unfit.some(({ ordering_key }) => ordering_key !== null));
    const passes_over = opening.hasFailed() && !has_dealt && leased.is_full;
    return { ...leased, asks_again: goes_on || has_room || passes_over };
  }

  /** A filter found nothing: heads with another label that have expired may stand before what it asks for. */
  async function mayLookAgain(
    from: ReceiveFrom,
    deal: ReturnType<typeof createDeal>,
    leased: Leased,
  ): Promise<boolean> {
    const is_empty = leased.rows.length === 0 && leased.throttled == null;
    if (from.label === undefined || deal.wanted() === 0 || !is_empty) return false;
    return await endExpiredHeads(from.queue_id);
  }

  return async (from, limits) => {
    const deal = createDeal(limits, answer_bytes_max);
    const opening = createOpening(from.queue_id, open, settle);
    const hasDealt = () => deal.shares.some((share) => share.length > 0);
    let wait_seconds = 0;
    let has_more = false;
    let is_cut = false;
    let throttled: Throttle | null = null;
    let retry_ms: number | null = null;
    for (let round = 0; round < rounds_max; round++) {
      const bytes_max = Math.min(deal.room(), is_cut ? Math.min(heavy_bytes, answers.room()) : light_bytes);
      try {
        const leased = await step(from, deal, opening, { bytes_max, is_one_free: String(!is_cut) }, round === 0);
        if (leased instanceof BrokerError) return leased;
        wait_seconds = leased.wait_seconds;
        has_more = leased.is_full;
        throttled = leased.throttled ?? null;
        retry_ms = leased.retry_ms ?? null;
        is_cut ||= leased.is_cut;
        const has_ended = !leased.is_cut && !leased.asks_again;
        if (has_ended && !(await mayLookAgain(from, deal, leased))) break;
        // What a lease of 0 seconds hides from nobody, the next round would find again.
        if (deal.wanted() === 0 || (from.lease_seconds === 0 && (hasDealt() || opening.hasFailed()))) break;
        // Those who have nothing yet are served by a claim that begins when there is room.
        if (!has_ended && (leased.rows.length === 0 || (is_cut && answers.room() === 0))) break;
      } catch (error) {
        // What an earlier round leased is the caller's: giving it up would hide it for a whole lease.
        if (hasDealt() && error instanceof DatabaseError) break;
        throw error;
      }
    }
    const unreadable = await opening.giveBack(known_governed.has(from.queue_id));
    if (unreadable !== undefined) {
      if (!hasDealt()) throw unreadable;
      // Nobody is told, so the log is.
      observe({ kind: "notice", level: "ERROR", message: `a receive passed over ${unreadable.message}` });
    }
    return { shares: deal.shares, wait_seconds, has_more, is_cut, throttled, retry_ms };
  };
}
