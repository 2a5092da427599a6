import type { Db } from "../../db/db.ts";
import { BrokerError, completeResults, type Failure } from "../../errors.ts";
import type { OnReady } from "../onReady.ts";
import { type FanOutRow, prepareFanOut, prepareOriginals } from "./fanOutStatements.ts";
import { nextId } from "./ids.ts";
import { keysOf } from "./ordered.ts";
import { keptBack, originalGone } from "./originals.ts";
import { bytesOf, too_large } from "./outgoing.ts";
import { isDelayed, isKeyed, type PublishOptions } from "./publish.ts";
import type { Asked, Quotas } from "./quotas.ts";
import { escapeBody, type Sealing, sealedBytes } from "./sealing.ts";

export type FanOutItem = PublishOptions & {
  topic_id: string;
  /** From nextFanOutId. */
  id: string;
  body: string;
  label: string | null;
  /** JSON text of a flat object of strings, or null. */
  attributes: string | null;
};

export type FannedOut = {
  delivered_queues: number;
  deduplicated: boolean;
  /** The copies; none for a duplicate. */
  copies: { queue_id: string; id: string }[];
};

/**
 * Publishing to topics on one database: one copy for each subscription whose filter matches, all in one statement and
 * one snapshot. `is_batch`: one item that is refused keeps all back. Item i of the answer says where it went, or
 * `topic_not_found`, `queue_closed`. Safe to repeat inside, as publish.
 */
