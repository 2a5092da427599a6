import { sql } from "drizzle-orm";
import type { Db, Prepared } from "../../db/db.ts";
import { messages, queues } from "../../db/schema.ts";
import { is_held } from "../heldRows.ts";
import { column, prepare, value } from "../statement.ts";
import { is_unchanged } from "./fenced.ts";

export type DeadReason = "max_deliveries" | "rejected" | "expired";

/** A message that was moved: where to, and when it is ready there. */
export type Buried = { dead_queue_id: string; label: string | null; ready_at: string };

/**
 * Moves messages to their queue's dead-letter queue: attempts restart at 0, retention with the target's, the token is
 * void. A null token means: only if nobody holds it, and if it still is what `reason` says.
 */
export function prepareDeadLetter(db: Db): Prepared<Buried[]> {
  const found = db.orm.$with("fenced", {}).as(sql`
    select found.tid, found.queue_no, found.id, found.token as found_token, found.delivery_attempts, found.last_error,
      given.queue_id, given.lease_token as given_token, dead.no as dead_no, dead.id as dead_queue_id,
      dead.message_retention_seconds
    from unnest(${value("queue_ids")}::text[], ${value("ids")}::text[], ${value("lease_tokens")}::text[]::bigint[])
      as given (queue_id, id, lease_token)
    cross join lateral (select * from ${queues} as queue where queue.id = given.queue_id limit 1) as source
    cross join lateral (select * from ${queues} as queue where queue.no = source.dead_queue_no limit 1) as dead
    cross join lateral (
      select message.ctid as tid, message.queue_no, message.id, message.lease_token as token, message.delivery_attempts,
        message.last_error
      from ${messages} as message
      where message.queue_no = source.no and message.id = given.id and message.ordering_seq is null
        and case
          when given.lease_token is not null then message.lease_token = given.lease_token
          when ${is_held} then false
          when ${value("reason")}::text = 'expired' then message.expires_at <= now()
          else message.delivery_attempts >= source.message_max_deliveries and message.expires_at > now()
        end
      limit 1
    ) as found
    order by found.tid`);
  const moved = db.orm
    .$with("moved", {
      dead_queue_id: column<string>("dead_queue_id"),
      label: column<string | null>("label"),
      ready_at: column<string>("ready_at"),
    })
    .as(sql`
      update ${messages} as message
      set queue_no = fenced.dead_no, delivery_attempts = 0, lease_token = null, leased_at = null, lease_expires_at = null,
        visible_at = now(), has_ttl = false,
        expires_at = now() + fenced.message_retention_seconds * interval '1 second',
        dead = psqlqueue.dead_letter(fenced.queue_id, ${value("reason")}, fenced.last_error, fenced.delivery_attempts),
        -- A lease that a receive took over is noted by that receive.
        events = psqlqueue.add_event(
          case
            when fenced.given_token is null and message.lease_token is not null
              then psqlqueue.add_event(message.events, 'lease_expired', fenced.delivery_attempts, null)
            else message.events
          end,
          'dead_lettered', fenced.delivery_attempts, ${value("reason")})
      from fenced
      where ${is_unchanged}
      returning fenced.dead_queue_id, message.label, message.visible_at as ready_at`);
  return prepare<Buried>(db.orm.with(found, moved).select().from(moved), "dead_letter");
}
