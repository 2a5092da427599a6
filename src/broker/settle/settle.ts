import type { Db } from "../../db/db.ts";
import { type BrokerError, DatabaseError, type Failure, invalid } from "../../errors.ts";
import type { NoteMessages } from "../../observe.ts";
import type { OnReady } from "../onReady.ts";
import { createPages } from "../pages.ts";
import { isInTally, rfc3339, type Tally } from "../statement.ts";
import { prepareAck } from "./ack.ts";
import { type DeadReason, prepareDeadLetter } from "./deadLetter.ts";
import { prepareExtend } from "./extend.ts";
import { isOrdered } from "./fenced.ts";
import { prepareNack } from "./nack.ts";
import { createOrdered } from "./ordered.ts";
import { prepareRelease } from "./release.ts";
import { type Change, columnsOf, createRounds, lost, type SettleItem } from "./rounds.ts";

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
  /**
   * Gives back what a receive leased and nobody saw: the delivery is not counted. Visible at once, or after
   * `hidden_seconds`; the head of an ordering key always at once.
   */
  unlease(queue_id: string, leased: { id: string; lease_token: string }[], hidden_seconds?: number): Promise<void>;
  /**
   * Moves messages that a receive has just leased to their queue's dead-letter queue; answers how many. Without a token
   * those that nobody holds, if they are still expired or exhausted.
   */
  deadLetter(queue_id: string, dead: { id: string; lease_token: string | null }[], reason: DeadReason): Promise<number>;
  /** Deletes a message with an ordering key, unless somebody else holds it; answers whether it did. */
  deleteOrdered(item: SettleItem): Promise<boolean>;
};

/** Expired messages that one statement ends at most. */
const expiry_rows = 1000;
/** SQLSTATE: no room for what was to be written. Nothing happened. */
const disk_full = "53100";

