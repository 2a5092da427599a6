import { asc, sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { messages, queues } from "../../db/schema.ts";
import type { ScanFloors } from "../deliver/scanFloors.ts";
import { column, value } from "../statement.ts";
import {
  hidden_rows,
  parked_rows,
  ready_messages,
  sample_factor,
  sample_share,
  sample_size,
  sampled_states,
} from "./states.ts";

/** Numbers up to this are exact; the scans along the receive index stop one later. */
export const exact_max = 100_000;
/**
 * So many entries of the index are counted in all, divided among the queues, but a share of at least so many for each:
 * it costs the same with ten queues of millions as with a thousand.
 */
type Effort = { entries: number; entries_min: number };
/** What the metrics take. */
export const metrics_effort: Effort = { entries: 500_000, entries_min: 1000 };
/** Less than the metrics take: a page asks every few seconds, and on the embedded database everybody waits for it. */
export const page_effort: Effort = { entries: 100_000, entries_min: 100 };

/** States of one queue for the metrics: exact up to the queue's share of the work, estimated beyond. */
export type QueueDepth = {
  queue_id: string;
  ready: number;
  leased: number;
  delayed: number;
  backing_off: number;
  oldest_ready_age_seconds: number;
};

type States = Pick<QueueDepth, "ready" | "leased" | "delayed" | "backing_off">;
type CountedDepth = States & { no: number; hidden: number; oldest_ready_age_seconds: number };
type SampledDepth = States & { no: number; factor: number };

const whole = (name: string) => column<number>(name);
const state_columns = () => ({
  ready: whole("ready"),
  leased: whole("leased"),
  delayed: whole("delayed"),
  backing_off: whole("backing_off"),
});

/** What was counted to its end stays; what was not is the estimate of a sample. */
function depthOf(
  { no: _, hidden, oldest_ready_age_seconds, ...row }: CountedDepth,
  sample: SampledDepth | undefined,
  cap: number,
): Omit<QueueDepth, "queue_id"> {
  const of = (name: keyof States, is_counted: boolean) =>
    is_counted || sample === undefined ? row[name] : Math.max(row[name], Math.round(sample[name] * sample.factor));
  return {
    ready: of("ready", row.ready < cap),
    leased: of("leased", hidden < cap),
    delayed: of("delayed", hidden < cap),
    backing_off: of("backing_off", hidden < cap),
    oldest_ready_age_seconds,
  };
}

/** States of many queues, counted up to a cap. */
function prepareDepths(db: Db) {
  const depth = db.orm
    .$with("depth", {
      no: whole("no"),
      hidden: whole("hidden"),
      ...state_columns(),
      oldest_ready_age_seconds: whole("oldest_ready_age_seconds"),
    })
    .as(sql`
      select queue.no, ready.count + parked.ready as ready, greatest(hidden.hidden, parked.parked) as hidden,
        hidden.leased + parked.leased as leased, hidden.delayed + parked.delayed as delayed,
        hidden.backing_off + parked.backing_off as backing_off,
        coalesce(greatest(0, extract(epoch from now() - least(ready.since, parked.ready_since))), 0)::float8
          as oldest_ready_age_seconds
      from unnest(${value("nos")}::int[], ${value("floors")}::text[]::timestamptz[]) as given (no, floor)
      cross join lateral (select * from ${queues} as queue where queue.no = given.no limit 1) as queue
      cross join lateral (
        select count(*)::int as count, min(seen.visible_at) as since
        from (${ready_messages(sql`given.floor`)}) as seen
      ) as ready
      cross join lateral (${hidden_rows}) as hidden
      cross join lateral (${parked_rows}) as parked`);
  return db.orm.with(depth).select().from(depth).prepare("queue_depths");
}

/** States of all queues in a sample of the table. */
function prepareSampleDepths(db: Db) {
  const sampledDepth = db.orm
    .$with("sampled_depth", {
      no: whole("no"),
      factor: whole("factor"),
      ...state_columns(),
    })
    .as(sql`
      with size as ${sample_size}
      select message.queue_no as no, ${sample_factor}, ${sampled_states}
      from ${messages} as message tablesample system (${sample_share})
      group by message.queue_no`);
  return db.orm.with(sampledDepth).select().from(sampledDepth).prepare("sample_depths");
}

/** Queues of which the age of the oldest message is asked together, at most: one look into the index for each. */
const others_max = 10_000;

type OtherDepths = States & { factor: number; oldest_ready_age_seconds: number; has_any: boolean };

/** The states of all queues after one, together: of a sample of the table, which is all of it while that is small. */
function prepareOtherDepths(db: Db) {
  const otherDepths = db.orm
    .$with("other_depths", {
      has_any: column<boolean>("has_any"),
      oldest_ready_age_seconds: whole("oldest_ready_age_seconds"),
      factor: whole("factor"),
      ...state_columns(),
    })
    .as(sql`
      with size as ${sample_size}, other as materialized (
        select no, id, has_priorities, is_governed from ${queues} as queue
        where queue.id > ${value("after")}
        order by queue.id
        limit ${others_max}
      )
      select exists (select from other) as has_any,
        (
          select coalesce(greatest(0, extract(epoch from now() - min(first.visible_at))), 0)::float8
          from other as queue
          cross join lateral (${ready_messages(sql`'-infinity'::timestamptz`)}) as first
        ) as oldest_ready_age_seconds,
        ${sample_factor}, ${sampled_states}
      from ${messages} as message tablesample system (${sample_share})
      where message.queue_no in (select queue.no from ${queues} as queue where queue.id > ${value("after")})`);
  return db.orm.with(otherDepths).select().from(otherDepths).prepare("other_depths");
}

export type Depths = {
  /** Of the queues asked for; one that is gone is left out. */
  depthsOf(queues: { no: number; queue_id: string }[], effort: Effort): Promise<QueueDepth[]>;
  /** The first `queues_max` queues by id. The work is bounded, however many there are and whatever they hold. */
  listDepths(queues_max: number, effort: Effort): Promise<QueueDepth[]>;
  /** Of all queues with a greater id together, estimated where they hold much; undefined when there are none. */
  sumDepthsAfter(queue_id: string): Promise<Omit<QueueDepth, "queue_id"> | undefined>;
};

/** The states of many queues at once: for the metrics, for lists and for charts. */
export function createDepths(db: Db, floorOf: ScanFloors["floorOf"]): Depths {
  const depths = prepareDepths(db);
  const sampleDepths = prepareSampleDepths(db);
  const otherDepths = prepareOtherDepths(db);
  const listNumbers = db.orm
    .select({ no: queues.no, queue_id: queues.id })
    .from(queues)
    .orderBy(asc(queues.id))
    .limit(value("limit"))
    .prepare("list_queue_numbers");

  async function depthsOf(found: { no: number; queue_id: string }[], { entries, entries_min }: Effort) {
    if (found.length === 0) return [];
    const cap = Math.min(exact_max, Math.max(entries_min, Math.floor(entries / found.length)));
    const asked = { nos: found.map(({ no }) => no), floors: found.map(({ queue_id }) => floorOf(queue_id)), cap };
    const counted = (await db.run("queue_depths", () => depths.execute(asked), true)) as CountedDepth[];
    const counted_of = new Map(counted.map((row) => [row.no, row]));
    const has_more = counted.some(({ ready, hidden }) => ready === cap || hidden === cap);
    const samples = has_more ? await db.run("sample_depths", () => sampleDepths.execute(), true) : [];
    const sample_of = new Map((samples as SampledDepth[]).map((sample) => [sample.no, sample]));
    return found.flatMap(({ no, queue_id }) => {
      const row = counted_of.get(no);
      return row === undefined ? [] : [{ queue_id, ...depthOf(row, sample_of.get(no), cap) }];
    });
  }

  return {
    depthsOf,
    async listDepths(queues_max, effort) {
      const found = await db.run("list_queue_numbers", () => listNumbers.execute({ limit: queues_max }), true);
      return await depthsOf(found, effort);
    },
    async sumDepthsAfter(queue_id) {
      const asked = { after: queue_id, cap: 1 };
      const [row] = (await db.run("other_depths", () => otherDepths.execute(asked), true)) as OtherDepths[];
      if (row === undefined || !row.has_any) return undefined;
      const { factor, oldest_ready_age_seconds } = row;
      const of = (name: keyof States) => Math.round(row[name] * factor);
      return {
        ready: of("ready"),
        leased: of("leased"),
        delayed: of("delayed"),
        backing_off: of("backing_off"),
        oldest_ready_age_seconds,
      };
    },
  };
}
