import type { Db } from "../../db/db.ts";
import { BrokerError, completeResults, DatabaseError, type Failure, invalid } from "../../errors.ts";
import type { NoteMessages } from "../../observe.ts";
import type { OnReady } from "../onReady.ts";
import { nextId } from "../publish/ids.ts";
import { isInTally, rfc3339, type Tally } from "../statement.ts";
import { prepareAck } from "./ack.ts";
import { type DeadReason, prepareDeadLetter } from "./deadLetter.ts";
import { prepareExtend } from "./extend.ts";
import { storedToken } from "./fenced.ts";
import { prepareExplain, prepareFindHeld, type Reason } from "./misses.ts";
import { prepareNack } from "./nack.ts";
import { prepareRelease } from "./release.ts";

/** `lease_token` null: by id alone, as in v1. A text that is no token of ours is simply not the current one. */
export type SettleItem = { queue_id: string; id: string; lease_token: string | null };
export type NackItem = SettleItem & {
  /** null: what the queue's retry policy says. */
  visibility_timeout_seconds: number | null;
  error: string | null;
  /** To the dead-letter queue at once, when there is one. */
  dead_letter: boolean;
};
export type ExtendItem = SettleItem & {
  ack_deadline_seconds: number;
  /** At 0 seconds: the token still counts until the next delivery. */
  keeps_token?: boolean;
};

export type Extended = { lease_expires_at: string };

/** A call that lost a race with another change of its row is sent again, at most this often. */
const rounds_max = 20;

export type Settle = {
  /** Ends messages for good. Item i is undefined, or why not. Repeatable: an ended message answers as ended. */
  ack(items: SettleItem[]): Promise<(undefined | Failure)[]>;
  /** Makes messages visible after a delay, or dead-letters them. Without effect on ended ones. */
  nack(items: NackItem[]): Promise<(undefined | Failure)[]>;
  /** Moves the end of leases; 0 seconds gives them back. */
  extend(items: ExtendItem[]): Promise<(Extended | Failure)[]>;
  /**
   * Ends expired messages that a receive has just leased; answers how many. Without a token those that nobody holds, if
   * they are still expired.
   */
  expire(queue_id: string, expired: { id: string; lease_token: string | null }[]): Promise<number>;
  /** Gives back what a receive leased and nobody saw: visible at once, the delivery uncounted. */
  unlease(queue_id: string, leased: { id: string; lease_token: string }[]): Promise<void>;
  /**
   * Moves messages that a receive has just leased to their queue's dead-letter queue; answers how many. Without a token
   * those that nobody holds, if they are still expired or exhausted.
   */
  deadLetter(queue_id: string, dead: { id: string; lease_token: string | null }[], reason: DeadReason): Promise<number>;
};

const columns = (items: SettleItem[]) => ({
  queue_ids: items.map((item) => item.queue_id),
  ids: items.map((item) => item.id),
  lease_tokens: items.map((item) => storedToken(item.lease_token)),
});

const lost = () => new BrokerError("lease_lost");
const held = () => new BrokerError("unavailable", "the message is locked by another transaction, open for too long");

/** SQLSTATE: `lock_timeout` is over. Nothing happened. */
const lock_not_available = "55P03";
/** SQLSTATE: no room for what was to be written. Nothing happened. */
const disk_full = "53100";

/** What an archived or vanished message means to each verb; undefined: success. */
function explainTo(verb: Verb, item: SettleItem, reason: Exclude<Reason, "again" | "done">) {
  if (reason === "token_required") return invalid("lease_token", "blank");
  if (reason === "queue_not_found" || reason === "message_not_found") return new BrokerError(reason);
  if (reason === "lease_lost" || verb === "extend") return lost();
  if (item.lease_token === null) return undefined;
  return verb === "ack" && reason === "acked" ? undefined : lost();
}

type Verb = "ack" | "nack" | "extend";

/** One verb, for any number of items. */
type Change<Item, Done> = {
  verb: Verb;
  /** Runs the statement; answers what became of item k, or false when it left the item out. */
  run(items: Item[], batch_id: string): Promise<(k: number) => Done | BrokerError | undefined | false>;
  /** What the first run of a statement did whose answer was lost. */
  doneBefore(item: Item, now: string): Done | undefined;
};

