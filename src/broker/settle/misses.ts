import { sql } from "drizzle-orm";
import type { Db, Prepared } from "../../db/db.ts";
import { archived_messages, messages, publish_batches, queues } from "../../db/schema.ts";
import { column, prepare, value } from "../statement.ts";

// What an ack, nack or extend asks when its statement left items out. The happy path pays nothing for these answers.

/**
 * What has become of a message that was to be settled. `again`: it only lost a race. `ordered`: it has an ordering key.
 */
export type Reason =
  | "again"
  | "ordered"
  /** A first run of this statement, whose answer was lost, did it. */
  | "done"
  | "token_required"
  | "lease_lost"
  | "acked"
  | "archived"
  | "message_not_found"
  | "queue_not_found";
/** `n`: the place among the misses, from 1. */
export type Miss = { n: string; reason: Reason; now: string };

/** Why a call left an item out; `is_ordered`: the call for those with an ordering key, or a place of a capped queue. */
export function prepareExplain(db: Db): Prepared<Miss[]> {
  const misses = db.orm
    .$with("misses", {
      n: column<string>("n"),
      reason: column<Reason>("reason"),
      now: column<string>("now"),
    })
    .as(sql`
    select given.n, now() as now,
      case
        when given.place::text = any (batch.done) then 'done'
        when queue.no is null then 'queue_not_found'
        when given.lease_token is null and ${value("is_extend")}::text::boolean and not queue.allow_tokenless_extend
          then 'token_required'
        else coalesce((
          select case
            when message.lease_token is distinct from given.lease_token and given.lease_token is not null then 'lease_lost'
            when given.lease_token is not null and queue.strict_leases and message.lease_expires_at <= now()
              then 'lease_lost'
            when message.expires_at <= now() and coalesce(message.lease_expires_at <= now(), true) then 'archived'
            when not ${value("is_ordered")}::text::boolean and (message.ordering_seq is not null
              or message.slot_key is not null and ${value("is_extend")}::text::boolean) then 'ordered'
            -- Without a token only a live lease can be extended, and there is none.
            when given.lease_token is null and ${value("is_extend")}::text::boolean then 'lease_lost'
            -- The token of a message with an ordering key, which this is not.
            when ${value("is_ordered")}::text::boolean and message.ordering_seq is null
              and (message.slot_key is null or not ${value("is_extend")}::text::boolean) then 'lease_lost'
            else 'again'
          end
          from ${messages} as message
          where message.queue_no = queue.no and message.id = given.id
        ), (
          select case
            when past.outcome = 'acked' and past.lease_token = given.lease_token then 'acked'
            else 'archived'
          end
          from ${archived_messages} as past
          where past.queue_no = queue.no and past.id = given.id and past.expires_at > now()
          limit 1
        ), 'message_not_found')
      end as reason
    from unnest(
      ${value("queue_ids")}::text[], ${value("ids")}::text[], ${value("lease_tokens")}::text[]::bigint[],
      ${value("places")}::int[]
    ) with ordinality as given (queue_id, id, lease_token, place, n)
    left join lateral (select * from ${queues} as queue where queue.id = given.queue_id limit 1) as queue on true
    left join lateral (
      select string_to_array(batch.done, ',') as done from ${publish_batches} as batch
      where batch.id = ${value("batch_id")}
      limit 1
    ) as batch on true`);
  return prepare<Miss>(db.orm.with(misses).select().from(misses), "explain_misses");
}

/**
 * Which items' rows a transaction of somebody else has locked right now: `psqlqueue.ack` in one that stays open, say.
 * The sub-select without a lock tells a locked row from one that is not there.
 */
export function prepareFindHeld(db: Db): Prepared<{ n: string }[]> {
  const held = db.orm.$with("held", { n: column<string>("n") }).as(sql`
    select given.n
    from unnest(${value("queue_ids")}::text[], ${value("ids")}::text[]) with ordinality as given (queue_id, id, n)
    cross join lateral (select * from ${queues} as queue where queue.id = given.queue_id limit 1) as queue
    cross join lateral (
      select 1 as there
      from ${messages} as message
      where message.queue_no = queue.no and message.id = given.id
      limit 1
    ) as there
    left join lateral (
      select 1 as free
      from ${messages} as message
      where message.queue_no = queue.no and message.id = given.id
      for update skip locked
    ) as own on true
    where own.free is null`);
  return prepare<{ n: string }>(db.orm.with(held).select().from(held), "find_held");
}
