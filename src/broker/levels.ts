import { sql } from "drizzle-orm";

/** The priorities that messages of `queue` have, as `level`: 0 alone in a queue that knows none. */
export const levels = sql`
  unnest(case when queue.has_priorities then psqlqueue.levels_of(queue.no) else array[0::smallint] end) as level (priority)`;
