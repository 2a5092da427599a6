import { sql } from "drizzle-orm";
import type { Db, Prepared } from "../../db/db.ts";
import { deduplications } from "../../db/dedupSchema.ts";
import { messages, queues } from "../../db/schema.ts";
import { DatabaseError } from "../../errors.ts";
import { column, prepare, value } from "../statement.ts";

// What was stored before, of messages that are duplicates.

/** `ordering_seq`: while the original is unfinished. */
type Original = { message_id: string; is_same_body: boolean; ordering_seq: string | null };

/** What tells of which message another is the duplicate. */
export type Claim = {
  queue_id: string;
  dedup_key: string | null;
  body_hash: string;
  ordering_key?: string | null;
};

/**
 * Under which id a duplicate's original lives: read after the statement that met it, which could not see its commit.
 */
function prepareOriginals(db: Db): Prepared<(Original & { n: string })[]> {
  const original = db.orm
    .$with("original", {
      n: column<string>("n"),
      message_id: column<string>("message_id"),
      is_same_body: column<boolean>("is_same_body"),
      ordering_seq: column<string | null>("ordering_seq"),
    })
    .as(sql`
      select given.n, seen.message_id, seen.body_hash = given.body_hash or not queue.dedup_strict as is_same_body,
        (
          select message.ordering_seq::text
          from ${messages} as message
          where message.queue_no = queue.no and message.id = seen.message_id
          limit 1
        ) as ordering_seq
      from unnest(
        ${value("queue_ids")}::text[], ${value("dedup_keys")}::text[], ${value("body_hashes")}::text[],
        ${value("ordering_keys")}::text[]
      ) with ordinality as given (queue_id, dedup_key, body_hash, ordering_key, n)
      cross join lateral (select * from ${queues} as queue where queue.id = given.queue_id limit 1) as queue
      cross join lateral (
        select old.message_id, old.body_hash
        from ${deduplications} as old
        where old.queue_no = queue.no and old.key = case
          when queue.dedup_scope = 'ordering_key' and given.ordering_key is not null
            then psqlqueue.scoped_key(coalesce(given.dedup_key, given.body_hash), given.ordering_key)
          else coalesce(given.dedup_key, given.body_hash)
        end
        limit 1
      ) as seen`);
  return prepare<Original & { n: string }>(db.orm.with(original).select().from(original), "find_originals");
}

/** Nothing was stored, and what stood in its way is gone: the same call may succeed. */
export const originalGone = (statement: string) => new DatabaseError("conflict", "ORIGINAL_GONE", statement);

/** Item i of the answer is the original of duplicate i; undefined when there is none. Rejects with DatabaseError. */
export function createOriginals(db: Db): (claims: Claim[]) => Promise<(Original | undefined)[]> {
  const originals = prepareOriginals(db);
  return async (claims) => {
    const asked = {
      queue_ids: claims.map(({ queue_id }) => queue_id),
      dedup_keys: claims.map(({ dedup_key }) => dedup_key),
      body_hashes: claims.map(({ body_hash }) => body_hash),
      ordering_keys: claims.map(({ ordering_key }) => ordering_key ?? null),
    };
    const found: (Original | undefined)[] = claims.map(() => undefined);
    for (const { n, ...original } of await db.run("find_originals", () => originals.execute(asked), true)) {
      found[Number(n) - 1] = original;
    }
    return found;
  };
}
