import { sql } from "drizzle-orm";
import type { Db, Prepared } from "../db/db.ts";
import { archived_messages, messages, queues } from "../db/schema.ts";
import { BrokerError, DatabaseError } from "../errors.ts";
import type { NoteMessages } from "../observe.ts";
import { type DeadReason, prepareDeadLetter } from "./deadLetter.ts";
import { prepareEnd } from "./end.ts";
import { prepareExtend } from "./extend.ts";
import { prepareNack, prepareUnlease } from "./nack.ts";
import { column, isInTally, value } from "./sql.ts";
import { storedToken } from "./target.ts";

/** `lease_token` null: by id alone, as in v1. A text that is no token of ours is simply not the current one. */
export type SettleItem = { queue_id: string; id: string; lease_token: string | null };
export type NackItem = SettleItem & {
  /** null: what the queue's retry policy says. */
  visibility_timeout_seconds: number | null;
  error: string | null;
  /** To the dead-letter queue at once, when there is one. */
  dead_letter: boolean;
};
export type ExtendItem = SettleItem & { ack_deadline_seconds: number };

export type Extended = { lease_expires_at: string };

type Reason =
  | "again"
  | "token_required"
  | "lease_lost"
  | "acked"
  | "archived"
  | "message_not_found"
  | "queue_not_found";
type Miss = { n: string; reason: Reason };

/** A row that became ready by a settlement. */
export type OnReady = (queue_id: string, label: string | null, at: string) => void;

/** A call that lost a race with another change of its row is sent again, at most this often. */
const rounds_max = 20;

/** Why a call left an item out. */
function prepareExplain(db: Db): Prepared<Miss[]> {
  const misses = db.orm.$with("misses", { n: column<string>("n"), reason: column<Reason>("reason") }).as(sql`
    select given.n,
      case
        when queue.no is null then 'queue_not_found'
        when given.lease_token is null and ${value("is_extend")}::text::boolean and not queue.allow_tokenless_extend
          then 'token_required'
        else coalesce((
          select case
            when message.lease_token is distinct from given.lease_token and given.lease_token is not null then 'lease_lost'
            when given.lease_token is not null and queue.strict_leases and message.lease_expires_at <= now()
              then 'lease_lost'
            when message.expires_at <= now() and coalesce(message.lease_expires_at <= now(), true) then 'archived'
            -- Without a token only a live lease can be extended, and there is none.
            when given.lease_token is null and ${value("is_extend")}::text::boolean then 'lease_lost'
            else 'again'
          end
          from ${messages} as message
          where message.queue_no = queue.no and message.id = given.id
        ), (
          select case
            when past.outcome = 'acked' and past.lease_token = given.lease_token then 'acked'
            else 'archived'
          end
          from ${archived_messages} as past
          where past.queue_no = queue.no and past.id = given.id and past.expires_at > now()
          limit 1
        ), 'message_not_found')
      end as reason
    from unnest(${value("queue_ids")}::text[], ${value("ids")}::text[], ${value("lease_tokens")}::text[]::bigint[])
      with ordinality as given (queue_id, id, lease_token, n)
    left join lateral (select * from ${queues} as queue where queue.id = given.queue_id limit 1) as queue on true`);
  return db.orm.with(misses).select().from(misses).prepare("explain_misses") as unknown as Prepared<Miss[]>;
}

/**
 * Which items' rows a transaction of somebody else has locked right now: `psqlqueue.ack` in one that stays open, say.
 * The sub-select without a lock tells a locked row from one that is not there.
 */
function prepareFindHeld(db: Db): Prepared<{ n: string }[]> {
  const held = db.orm.$with("held", { n: column<string>("n") }).as(sql`
    select given.n
    from unnest(${value("queue_ids")}::text[], ${value("ids")}::text[]) with ordinality as given (queue_id, id, n)
    cross join lateral (select * from ${queues} as queue where queue.id = given.queue_id limit 1) as queue
    cross join lateral (
      select 1 as there
      from ${messages} as message
      where message.queue_no = queue.no and message.id = given.id
      limit 1
    ) as there
    left join lateral (
      select 1 as free
      from ${messages} as message
      where message.queue_no = queue.no and message.id = given.id
      for update skip locked
    ) as own on true
    where own.free is null`);
  return db.orm.with(held).select().from(held).prepare("find_held") as unknown as Prepared<{ n: string }[]>;
}

