import type { Budget } from "./budget.ts";
import { BrokerError, DatabaseError, type Failure } from "./errors.ts";

export type BatcherOptions<Item, Result> = {
  /** For errors and metrics. */
  name: string;
  /**
   * Does the work for many items and answers with one result per item, in order. An item that fails alone has its error
   * as its result; it throws only when nothing was done, or nobody knows what.
   */
  flush: (items: Item[]) => Promise<(Result | Failure)[]>;
  /** Flushes in flight at once, 1 or more. */
  lanes: number;
  /** Items of one flush at most. */
  items_max: number;
  /** How many an item counts of them; absent: each is one. One that counts more than the maximum goes alone. */
  count?: (item: Item) => number;
  /** What an item adds to `weight_max` of its flush: bytes, or rows. An item heavier than the maximum goes alone. */
  weight: (item: Item) => number;
  weight_max: number;
  /** What all items hold together, by weight; a call that finds no room is refused with `unavailable`. */
  budget?: Budget;
  /** Callers that wait for a lane at most; one more is refused with `unavailable`. */
  waiting_max: number;
  /** Milliseconds after which a waiting caller is refused with `unavailable` instead of being sent. */
  waiting_ms_max: number;
  /**
   * Milliseconds after a flush in which its callers are waited for: most ask again at once, and their next requests
   * leave together with those that came meanwhile, in one flush instead of two halves. 0 or absent: nobody is waited
   * for.
   */
  regather_ms?: number;
  /** Called after every flush. */
  onFlush?: (items: number, duration_ms: number) => void;
};

export type Batcher<Item, Result> = {
  /**
   * Joins the batch now gathering. Leaves at once when no flush is in flight, so nothing is added when idle and batches
   * grow exactly with load; many callers, or one that has waited long, leave on a further lane. Rejects with
   * BrokerError or DatabaseError.
   */
  call(item: Item): Promise<Result>;
  /** Callers that wait or are in flight. */
  size(): number;
};

type Entry<Item, Result> = {
  item: Item;
  weight: number;
  resolve: (result: Result) => void;
  reject: (error: unknown) => void;
  since_ms: number;
};

const conflict_tries_max = 4;
/** Of those whose flush came back so many are waited for; the others have gone, or take their time. */
const regather_part = 0.75;
/**
 * While a flush is in flight another leaves for as many callers as are in flight, and this many are always enough. Two
 * half-full statements cost the database a fifth more than a full one, and under load the second gains nothing: it
 * would have left when the first came back.
 */
export const full_lane_min = 64;
/** Or when somebody has waited this long: the flush in flight is stuck behind a lock, or the disk is slow. */
export const patience_ms = 20;