export function createFanOut(
  db: Db,
  onReady: OnReady,
  quotas: Quotas,
  sealing: Sealing,
): (items: FanOutItem[], is_batch?: boolean) => Promise<(FannedOut | Failure)[]> {
  const statement = prepareFanOut(db, "fanout", false);
  const withKeys = prepareFanOut(db, "fanout_keyed", true);
  const originals = prepareOriginals(db);

  /** Answers those at `places` with what their originals were answered, as far as there are any. */
  async function repeatAnswers(
    items: FanOutItem[],
    results: (FannedOut | Failure)[],
    places: number[],
    is_any: boolean,
  ): Promise<void> {
    const asked = {
      topic_ids: places.map((i) => items[i]?.topic_id),
      dedup_keys: places.map((i) => items[i]?.dedup_key),
      is_any: String(is_any),
    };
    for (const row of await db.run("find_topic_originals", () => originals.execute(asked), true)) {
      const i = places[Number(row.n) - 1] as number;
      results[i] = { delivered_queues: row.delivered_queues, deduplicated: true, copies: [] };
    }
  }

  /** What an item takes of the quota of a queue: its bytes as they are stored there. */
  function askedOf(item: FanOutItem, queue_id: string): Asked {
    const bytes = bytesOf(item);
    if (!sealing.encrypts(queue_id)) return { queue_id, bytes };
    const body_bytes = Buffer.byteLength(item.body);
    return { queue_id, bytes: bytes - body_bytes + sealedBytes(body_bytes) };
  }

  /** Lets items into the queues with quotas that they go to, each as a whole; those that do not fit are refused. */
  async function admit(asked: Asked[][], is_batch: boolean): Promise<boolean[]> {
    for (const queue_id of new Set(asked.flat().map((own) => own.queue_id))) quotas.noteLimited(queue_id);
    if (is_batch) {
      const all = await quotas.admit(asked.flat(), true);
      return asked.map(() => all.every(Boolean));
    }
    const let_in: boolean[] = [];
    for (const own of asked) let_in.push((await quotas.admit(own, true)).every(Boolean));
    return let_in;
  }

  /** Again, for those that go to queues with quotas, when they have been let in. */
  async function fanOutCounted(
    items: FanOutItem[],
    results: (FannedOut | Failure)[],
    uncounted: Map<number, string[]>,
    is_batch: boolean,
  ): Promise<void> {
    const places = [...uncounted.keys()];
    const met = new Set<string>();
    const asked = places.map((i) => {
      const item = items[i] as FanOutItem;
      // Of a batch, which is stored as a whole, the first of a key only.
      const is_repeat = is_batch && item.dedup_key !== null && met.has(item.dedup_key);
      met.add(item.dedup_key ?? "");
      return is_repeat ? [] : (uncounted.get(i) ?? []).map((queue_id) => askedOf(item, queue_id));
    });
    const let_in = await admit(asked, is_batch);
    for (const [k, i] of places.entries()) if (!let_in[k]) results[i] = new BrokerError("quota_exceeded");
    const open = [...places.keys()].filter((k) => let_in[k]);
    const store = async () => {
      const counted_ids = [...new Set([...uncounted.values()].flat())];
      const itemAt = (k: number) => items[places[k] as number] as FanOutItem;
      let again: (FannedOut | Failure)[] = [];
      try {
        again = await fanOut(open.map(itemAt), is_batch, counted_ids);
      } finally {
        for (const [n, k] of open.entries()) {
          const result = again[n];
          const went_there = result === undefined || (!(result instanceof Error) && result.copies.length > 0);
          for (const own of asked[k] ?? []) quotas.settle(own, went_there);
        }
      }
      for (const [n, k] of open.entries()) results[places[k] as number] = again[n] as FannedOut | Failure;
    };
    if (open.length > 0) await store();
    // What was let in may be the original of what was not.
    const left = places.filter((i, k) => !is_batch && !let_in[k] && items[i]?.dedup_key !== null);
    if (left.length > 0) {
      await completeResults(results, left, () => repeatAnswers(items, results, left, false));
    }
  }

  /** Again, for those that go to queues that want their bodies in a form that was not given. */
  async function fanOutSealed(
    items: FanOutItem[],
    results: (FannedOut | Failure)[],
    places: number[],
    is_batch: boolean,
    counted_ids: string[],
  ): Promise<void> {
    if (!sealing.has_keys) {
      for (const i of places) results[i] = sealing.refuse("publish to a topic");
      return;
    }
    const own = places.map((i) => items[i] as FanOutItem);
    for (const { topic_id } of own) sealing.noteTopic(topic_id);
    const again = await fanOut(own, is_batch, counted_ids);
    for (const [k, i] of places.entries()) results[i] = again[k] as FannedOut | Failure;
  }

  /** The body in the forms that the queues of its topic want, as far as this server knows. */
  function formsOf({ topic_id, body }: FanOutItem): { body: string | null; sealed_body: string | null } {
    const encrypting = sealing.leadsTo(topic_id);
    return {
      body: encrypting === "all" ? null : escapeBody(body),
      sealed_body: encrypting === undefined ? null : sealing.seal(body),
    };
  }

  function runFanOut(items: FanOutItem[], is_batch: boolean, counted_ids: string[]): Promise<FanOutRow[]> {
    const forms = items.map(formsOf);
    const values = {
      is_batch: String(is_batch),
      counted_ids,
      bytes: items.map((item) => String(bytesOf(item))),
      batch_id: nextId(),
      topic_ids: items.map((item) => item.topic_id),
      ids: items.map((item) => item.id),
      bodies: forms.map(({ body }) => body),
      sealed_bodies: forms.map(({ sealed_body }) => sealed_body),
      labels: items.map((item) => item.label),
      attributes: items.map((item) => item.attributes),
      delays: items.map((item) => item.delay_seconds),
      deliver_ats: items.map((item) => item.deliver_at),
      ttls: items.map((item) => item.ttl_seconds),
      expires_ats: items.map((item) => item.expires_at),
      dedup_keys: items.map((item) => item.dedup_key),
    };
    return items.some(isKeyed)
      ? db.run("fanout_keyed", () => withKeys.execute({ ...values, ...keysOf(items) }), true)
      : db.run("fanout", () => statement.execute(values), true);
  }

  async function fanOut(
    items: FanOutItem[],
    is_batch: boolean,
    counted_ids: string[],
  ): Promise<(FannedOut | Failure)[]> {
    const results: (FannedOut | Failure)[] = items.map(() => new BrokerError("topic_not_found"));
    const seen = new Set<number>();
    const unsealed = new Set<number>();
    const uncounted = new Map<number, string[]>();
    for (const row of await runFanOut(items, is_batch, counted_ids)) {
      const i = Number(row.n) - 1;
      if (row.queue_id !== null && row.encrypts) sealing.note(row.queue_id, true);
      if (row.status === "closed") results[i] = new BrokerError("queue_closed");
      else if (row.status === "unsealed") unsealed.add(i);
      else if (row.status === "too_large") results[i] = new BrokerError("payload_too_large", too_large);
      else if (row.status === "delayed")
        results[i] = row.delays ? isDelayed(items[i] as FanOutItem) : keptBack("fanout");
      else if (row.status === "uncounted") uncounted.set(i, [...new Set(row.uncounted_ids?.split(","))]);
      else if (row.status === "seen") seen.add(i);
      else {
        let result = results[i];
        if (result === undefined || result instanceof Error) {
          result = { delivered_queues: row.delivered_queues, deduplicated: false, copies: [] };
          results[i] = result;
        }
        if (row.queue_id === null) continue;
        result.copies.push({ queue_id: row.queue_id, id: row.id });
        onReady(row.queue_id, items[i]?.label ?? null, row.now);
      }
    }
    // Nothing was stored for them: what has no original is not answered as if something had been.
    for (const i of seen) results[i] = originalGone("find_topic_originals");
    if (seen.size > 0) await completeResults(results, seen, () => repeatAnswers(items, results, [...seen], true));
    if (unsealed.size > 0) {
      await completeResults(results, unsealed, () =>
        fanOutSealed(items, results, [...unsealed], is_batch, counted_ids),
      );
    }
    if (uncounted.size > 0) {
      await completeResults(results, uncounted.keys(), () => fanOutCounted(items, results, uncounted, is_batch));
    }
    return results;
  }

  return (items, is_batch = false) => fanOut(items, is_batch, []);
}
