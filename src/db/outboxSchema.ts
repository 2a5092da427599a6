import { bigint, integer, jsonb, smallint } from "drizzle-orm/pg-core";
import { moment, plainText, psqlqueue, text } from "./schema.ts";

/** Messages published by SQL in transactions of the users: a server moves the committed ones to their queues. */
export const outbox = psqlqueue.table("outbox", {
  seq: bigint("seq", { mode: "number" }).primaryKey().generatedAlwaysAsIdentity(),
  created_at: moment("created_at").notNull().defaultNow(),
  queue_no: integer("queue_no").notNull(),
  delay_seconds: integer("delay_seconds"),
  ttl_seconds: integer("ttl_seconds"),
  id: text("id").notNull(),
  deliver_at: moment("deliver_at"),
  expires_at: moment("expires_at"),
  dedup_key: text("dedup_key"),
  body_hash: text("body_hash"),
  /** The key where the content is the id; null from before 0.6. */
  content_key: text("content_key"),
  /** Of a copy of a message to a topic: what makes all copies of it one, and how many there are. */
  topic_id: text("topic_id"),
  publication_id: text("publication_id"),
  topic_queues: integer("topic_queues"),
  label: text("label"),
  attributes: jsonb("attributes").$type<Record<string, string>>(),
  body: plainText("body").notNull(),
  ordering_key: text("ordering_key"),
  priority: smallint("priority").notNull().default(0),
  fairness_key: text("fairness_key"),
  weight: smallint("weight"),
});
