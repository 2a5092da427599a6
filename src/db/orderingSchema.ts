import { sql } from "drizzle-orm";
import { bigint, boolean, doublePrecision, index, integer, primaryKey, smallint } from "drizzle-orm/pg-core";
import { moment, psqlqueue, text } from "./schema.ts";

/**
 * One row per ordering key with unfinished messages; its lock serialises what happens to the key. Only the first
 * message of a key, its head, is visible; the others are parked at `visible_at = 'infinity'`.
 */
export const ordering_keys = psqlqueue.table(
  "ordering_keys",
  {
    /** No message of the key that can still be delivered has a lower number: the search for the head starts here. */
    floor_seq: bigint("floor_seq", { mode: "number" }).notNull(),
    /** Between which numbers others than the head may be under a lease; null: none is. */
    held_from: bigint("held_from", { mode: "number" }),
    held_to: bigint("held_to", { mode: "number" }),
    /** The number of a dead message, after which nothing of the key is delivered; null: the key is not blocked. */
    blocked_seq: bigint("blocked_seq", { mode: "number" }),
    blocked_since: moment("blocked_since"),
    queue_no: integer("queue_no").notNull(),
    /** Where the dead message is. */
    dead_queue_no: integer("dead_queue_no"),
    ordering_group: text("ordering_group").notNull(),
    dead_id: text("dead_id"),
  },
  (held) => [
    primaryKey({ columns: [held.queue_no, held.ordering_group] }),
    // Blocked keys, by queue and by where their dead message is.
    index("ordering_keys_blocked").on(held.queue_no, held.ordering_group).where(sql`${held.blocked_seq} is not null`),
    index("ordering_keys_dead").on(held.dead_queue_no).where(sql`${held.blocked_seq} is not null`),
  ],
);

/** Keys whose head was ended in a transaction of a user, who must not hold the key: a server gives them their next. */
export const stale_keys = psqlqueue.table("stale_keys", {
  seq: bigint("seq", { mode: "number" }).primaryKey().generatedAlwaysAsIdentity(),
  queue_no: integer("queue_no").notNull(),
  ordering_group: text("ordering_group").notNull(),
});

/** One row per queue whose receives are counted; its lock makes them one after the other. */
export const governors = psqlqueue.table("governors", {
  /** Deliveries that the rate allows at once, at `refilled_at`. */
  tokens: doublePrecision("tokens").notNull(),
  refilled_at: moment("refilled_at").notNull(),
  /** When the leases were marked that were made before the queue had a cap. */
  marked_at: moment("marked_at"),
  /** How far a shared queue has come: the start of the latest turn that was taken. */
  virtual_time: doublePrecision("virtual_time").notNull().default(0),
  /** No key that is ready has a lower virtual time, and none that waits is due before: what is dead is not walked. */
  ready_from: doublePrecision("ready_from").notNull().default(sql`'-infinity'`),
  due_from: moment("due_from").notNull().default(sql`'-infinity'`),
  /** All changes of transactions before this one have been noted. */
  changes_from: bigint("changes_from", { mode: "bigint" }).notNull().default(sql`0`),
  /** How far messages that were there before the queue was shared have got their key; null: all have. */
  keyed_to: text("keyed_to"),
  /** Since when it is shared like this; null: nothing published before can still come. */
  keyed_since: moment("keyed_since"),
  queue_no: integer("queue_no").primaryKey(),
});

/**
 * The keys that share a queue, with their turns. Written by receives alone, under the lock of the queue's governor;
 * what others do to the messages of a key they leave in fair_changes.
 */
export const fair_keys = psqlqueue.table(
  "fair_keys",
  {
    /** When its next turn starts: each delivery moves it by one through the weight. */
    virtual_time: doublePrecision("virtual_time").notNull(),
    /** Of a key that is not ready: when it may be; null: it has no messages. */
    due_at: moment("due_at"),
    queue_no: integer("queue_no").notNull(),
    weight: smallint("weight").notNull().default(1),
    /** It has a message that can be delivered, as far as is known. */
    is_ready: boolean("is_ready").notNull(),
    /** It would be ready but for its order or its cap, and loses no turn. */
    is_held: boolean("is_held").notNull().default(false),
    /** All its places are taken, and messages wait for one. */
    is_capped: boolean("is_capped").notNull().default(false),
    fair_key: text("fair_key").notNull(),
  },
  (key) => [
    primaryKey({ columns: [key.queue_no, key.fair_key] }),
    index("fair_keys_ready").on(key.queue_no, key.virtual_time, key.fair_key).where(sql`${key.is_ready}`),
    index("fair_keys_due").on(key.queue_no, key.due_at).where(sql`not ${key.is_ready} and ${key.due_at} is not null`),
    index("fair_keys_capped").on(key.queue_no, key.due_at).where(sql`${key.is_capped}`),
    index("fair_keys_empty")
      .on(key.queue_no, key.virtual_time)
      .where(sql`not ${key.is_ready} and ${key.due_at} is null`),
  ],
);

/** What made a key ready, or may have: left by those who publish, let go and settle, taken by the next receive. */
export const fair_changes = psqlqueue.table(
  "fair_changes",
  {
    seq: bigint("seq", { mode: "number" }).notNull().generatedAlwaysAsIdentity(),
    /** The transaction that left it. */
    xid: bigint("xid", { mode: "bigint" }).notNull(),
    /** When the key may be ready by it. */
    due_at: moment("due_at").notNull(),
    queue_no: integer("queue_no").notNull(),
    /** Of a message that came; null: none came. */
    weight: smallint("weight"),
    fair_key: text("fair_key").notNull(),
  },
  (change) => [index("fair_changes_queue").on(change.queue_no, change.xid, change.seq)],
);
