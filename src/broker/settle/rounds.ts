import type { Db } from "../../db/db.ts";
import { BrokerError, completeResults, DatabaseError, type Failure, invalid } from "../../errors.ts";
import { nextId } from "../publish/ids.ts";
import { isOrdered, storedToken } from "./fenced.ts";
import { prepareExplain, prepareFindHeld, type Reason } from "./misses.ts";
import type { Columns, Ordered } from "./ordered.ts";

// How ack, nack and extend go through their statements: once for all items, and again for those that only lost a race,
// until each is done or explained.

/** `lease_token` null: by id alone, as in v1. A text that is no token of ours is simply not the current one. */
export type SettleItem = { queue_id: string; id: string; lease_token: string | null };

export type Verb = "ack" | "nack" | "extend";

/** What became of item k; false when the statement left it out. */
type ResultOf<Done> = (k: number) => Done | BrokerError | undefined | false;

/** One verb, for any number of items. */
export type Change<Item, Done> = {
  verb: Verb;
  run(items: Item[], batch_id: string): Promise<ResultOf<Done>>;
  /** The same for messages with an ordering key. */
  runOrdered(items: Item[], batch_id: string): Promise<ResultOf<Done>>;
  /** What the first run of a statement did whose answer was lost. */
  doneBefore(item: Item, now: string): Done | undefined;
};

export type Results<Done> = (Done | undefined | Failure)[];

/** A call that lost a race with another change of its row is sent again, at most this often. */
const rounds_max = 20;

/** SQLSTATE: `lock_timeout` is over. Nothing happened. */
const lock_not_available = "55P03";

/** The items of a call as the statements take them. */
export const columnsOf = (items: SettleItem[]): Columns => ({
  queue_ids: items.map((item) => item.queue_id),
  ids: items.map((item) => item.id),
  lease_tokens: items.map((item) => storedToken(item.lease_token)),
});

/** Somebody else has it, or had. */
export const lost = () => new BrokerError("lease_lost");
const held = () => new BrokerError("unavailable", "the message is locked by another transaction, open for too long");

/** What an archived or vanished message means to each verb; undefined: success. */
function explainTo(verb: Verb, item: SettleItem, reason: Exclude<Reason, "again" | "ordered" | "done">) {
  if (reason === "token_required") return invalid("lease_token", "blank");
  if (reason === "queue_not_found" || reason === "message_not_found") return new BrokerError(reason);
  if (reason === "lease_lost" || verb === "extend") return lost();
  if (item.lease_token === null) return undefined;
  return verb === "ack" && reason === "acked" ? undefined : lost();
}

/** Runs changes on one database. */
export function createRounds(db: Db, ordered: Ordered) {
  const explain = prepareExplain(db);
  const findHeld = prepareFindHeld(db);

  /** The places of items whose rows, or keys, are locked. */
  async function placesHeld(items: SettleItem[], is_ordered: boolean): Promise<Set<number>> {
    const rows = await db.run("find_held", () => findHeld.execute(columnsOf(items)), true);
    const places = new Set(rows.map(({ n }) => Number(n) - 1));
    return is_ordered ? places.union(await ordered.placesHeld(columnsOf(items))) : places;
  }

  /**
   * Says of each item that a statement left out why; answers those that only lost a race, to be asked again. `keyed`:
   * gathers those that turn out to have an ordering key.
   */
  async function explainMisses<Item extends SettleItem, Done>(
    { verb, doneBefore }: Change<Item, Done>,
    items: Item[],
    missed: { i: number; place: number }[],
    batch_id: string,
    results: Results<Done>,
    keyed: Set<number>,
    is_ordered: boolean,
  ): Promise<number[]> {
    const asked = {
      ...columnsOf(missed.map(({ i }) => items[i] as Item)),
      places: missed.map(({ place }) => place),
      is_extend: String(verb === "extend"),
      is_ordered: String(is_ordered),
      batch_id,
    };
    const again: number[] = [];
    let has_ended = false;
    for (const miss of await db.run("explain_misses", () => explain.execute(asked), true)) {
      const { i } = missed[Number(miss.n) - 1] as { i: number };
      const item = items[i] as Item;
      if (miss.reason === "ordered") keyed.add(i);
      if (miss.reason === "again" || miss.reason === "ordered") again.push(i);
      else {
        results[i] = miss.reason === "done" ? doneBefore(item, miss.now) : explainTo(verb, item, miss.reason);
        if (verb === "ack" && results[i] === undefined) has_ended = true;
      }
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
    keyed: Set<number>,
    is_ordered: boolean,
  ): Promise<number[]> {
    const batch = open.map((i) => items[i] as Item);
    const batch_id = nextId();
    let resultOf: ResultOf<Done>;
    try {
      resultOf = await (is_ordered ? change.runOrdered(batch, batch_id) : change.run(batch, batch_id));
    } catch (error) {
      if (!(error instanceof DatabaseError)) throw error;
      // Keys are locked in one order, and then messages; a redrive or a purge has its own.
      if (is_ordered && error.failure === "conflict") return open;
      if (error.code !== lock_not_available) throw error;
      const places = await placesHeld(batch, is_ordered);
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
      again = await explainMisses(change, items, missed, batch_id, results, keyed, is_ordered);
    });
    return again;
  }

  /**
   * Runs a change for all items until each is done or explained. Throws only when the first statement did: nothing is
   * done then, or nobody knows what.
   */
  return async function settleAll<Item extends SettleItem, Done>(
    change: Change<Item, Done>,
    items: Item[],
  ): Promise<Results<Done>> {
    const results: Results<Done> = new Array(items.length).fill(undefined);
    const keyed = new Set(items.flatMap(({ lease_token }, i) => (isOrdered(lease_token) ? [i] : [])));
    let open = items.map((_, i) => i);
    for (let round = 0; open.length > 0 && round <= rounds_max; round++) {
      const kinds = keyed.size === 0 ? [open] : [open.filter((i) => !keyed.has(i)), open.filter((i) => keyed.has(i))];
      const again: number[] = [];
      const run = async (asked: number[], is_ordered: boolean) => {
        again.push(...(await runOnce(change, items, asked, results, keyed, is_ordered)));
      };
      const asked_kinds = kinds.flatMap((asked, kind) => (asked.length > 0 ? [{ asked, is_ordered: kind === 1 }] : []));
      const [only, other] = asked_kinds;
      if (only === undefined) break;
      if (round === 0 && other === undefined) await run(only.asked, only.is_ordered);
      else {
        for (const { asked, is_ordered } of asked_kinds) {
          await completeResults(results, asked, () => run(asked, is_ordered));
        }
      }
      open = again;
    }
    for (const i of open) results[i] = new DatabaseError("conflict", "ROUNDS", change.verb);
    return results;
  };
}
