import { sql } from "drizzle-orm";
import { bigint, doublePrecision, index, integer, primaryKey } from "drizzle-orm/pg-core";
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
  queue_no: integer("queue_no").primaryKey(),
});