/** Many single calls → few batched ones. Knows nothing of queues or SQL. */
export function createBatcher<Item, Result>(options: BatcherOptions<Item, Result>): Batcher<Item, Result> {
  type OwnEntry = Entry<Item, Result>;
  let waiting: OwnEntry[] = [];
  let lanes_busy = 0;
  let in_flight = 0;
  let is_scheduled = false;
  let last_size = 0;
  let patience: ReturnType<typeof setTimeout> | undefined;
  let regathering: ReturnType<typeof setTimeout> | undefined;
  let regathered_min = 0;
  const { count = () => 1 } = options;

  function fail({ weight, reject }: OwnEntry, error: unknown): void {
    options.budget?.release(weight);
    reject(error);
  }

  function settle(entry: OwnEntry, result: Result | Failure): void {
    if (result instanceof Error) return fail(entry, result);
    options.budget?.release(entry.weight);
    entry.resolve(result);
  }

  /** Takes the next batch of those who wait, oldest first; refuses those who have waited too long. */
  function takeBatch(): OwnEntry[] {
    const batch: OwnEntry[] = [];
    const oldest_ms = performance.now() - options.waiting_ms_max;
    let weight = 0;
    let items = 0;
    let taken = 0;
    for (const entry of waiting) {
      if (entry.since_ms < oldest_ms) {
        fail(entry, new BrokerError("unavailable", `${options.name} waited too long for the database`));
      } else {
        weight += entry.weight;
        items += count(entry.item);
        if (batch.length > 0 && (weight > options.weight_max || items > options.items_max)) break;
        batch.push(entry);
      }
      taken += 1;
    }
    waiting = taken === waiting.length ? [] : waiting.slice(taken);
    return batch;
  }

  async function runBatch(batch: OwnEntry[], tries = 1): Promise<void> {
    try {
      const results = await options.flush(batch.map((entry) => entry.item));
      for (let i = 0; i < batch.length; i++) settle(batch[i] as OwnEntry, results[i] as Result | Failure);
    } catch (error) {
      const failure = error instanceof DatabaseError ? error.failure : undefined;
      if (failure === "conflict" && tries < conflict_tries_max) return await runBatch(batch, tries + 1);
      if (failure === "rejected" && batch.length > 1) {
        // One value that the database refuses fails the statement: halve until it fails alone.
        const half = batch.length >> 1;
        await runBatch(batch.slice(0, half));
        return await runBatch(batch.slice(half));
      }
      for (const entry of batch) fail(entry, error);
      const is_down = error instanceof DatabaseError && (failure === "unavailable" || error.code === "DEADLINE");
      if (is_down) refuseWaiting(error);
    }
  }

  /** A database that is away is away for those who wait too: sending them one by one would be a storm, and slow. */
  function refuseWaiting(error: DatabaseError): void {
    const refused = waiting;
    waiting = [];
    for (const entry of refused) fail(entry, error);
  }

  /** Is there a lane, and are those who wait worth it? */
  function mayLeave(): boolean {
    const [oldest] = waiting;
    if (oldest === undefined || lanes_busy === options.lanes) return false;
    if (regathering !== undefined && waiting.length < regathered_min) return false;
    return (
      lanes_busy === 0 ||
      waiting.length >= Math.min(in_flight, full_lane_min) ||
      performance.now() - oldest.since_ms >= patience_ms
    );
  }

  function dispatch(): void {
    is_scheduled = false;
    while (mayLeave()) {
      clearTimeout(regathering);
      regathering = undefined;
      const batch = takeBatch();
      if (batch.length === 0) continue;
      lanes_busy += 1;
      in_flight += batch.length;
      last_size = batch.length;
      const started_ms = performance.now();
      void runBatch(batch).then(() => {
        lanes_busy -= 1;
        in_flight -= batch.length;
        const items = batch.reduce((sum, { item }) => sum + count(item), 0);
        options.onFlush?.(items, performance.now() - started_ms);
        regather(batch.length);
        dispatch();
      });
    }
    holdBack();
  }

  /** Holds the next flush back for the callers of one that came back. */
  function regather(answered: number): void {
    if (!options.regather_ms || answered < 2) return;
    regathered_min = Math.min(options.items_max, waiting.length + answered * regather_part);
    clearTimeout(regathering);
    regathering = setTimeout(() => {
      regathering = undefined;
      dispatch();
    }, options.regather_ms);
  }

  /** Makes sure that those who are not worth a lane of their own get one before long. */
  function holdBack(): void {
    if (patience !== undefined || waiting.length === 0 || lanes_busy === options.lanes) return;
    patience = setTimeout(() => {
      patience = undefined;
      dispatch();
    }, patience_ms);
  }

  return {
    size: () => waiting.length + in_flight,
    call(item) {
      if (waiting.length >= options.waiting_max) {
        return Promise.reject(
          new BrokerError("unavailable", `too many requests wait for the database (${options.name})`),
        );
      }
      const { budget } = options;
      if (budget?.room() === 0) {
        return Promise.reject(
          new BrokerError("unavailable", "the bodies that wait for the database fill their memory"),
        );
      }
      const weight = options.weight(item);
      budget?.hold(weight);
      return new Promise((resolve, reject) => {
        waiting.push({ item, weight, resolve, reject, since_ms: performance.now() });
        if (is_scheduled) return;
        if (!mayLeave()) holdBack();
        else if (lanes_busy === 0 && last_size === 1) {
          // The one before was alone, so this one most likely is: it does not wait for company.
          dispatch();
        } else {
          // Once per turn of the event loop: requests that arrived in one read of the sockets leave together.
          is_scheduled = true;
          setImmediate(dispatch);
        }
      });
    },
  };
}
