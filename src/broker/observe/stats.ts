import { sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { messages, queues, rates } from "../../db/schema.ts";
import { BrokerError } from "../../errors.ts";
import type { ScanFloors } from "../deliver/scanFloors.ts";
import { column, value } from "../statement.ts";
import { exact_max } from "./depths.ts";
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

/** Numbers about queues, each by a bounded scan along the receive index, never by counting all rows. */
export function createStats(db: Db, floorOf: ScanFloors["floorOf"]) {
  const stats = prepareStats(db);
  const sample = prepareSample(db);
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
  };
}
