import { sql } from "drizzle-orm";
import type { Db, Prepared } from "../../db/db.ts";
import { deduplications } from "../../db/dedupSchema.ts";
import { messages, queues } from "../../db/schema.ts";
import { DatabaseError } from "../../errors.ts";
import { keepLatest } from "../keepLatest.ts";
import { column, prepare, value } from "../statement.ts";
import { differs, scoped } from "./dedup.ts";
import type { Form } from "./sealing.ts";

// What was stored before, of messages that are duplicates.

const contentless_max = 10_000;
const contentless_ms = 1000;

/** `ordering_seq`: while the original is unfinished. */
export type Original = { message_id: string; is_same_body: boolean; ordering_seq: string | null };

/** What tells of which message another is the duplicate. */
export type Claim = Pick<Form, "dedup_key" | "content_key" | "old_key" | "body_hash"> & {
  queue_id: string;
  ordering_key?: string | null;
};

/** `key`: equal within a queue for all that are duplicates of each other. `original`: if one was stored. */
type Known = { key: string; original: Original | undefined };

const ordering_key = sql`given.ordering_key`;
const given = sql`
  unnest(
    ${value("queue_ids")}::text[], ${value("dedup_keys")}::text[], ${value("content_keys")}::text[],
    ${value("old_keys")}::text[], ${value("body_hashes")}::text[], ${value("ordering_keys")}::text[]
  ) with ordinality as given (queue_id, dedup_key, content_key, old_key, body_hash, ordering_key, n)
  cross join lateral (select * from ${queues} as queue where queue.id = given.queue_id limit 1) as queue
  cross join lateral (
    select ${scoped(sql`coalesce(given.dedup_key, given.content_key)`, ordering_key)} as key,
      case when given.old_key is not null then ${scoped(sql`given.old_key`, ordering_key)} end as old_key
  ) as own`;

/** Of a row of `seen`. */
const is_same_body = sql`not (${differs(sql`seen.body_hash`, sql`given.body_hash`)} and queue.dedup_strict)`;
const ordering_seq = sql`(
  select message.ordering_seq::text
  from ${messages} as message
  where message.queue_no = queue.no and message.id = seen.message_id
  limit 1
)`;

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
      select given.n, seen.message_id, ${is_same_body} as is_same_body, ${ordering_seq} as ordering_seq
      from ${given}
      cross join lateral (
        select old.message_id, old.body_hash
        from ${deduplications} as old
        where old.queue_no = queue.no and old.key in (own.key, own.old_key)
        order by old.created_at desc
        limit 1
      ) as seen`);
  return prepare<Original & { n: string }>(db.orm.with(original).select().from(original), "find_originals");
}

type KnownRow = {
  n: string;
  key: string;
  message_id: string | null;
  is_same_body: boolean;
  ordering_seq: string | null;
};

/** A row for each that can be a duplicate: with what was stored before, if it was, and its window is not over. */
function prepareKnown(db: Db): Prepared<KnownRow[]> {
  const known = db.orm
    .$with("known", {
      n: column<string>("n"),
      key: column<string>("key"),
      message_id: column<string | null>("message_id"),
      is_same_body: column<boolean>("is_same_body"),
      ordering_seq: column<string | null>("ordering_seq"),
    })
    .as(sql`
      select given.n, own.key, seen.message_id, coalesce(${is_same_body}, true) as is_same_body,
        ${ordering_seq} as ordering_seq
      from ${given}
      left join lateral (
        select old.message_id, old.body_hash
        from ${deduplications} as old
        where old.queue_no = queue.no and old.key in (own.key, own.old_key)
          and old.created_at > now() - queue.dedup_window_seconds * interval '1 second'
        order by old.created_at desc
        limit 1
      ) as seen on true
      where queue.dedup_window_seconds > 0 and (given.dedup_key is not null or queue.content_dedup)`);
  return prepare<KnownRow>(db.orm.with(known).select().from(known), "find_known");
}

/** Of a batch of which another item was refused: nothing of it was stored. */
export const keptBack = (statement: string) => new DatabaseError("conflict", "KEPT_BACK", statement);

/** Nothing was stored, and what stood in its way is gone: the same call may succeed. */
export const originalGone = (statement: string) => new DatabaseError("conflict", "ORIGINAL_GONE", statement);

const columnsOf = (claims: Claim[]) => ({
  queue_ids: claims.map(({ queue_id }) => queue_id),
  dedup_keys: claims.map(({ dedup_key }) => dedup_key),
  content_keys: claims.map(({ content_key }) => content_key),
  old_keys: claims.map(({ old_key }) => old_key),
  body_hashes: claims.map(({ body_hash }) => body_hash),
  ordering_keys: claims.map(({ ordering_key }) => ordering_key ?? null),
});

export type Originals = {
  /** Item i of the answer is what was stored for duplicate i, however long ago; undefined: nothing. */
  find(claims: Claim[]): Promise<(Original | undefined)[]>;
  /** Which may be duplicates, of each other too. undefined: one that cannot. */
  findKnown(claims: Claim[]): Promise<(Known | undefined)[]>;
};

/** Looks for originals on one database. Rejects with DatabaseError. */
export function createOriginals(db: Db): Originals {
  const originals = prepareOriginals(db);
  const known = prepareKnown(db);
  /** Until when a queue is believed not to look at contents: one that is full is to refuse without a statement. */
  const contentless = new Map<string, number>();
  const isContentless = ({ queue_id, dedup_key }: Claim) =>
    dedup_key === null && (contentless.get(queue_id) ?? 0) > performance.now();

  return {
    async find(claims) {
      const found: (Original | undefined)[] = claims.map(() => undefined);
      const rows = await db.run("find_originals", () => originals.execute(columnsOf(claims)), true);
      for (const { n, ...original } of rows) found[Number(n) - 1] = original;
      return found;
    },
    async findKnown(claims) {
      const found: (Known | undefined)[] = claims.map(() => undefined);
      const places = [...claims.keys()].filter((i) => !isContentless(claims[i] as Claim));
      if (places.length === 0) return found;
      const asked = places.map((i) => claims[i] as Claim);
      for (const row of await db.run("find_known", () => known.execute(columnsOf(asked)), true)) {
        const { n, key, message_id, ...rest } = row;
        const original = message_id === null ? undefined : { message_id, ...rest };
        found[places[Number(n) - 1] as number] = { key, original };
      }
      for (const i of places) {
        const { queue_id, dedup_key } = claims[i] as Claim;
        if (dedup_key !== null || found[i] !== undefined) continue;
        keepLatest(contentless, queue_id, performance.now() + contentless_ms, contentless_max);
      }
      return found;
    },
  };
}