/** Ack, nack, extend and their kin on one database. All calls may run concurrently, also for the same message. */
export function createSettle(db: Db, onReady: OnReady, note: NoteMessages): Settle {
  const end = prepareAck(db, "end_messages", true);
  const endUnarchived = prepareAck(db, "end_messages_unarchived", false);
  const release = prepareNack(db);
  const prolong = prepareExtend(db);
  const explain = prepareExplain(db);
  const findHeld = prepareFindHeld(db);
  const bury = prepareDeadLetter(db);
  const giveBack = prepareRelease(db);

  /** Ends messages. On a full disk without the archive: a repeated ack is a 404 then, but consuming makes room. */
  async function endAll(items: SettleItem[], outcome: "acked" | "expired"): Promise<Tally | undefined> {
    const values = { ...columns(items), outcome };
    try {
      return (await db.run("end_messages", () => end.execute(values), true))[0];
    } catch (error) {
      if (!(error instanceof DatabaseError && error.code === disk_full)) throw error;
      return (await db.run("end_messages_unarchived", () => endUnarchived.execute(values), true))[0];
    }
  }

  const itemsOf = (queue_id: string, leased: { id: string; lease_token: string | null }[]) =>
    leased.map(({ id, lease_token }) => ({ queue_id, id, lease_token }));

  /** The places of items whose rows are locked. */
  async function placesHeld(items: SettleItem[]): Promise<Set<number>> {
    const rows = await db.run("find_held", () => findHeld.execute(columns(items)), true);
    return new Set(rows.map(({ n }) => Number(n) - 1));
  }

  type Results<Done> = (Done | undefined | Failure)[];

  /** Says of each item that a statement left out why; answers those that only lost a race, to be asked again. */
  async function explainMisses<Item extends SettleItem, Done>(
    { verb, doneBefore }: Change<Item, Done>,
    items: Item[],
    missed: { i: number; place: number }[],
    batch_id: string,
    results: Results<Done>,
  ): Promise<number[]> {
    const asked = {
      ...columns(missed.map(({ i }) => items[i] as Item)),
      places: missed.map(({ place }) => place),
      is_extend: String(verb === "extend"),
      batch_id,
    };
    const again: number[] = [];
    let has_ended = false;
    for (const miss of await db.run("explain_misses", () => explain.execute(asked), true)) {
      const { i } = missed[Number(miss.n) - 1] as { i: number };
      const item = items[i] as Item;
      if (miss.reason === "again") again.push(i);
      else if (miss.reason === "done") results[i] = doneBefore(item, miss.now);
      else results[i] = explainTo(verb, item, miss.reason);
      if (verb === "ack" && results[i] === undefined && miss.reason !== "again") has_ended = true;
    }
    // That it was acked before may be news that no standby has yet: an ack that writes nothing would not wait for it.
    if (has_ended) await db.confirm();
    return again;
  }

  /** The statement for the items at `open`. Those whose row somebody keeps locked fail; the others are asked again. */
  async function runOnce<Item extends SettleItem, Done>(
    change: Change<Item, Done>,
    items: Item[],
    open: number[],
    results: Results<Done>,
  ): Promise<number[]> {
    const batch = open.map((i) => items[i] as Item);
    const batch_id = nextId();
    let resultOf: Awaited<ReturnType<typeof change.run>>;
    try {
      resultOf = await change.run(batch, batch_id);
    } catch (error) {
      if (!(error instanceof DatabaseError && error.code === lock_not_available)) throw error;
      const places = await placesHeld(batch);
      for (const k of places) results[open[k] as number] = held();
      return open.filter((_, k) => !places.has(k));
    }
    const missed: { i: number; place: number }[] = [];
    for (const [k, i] of open.entries()) {
      const result = resultOf(k);
      if (result === false) missed.push({ i, place: k + 1 });
      else results[i] = result;
    }
    if (missed.length === 0) return [];
    let again: number[] = [];
    // The statement has committed: what fails from here on fails the missed ones only.
    const places = missed.map(({ i }) => i);
    await completeResults(results, places, async () => {
      again = await explainMisses(change, items, missed, batch_id, results);
    });
    return again;
  }

  /**
   * Runs a change for all items, then for those again that lost a race, until each is done or explained. Throws only
   * when the first statement did: nothing is done then, or nobody knows what.
   */
  async function settleAll<Item extends SettleItem, Done>(
    change: Change<Item, Done>,
    items: Item[],
  ): Promise<Results<Done>> {
    const results: Results<Done> = new Array(items.length).fill(undefined);
    let open = await runOnce(
      change,
      items,
      items.map((_, i) => i),
      results,
    );
    for (let round = 1; open.length > 0 && round <= rounds_max; round++) {
      const asked = open;
      open = [];
      await completeResults(results, asked, async () => {
        open = await runOnce(change, items, asked, results);
      });
    }
    for (const i of open) results[i] = new DatabaseError("conflict", "ROUNDS", change.verb);
    return results;
  }

  const acking: Change<SettleItem, undefined> = {
    verb: "ack",
    async run(batch) {
      const tally = await endAll(batch, "acked");
      const isDone = isInTally(tally, batch.length);
      return (k) => (isDone(k) ? undefined : false);
    },
    doneBefore: () => undefined,
  };

  const nacking: Change<NackItem, undefined> = {
    verb: "nack",
    async run(batch, batch_id) {
      const values = {
        ...columns(batch),
        batch_id,
        seconds: batch.map((item) => item.visibility_timeout_seconds),
        errors: batch.map((item) => item.error),
        dead_letters: batch.map((item) => String(item.dead_letter)),
      };
      const rows = await db.run("nack", () => release.execute(values), true);
      for (const row of rows) {
        const { queue_id } = batch[Number(row.n) - 1] as NackItem;
        onReady(row.dead_queue_id ?? queue_id, row.label, row.ready_at);
        if (row.dead_queue_id !== null) note("dead_lettered", queue_id, 1);
      }
      const places = new Set(rows.map((row) => Number(row.n)));
      return (k) => (places.has(k + 1) ? undefined : false);
    },
    doneBefore: (item, now) => onReady(item.queue_id, null, now) as undefined,
  };

  const extending: Change<ExtendItem, Extended> = {
    verb: "extend",
    async run(batch, batch_id) {
      const values = {
        ...columns(batch),
        batch_id,
        seconds: batch.map((item) => item.ack_deadline_seconds),
        keeps_tokens: batch.map((item) => String(item.keeps_token ?? false)),
      };
      const rows = await db.run("extend", () => prolong.execute(values), true);
      const by_place = new Map(rows.map((row) => [Number(row.n), row]));
      return (k) => {
        const row = by_place.get(k + 1);
        const item = batch[k] as ExtendItem;
        if (row === undefined) return false;
        if (row.seconds_left !== null) {
          return invalid("ack_deadline_seconds", "at_most", row.seconds_left);
        }
        if (item.ack_deadline_seconds === 0) onReady(item.queue_id, row.label, row.ready_at);
        return { lease_expires_at: rfc3339(row.lease_expires_at) };
      };
    },
    doneBefore(item, now) {
      onReady(item.queue_id, null, now);
      return { lease_expires_at: rfc3339(now) };
    },
  };

  return {
    ack: (items) => settleAll(acking, items),
    nack: (items) => settleAll(nacking, items),
    extend: (items) => settleAll(extending, items) as Promise<(Extended | Failure)[]>,

    async expire(queue_id, expired) {
      const tally = await endAll(itemsOf(queue_id, expired), "expired");
      const count = tally?.count ?? 0;
      if (count > 0) note("expired", queue_id, count);
      return count;
    },

    async unlease(queue_id, leased) {
      const values = columns(itemsOf(queue_id, leased));
      const rows = await db.run("unlease", () => giveBack.execute(values), true);
      for (const row of rows) onReady(queue_id, row.label, row.ready_at);
    },

    async deadLetter(queue_id, dead, reason) {
      const values = { ...columns(itemsOf(queue_id, dead)), reason };
      const rows = await db.run("dead_letter", () => bury.execute(values), true);
      for (const row of rows) onReady(row.dead_queue_id, row.label, row.ready_at);
      if (rows.length > 0) note("dead_lettered", queue_id, rows.length);
      return rows.length;
    },
  };
}
