import { desc, sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { queues, tasks } from "../../db/schema.ts";
import { rfc3339, value } from "../statement.ts";
import type { RedriveOptions } from "./redrive.ts";
import type { TaskState } from "./taskRows.ts";

/** A redrive that was started, as it stands. */
export type StartedRedrive = {
  id: string;
  state: TaskState;
  moved: number;
  failed: number;
  total_estimate: number;
  created_at: string;
  error: string | null;
  destination_queue_id: string | null;
  rate_per_second: number | null;
};

/** Looking at redrives. */
export function createRedrives(db: Db) {
  const list = db.orm
    .select({
      id: tasks.id,
      state: sql<TaskState>`${tasks.state}`.as("state"),
      moved: tasks.moved,
      failed: tasks.failed,
      total_estimate: tasks.total_estimate,
      created_at: tasks.created_at,
      error: tasks.error,
      options: tasks.options,
    })
    .from(tasks)
    .where(
      sql`${tasks.kind} = 'redrive'
        and ${tasks.queue_no} = (select queue.no from ${queues} as queue where queue.id = ${value("queue_id")})`,
    )
    // Ids rise with time, also within one moment of the clock.
    .orderBy(desc(tasks.created_at), desc(tasks.id))
    .limit(value("limit"))
    .prepare("list_redrives");
  return {
    /** The last redrives of a queue, newest first; none of one that does not exist. */
    async listRedrives(queue_id: string, limit: number): Promise<StartedRedrive[]> {
      const rows = await db.run("list_redrives", () => list.execute({ queue_id, limit }), true);
      return rows.map(({ options, created_at, ...row }) => {
        const { destination_queue_id = null, rate_per_second = null } = options as Partial<RedriveOptions>;
        return { ...row, created_at: rfc3339(created_at), destination_queue_id, rate_per_second };
      });
    },
  };
}
