import { type SQL, sql } from "drizzle-orm";
import type { Db, Prepared } from "../../db/db.ts";
import { messages, publish_batches, queues } from "../../db/schema.ts";
import { is_held } from "../heldRows.ts";
import { column, prepare, value } from "../statement.ts";
import { fenced, is_unchanged } from "./fenced.ts";

/** A message that was let go: where it is now, and when it is ready there. */
export type Nacked = { n: string; ready_at: string; label: string | null; dead_queue_id: string | null };

/** A random number for the jitter of a backoff: the token is one, and of a message without a token its id will do. */
export const jitter_seed = sql`coalesce(message.lease_token, hashtextextended(message.id, message.delivery_attempts))`;

/**
 * Remembers which items a statement let go, in the row of its batch id. Their tokens are spent, so when the statement
 * is sent again after a lost connection, only this tells what its first run did from a lease that was lost. Without a
 * batch id nobody will ask.
 */
export const notesDone = (db: Db, done: SQL) =>
  db.orm.$with("noted", {}).as(sql`
    insert into ${publish_batches} as batch (id, done)
    select ${value("batch_id")}, string_agg(done.n::text, ',') from (${done}) as done
    having count(*) > 0 and ${value("batch_id")}::text is not null
    on conflict (id) do update set done = concat_ws(',', batch.done, excluded.done)`);

/** Lets messages go: visible after a delay, or moved to the dead-letter queue when their deliveries are used up. */
export function prepareNack(db: Db): Prepared<Nacked[]> {
  const is_dead = sql`(
    queue.dead_queue_no is not null and (given.dead_letter or found.delivery_attempts >= queue.message_max_deliveries)
  )`;
  // Looked up for each item: a join to a list of them compares every item with every other.
  const of_dead_queue = (name: string) =>
    sql`select dead.${sql.identifier(name)} from ${queues} as dead where dead.no = queue.dead_queue_no`;
  const found = db.orm.$with("fenced", {}).as(
    fenced({
      names: sql`seconds, error, dead_letter,`,
      arrays: sql`,
        ${value("seconds")}::int[], ${value("errors")}::text[], ${value("dead_letters")}::text[]::boolean[]`,
      settings: sql`dead_queue_no, message_max_deliveries, retry_min_seconds, retry_max_seconds, retry_multiplier,
        retry_jitter`,
      columns: sql`queue.dead_queue_no, queue.retry_min_seconds, queue.retry_max_seconds, queue.retry_multiplier,
        queue.retry_jitter, found.delivery_attempts, ${is_dead} as is_dead,
        case when ${is_dead} then (${of_dead_queue("id")}) end as dead_queue_id,
        case when ${is_dead} then (${of_dead_queue("message_retention_seconds")}) end as dead_retention_seconds`,
      where: sql`
        and (message.expires_at > now() or ${is_held})`,
    }),
  );
  // A message that nobody holds has not failed.
  const failed = sql`case
    when message.lease_token is null then message.events
    else psqlqueue.add_event(message.events, 'nacked', fenced.delivery_attempts, fenced.error)
  end`;
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
        last_error = coalesce(fenced.error, message.last_error),
        visible_at = case
          when fenced.is_dead then now()
          when fenced.seconds is not null then now() + fenced.seconds * interval '1 second'
          when fenced.retry_min_seconds = 0 then now()
          else now() + psqlqueue.backoff_seconds(fenced.delivery_attempts, fenced.retry_min_seconds,
            fenced.retry_max_seconds, fenced.retry_multiplier, fenced.retry_jitter, ${jitter_seed}
          ) * interval '1 second'
        end,
        queue_no = case when fenced.is_dead then fenced.dead_queue_no else message.queue_no end,
        delivery_attempts = case when fenced.is_dead then 0 else message.delivery_attempts end,
        has_ttl = message.has_ttl and not fenced.is_dead,
        expires_at = case
          -- Retention of a dead message starts anew, with the dead-letter queue's.
          when fenced.is_dead then now() + fenced.dead_retention_seconds * interval '1 second'
          else message.expires_at
        end,
        dead = case
          when fenced.is_dead then psqlqueue.dead_letter(fenced.queue_id,
            case when fenced.dead_letter then 'rejected' else 'max_deliveries' end,
            fenced.error, fenced.delivery_attempts)
          else message.dead
        end,
        events = case
          when fenced.is_dead then psqlqueue.add_event(${failed}, 'dead_lettered', fenced.delivery_attempts,
            case when fenced.dead_letter then 'rejected' else 'max_deliveries' end)
          else ${failed}
        end
      from fenced
      where ${is_unchanged}
      returning fenced.n, message.visible_at as ready_at, message.label, fenced.dead_queue_id`);
  const noted = notesDone(db, sql`select released.n from released`);
  return prepare<Nacked>(db.orm.with(found, released, noted).select().from(released), "nack");
}
