import { index, integer, primaryKey } from "drizzle-orm/pg-core";
import { moment, psqlqueue, text, topics } from "./schema.ts";

/** Client idempotency keys. How long one holds is the queue's setting at the look-up, counted from `created_at`. */
export const deduplications = psqlqueue.table(
  "deduplications",
  {
    created_at: moment("created_at").notNull(),
    queue_no: integer("queue_no").notNull(),
    /** sha256 of what the client sent, as 43 characters of base64url. */
    key: text("key").notNull(),
    message_id: text("message_id").notNull(),
    /** sha256 of the body likewise, for queues that compare it. */
    body_hash: text("body_hash").notNull(),
  },
  (seen) => [primaryKey({ columns: [seen.queue_no, seen.key] }), index("deduplications_created").on(seen.created_at)],
);

/** The same for publishes to topics: decided once, before the fan-out. */
export const topic_deduplications = psqlqueue.table(
  "topic_deduplications",
  {
    created_at: moment("created_at").notNull(),
    topic_id: text("topic_id")
      .notNull()
      .references(() => topics.id, { onDelete: "cascade" }),
    key: text("key").notNull(),
    /** What the first publish answered, repeated to its duplicates. */
    delivered_queues: integer("delivered_queues").notNull(),
    /** Of that publish; null when a server before 0.6 made the row. */
    id: text("id"),
  },
  (seen) => [
    primaryKey({ columns: [seen.topic_id, seen.key] }),
    index("topic_deduplications_created").on(seen.created_at),
  ],
);
