import { and, eq, gte, lte, sql } from "drizzle-orm";
import type { Db, Prepared } from "../../db/db.ts";
import { messages, queues } from "../../db/schema.ts";
import { column, prepare, value } from "../statement.ts";

/** A message under a new lease. `attributes` is JSON text; times are RFC 3339. */
export type LeasedMessage = {
  id: string;
  label: string | null;
  body: string;
  attributes: string | null;
  delivery_attempts: number;
  created_at: string;
  lease_token: string;
  lease_expires_at: string;
  /** Of body and attributes. */
  bytes: number;
  /** The time at which it had become visible, and the time of this lease, as PostgreSQL says them. */
  ready_at: string;
  now: string;
  /** JSON text of where a dead-lettered message came from, or null. */
  dead: string | null;
  last_error: string | null;
  /** When the publisher's time to live ends; null when there is none. */
  expires_at: string | null;
  ordering_key: string | null;
  /** Of a queue that knows priorities. */
  priority?: number;
  /** Where it stands in its key: rises with publication. Null without a key. */
  ordering_seq: string | null;
  /** Of its first delivery; as PostgreSQL says it. */
  first_leased_at: string;
  /** JSON text that the publisher's edge keeps with it, or null. */
  extras: string | null;
};

/** What is to become of a leased row: only `ready` ones go to a consumer. */
export type Verdict = "ready" | "expired" | "dead" | "dead_expired";

/**
 * A message under a lease, with its verdict; or, without an id, the row that says what the queue is like and how it
 * went: the only one with `now` and the settings of the queue.
 */
export type LeaseRow = {
  wait_seconds: number;
  max_lease_seconds: number;
  is_lease_too_long: boolean;
  /** It has priorities, a cap or a rate: leased by the statement of governed.ts, and by no other. */
  is_governed: boolean;
  /** Bytes and not rows ended the claim: more is ready. */
  is_cut: boolean;
  verdict: Verdict;
  /** Its last lease ran out: nobody acked, nacked or gave it back. */
  was_leased: boolean;
  /** Its place among those that became ready, which is not always the place of its row. */
  n: number;
  id: string | null;
  /** Null: this lease is the first. */
  first_leased_at: string | null;
} & Omit<LeasedMessage, "id" | "first_leased_at">;

/** How long a receive has at least to end or dead-letter what it met. */
const put_away_seconds = 5;

/** The queue, with what the call asks for instead of its settings. */
function withQueue({ orm }: Db) {
  const asked = sql`${value("lease_seconds")}::int`;
  return orm.$with("queue").as(
    orm
      .select({
        no: queues.no,
        lease_seconds: sql<number>`coalesce(${asked}, ${queues.ack_deadline_seconds})`.as("lease_seconds"),
        deliveries_max: sql<number>`coalesce(${queues.message_max_deliveries}, 2147483647)`.as("deliveries_max"),
        is_dead_on_expiry: sql<boolean>`(${queues.dead_letter_on_expiry} and ${queues.dead_queue_no} is not null)`.as(
          "is_dead_on_expiry",
        ),
        retry_min_seconds: queues.retry_min_seconds,
        retry_max_seconds: queues.retry_max_seconds,
        retry_multiplier: queues.retry_multiplier,
        retry_jitter: queues.retry_jitter,
        receive_wait_seconds: queues.receive_wait_seconds,
        max_lease_seconds: queues.max_lease_seconds,
        consume_paused: queues.consume_paused,
        is_governed: queues.is_governed,
        // Of a time asked for by this call only; the queue's own deadline is not bounded.
        is_lease_too_long: sql<boolean>`(
          ${asked} > ${queues.max_lease_seconds} and ${queues.max_lease_seconds} > 0
        ) is true`.as("is_lease_too_long"),
      })
      .from(queues)
      .where(eq(queues.id, value("queue_id"))),
  );
}

/** Ready rows in the order in which they became visible, locked one by one as they are taken. */
function candidatesOf({ orm }: Db, queue: ReturnType<typeof withQueue>, is_labelled: boolean) {
  return (
    orm
      .select({
        tid: sql<string>`${messages}.ctid`.as("tid"),
        visible_at: messages.visible_at,
        delivery_attempts: messages.delivery_attempts,
        expires_at: messages.expires_at,
        was_leased: sql<boolean>`${messages.lease_token} is not null`.as("was_leased"),
        // Read from the headers of the values, which are not fetched. What little attributes compress to is not worth
        // their text.
        bytes: sql<number>`octet_length(${messages.body}) + case
        when pg_column_size(${messages.attributes}) > 500 then octet_length(${messages.attributes}::text)
        else coalesce(pg_column_size(${messages.attributes}), 0)
      end + case
        when pg_column_size(${messages.extras}) > 500 then octet_length(${messages.extras}::text)
        else coalesce(pg_column_size(${messages.extras}), 0)
      end`.as("bytes"),
      })
      .from(messages)
      .where(
        and(
          sql`${messages.queue_no} + 0 = ${queue.no}`, // as the receive index has it
          // A text of its own, never `label is null or …`: the planner would lose the index.
          is_labelled ? eq(messages.label, value("label")) : undefined,
          eq(messages.priority, sql`0`),
          gte(messages.visible_at, sql`${value("floor")}::timestamptz`),
          lte(messages.visible_at, sql`now()`),
        ),
      )
      .orderBy(messages.visible_at, sql`${messages.id} collate "POSIX"`)
      .limit(value("limit"))
      // Without skip locked, receives of one queue run one after the other.
      .for("update", { skipLocked: true })
      .as("candidate")
  );
}

