import { asc, sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { messages, queues, rates } from "../../db/schema.ts";
import { BrokerError } from "../../errors.ts";
import type { ScanFloors } from "../deliver/scanFloors.ts";
import { column, value } from "../statement.ts";
import {
  hidden_rows,
  key_rows,
  keys_seen_max,
  parked_rows,
  ready_messages,
  sample_factor,
  sample_share,
  sample_size,
  sampled_states,
} from "./states.ts";

/** Numbers up to this are exact; the scans along the receive index stop one later. */
const exact_max = 100_000;
/**
 * The metrics count so many entries of the index in all, divided among the queues, but a share of at least so many for
 * each: a scrape costs the same with ten queues of millions as with a thousand.
 */
const depth_entries = 500_000;
const depth_entries_min = 1000;

export type QueueStats = {
  num_undelivered_messages: number;
  oldest_unacked_message_age_seconds: number;
  ready: number;
  delayed: number;
  leased: number;
  backing_off: number;
  dead: number;
  oldest_ready_age_seconds: number;
  oldest_lease_age_seconds: number;
  publish_rate_1m: number;
  ack_rate_1m: number;
  blocked_keys: number;
  blocked_by_label: number;
  /** Only when it is so. */
  approximate?: true;
};

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

type Counted = {
  ready: number;
  ready_age: number;
  oldest_age: number;
  hidden: number;
  leased: number;
  delayed: number;
  backing_off: number;
  lease_age: number;
  dead: number;
  published: number;
  acked: number;
  parked: number;
  blocked_keys: number;
  blocked_by_label: number;
  keys_seen: number;
};

const whole = (name: string) => column<number>(name);

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

/** States of one queue, counted up to a cap. */
function prepareStats(db: Db) {
  const counted = db.orm
    .$with("counted", {
      ready: whole("ready"),
      ready_age: whole("ready_age"),
      oldest_age: whole("oldest_age"),
      hidden: whole("hidden"),
      leased: whole("leased"),
      delayed: whole("delayed"),
      backing_off: whole("backing_off"),
      lease_age: whole("lease_age"),
      dead: whole("dead"),
      published: whole("published"),
      acked: whole("acked"),
      parked: whole("parked"),
      blocked_keys: whole("blocked_keys"),
      blocked_by_label: whole("blocked_by_label"),
      keys_seen: whole("keys_seen"),
    })
    .as(sql`
      select ready.ready + parked.ready as ready,
        coalesce(floor(greatest(0, extract(epoch from now() - least(ready.ready_since, parked.ready_since)))), 0)::int
          as ready_age,
        coalesce(floor(greatest(0, extract(epoch from now() - least(ready.oldest_at, parked.oldest_at)))), 0)::int
          as oldest_age,
        hidden.hidden, hidden.leased + parked.leased as leased, hidden.delayed + parked.delayed as delayed,
        hidden.backing_off + parked.backing_off as backing_off, hidden.lease_age,
        ready.dead + hidden.dead + parked.dead as dead, parked.parked, own.blocked_keys, own.blocked_by_label,
        own.keys_seen,
        coalesce(rate.published, 0)::int as published, coalesce(rate.acked, 0)::int as acked
      from ${queues} as queue
      cross join lateral (
        select count(*)::int as ready, min(seen.visible_at) as ready_since, min(seen.created_at) as oldest_at,
          (count(*) filter (where seen.is_dead))::int as dead
        from (${ready_messages(sql`${value("floor")}::timestamptz`)}) as seen
      ) as ready
      cross join lateral (${hidden_rows}) as hidden
      cross join lateral (${parked_rows}) as parked
      cross join lateral (${key_rows}) as own
      left join lateral (
        select rate.published, rate.acked
        from ${rates} as rate
        where rate.queue_id = queue.id and rate.minute = date_trunc('minute', now()) - interval '1 minute'
        limit 1
      ) as rate on true
      where queue.id = ${value("queue_id")}`);
  return db.orm.with(counted).select().from(counted).prepare("queue_stats");
}

/** States of one queue in a sample of the table. */
function prepareSample(db: Db) {
  // Pages picked at random, so the share of the queue's states in them is their share in the table.
  const sampled = db.orm
    .$with("sampled", {
      factor: whole("factor"),
      ready: whole("ready"),
      leased: whole("leased"),
      delayed: whole("delayed"),
      backing_off: whole("backing_off"),
      dead: whole("dead"),
    })
    .as(sql`
      with size as ${sample_size}
      select ${sample_factor}, ${sampled_states},
        (count(*) filter (where message.dead is not null and message.expires_at > now()))::int as dead
      from ${messages} as message tablesample system (${sample_share})
      where message.queue_no = (select queue.no from ${queues} as queue where queue.id = ${value("queue_id")})`);
  return db.orm.with(sampled).select().from(sampled).prepare("sample_queue");
}

/** States of many queues, counted up to a cap. */
function prepareDepths(db: Db) {
  const depth = db.orm
    .$with("depth", {
      no: whole("no"),
      ready: whole("ready"),
      hidden: whole("hidden"),
      leased: whole("leased"),
      delayed: whole("delayed"),
      backing_off: whole("backing_off"),
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
      ready: whole("ready"),
      leased: whole("leased"),
      delayed: whole("delayed"),
      backing_off: whole("backing_off"),
    })
    .as(sql`
      with size as ${sample_size}
      select message.queue_no as no, ${sample_factor}, ${sampled_states}
      from ${messages} as message tablesample system (${sample_share})
      group by message.queue_no`);
  return db.orm.with(sampledDepth).select().from(sampledDepth).prepare("sample_depths");
}

/** Numbers about queues, each by a bounded scan along the receive index, never by counting all rows. */
export function createStats(db: Db, floorOf: ScanFloors["floorOf"]) {
  const stats = prepareStats(db);
  const sample = prepareSample(db);
  const depths = prepareDepths(db);
  const sampleDepths = prepareSampleDepths(db);
  const listNumbers = db.orm
    .select({ no: queues.no, queue_id: queues.id })
    .from(queues)
    .orderBy(asc(queues.id))
    .limit(value("limit"))
    .prepare("list_queue_numbers");

  /** What is beyond the exact count, estimated; what was counted to the end stays. */
  async function estimate(queue_id: string, row: Counted): Promise<Counted> {
    const [seen] = await db.run("sample_queue", () => sample.execute({ queue_id }), true);
    if (seen === undefined) return row;
    const of = (name: "ready" | "leased" | "delayed" | "backing_off" | "dead") =>
      Math.max(row[name], Math.round(seen[name] * seen.factor));
    const is_ready_exact = row.ready <= exact_max && row.parked <= exact_max;
    const is_hidden_exact = row.hidden <= exact_max && row.parked <= exact_max;
    return {
      ...row,
      ready: is_ready_exact ? row.ready : of("ready"),
      ...(!is_hidden_exact && { leased: of("leased"), delayed: of("delayed"), backing_off: of("backing_off") }),
      dead: of("dead"),
    };
  }

  return {
    /**
     * How many messages are in which state. Exact up to `exact_max` each; beyond it within some percent, and said so.
     * Throws `queue_not_found`.
     */
    async getStats(queue_id: string): Promise<QueueStats> {
      const values = { queue_id, cap: exact_max + 1, floor: floorOf(queue_id) };
      const [exact] = (await db.run("queue_stats", () => stats.execute(values), true)) as Counted[];
      if (exact === undefined) throw new BrokerError("queue_not_found");
      const is_approximate = exact.ready > exact_max || exact.hidden > exact_max || exact.parked > exact_max;
      const has_unseen_keys = exact.keys_seen === keys_seen_max;
      const row = is_approximate ? await estimate(queue_id, exact) : exact;
      return {
        num_undelivered_messages: row.ready,
        oldest_unacked_message_age_seconds: row.oldest_age,
        ready: row.ready,
        delayed: row.delayed,
        leased: row.leased,
        backing_off: row.backing_off,
        dead: row.dead,
        oldest_ready_age_seconds: row.ready_age,
        oldest_lease_age_seconds: row.lease_age,
        publish_rate_1m: row.published / 60,
        ack_rate_1m: row.acked / 60,
        blocked_keys: row.blocked_keys,
        blocked_by_label: row.blocked_by_label,
        ...((is_approximate || has_unseen_keys) && { approximate: true }),
      };
    },

    /** The first `queues_max` queues by id. The work is bounded, however many there are and whatever they hold. */
    async listDepths(queues_max: number): Promise<QueueDepth[]> {
      const found = await db.run("list_queue_numbers", () => listNumbers.execute({ limit: queues_max }), true);
      if (found.length === 0) return [];
      const cap = Math.min(exact_max, Math.max(depth_entries_min, Math.floor(depth_entries / found.length)));
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
    },
  };
}
