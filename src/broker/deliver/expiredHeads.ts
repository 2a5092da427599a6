import { sql } from "drizzle-orm";
import type { Db, Prepared } from "../../db/db.ts";
import { ordering_keys } from "../../db/orderingSchema.ts";
import { messages, queues } from "../../db/schema.ts";
import { keepLatest } from "../keepLatest.ts";
import { levels } from "../levels.ts";
import type { Settle } from "../settle/settle.ts";
import { column, prepare, value } from "../statement.ts";

// A receive without a label meets the expired head of an ordering key, ends it, and sees the next. One that asks for
// another label than the head's would never meet it: when it finds nothing, it looks for such heads.

/** Ready messages that one look passes. */
const scanned_rows_max = 1000;
/** Between two looks at a queue, with ordering keys or without. */
const ordered_ms = 200;
const unordered_ms = 60_000;
/** Queues that are remembered; one that is forgotten is looked at once more. */
const known_max = 10_000;

type Row = { is_dead_on_expiry: boolean; has_keys: boolean; id: string | null };

function prepareFind(db: Db): Prepared<Row[]> {
  const found = db.orm
    .$with("found", {
      is_dead_on_expiry: column<boolean>("is_dead_on_expiry"),
      has_keys: column<boolean>("has_keys"),
      id: column<string | null>("id"),
    })
    .as(sql`
      select queue.dead_letter_on_expiry and queue.dead_queue_no is not null as is_dead_on_expiry, key.has_keys, expired.id
      from (select * from ${queues} where id = ${value("queue_id")}) as queue
      cross join lateral (
        select (
          select true from ${ordering_keys} as key where key.queue_no = queue.no order by key.ordering_group limit 1
        ) is not null as has_keys
      ) as key
      left join lateral (
        select seen.id
        from ${levels}
        cross join lateral (
          select message.id, message.ordering_seq, message.expires_at, message.lease_expires_at
          from ${messages} as message
          where message.queue_no + 0 = queue.no and message.priority = level.priority and message.visible_at <= now()
            and key.has_keys
          order by message.visible_at, message.id collate "POSIX"
          limit ${scanned_rows_max}
        ) as seen
        where seen.ordering_seq is not null and seen.expires_at <= now() and coalesce(seen.lease_expires_at <= now(), true)
      ) as expired on true`);
  return prepare<Row>(db.orm.with(found).select().from(found), "find_expired_heads");
}

/** Ends expired heads of a queue's ordering keys; answers whether there were any. Looks only now and then. */
export function createExpiredHeads(db: Db, settle: Settle): (queue_id: string) => Promise<boolean> {
  const find = prepareFind(db);
  const next_look = new Map<string, number>();

  return async (queue_id) => {
    if ((next_look.get(queue_id) ?? 0) > performance.now()) return false;
    const rows = await db.run("find_expired_heads", () => find.execute({ queue_id }), true);
    keepLatest(next_look, queue_id, performance.now() + (rows[0]?.has_keys ? ordered_ms : unordered_ms), known_max);
    const expired = rows.flatMap(({ id }) => (id === null ? [] : [{ id, lease_token: null }]));
    if (expired.length === 0) return false;
    next_look.delete(queue_id);
    if (rows[0]?.is_dead_on_expiry) await settle.deadLetter(queue_id, expired, "expired");
    else await settle.expire(queue_id, expired);
    return true;
  };
}