/** The statement of a claim, with a label filter or without. It only leases, and names what must not be delivered. */
export function prepareLease(db: Db, name: string, is_labelled: boolean): Prepared<LeaseRow[]> {
  const { orm } = db;
  const queue = withQueue(db);
  const candidate = candidatesOf(db, queue, is_labelled);
  const pick = orm.$with("pick").as(
    orm
      .select({
        tid: candidate.tid,
        ready_at: sql<string>`${candidate.visible_at}`.as("ready_at"),
        attempts_before: sql<number>`${candidate.delivery_attempts}`.as("attempts_before"),
        was_leased: candidate.was_leased,
        bytes: candidate.bytes,
        // Both over one window, which is one step. Those before it, and itself.
        n: sql<number>`row_number() over (rows unbounded preceding)`.as("n"),
        bytes_so_far: sql<number>`sum(${candidate.bytes}) over (rows unbounded preceding)`.as("bytes_so_far"),
        // What the update needs of the queue, so that it need not look at it again for every message.
        deliveries_max: queue.deliveries_max,
        is_dead_on_expiry: queue.is_dead_on_expiry,
        retry_min_seconds: queue.retry_min_seconds,
        retry_max_seconds: queue.retry_max_seconds,
        retry_multiplier: queue.retry_multiplier,
        retry_jitter: queue.retry_jitter,
        // What must not be delivered is held until it has been put away, also when the consumer hides nothing.
        lease_seconds: sql<number>`case
          when ${candidate.expires_at} > now() and ${candidate.delivery_attempts} < ${queue.deliveries_max}
            then ${queue.lease_seconds}
          else greatest(${queue.lease_seconds}, ${put_away_seconds})
        end`.as("lease_seconds"),
      })
      .from(queue)
      .crossJoinLateral(candidate)
      .where(sql`not ${queue.consume_paused} and not ${queue.is_lease_too_long} and not ${queue.is_governed}`),
  );
  const is_within = sql`(
    pick.bytes_so_far <= ${value("bytes_max")}::bigint or pick.n = 1 and ${value("is_one_free")}::text::boolean
  )`;
  // Changed by ctid: a row found in the statement is not looked up again. It only leases: what must not be delivered is
  // leased too, and named. A crash before the server has ended it costs one lease time. The backoff is added now, so
  // that no job is needed when the lease runs out.
  const leased = orm.$with("leased", {}).as(sql`
    update ${messages} as message
    -- A sub-select, so that the list is cast once and not for every row of it.
    set lease_token = (select ${value("lease_tokens")}::text[]::bigint[])[pick.n],
      leased_at = now(),
      first_leased_at = coalesce(message.first_leased_at, message.leased_at, now()),
      lease_expires_at = now() + pick.lease_seconds * interval '1 second',
      visible_at = case
        -- After its last lease it waits for no other.
        when pick.retry_min_seconds = 0 or message.delivery_attempts + 1 >= pick.deliveries_max
          then now() + pick.lease_seconds * interval '1 second'
        else least(
          now() + pick.lease_seconds * interval '1 second' + psqlqueue.backoff_seconds(message.delivery_attempts + 1,
            pick.retry_min_seconds, pick.retry_max_seconds, pick.retry_multiplier, pick.retry_jitter,
            (select ${value("lease_tokens")}::text[]::bigint[])[pick.n]) * interval '1 second',
          -- Expired, the head of a key blocks it no longer.
          case
            when message.ordering_seq is not null
              then greatest(message.expires_at, now() + pick.lease_seconds * interval '1 second')
          end
        )
      end,
      events = case
        when message.lease_token is null then message.events
        else psqlqueue.add_event(message.events, 'lease_expired', message.delivery_attempts, null)
      end,
      delivery_attempts = message.delivery_attempts
        + (message.expires_at > now() and message.delivery_attempts < pick.deliveries_max)::int
    from pick
    where message.ctid = pick.tid and ${is_within}
    returning message.id, message.label, message.body, message.attributes::text as attributes, message.delivery_attempts,
      message.created_at, message.lease_token, message.lease_expires_at, message.last_error, message.dead::text as dead,
      case when message.has_ttl then message.expires_at end as expires_at, message.ordering_key,
      message.ordering_seq::text as ordering_seq, nullif(message.first_leased_at, now()) as first_leased_at,
      message.extras::text as extras, pick.ready_at, pick.was_leased, pick.bytes, pick.n::int as n,
      case
        when message.expires_at <= now() then case when pick.is_dead_on_expiry then 'dead_expired' else 'expired' end
        when pick.attempts_before >= pick.deliveries_max then 'dead'
        else 'ready'
      end as verdict`);
  // One row says that the queue exists, and what time it is: writing and reading a time costs as much as all else of a
  // row.
  const answer = orm
    .$with("answer", {
      now: column<string>("now"),
      wait_seconds: column<number>("wait_seconds"),
      max_lease_seconds: column<number>("max_lease_seconds"),
      is_lease_too_long: column<boolean>("is_lease_too_long"),
      is_governed: column<boolean>("is_governed"),
      is_cut: column<boolean>("is_cut"),
      verdict: column<Verdict>("verdict"),
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
      ordering_seq: column<string | null>("ordering_seq"),
      first_leased_at: column<string | null>("first_leased_at"),
      extras: column<string | null>("extras"),
      n: column<number>("n"),
    })
    .as(sql`
      select now() as now, queue.receive_wait_seconds as wait_seconds, queue.max_lease_seconds, queue.is_lease_too_long,
        queue.is_governed, (select coalesce(bool_or(not ${is_within}), false) from pick) as is_cut, leased.*
      from queue
      left join leased on false   -- its columns, without a message
      union all
      select null, null, null, null, null, null, leased.*
      from leased`);
  return prepare<LeaseRow>(orm.with(queue, pick, leased, answer).select().from(answer), name);
}
