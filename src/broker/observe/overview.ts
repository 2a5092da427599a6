import { sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { queues, rates } from "../../db/schema.ts";
import { everything, isVisible, type Visible, visibleValues } from "../manage/visible.ts";
import { column, prepare, value } from "../statement.ts";
import { type Depths, page_effort, type QueueDepth } from "./depths.ts";

export type QueueSummary = QueueDepth & {
  publish_rate_1m: number;
  ack_rate_1m: number;
  dead_queue_id: string | null;
  /** Only when it is so. */
  paused?: { publish: boolean; consume: boolean };
};

type Row = {
  no: number;
  queue_id: string;
  dead_queue_id: string | null;
  publish_paused: boolean;
  consume_paused: boolean;
  published: number;
  acked: number;
};

/** The numbers of many queues, for a list of them. */
export function createOverview(db: Db, { depthsOf }: Depths) {
  const listed = db.orm
    .$with("listed", {
      no: column<number>("no"),
      queue_id: column<string>("queue_id"),
      dead_queue_id: column<string | null>("dead_queue_id"),
      publish_paused: column<boolean>("publish_paused"),
      consume_paused: column<boolean>("consume_paused"),
      published: column<number>("published"),
      acked: column<number>("acked"),
    })
    .as(sql`
      select queue.no, queue.id as queue_id, dead.id as dead_queue_id, queue.publish_paused, queue.consume_paused,
        coalesce(rate.published, 0)::int as published, coalesce(rate.acked, 0)::int as acked
      from (
        select * from ${queues} as own
        where strpos(lower(own.id), lower(${value("search")}::text)) > 0 and ${isVisible(sql`own.id`, "queue")}
        order by own.id
        limit ${value("limit")} offset ${value("offset")}
      ) as queue
      left join ${queues} as dead on dead.no = queue.dead_queue_no
      left join ${rates} as rate
        on rate.queue_id = queue.id and rate.minute = date_trunc('minute', now()) - interval '1 minute'
      order by queue.id`);
  const list = prepare<Row>(db.orm.with(listed).select().from(listed), "list_summaries");

  return {
    /** Queues whose id contains `search`, by id, with their numbers. The work is bounded whatever they hold. */
    async listSummaries(
      search: string,
      limit: number,
      offset: number,
      visible: Visible = everything,
    ): Promise<QueueSummary[]> {
      const values = { search, limit, offset, ...visibleValues(visible, "queue") };
      const rows = await db.run("list_summaries", () => list.execute(values), true);
      const depth_of = new Map((await depthsOf(rows, page_effort)).map((depth) => [depth.queue_id, depth]));
      return rows.flatMap((row) => {
        const depth = depth_of.get(row.queue_id);
        if (depth === undefined) return [];
        const { publish_paused: publish, consume_paused: consume } = row;
        return [
          {
            ...depth,
            oldest_ready_age_seconds: Math.floor(depth.oldest_ready_age_seconds),
            publish_rate_1m: row.published / 60,
            ack_rate_1m: row.acked / 60,
            dead_queue_id: row.dead_queue_id,
            ...((publish || consume) && { paused: { publish, consume } }),
          },
        ];
      });
    },
  };
}
