import { sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { rates } from "../../db/schema.ts";
import { column, value } from "../statement.ts";

/** Queues whose counts wait for the next flush at most; what comes beyond is not counted. */
const queues_max = 100_000;
const kept_minutes = 10;

type Counts = { published: number; delivered: number; acked: number; failed: number };

/**
 * Publishes, deliveries, acks and failures per queue and minute, for the rates of the statistics. Counted in memory and
 * added to a row per queue and minute every few seconds, so that no row is touched by every publish. A process that is
 * killed loses the last seconds.
 */
export function createRates(db: Db) {
  const counts = new Map<string, Counts>();
  const swept = db.orm.$with("swept", {}).as(sql`
    delete from ${rates} as rate where rate.minute < now() - ${kept_minutes} * interval '1 minute'`);
  const stored = db.orm.$with("stored", { queue_id: column<string>("queue_id") }).as(sql`
    insert into ${rates} as rate (queue_id, minute, published, acked, delivered, failed)
    select given.queue_id, date_trunc('minute', now() - interval '2 seconds'), given.published, given.acked,
      given.delivered, given.failed
    from unnest(${value("queue_ids")}::text[], ${value("published")}::int[], ${value("acked")}::int[],
      ${value("delivered")}::int[], ${value("failed")}::int[]) as given (queue_id, published, acked, delivered, failed)
    order by given.queue_id
    on conflict (queue_id, minute) do update
      set published = rate.published + excluded.published, acked = rate.acked + excluded.acked,
        delivered = rate.delivered + excluded.delivered, failed = rate.failed + excluded.failed
    returning rate.queue_id`);
  const add = db.orm.with(swept, stored).select().from(stored).prepare("add_rates");

  return {
    /** Counts; never fails, never waits. */
    count(queue_id: string, event: keyof Counts, count: number): void {
      let entry = counts.get(queue_id);
      if (entry === undefined) {
        if (counts.size >= queues_max) return;
        entry = { published: 0, delivered: 0, acked: 0, failed: 0 };
        counts.set(queue_id, entry);
      }
      entry[event] += count;
    },

    /** Adds what was counted since the last flush; nothing to do, no statement. */
    async flushRates(): Promise<void> {
      if (counts.size === 0) return;
      const entries = [...counts];
      counts.clear();
      const values = {
        queue_ids: entries.map(([queue_id]) => queue_id),
        published: entries.map(([, { published }]) => published),
        acked: entries.map(([, { acked }]) => acked),
        delivered: entries.map(([, { delivered }]) => delivered),
        failed: entries.map(([, { failed }]) => failed),
      };
      await db.run("add_rates", () => add.execute(values));
    },
  };
}
