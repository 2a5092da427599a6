import { integer, primaryKey } from "drizzle-orm/pg-core";
import { moment, psqlqueue, queues } from "./schema.ts";

/** A day of every queue by minutes, for charts: one row a minute where there is something to say, by one server. */
export const queue_minutes = psqlqueue.table(
  "queue_minutes",
  {
    minute: moment("minute").notNull(),
    queue_no: integer("queue_no")
      .notNull()
      .references(() => queues.no, { onDelete: "cascade" }),
    published: integer("published").notNull(),
    delivered: integer("delivered").notNull(),
    acked: integer("acked").notNull(),
    failed: integer("failed").notNull(),
    /** At the end of the minute; null when no server led then. Hidden: delayed and backing off. */
    ready: integer("ready"),
    leased: integer("leased"),
    hidden: integer("hidden"),
    oldest_ready_age_seconds: integer("oldest_ready_age_seconds"),
  },
  (row) => [primaryKey({ columns: [row.queue_no, row.minute] })],
);
