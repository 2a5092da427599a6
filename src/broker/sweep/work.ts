import { sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { stale_keys } from "../../db/orderingSchema.ts";
import { outbox } from "../../db/outboxSchema.ts";
import { tasks } from "../../db/schema.ts";
import { column, prepare } from "../statement.ts";

/** What waits to be gone on with. */
export type Work = {
  /** Messages that users published by SQL, or keys whose head they acked. */
  has_outbox: boolean;
  has_tasks: boolean;
};

/** One cheap look for all that nobody may have told of. */
export function createWork(db: Db) {
  const work = db.orm
    .$with("work", { has_outbox: column<boolean>("has_outbox"), has_tasks: column<boolean>("has_tasks") })
    .as(sql`
      select exists (select from ${outbox}) or exists (select from ${stale_keys}) as has_outbox,
        exists (select from ${tasks} as task where task.state = 'running') as has_tasks`);
  const find = prepare<Work>(db.orm.with(work).select().from(work), "find_work");

  return {
    /** Looks whether there is work for `moveOutbox` and `runTasks`. Repeatable. */
    async findWork(): Promise<Work> {
      const [row] = await db.run("find_work", () => find.execute(), true);
      return row as Work;
    },
  };
}
