import { and, eq, sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { leaders } from "../../db/schema.ts";
import { value } from "../statement.ts";

/** Seconds after which another server takes over from one that went silent. */
const leader_seconds = 20;
/** Rows that nobody has renewed for so long are of servers that were killed. */
const silent_minutes = 10;

/** Who does the work that one server of a database does for all. */
export function createLeadership(db: Db) {
  const lead = db.orm
    .insert(leaders)
    .values({
      job: value("job"),
      holder: value("holder"),
      until: sql`now() + ${leader_seconds} * interval '1 second'`,
    })
    .onConflictDoUpdate({
      target: leaders.job,
      set: { holder: sql`excluded.holder`, until: sql`excluded.until` },
      setWhere: sql`${leaders.holder} = excluded.holder or ${leaders.until} <= now()`,
    })
    .returning({ job: leaders.job })
    .prepare("lead");
  const resign = db.orm
    .delete(leaders)
    .where(and(eq(leaders.job, value("job")), eq(leaders.holder, value("holder"))))
    .prepare("resign");
  const forget = db.orm
    .delete(leaders)
    .where(sql`${leaders.until} < now() - ${silent_minutes} * interval '1 minute'`)
    .returning({ job: leaders.job })
    .prepare("forget_leaders");

  return {
    /** Takes or keeps a job for `leader_seconds`; false while another server has it. Repeatable. */
    async lead(job: string, holder: string): Promise<boolean> {
      return (await db.run("lead", () => lead.execute({ job, holder }), true)).length > 0;
    },

    /** Lets another server take the job at once. */
    async resign(job: string, holder: string): Promise<void> {
      await db.run("resign", () => resign.execute({ job, holder }));
    },

    /** Removes what servers that were killed have left: their jobs, and that they are there. Answers how many. */
    async sweepLeaders(): Promise<number> {
      return (await db.run("forget_leaders", () => forget.execute(), true)).length;
    },
  };
}
