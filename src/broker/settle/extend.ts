import { sql } from "drizzle-orm";
import type { Db, Prepared } from "../../db/db.ts";
import { messages } from "../../db/schema.ts";
import { is_held } from "../heldRows.ts";
import { column, prepare, value } from "../statement.ts";
import { fenced, is_unchanged } from "./fenced.ts";
import { jitter_seed, notesDone } from "./nack.ts";

/** `seconds_left` null: extended. Otherwise what the longest lease of the queue leaves. */
export type ExtendRow = {
  n: string;
  lease_expires_at: string;
  seconds_left: number | null;
  label: string | null;
  ready_at: string;
};

/** Moves the end of leases; 0 seconds gives them back. */
export function prepareExtend(db: Db): Prepared<ExtendRow[]> {
  const found = db.orm.$with("fenced", {}).as(
    fenced({
      names: sql`seconds, keeps_token,`,
      arrays: sql`, ${value("seconds")}::int[], ${value("keeps_tokens")}::text[]::boolean[]`,
      settings: sql`retry_min_seconds, retry_max_seconds, retry_multiplier, retry_jitter, max_lease_seconds,
        allow_tokenless_extend, message_max_deliveries`,
      columns: sql`queue.retry_min_seconds, queue.retry_max_seconds, queue.retry_multiplier, queue.retry_jitter,
        queue.message_max_deliveries, found.delivery_attempts,
        -- What a lease may still get, when that is less than was asked for.
        case
          when given.seconds > 0 and queue.max_lease_seconds > 0 and found.leased_at is not null
            and found.leased_at + queue.max_lease_seconds * interval '1 second' < now() + given.seconds * interval '1 second'
            then floor(extract(epoch from found.leased_at + queue.max_lease_seconds * interval '1 second' - now()))::int
        end as seconds_left`,
      // Late is fine with the token of the last delivery, unless the message has expired meanwhile.
      where: sql`and (message.slot_key is null or given.seconds = 0) and case   -- the others: extend_slots
        when given.lease_token is not null then message.expires_at > now() or message.lease_expires_at > now()
        else queue.allow_tokenless_extend and ${is_held}
      end`,
    }),
  );
  // 0 releases: visible at once, the delivery stays counted, the token is spent unless it is asked to be kept: then the
  // lease has only run out, and until the next delivery its token still counts.
  const extended = db.orm.$with("extended", {}).as(sql`
    update ${messages} as message
    set lease_expires_at = case
        when fenced.seconds > 0 or fenced.keeps_token then now() + fenced.seconds * interval '1 second'
      end,
      lease_token = case when fenced.seconds > 0 or fenced.keeps_token then message.lease_token end,
      leased_at = case when fenced.seconds > 0 or fenced.keeps_token then message.leased_at end,
      visible_at = now() + fenced.seconds * interval '1 second' + case
        when fenced.seconds = 0 or fenced.retry_min_seconds = 0
          or fenced.delivery_attempts >= fenced.message_max_deliveries then interval '0'
        else psqlqueue.backoff_seconds(fenced.delivery_attempts, fenced.retry_min_seconds, fenced.retry_max_seconds,
          fenced.retry_multiplier, fenced.retry_jitter, ${jitter_seed}) * interval '1 second'
      end
    from fenced
    where ${is_unchanged} and fenced.seconds_left is null
    returning fenced.n, fenced.seconds, coalesce(message.lease_expires_at, now()) as lease_expires_at, message.label,
      message.visible_at as ready_at`);
  const answer = db.orm
    .$with("answer", {
      n: column<string>("n"),
      lease_expires_at: column<string>("lease_expires_at"),
      seconds_left: column<number | null>("seconds_left"),
      label: column<string | null>("label"),
      ready_at: column<string>("ready_at"),
    })
    .as(sql`
      select extended.n, extended.lease_expires_at, null::int as seconds_left, extended.label, extended.ready_at from extended
      union all
      select fenced.n, now(), greatest(0, fenced.seconds_left), null, now() from fenced where fenced.seconds_left is not null`);
  const noted = notesDone(db, sql`select extended.n from extended where extended.seconds = 0`);
  return prepare<ExtendRow>(db.orm.with(found, extended, noted, answer).select().from(answer), "extend");
}
