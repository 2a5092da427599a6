import { sql } from "drizzle-orm";
import {
  type AnyPgColumn,
  bigint,
  boolean,
  customType,
  doublePrecision,
  index,
  integer,
  jsonb,
  pgSchema,
  primaryKey,
  smallint,
  timestamp,
  uniqueIndex,
} from "drizzle-orm/pg-core";

/**
 * Ids, labels and keys compare by bytes: the database's own collation may change with its operating system, and an
 * index in the old order then finds nothing.
 */
export const text = customType<{ data: string }>({ dataType: () => 'text collate "C"' });
/** Text that is for people, in the database's own order. */
export const plainText = customType<{ data: string }>({ dataType: () => "text" });
/** Text, not Date: a Date loses the microseconds. */
export const moment = (name: string) => timestamp(name, { withTimezone: true, mode: "string" });

/** A schema of our own, so that the queue can live beside a user's tables. */
export const psqlqueue = pgSchema("psqlqueue");

export type DeadLetter = {
  source_queue_id: string;
  reason: "max_deliveries" | "rejected" | "expired";
  error: string | null;
  attempts: number;
  dead_at: string;
};

/** Queues and their settings. */
export const queues = psqlqueue.table("queues", {
  /** Four bytes that stand in every message index instead of the id; never used again after a delete. */
  no: integer("no").primaryKey().generatedAlwaysAsIdentity(),
  id: text("id").notNull().unique(),
  ack_deadline_seconds: integer("ack_deadline_seconds").notNull(),
  message_retention_seconds: integer("message_retention_seconds").notNull(),
  delivery_delay_seconds: integer("delivery_delay_seconds").notNull().default(0),
  /** null: message_retention_seconds. 0: an ack deletes the message instead of moving it to the archive. */
  archive_retention_seconds: integer("archive_retention_seconds"),
  /** Where exhausted and rejected messages go; null together with message_max_deliveries. */
  dead_queue_no: integer("dead_queue_no").references((): AnyPgColumn => queues.no),
  message_max_deliveries: integer("message_max_deliveries"),
  dead_letter_on_expiry: boolean("dead_letter_on_expiry").notNull().default(false),
  receive_wait_seconds: integer("receive_wait_seconds").notNull().default(0),
  /** 0: unlimited. */
  max_lease_seconds: integer("max_lease_seconds").notNull().default(43200),
  strict_leases: boolean("strict_leases").notNull().default(false),
  allow_tokenless_extend: boolean("allow_tokenless_extend").notNull().default(false),
  /** 0: off. */
  dedup_window_seconds: integer("dedup_window_seconds").notNull().default(300),
  content_dedup: boolean("content_dedup").notNull().default(false),
  dedup_strict: boolean("dedup_strict").notNull().default(false),
  retry_min_seconds: integer("retry_min_seconds").notNull().default(0),
  retry_max_seconds: integer("retry_max_seconds").notNull().default(600),
  retry_multiplier: doublePrecision("retry_multiplier").notNull().default(2),
  retry_jitter: text("retry_jitter").notNull().default("none"),
  max_message_bytes: bigint("max_message_bytes", { mode: "number" }),
  max_depth: bigint("max_depth", { mode: "number" }),
  max_bytes: bigint("max_bytes", { mode: "number" }),
  ordering_scope: text("ordering_scope").notNull().default("key"),
  on_dead: text("on_dead").notNull().default("move"),
  allow_delayed_ordering: boolean("allow_delayed_ordering").notNull().default(false),
  dedup_scope: text("dedup_scope").notNull().default("queue"),
  priority_enabled: boolean("priority_enabled").notNull().default(false),
  priority_aging_seconds: integer("priority_aging_seconds"),
  /** Messages may have a priority, also of those that were moved here: set once, by a trigger. */
  has_priorities: boolean("has_priorities").notNull().default(false),
  max_in_flight: integer("max_in_flight"),
  max_in_flight_per_key: integer("max_in_flight_per_key"),
  /** What the keys are that share the queue; null: it is not shared. */
  fair_by: text("fair_by"),
  rate_count: integer("rate_count"),
  rate_per_seconds: integer("rate_per_seconds"),
  rate_burst: integer("rate_burst"),
  encrypt: boolean("encrypt").notNull().default(false),
  /** A receive needs more than the usual statement. */
  is_governed: boolean("is_governed")
    .notNull()
    .generatedAlwaysAs(sql`
      has_priorities or max_in_flight is not null or rate_count is not null or fair_by is not null`),
  publish_paused: boolean("publish_paused").notNull().default(false),
  consume_paused: boolean("consume_paused").notNull().default(false),
  /** What an edge keeps of a queue that means nothing to the broker: flat names, values as text. */
  extras: jsonb("extras").$type<Record<string, string>>(),
  created_at: moment("created_at").notNull().defaultNow(),
  updated_at: moment("updated_at").notNull().defaultNow(),
});