export type Settle = {
  /** Ends messages for good. Item i is undefined, or why not. Repeatable: an ended message answers as ended. */
  ack(items: SettleItem[]): Promise<(undefined | BrokerError)[]>;
  /** Makes messages visible after a delay, or dead-letters them. Without effect on ended ones. */
  nack(items: NackItem[]): Promise<(undefined | BrokerError)[]>;
  /** Moves the end of leases; 0 seconds gives them back. */
  extend(items: ExtendItem[]): Promise<(Extended | BrokerError)[]>;
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

/** What an archived or vanished message means to each verb. */
function explainTo(verb: "ack" | "nack" | "extend", item: SettleItem, reason: Exclude<Reason, "again">) {
  if (reason === "token_required") return new BrokerError("validation_failed", "lease_token: cannot be blank.");
  if (reason === "queue_not_found" || reason === "message_not_found") return new BrokerError(reason);
  if (reason === "lease_lost" || verb === "extend") return lost();
  if (item.lease_token === null) return undefined;
  return verb === "ack" && reason === "acked" ? undefined : lost();
}

/** Ack, nack, extend and their kin on one database. All calls may run concurrently, also for the same message. */
export function createSettle(db: Db, onReady: OnReady, note: NoteMessages): Settle {
  const end = prepareEnd(db);
  const release = prepareNack(db);
  const prolong = prepareExtend(db);
  const explain = prepareExplain(db);
  const findHeld = prepareFindHeld(db);
  const bury = prepareDeadLetter(db);
  const giveBack = prepareUnlease(db);
  const itemsOf = (queue_id: string, leased: { id: string; lease_token: string | null }[]) =>
    leased.map(({ id, lease_token }) => ({ queue_id, id, lease_token }));

  /** The places of items whose rows are locked. */
  async function placesHeld(items: SettleItem[]): Promise<Set<number>> {
    const rows = await db.run("find_held", () => findHeld.execute(columns(items)), true);
    return new Set(rows.map(({ n }) => Number(n) - 1));
  }

  /**
   * Runs `change` for all items, then for those again that lost a race, until each is done or explained. An item whose
   * row somebody keeps locked fails alone.
   */
  async function settleAll<Item extends SettleItem, Done>(
    verb: "ack" | "nack" | "extend",
    items: Item[],
    change: (items: Item[]) => Promise<(i: number) => Done | BrokerError | undefined | false>,
  ): Promise<(Done | undefined | BrokerError)[]> {
    const results: (Done | undefined | BrokerError)[] = new Array(items.length).fill(undefined);
    let open = items.map((_, i) => i);
    for (let round = 0; open.length > 0; round++) {
      const batch = open.map((i) => items[i] as Item);
      let resultOf: Awaited<ReturnType<typeof change>>;
      try {
        resultOf = await change(batch);
      } catch (error) {
        const has_waited = error instanceof DatabaseError && error.code === lock_not_available;
        if (!has_waited || round === rounds_max) throw error;
        const places = await placesHeld(batch);
        for (const k of places) results[open[k] as number] = held();
        open = open.filter((_, k) => !places.has(k));
        continue;
      }
      const missed: number[] = [];
      for (const [k, i] of open.entries()) {
        const result = resultOf(k);
        if (result === false) missed.push(i);
        else results[i] = result;
      }
      if (missed.length === 0) return results;
      if (round === rounds_max) throw new DatabaseError("conflict", "ROUNDS", verb);
      const asked = { ...columns(missed.map((i) => items[i] as Item)), is_extend: String(verb === "extend") };
      const misses = await db.run("explain_misses", () => explain.execute(asked), true);
      open = [];
      for (const miss of misses) {
        const i = missed[Number(miss.n) - 1] as number;
        if (miss.reason === "again") open.push(i);
        else results[i] = explainTo(verb, items[i] as Item, miss.reason);
      }
    }
    return results;
  }

  return {
    ack: (items) =>
      settleAll<SettleItem, undefined>("ack", items, async (batch) => {
        const values = { ...columns(batch), outcome: "acked" };
        const [tally] = await db.run("end_messages", () => end.execute(values), true);
        const isDone = isInTally(tally, batch.length);
        return (i) => (isDone(i) ? undefined : false);
      }),

    nack: (items) =>
      settleAll<NackItem, undefined>("nack", items, async (batch) => {
        const values = {
          ...columns(batch),
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
        return (i) => (places.has(i + 1) ? undefined : false);
      }),

    extend: (items) =>
      settleAll<ExtendItem, Extended>("extend", items, async (batch) => {
        const values = { ...columns(batch), seconds: batch.map((item) => item.ack_deadline_seconds) };
        const rows = await db.run("extend", () => prolong.execute(values), true);
        const by_place = new Map(rows.map((row) => [Number(row.n), row]));
        return (i) => {
          const row = by_place.get(i + 1);
          if (row === undefined) return false;
          if (row.seconds_left !== null) {
            const bound = `ack_deadline_seconds: must be no greater than ${row.seconds_left}.`;
            return new BrokerError("validation_failed", bound);
          }
          if (batch[i]?.ack_deadline_seconds === 0) onReady(batch[i].queue_id, row.label, row.ready_at);
          return { lease_expires_at: row.lease_expires_at };
        };
      }) as Promise<(Extended | BrokerError)[]>,

    async expire(queue_id, expired) {
      const values = { ...columns(itemsOf(queue_id, expired)), outcome: "expired" };
      const [tally] = await db.run("end_messages", () => end.execute(values), true);
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