/** Ack, nack, extend and their kin on one database. All calls may run concurrently, also for the same message. */
export function createSettle(db: Db, onReady: OnReady, note: NoteMessages): Settle {
  const end = prepareAck(db, "end_messages", true);
  const endUnarchived = prepareAck(db, "end_messages_unarchived", false);
  const release = prepareNack(db);
  const prolong = prepareExtend(db);
  const bury = prepareDeadLetter(db);
  const giveBack = prepareRelease(db);
  const ordered = createOrdered(db, onReady, note);
  const settleAll = createRounds(db, ordered);

  /** Ends messages. On a full disk without the archive: a repeated ack is a 404 then, but consuming makes room. */
  async function archivedOrNot<Result>(run: (archives: boolean) => Promise<Result>): Promise<Result> {
    try {
      return await run(true);
    } catch (error) {
      if (!(error instanceof DatabaseError && error.code === disk_full)) throw error;
      return await run(false);
    }
  }

  async function endAll(
    items: SettleItem[],
    outcome: "acked" | "expired",
    batch_id: string | null = null,
  ): Promise<Tally | undefined> {
    const values = { ...columnsOf(items), outcome, batch_id };
    const [tally] = await archivedOrNot((archives) =>
      archives
        ? db.run("end_messages", () => end.execute(values), true)
        : db.run("end_messages_unarchived", () => endUnarchived.execute(values), true),
    );
    return tally;
  }

  const expiry_pages = createPages(expiry_rows);

  /** Answers how many have ended. */
  async function expireAll(items: SettleItem[]): Promise<number> {
    let count = 0;
    for (let at = 0; at < items.length; ) {
      at += await expiry_pages(async (limit) => {
        const page = items.slice(at, at + limit);
        count += (await endAll(page, "expired"))?.count ?? 0;
        return page.length;
      });
    }
    return count;
  }

  const endOrdered = (
    items: SettleItem[],
    outcome: "acked" | "expired" | "deleted",
    batch_id: string | null = null,
  ): Promise<Tally> => archivedOrNot((archives) => ordered.end(columnsOf(items), outcome, archives, batch_id));

  /** Those that a statement for messages without an ordering key left out may have one. */
  async function withOrdered(
    items: SettleItem[],
    plain: (items: SettleItem[]) => Promise<number>,
    own: (items: SettleItem[]) => Promise<number>,
  ): Promise<number> {
    const known = items.filter(({ lease_token }) => isOrdered(lease_token));
    const others = known.length === 0 ? items : items.filter(({ lease_token }) => !isOrdered(lease_token));
    const count = others.length === 0 ? 0 : await plain(others);
    const left = count < others.length ? items : known;
    return count + (left.length === 0 ? 0 : await own(left));
  }

  const placesOf = (items: SettleItem[]) => items.map((_, i) => i + 1);
  const itemsOf = (queue_id: string, leased: { id: string; lease_token: string | null }[]) =>
    leased.map(({ id, lease_token }) => ({ queue_id, id, lease_token }));

  const acking: Change<SettleItem, undefined> = {
    verb: "ack",
    async run(batch, batch_id) {
      const tally = await endAll(batch, "acked", batch_id);
      const isDone = isInTally(tally, batch.length);
      return (k) => (isDone(k) ? undefined : false);
    },
    async runOrdered(batch, batch_id) {
      const isDone = isInTally(await endOrdered(batch, "acked", batch_id), batch.length);
      return (k) => (isDone(k) ? undefined : false);
    },
    doneBefore: () => undefined,
  };

  const nacking: Change<NackItem, undefined> = {
    verb: "nack",
    async run(batch, batch_id) {
      const values = {
        ...columnsOf(batch),
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
    async runOrdered(batch, batch_id) {
      const values = {
        ...columnsOf(batch),
        mode: "nack" as const,
        batch_id,
        seconds: batch.map((item) => item.visibility_timeout_seconds),
        errors: batch.map((item) => item.error),
        dead_letters: batch.map((item) => String(item.dead_letter)),
      };
      const rows = await ordered.letGo(values, placesOf(batch));
      const places = new Set(rows.map(({ n }) => n));
      return (k) => (places.has(k + 1) ? undefined : false);
    },
    doneBefore: (item, now) => onReady(item.queue_id, null, now) as undefined,
  };

  const extending: Change<ExtendItem, Extended> = {
    verb: "extend",
    async run(batch, batch_id) {
      const values = {
        ...columnsOf(batch),
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
    async runOrdered(batch, batch_id) {
      const places = placesOf(batch);
      const released = places.filter((place) => batch[place - 1]?.ack_deadline_seconds === 0);
      const kept = places.filter((place) => batch[place - 1]?.ack_deadline_seconds !== 0);
      const itemsAt = (own: number[]) => own.map((place) => batch[place - 1] as ExtendItem);
      const done = new Map<number, Extended | BrokerError>();
      if (released.length > 0) {
        const values = { ...columnsOf(itemsAt(released)), mode: "release" as const, batch_id };
        for (const { n, ready_at } of await ordered.letGo(values, released)) {
          done.set(n, { lease_expires_at: rfc3339(ready_at) });
        }
      }
      if (kept.length > 0) {
        const own = itemsAt(kept);
        const seconds = own.map((item) => item.ack_deadline_seconds);
        for (const row of await ordered.extend(columnsOf(own), kept, seconds)) {
          const { n, is_lost, seconds_left, lease_expires_at } = row;
          if (is_lost) done.set(n, lost());
          else if (seconds_left !== null) done.set(n, invalid("ack_deadline_seconds", "at_most", seconds_left));
          else done.set(n, { lease_expires_at: rfc3339(lease_expires_at) });
        }
      }
      return (k) => done.get(k + 1) ?? false;
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

    deleteOrdered: async (item) => (await endOrdered([item], "deleted")).count > 0,

    async expire(queue_id, expired) {
      const count = await withOrdered(
        itemsOf(queue_id, expired),
        expireAll,
        async (items) => (await endOrdered(items, "expired")).count,
      );
      if (count > 0) note("expired", queue_id, count);
      return count;
    },

    async unlease(queue_id, leased, hidden_seconds = 0) {
      const unlease = async (items: SettleItem[]) => {
        const rows = await db.run("unlease", () => giveBack.execute({ ...columnsOf(items), hidden_seconds }), true);
        for (const row of rows) onReady(queue_id, row.label, row.ready_at);
        return items.length;
      };
      const unleaseOrdered = async (items: SettleItem[]) =>
        (await ordered.letGo({ ...columnsOf(items), mode: "unlease" }, placesOf(items))).length;
      await withOrdered(itemsOf(queue_id, leased), unlease, unleaseOrdered);
    },

    async deadLetter(queue_id, dead, reason) {
      const buryAll = async (items: SettleItem[]) => {
        const rows = await db.run("dead_letter", () => bury.execute({ ...columnsOf(items), reason }), true);
        for (const row of rows) onReady(row.dead_queue_id, row.label, row.ready_at);
        if (rows.length > 0) note("dead_lettered", queue_id, rows.length);
        return rows.length;
      };
      return await withOrdered(itemsOf(queue_id, dead), buryAll, (items) => ordered.bury(columnsOf(items), reason));
    },
  };
}
