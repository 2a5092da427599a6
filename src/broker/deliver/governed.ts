import { sql } from "drizzle-orm";
import type { Db, Prepared } from "../../db/db.ts";
import { messages, queues } from "../../db/schema.ts";
import { keepLatest } from "../keepLatest.ts";
import { column, prepare, value } from "../statement.ts";
import type { LeaseRow } from "./lease.ts";

// Receives of queues with priorities, a cap on what is in flight, or a rate. The usual statement leases nothing of them
// and says so; from then on this server asks the other one.

export type Throttle = "in_flight" | "rate";

/** The first row has no id, and says how it went. */
export type GovernedRow = Omit<LeaseRow, "now" | "n"> & {
  /** A place or the rate is counted: messages that follow a head would pass by the count. */
  is_counted: boolean;
  throttled: Throttle | null;
  /** When it may be worth to ask again. */
  retry_ms: number | null;
  now: string;
};

/** The lease of a queue with priorities, a cap or a rate. */
export function prepareGoverned(db: Db): Prepared<GovernedRow[]> {
  const leased = db.orm
    .$with("leased", {
      now: column<string>("now"),
      is_governed: column<boolean>("is_governed"),
      is_counted: column<boolean>("is_counted"),
      throttled: column<Throttle | null>("throttled"),
      retry_ms: column<number | null>("retry_ms"),
      wait_seconds: column<number>("wait_seconds"),
      max_lease_seconds: column<number>("max_lease_seconds"),
      is_lease_too_long: column<boolean>("is_lease_too_long"),
      is_cut: column<boolean>("is_cut"),
      verdict: column<LeaseRow["verdict"]>("verdict"),
      was_leased: column<boolean>("was_leased"),
      bytes: column<number>("bytes"),
      id: column<string | null>("id"),
      label: column<string | null>("label"),
      body: column<string>("body"),
      attributes: column<string | null>("attributes"),
      delivery_attempts: column<number>("delivery_attempts"),
      created_at: column<string>("created_at"),
      lease_token: column<string>("lease_token"),
      lease_expires_at: column<string>("lease_expires_at"),
      ready_at: column<string>("ready_at"),
      last_error: column<string | null>("last_error"),
      dead: column<string | null>("dead"),
      expires_at: column<string | null>("expires_at"),
      ordering_key: column<string | null>("ordering_key"),
      priority: column<number>("priority"),
      ordering_seq: column<string | null>("ordering_seq"),
      first_leased_at: column<string>("first_leased_at"),
      extras: column<string | null>("extras"),
    })
    .as(sql`
      -- As the message was before this statement: what is read of it here does not change, but for its first lease.
      select now() as now, own.*, message.ordering_seq::text as ordering_seq, message.extras::text as extras,
        coalesce(message.first_leased_at, message.leased_at, now()) as first_leased_at
      from psqlqueue.lease_governed(
        ${value("queue_id")}::text, ${value("label")}::text, ${value("lease_seconds")}::int, ${value("limit")}::int,
        ${value("lease_tokens")}::text[]::bigint[], ${value("bytes_max")}::bigint, ${value("is_one_free")}::text::boolean
      ) as own
      left join lateral (
        select * from ${messages} as message
        where message.id = own.id
          and message.queue_no = (select queue.no from ${queues} as queue where queue.id = ${value("queue_id")}::text)
        limit 1
      ) as message on true`);
  return prepare<GovernedRow>(db.orm.with(leased).select().from(leased), "receive_governed");
}

/** Queues that are known to be governed at most; one that is forgotten costs a statement more. */
const known_max = 10_000;

/** Which queues need the other statement, as far as this process has seen; `onLearned`: it has seen that just now. */
export function createKnownGoverned(onLearned: (queue_id: string, is_governed: boolean) => void = () => {}) {
  const known = new Map<string, true>();
  const set = (queue_id: string, is_governed: boolean) => {
    if (is_governed) keepLatest(known, queue_id, true, known_max);
    else known.delete(queue_id);
  };
  return {
    has: (queue_id: string) => known.has(queue_id),
    set,
    learn(queue_id: string, is_governed: boolean) {
      if (known.has(queue_id) !== is_governed) onLearned(queue_id, is_governed);
      set(queue_id, is_governed);
    },
  };
}

export type KnownGoverned = ReturnType<typeof createKnownGoverned>;
