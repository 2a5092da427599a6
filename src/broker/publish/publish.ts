import type { Db } from "../../db/db.ts";
import { BrokerError, completeResults, type Failure, invalid } from "../../errors.ts";
import { keepLatest } from "../keepLatest.ts";
import type { OnReady } from "../onReady.ts";
import { isInTally } from "../statement.ts";
import { createAdmission, type LetIn } from "./admission.ts";
import { nextId } from "./ids.ts";
import { type Keyed, keysOf, prepareKeyed } from "./ordered.ts";
import { createOriginals, keptBack, type Original, originalGone } from "./originals.ts";
import { bytesOf, too_large } from "./outgoing.ts";
import type { Asked, Quotas } from "./quotas.ts";
import { escapeBody, type Form, type Sealing } from "./sealing.ts";
import { type Outcome, prepareOptioned, preparePlain, prepareWhy } from "./storing.ts";

export type PublishItem = {
  queue_id: string;
  /** Made before the first try, so that a repeated statement stores nothing twice. */
  id: string;
  body: string;
  label: string | null;
  /** JSON text of a flat object of strings, or null. */
  attributes: string | null;
  /** JSON text that is kept with it and handed back, or null. */
  extras?: string | null;
  /** Bytes that count against `max_message_bytes`; absent: see bytesOf. */
  bytes?: number;
};

export type PublishOptions = {
  /** null: the queue's. Not together with deliver_at. */
  delay_seconds: number | null;
  /** RFC 3339; one in the past is now. */
  deliver_at: string | null;
  ttl_seconds: number | null;
  /** RFC 3339. The message ends at the earliest of this, the time to live and the queue's retention. */
  expires_at: string | null;
  /** See deduplicationKey; null: none was given. */
  dedup_key: string | null;
  /** Messages with the same key in one queue are delivered in order, one at a time. null: no order. */
  ordering_key?: string | null;
  /** -100 to 100, higher first; other than 0 only where the queue allows it. */
  priority?: number;
  /** By which a queue may be shared, see the setting fair_by; null: none. */
  fairness_key?: string | null;
  /** How many turns its key gets for one of another: 1 to 100; null: 1. */
  weight?: number | null;
};

/** Asks for nothing of its own: stored by the shortest statement. */
export const isPlain = (options: PublishOptions): boolean =>
  options.delay_seconds === null &&
  options.deliver_at === null &&
  options.ttl_seconds === null &&
  options.expires_at === null &&
  options.dedup_key === null &&
  !isKeyed(options);

/** Needs the statement for messages with a key of some kind, a priority or a weight. */
export const isKeyed = ({ ordering_key, priority, fairness_key, weight }: Keyed): boolean =>
  ordering_key != null || (priority ?? 0) !== 0 || fairness_key != null || weight != null;

export type OptionedItem = PublishItem & PublishOptions;

/** `ordering_seq`: where a message with an ordering key stands in it; of a duplicate while its original is there. */
export type Published = { id: string; deduplicated: boolean; ordering_seq?: string };

const published = (id: string, deduplicated: boolean, ordering_seq: string | null): Published => ({
  id,
  deduplicated,
  ...(ordering_seq !== null && { ordering_seq }),
});

/** What a duplicate with this id is answered. Its own id: the first try of this very statement stored it. */
const repeated = (id: string | undefined, { message_id, is_same_body, ordering_seq }: Original): Result =>
  is_same_body ? published(message_id, message_id !== id, ordering_seq) : new BrokerError("dedup_conflict");

/** An item with its body in the form in which it is stored; `bytes` are those of what was sent. */
type FormedItem = OptionedItem & Form & { bytes: number };

/** Nothing was stored, and it is to be sent again: counted for a quota, or in the other form. */
type Again = "uncounted" | "unsealed";

type Result = Published | Failure;

const isKept = (result: Result | Again | undefined) => typeof result === "string" || result instanceof Error;
const isRepeat = (result: Result | Again | undefined) =>
  typeof result === "object" && !(result instanceof Error) && result.deduplicated;

