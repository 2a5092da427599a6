import { sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { column, value } from "../statement.ts";
import { untilEmpty } from "./untilEmpty.ts";

const archive_days_ahead = 2;

/** The archive of acked and expired messages: a partition for each day, dropped as a whole. */
export function createArchiveSweep(db: Db) {
  const archive = db.orm
    .select({ dropped: sql<number>`psqlqueue.keep_archive(${archive_days_ahead})`.as("dropped") })
    .from(sql`(values (1)) as one`)
    .prepare("keep_archive");

  // Only what no day's partition took; the days themselves are dropped whole.
  const late = db.orm.$with("late", {}).as(sql`
    delete from only psqlqueue.archived_messages_default as past
    where past.ctid = any (array(
      select old.ctid from only psqlqueue.archived_messages_default as old
      where old.expires_at <= now()
      order by old.expires_at
      limit ${value("limit")}::int
    )) and past.expires_at <= now()
    returning past.id`);
  const lateCount = db.orm
    .$with("late_count", { count: column<number>("count") })
    .as(sql`select count(*)::int as count from late`);
  const sweepLate = db.orm.with(late, lateCount).select().from(lateCount).prepare("sweep_archive_default");

  return {
    /**
     * Makes the archive's next days and drops those in which everything has expired. Fails with a lock timeout (55P03)
     * while somebody reads the archive for long; a later call does it then.
     */
    async keepArchive(): Promise<{ days_dropped: number; rows: number }> {
      const rows = await untilEmpty(db, "sweep_archive_default", sweepLate);
      const [row] = await db.run("keep_archive", () => archive.execute());
      return { days_dropped: row?.dropped ?? 0, rows };
    },
  };
}