/**
 * Unfinished messages. A state is a position in time: ready when `visible_at <= now()`, delayed or leased when it lies
 * in the future, so the end of a lease needs no job. No foreign key to queues: the share locks it takes become
 * multixacts under load; publish checks that the queue exists by its join.
 */
export const messages = psqlqueue.table(
  "messages",
  {
    // Eight-byte columns first: no padding inside the row.
    visible_at: moment("visible_at").notNull(),
    expires_at: moment("expires_at").notNull(),
    created_at: moment("created_at").notNull(),
    /** Random, new on every delivery; null when not leased. */
    lease_token: bigint("lease_token", { mode: "bigint" }),
    queue_no: integer("queue_no").notNull(),
    delivery_attempts: integer("delivery_attempts").notNull().default(0),
    priority: smallint("priority").notNull().default(0),
    id: text("id").notNull(),
    label: text("label"),
    attributes: jsonb("attributes").$type<Record<string, string>>(),
    body: plainText("body").notNull(),
    /**
     * Of the current lease; with a retry policy `visible_at` lies later by the backoff. Kept when the lease runs out.
     */
    leased_at: moment("leased_at"),
    lease_expires_at: moment("lease_expires_at"),
    /** The publisher set a time to live: shown then. */
    has_ttl: boolean("has_ttl").notNull().default(false),
    /** What the last nack said went wrong. */
    last_error: plainText("last_error"),
    /** Where a dead-lettered message came from, and why. */
    dead: jsonb("dead").$type<DeadLetter>(),
    /** Its failures, the first and the latest ones; null while nothing has failed, so that nothing is paid for. */
    events: jsonb("events").$type<unknown[]>(),
    /** Null: the message has no order. Given under the lock of its key, so that it rises with commits. */
    ordering_seq: bigint("ordering_seq", { mode: "number" }),
    /** When an ordered message would be visible if none of its key stood before it. */
    due_at: moment("due_at"),
    ordering_key: text("ordering_key"),
    /** What the order is kept in: the key, or the key and the label (see ordering_keys). */
    ordering_group: text("ordering_group"),
    /** What the publisher gave, whether or not a queue that it comes to is shared by it. */
    fairness_key: text("fairness_key"),
    /** Of its key; null: 1. */
    weight: smallint("weight"),
    /** The key by which it shares its queue, empty for those without; null: the queue is not shared. See fair_keys. */
    fair_key: text("fair_key"),
    /** Set by a lease that takes one of the places of a queue: empty, or `=` and the fair key whose place it is. */
    slot_key: text("slot_key"),
    /** When it was delivered for the first time. */
    first_leased_at: moment("first_leased_at"),
    /** What an edge keeps with a message and gets back, and the broker does not look into. */
    extras: jsonb("extras"),
  },
  (message) => [
    primaryKey({ columns: [message.queue_no, message.id] }),
    // The receive order; without it a receive sorts the whole backlog. The id breaks ties in order of publication.
    // `queue_no + 0` and "POSIX" (which sorts like "C") so that this index cannot offer itself for `queue_no = … and id
    // = …`: where the planner believes the table tiny, it costs the same there as the primary key, and is chosen; the
    // plan stays, and each look-up by id then scans its queue.
    index("messages_ready").on(
      sql`(${message.queue_no} + 0)`,
      message.priority,
      message.visible_at,
      sql`${message.id} collate "POSIX"`,
    ),
    // The receive order under a label filter; without it a rare label scans the backlog.
    index("messages_label")
      .on(
        sql`(${message.queue_no} + 0)`,
        message.label,
        message.priority,
        message.visible_at,
        sql`${message.id} collate "POSIX"`,
      )
      .where(sql`${message.label} is not null`),
    // The next message of an ordering key. `queue_no + 0` as above.
    index("messages_ordered")
      .on(sql`(${message.queue_no} + 0)`, message.ordering_group, message.ordering_seq)
      .where(sql`${message.ordering_seq} is not null`),
    // The receive order inside the keys of a shared queue, and under a label filter. `queue_no + 0` as above.
    index("messages_fair")
      .on(
        sql`(${message.queue_no} + 0)`,
        message.fair_key,
        message.priority,
        message.visible_at,
        sql`${message.id} collate "POSIX"`,
      )
      .where(sql`${message.fair_key} is not null`),
    index("messages_fair_label")
      .on(
        sql`(${message.queue_no} + 0)`,
        message.label,
        message.fair_key,
        message.priority,
        message.visible_at,
        sql`${message.id} collate "POSIX"`,
      )
      .where(sql`${message.fair_key} is not null and ${message.label} is not null`),
    // The places that are taken. What ends a lease takes the entry out, and knows nothing of places.
    index("messages_slots")
      .on(sql`(${message.queue_no} + 0)`, message.slot_key, message.lease_expires_at)
      .where(sql`${message.slot_key} is not null and ${message.lease_token} is not null`),
  ],
);