export type Publish = {
  /** Stores messages without options for any queues, in order. */
  plain(items: PublishItem[]): Promise<(Published | Failure)[]>;
  /**
   * The same, without an answer for those whose queue is not there, is closed or looks at messages: undefined. Only the
   * queue decides, so that a statement stores all messages of one or none.
   */
  unlooked(items: PublishItem[]): Promise<(Published | undefined)[]>;
  /** Stores those of one queue that `unlooked` did not, or says why not. */
  apart(queue_id: string, items: OptionedItem[], is_atomic: boolean): Promise<(Published | Failure)[]>;
  /** The queue looks at messages, as a statement has found: what goes there saves a statement by `optioned`. */
  isSelective(queue_id: string): boolean;
  /** The same with options. `is_atomic`: one item that is refused keeps all back. */
  optioned(items: OptionedItem[], is_atomic?: boolean): Promise<(Published | Failure)[]>;
};

/** Says which option does not go together with an ordering key. */
export const isDelayed = ({ delay_seconds }: PublishOptions): BrokerError =>
  invalid("ordering_key", "not_together", delay_seconds === null ? "deliver_at" : "delay_seconds");

const selective_max = 10_000;
/** After that it is looked whether it still is. */
const selective_ms = 60_000;

/** Of a message that asks for nothing. */
export const no_options: PublishOptions = {
  delay_seconds: null,
  deliver_at: null,
  ttl_seconds: null,
  expires_at: null,
  dedup_key: null,
};

/**
 * Publishing on one database: many messages in one statement, visible after their queue's delay. Item i of an answer is
 * what was published, or `queue_not_found`, `queue_closed`, `dedup_conflict`, or the DatabaseError that only it met.
 * Bodies for queues that encrypt are sealed; without a master key they are `internal`.
 * Answers after commit. Safe to repeat
 * inside: a lost connection is answered by sending the same statement once more.
 */
