import { sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { queue_minutes } from "../../db/historySchema.ts";
import { queues, rates } from "../../db/schema.ts";
import { BrokerError } from "../../errors.ts";
import { column, prepare, rfc3339, value } from "../statement.ts";
import { type Depths, page_effort } from "./depths.ts";

/** Queues with a history; the first by id. A day of a thousand busy ones is about 1.4 million small rows. */
const queues_max = 1000;
/** What a missing leader left out is made up for from the counts of so many minutes. */
const late_minutes = 5;

export type Minute = {
  minute: string;
  published: number;
  delivered: number;
  acked: number;
  failed: number;
  ready: number | null;
  leased: number | null;
  hidden: number | null;
  oldest_ready_age_seconds: number | null;
};
/** Of one queue, a number a minute, oldest first. */
export type Trend = { queue_id: string; published: number[]; acked: number[] };

/** The day's minutes of one queue since a time. */
function prepareMinutes(db: Db) {
  const minutes = db.orm
    .$with("minutes", {
      known_queue: column<string>("known_queue"),
      minute: column<string | null>("minute"),
      published: column<number>("published"),
      delivered: column<number>("delivered"),
      acked: column<number>("acked"),
      failed: column<number>("failed"),
      ready: column<number | null>("ready"),
      leased: column<number | null>("leased"),
      hidden: column<number | null>("hidden"),
      oldest_ready_age_seconds: column<number | null>("oldest_ready_age_seconds"),
    })
    .as(sql`
      select queue.id as known_queue, row.*
      from ${queues} as queue
      left join lateral (
        select *
        from ${queue_minutes} as own
        where own.queue_no = queue.no and own.minute >= ${value("since")}::timestamptz
          and own.minute > now() - interval '24 hours'
      ) as row on true
      where queue.id = ${value("queue_id")}
      order by row.minute`);
  type Row = Omit<Minute, "minute"> & { known_queue: string; minute: string | null };
  return prepare<Row>(db.orm.with(minutes).select().from(minutes), "queue_minutes");
}

/** The last minutes of many queues, without the gaps. */
function prepareTrends(db: Db) {
  const trends = db.orm
    .$with("trends", {
      queue_id: column<string>("queue_id"),
      published: column<string>("published"),
      acked: column<string>("acked"),
    })
    .as(sql`
      select queue.id as queue_id, one.published, one.acked
      from unnest(${value("queue_ids")}::text[]) as given (id)
      cross join lateral (select * from ${queues} as own where own.id = given.id limit 1) as queue
      cross join lateral (
        select string_agg(coalesce(row.published, 0)::text, ',' order by at.minute) as published,
          string_agg(coalesce(row.acked, 0)::text, ',' order by at.minute) as acked
        from generate_series(
          date_trunc('minute', now()) - ${value("minutes")}::int * interval '1 minute',
          date_trunc('minute', now()) - interval '1 minute', interval '1 minute'
        ) as at (minute)
        left join ${queue_minutes} as row on row.queue_no = queue.no and row.minute = at.minute
      ) as one`);
  type Row = { queue_id: string; published: string; acked: string };
  return prepare<Row>(db.orm.with(trends).select().from(trends), "queue_trends");
}

/** What happened to each queue in every minute of the last day: written once a minute by the server that leads. */
export function createHistory(db: Db, { listDepths }: Depths) {
  const minutes = prepareMinutes(db);
  const trends = prepareTrends(db);
  const swept = db.orm.$with("swept", {}).as(sql`
    delete from ${queue_minutes} as old
    using ${queues} as queue
    where old.queue_no = queue.no and old.minute <= now() - interval '24 hours'`);
  // A count arrives up to some seconds after its minute. What is there already is final.
  const added = db.orm.$with("added", { queue_no: column<number>("queue_no") }).as(sql`
    insert into ${queue_minutes} as row (
      queue_no, minute, published, delivered, acked, failed, ready, leased, hidden, oldest_ready_age_seconds)
    select queue.no, at.minute, coalesce(rate.published, 0), coalesce(rate.delivered, 0), coalesce(rate.acked, 0),
      coalesce(rate.failed, 0), depth.ready, depth.leased, depth.hidden, depth.age
    from unnest(${value("queue_ids")}::text[], ${value("ready")}::int[], ${value("leased")}::int[],
      ${value("hidden")}::int[], ${value("ages")}::int[]) as given (id, ready, leased, hidden, age)
    cross join lateral (select * from ${queues} as own where own.id = given.id limit 1) as queue
    cross join (
      select date_trunc('minute', now() - interval '8 seconds') - n * interval '1 minute' as minute, n = 1 as is_last
      from generate_series(1, ${late_minutes}) as n
    ) as at
    left join ${rates} as rate on rate.queue_id = queue.id and rate.minute = at.minute
    -- The depth is that of now, so it belongs to the last minute only.
    left join lateral (
      select given.ready, given.leased, given.hidden, given.age where at.is_last
    ) as depth on true
    where rate.queue_id is not null or depth.ready + depth.leased + depth.hidden > 0
    on conflict (queue_no, minute) do nothing
    returning row.queue_no`);
  const add = db.orm.with(swept, added).select().from(added).prepare("add_queue_minutes");

  return {
    /** Writes the last full minute of every queue, and forgets what is older than a day. Repeatable. */
    async recordMinutes(): Promise<void> {
      const depths = await listDepths(queues_max, page_effort);
      const values = {
        queue_ids: depths.map(({ queue_id }) => queue_id),
        ready: depths.map(({ ready }) => ready),
        leased: depths.map(({ leased }) => leased),
        hidden: depths.map(({ delayed, backing_off }) => delayed + backing_off),
        ages: depths.map(({ oldest_ready_age_seconds }) => Math.floor(oldest_ready_age_seconds)),
      };
      await db.run("add_queue_minutes", () => add.execute(values), true);
    },

    /**
     * The minutes of a queue from `since` on, of the last day at most; empty ones may be missing. Throws
     * `queue_not_found`.
     */
    async getMinutes(queue_id: string, since: string): Promise<Minute[]> {
      const rows = await db.run("queue_minutes", () => minutes.execute({ queue_id, since }), true);
      if (rows.length === 0) throw new BrokerError("queue_not_found");
      return rows.flatMap(({ known_queue: _, minute, ...row }) =>
        minute === null ? [] : [{ minute: rfc3339(minute), ...row }],
      );
    },

    /** The last minutes of several queues, one number each; queues that do not exist are left out. */
    async listTrends(queue_ids: string[], count: number): Promise<Trend[]> {
      const rows = await db.run("queue_trends", () => trends.execute({ queue_ids, minutes: count }), true);
      const numbers = (text: string) => text.split(",").map(Number);
      return rows.map((row) => ({
        queue_id: row.queue_id,
        published: numbers(row.published),
        acked: numbers(row.acked),
      }));
    },
  };
}