/** Acked and expired messages, append-only, partitioned by day of `archived_at` and emptied by dropping days. */
export const archived_messages = psqlqueue.table(
  "archived_messages",
  {
    archived_at: moment("archived_at").notNull().defaultNow(),
    /** End of the archived row. */
    expires_at: moment("expires_at").notNull(),
    created_at: moment("created_at").notNull(),
    /** The token that won: lets a repeated ack be answered as a success. */
    lease_token: bigint("lease_token", { mode: "bigint" }),
    queue_no: integer("queue_no").notNull(),
    delivery_attempts: integer("delivery_attempts").notNull(),
    priority: smallint("priority").notNull(),
    id: text("id").notNull(),
    outcome: text("outcome").notNull(),
    label: text("label"),
    attributes: jsonb("attributes").$type<Record<string, string>>(),
    body: plainText("body").notNull(),
    last_error: plainText("last_error"),
    dead: jsonb("dead").$type<DeadLetter>(),
    ordering_key: text("ordering_key"),
    events: jsonb("events").$type<unknown[]>(),
  },
  (past) => [
    index("archived_messages_id").on(past.queue_no, past.id),
    index("archived_messages_expiry").on(past.expires_at),
  ],
);

/** One row per publish statement: a second try after an unknown outcome finds it and does nothing. */
export const publish_batches = psqlqueue.table("publish_batches", {
  created_at: moment("created_at").notNull().defaultNow(),
  id: text("id").primaryKey(),
  /** Places of the items that a nack or release let go; null for a publish. */
  done: text("done"),
});

/** Queues whose messages a job still has to remove. */
export const deleted_queues = psqlqueue.table("deleted_queues", {
  no: integer("no").primaryKey(),
  deleted_at: moment("deleted_at").notNull().defaultNow(),
});

/** Topics: only a name that subscriptions refer to. */
export const topics = psqlqueue.table("topics", {
  id: text("id").primaryKey(),
  created_at: moment("created_at").notNull().defaultNow(),
});

/** Which queue gets a copy of what is published to which topic. */
export const subscriptions = psqlqueue.table(
  "subscriptions",
  {
    id: text("id").primaryKey(),
    topic_id: text("topic_id")
      .notNull()
      .references(() => topics.id, { onDelete: "cascade" }),
    queue_no: integer("queue_no")
      .notNull()
      .references(() => queues.no, { onDelete: "cascade" }),
    message_filters: jsonb("message_filters").$type<Record<string, string[] | null>>(),
    created_at: moment("created_at").notNull().defaultNow(),
  },
  (subscription) => [
    uniqueIndex("subscriptions_topic_queue").on(subscription.topic_id, subscription.queue_no),
    // Deleting a queue looks its subscriptions up.
    index("subscriptions_queue").on(subscription.queue_no),
  ],
);

/** Who runs a background job at the moment: one server at a time, another one when it has been silent. */
export const leaders = psqlqueue.table("leaders", {
  job: text("job").primaryKey(),
  holder: text("holder").notNull(),
  until: moment("until").notNull(),
});

/** Long work that a request started and a job does: redrive, purge, cleanup, delete. */
export const tasks = psqlqueue.table(
  "tasks",
  {
    created_at: moment("created_at").notNull().defaultNow(),
    finished_at: moment("finished_at"),
    moved: bigint("moved", { mode: "number" }).notNull().default(0),
    failed: bigint("failed", { mode: "number" }).notNull().default(0),
    total_estimate: bigint("total_estimate", { mode: "number" }).notNull().default(0),
    queue_no: integer("queue_no").notNull(),
    id: text("id").primaryKey(),
    kind: text("kind").notNull(),
    queue_id: text("queue_id").notNull(),
    state: text("state").notNull().default("running"),
    /** What the request asked for. */
    options: jsonb("options").$type<Record<string, unknown>>().notNull(),
    /** The last message id that was looked at. */
    position: text("position").notNull().default(""),
    error: plainText("error"),
  },
  (task) => [
    // One running redrive per queue; also how the job finds its work.
    uniqueIndex("tasks_running").on(task.queue_no, task.kind).where(sql`${task.state} = 'running'`),
  ],
);

/** What happened per queue and minute, on all servers together: for rates. Failed: nacks, and leases that ran out. */
export const rates = psqlqueue.table(
  "rates",
  {
    minute: moment("minute").notNull(),
    published: bigint("published", { mode: "number" }).notNull(),
    acked: bigint("acked", { mode: "number" }).notNull(),
    delivered: bigint("delivered", { mode: "number" }).notNull().default(0),
    failed: bigint("failed", { mode: "number" }).notNull().default(0),
    queue_id: text("queue_id").notNull(),
  },
  (rate) => [primaryKey({ columns: [rate.queue_id, rate.minute] })],
);

/** Applied migrations that programs made before them cannot live with; see `--! breaking` in CONTRIBUTING.md. */
export const breaking_migrations = psqlqueue.table("breaking_migrations", {
  /** As in the migrator's own table. */
  created_at: bigint("created_at", { mode: "number" }).primaryKey(),
});