export function createPublish(db: Db, onReady: OnReady, quotas: Quotas, sealing: Sealing): Publish {
  const plainly = preparePlain(db);
  const withOptions = prepareOptioned(db);
  const withKeys = prepareKeyed(db);
  const known = createOriginals(db);
  const letIn = createAdmission(quotas, known);
  const why = prepareWhy(db);
  /** Until when. */
  const selective = new Map<string, number>();
  const noteSelective = (queue_id: string) =>
    keepLatest(selective, queue_id, performance.now() + selective_ms, selective_max);

  const columns = (items: PublishItem[], bodies: string[]) => ({
    batch_id: nextId(),
    queue_ids: items.map((item) => item.queue_id),
    ids: items.map((item) => item.id),
    bodies,
    labels: items.map((item) => item.label),
    attributes: items.map((item) => item.attributes),
    extras: items.map((item) => item.extras ?? null),
  });

  /** Fills in what the plain statement left out: refused, or for a queue that looks at bodies. */
  async function explain(items: PublishItem[], results: (Published | Failure)[], missed: number[]): Promise<void> {
    const queue_ids = missed.map((i) => items[i]?.queue_id);
    const rows = await db.run("explain_unpublished", () => why.execute({ queue_ids }), true);
    const known = new Map(rows.map((row) => [missed[Number(row.n) - 1] as number, row.is_closed]));
    for (const { n, encrypts } of rows) {
      if (encrypts) sealing.note(items[missed[Number(n) - 1] as number]?.queue_id ?? "", true);
    }
    for (const i of missed) results[i] = new BrokerError(known.get(i) ? "queue_closed" : "queue_not_found");
    const again = missed.filter((i) => known.get(i) === false);
    if (again.length === 0) return;
    for (const i of again) noteSelective(items[i]?.queue_id ?? "");
    const optioned = await publishCounted(
      again.map((i) => ({ ...(items[i] as PublishItem), ...no_options })),
      false,
    );
    for (const [k, i] of again.entries()) results[i] = optioned[k] as Published | Failure;
  }

  const form = (item: OptionedItem): FormedItem => ({
    ...item,
    bytes: item.bytes ?? bytesOf(item),
    ...sealing.formOf(item.queue_id, item.body, item.dedup_key),
  });

  /** Stores those at `open`, and says of each that was let in what became of it. */
  async function storeCounted(
    items: FormedItem[],
    asked: Asked[],
    { open, counted, free }: LetIn,
    is_atomic: boolean,
  ): Promise<(Result | Again)[]> {
    let own: (Result | Again)[] = [];
    try {
      const batch = open.map((i) => items[i] as FormedItem);
      const are_counted = open.map((i) => counted.has(i) || free.has(i));
      if (batch.length > 0) own = await publishOptioned(batch, are_counted, is_atomic);
    } finally {
      // A statement that failed may have stored them: the next count tells.
      const is_whole_kept = is_atomic && own.some(isKept);
      for (const [k, i] of open.entries()) {
        if (counted.has(i)) quotas.settle(asked[i] as Asked, !is_whole_kept && !isKept(own[k]));
      }
    }
    return own;
  }

  /** What a statement has found about the queue of an item. */
  function noteAgain({ queue_id, is_sealed }: FormedItem, result: Result | Again | undefined): boolean {
    if (result === "uncounted") quotas.noteLimited(queue_id);
    if (result === "unsealed") sealing.note(queue_id, !is_sealed);
    return typeof result === "string";
  }

  /**
   * Of those that a quota has not let in: what is stored already, by this statement too, is answered with that. The
   * others are tried again when duplicates have left their room.
   */
  async function answerLeft(
    items: OptionedItem[],
    results: Result[],
    left: number[],
    has_room: boolean,
  ): Promise<void> {
    const claims = await known.findKnown(left.map((i) => form(items[i] as OptionedItem)));
    const rest: number[] = [];
    for (const [k, i] of left.entries()) {
      const original = claims[k]?.original;
      if (original === undefined) rest.push(i);
      else results[i] = repeated(undefined, original);
    }
    if (!has_room || rest.length === 0) return;
    const tried = await publishCounted(
      rest.map((i) => items[i] as OptionedItem),
      false,
    );
    for (const [k, i] of rest.entries()) results[i] = tried[k] as Result;
  }

  /** The same for all queues: in the form that they want, and refused before the statement by their quotas. */
  async function publishCounted(items: OptionedItem[], is_atomic: boolean): Promise<Result[]> {
    const formed = items.map(form);
    const asked = formed.map((item) => ({ queue_id: item.queue_id, bytes: bytesOf(item) }));
    const let_in = await letIn(formed, asked, is_atomic);
    const { open, counted, left } = let_in;
    const results: Result[] = items.map(() => new BrokerError("quota_exceeded"));
    if (is_atomic && left.length > 0) return results;
    const own = await storeCounted(formed, asked, let_in, is_atomic);
    const again = open.filter((i, k) => noteAgain(formed[i] as FormedItem, own[k]));
    // Nothing of an atomic batch was stored, so all of it is sent again.
    if (is_atomic && again.length > 0) return await publishCounted(items, true);
    for (const [k, i] of open.entries()) results[i] = own[k] as Result;
    const has_room = open.some((i, k) => counted.has(i) && isRepeat(own[k]));
    if (left.length > 0) {
      await completeResults(results, left, () => answerLeft(items, results, left, has_room));
    }
    if (again.length === 0) return results;
    await completeResults(results, again, async () => {
      const sent_again = again.map((i) => items[i] as OptionedItem);
      const rest = await publishCounted(sent_again, false);
      for (const [k, i] of again.entries()) results[i] = rest[k] as Result;
    });
    return results;
  }

  async function publishOptioned(
    items: FormedItem[],
    are_counted: boolean[],
    is_atomic: boolean,
  ): Promise<(Result | Again)[]> {
    const bodies = items.map((item) => item.body);
    const values = {
      ...columns(items, bodies),
      delays: items.map((item) => item.delay_seconds),
      deliver_ats: items.map((item) => item.deliver_at),
      ttls: items.map((item) => item.ttl_seconds),
      expires_ats: items.map((item) => item.expires_at),
      dedup_keys: items.map((item) => item.dedup_key),
      content_keys: items.map((item) => item.content_key),
      old_keys: items.map((item) => item.old_key),
      body_hashes: items.map((item) => item.body_hash),
      are_sealed: items.map((item) => String(item.is_sealed)),
      are_counted: are_counted.map(String),
      bytes: items.map((item) => String(item.bytes)),
      is_atomic: String(is_atomic),
    };
    // Its own statement: what has no order pays nothing for it.
    const rows = items.some(isKeyed)
      ? await db.run("publish_keyed", () => withKeys.execute({ ...values, ...keysOf(items) }), true)
      : await db.run("publish_with_options", () => withOptions.execute(values), true);
    const results: (Result | Again)[] = items.map(() => new BrokerError("queue_not_found"));
    // Of an atomic batch nothing was stored then, and those that were not refused are not answered as if they had been.
    const is_kept_back = is_atomic && rows.some(({ status }) => status !== "stored" && status !== "seen");
    const seen: number[] = [];
    for (const { n, now, status, ordering_seq } of rows) {
      const i = Number(n) - 1;
      const item = items[i] as FormedItem;
      if (status !== "stored" && status !== "seen") results[i] = refusalOf(item, status);
      else if (is_kept_back) results[i] = keptBack("publish");
      else if (status === "seen") seen.push(i);
      else {
        results[i] = published(item.id, false, ordering_seq);
        onReady(item.queue_id, item.label, now);
      }
    }
    if (seen.length > 0) await completeResults(results, seen, () => resolveOriginals(items, results, seen));
    return results;
  }

  /** Why the statement left an item out, or that it is to be sent again. */
  function refusalOf(item: FormedItem, status: Exclude<Outcome["status"], "stored" | "seen">): Failure | Again {
    if (status === "closed") return new BrokerError("queue_closed");
    if (status === "unsealed") return sealing.has_keys ? status : sealing.refuse("publish");
    if (status === "conflict") return new BrokerError("dedup_conflict");
    if (status === "too_large") return new BrokerError("payload_too_large", too_large);
    if (status === "uncounted") return status;
    return status === "delayed" ? isDelayed(item) : invalid("priority", "not_enabled");
  }

  /** A duplicate is answered with what was stored before, or not at all: nothing of its own was stored. */
  async function resolveOriginals(items: FormedItem[], results: (Result | Again)[], seen: number[]): Promise<void> {
    const originals = await known.find(seen.map((i) => items[i] as FormedItem));
    for (const [k, i] of seen.entries()) {
      const original = originals[k];
      results[i] = original === undefined ? originalGone("find_originals") : repeated(items[i]?.id, original);
    }
  }

  async function publishUnlooked(items: PublishItem[]): Promise<(Published | undefined)[]> {
    const values = columns(
      items,
      items.map((item) => escapeBody(item.body)),
    );
    const [tally] = await db.run("publish", () => plainly.execute(values), true);
    const isStored = isInTally(tally, items.length);
    return items.map((item, i) => {
      if (!isStored(i)) return undefined;
      onReady(item.queue_id, item.label, tally?.now ?? "");
      return { id: item.id, deduplicated: false };
    });
  }

  return {
    async plain(items) {
      const results = (await publishUnlooked(items)) as (Published | Failure)[];
      const missed = [...results.keys()].filter((i) => results[i] === undefined);
      if (missed.length > 0) await completeResults(results, missed, () => explain(items, results, missed));
      return results;
    },
    unlooked: publishUnlooked,
    async apart(queue_id, items, is_atomic) {
      const results = await publishCounted(items, is_atomic);
      if (results.some((result) => !(result instanceof Error))) noteSelective(queue_id);
      return results;
    },
    isSelective: (queue_id) => (selective.get(queue_id) ?? 0) > performance.now(),
    optioned: (items, is_atomic = false) => publishCounted(items, is_atomic),
  };
}
