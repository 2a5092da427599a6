import { sql } from "drizzle-orm";
import type { Db, Prepared } from "../db/db.ts";
import { messages, queues } from "../db/schema.ts";
import { column, value } from "./sql.ts";
import { target } from "./target.ts";

/** A message that was let go: where it is now, and when it is ready there. */
export type Nacked = { n: string; ready_at: string; label: string | null; dead_queue_id: string | null };

/** Lets messages go: visible after a delay, or moved to the dead-letter queue when their deliveries are used up. */
export function prepareNack(db: Db): Prepared<Nacked[]> {
  const is_dead = sql`(
    queue.dead_queue_no is not null and (given.dead_letter or found.delivery_attempts >= queue.message_max_deliveries)
  )`;
  const found = db.orm.$with("target", {}).as(
    target({
      names: sql`seconds, error, dead_letter,`,
      arrays: sql`,
        ${value("seconds")}::int[], ${value("errors")}::text[], ${value("dead_letters")}::text[]::boolean[]`,
      columns: sql`queue.dead_queue_no, queue.retry_min_seconds, queue.retry_max_seconds, queue.retry_multiplier,
        queue.retry_jitter, found.delivery_attempts, ${is_dead} as is_dead`,
      where: sql`and (message.expires_at > now() or message.lease_token is not null and message.lease_expires_at > now())`,
    }),
  );
  // Retention of a dead message starts anew, with the dead-letter queue's.
  const dead = db.orm.$with("dead_queue", {}).as(sql`
    select target.n, queue.id, queue.message_retention_seconds
    from target
    cross join lateral (select * from ${queues} as queue where queue.no = target.dead_queue_no limit 1) as queue
    where target.is_dead`);
  const released = db.orm
    .$with("released", {
      n: column<string>("n"),
      ready_at: column<string>("ready_at"),
      label: column<string | null>("label"),
      dead_queue_id: column<string | null>("dead_queue_id"),
    })
    .as(sql`
      update ${messages} as message
      set lease_token = null, leased_at = null, lease_expires_at = null,
        last_error = coalesce(target.error, message.last_error),
        visible_at = case
          when target.is_dead then now()
          when target.seconds is not null then now() + target.seconds * interval '1 second'
          when target.retry_min_seconds = 0 then now()
          else now() + psqlqueue.backoff_seconds(target.delivery_attempts, target.retry_min_seconds,
            target.retry_max_seconds, target.retry_multiplier, target.retry_jitter) * interval '1 second'
        end,
        queue_no = case when target.is_dead then target.dead_queue_no else message.queue_no end,
        delivery_attempts = case when target.is_dead then 0 else message.delivery_attempts end,
        has_ttl = message.has_ttl and not target.is_dead,
        expires_at = case
          when target.is_dead then now() + dead_queue.message_retention_seconds * interval '1 second'
          else message.expires_at
        end,
        dead = case
          when target.is_dead then psqlqueue.dead_letter(target.queue_id,
            case when target.dead_letter then 'rejected' else 'max_deliveries' end,
            target.error, target.delivery_attempts)
          else message.dead
        end
      from target
      left join dead_queue on dead_queue.n = target.n
      where message.ctid = target.tid
      returning target.n, message.visible_at as ready_at, message.label, dead_queue.id as dead_queue_id`);
  return db.orm.with(found, dead, released).select().from(released).prepare("nack") as unknown as Prepared<Nacked[]>;
}

/** Gives back what nobody saw, as if it had not been delivered. */
export function prepareUnlease(db: Db): Prepared<{ label: string | null; ready_at: string }[]> {
  const found = db.orm.$with("target", {}).as(target({ names: sql``, arrays: sql``, columns: sql`null as nothing` }));
  const released = db.orm
    .$with("released", { label: column<string | null>("label"), ready_at: column<string>("ready_at") })
    .as(sql`
      update ${messages} as message
      set lease_token = null, leased_at = null, lease_expires_at = null, visible_at = now(),
        delivery_attempts = greatest(0, message.delivery_attempts - 1)
      from target
      where message.ctid = target.tid
      returning message.label, message.visible_at as ready_at`);
  return db.orm.with(found, released).select().from(released).prepare("unlease");
}
