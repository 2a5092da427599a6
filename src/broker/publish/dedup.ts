import { type SQL, sql } from "drizzle-orm";
import { deduplications } from "../../db/dedupSchema.ts";
import { queues } from "../../db/schema.ts";

/** A constant-size key: what the client sent may be long, and an id must not meet the hash of a body. */
export const deduplicationKey = (kind: "id" | "body", text: string): string =>
  new Bun.CryptoHasher("sha256").update(`${kind}:${text}`).digest("base64url");

/** The key of a message whose content is its id: the same as if the client had sent the SHA-256 of the body, in hex. */
export const contentKey = (body: string): string =>
  deduplicationKey("id", new Bun.CryptoHasher("sha256").update(body).digest("hex"));

/** How everything begins that is hashed with the master key. */
const keyed_mark = "~";

/** Of a queue that encrypts: `hash` is made with the master key, so that nobody else can try bodies with it. */
export const markKeyed = (hash: string): string => keyed_mark + hash;

/** Are these hashes of different bodies? One with the master key and one without cannot be compared. */
export const differs = (one: SQL, other: SQL) =>
  sql`(${one} <> ${other} and starts_with(${one}, ${keyed_mark}) = starts_with(${other}, ${keyed_mark}))`;

/** A key as `queue` looks at it: alone, or within the ordering key. */
export const scoped = (key: SQL, ordering_key: SQL) => sql`
  case
    when queue.dedup_scope = 'ordering_key' and ${ordering_key} is not null
      then psqlqueue.scoped_key(${key}, ${ordering_key})
    else ${key}
  end`;

/** `key`, when a message of `queue` has it and its window is not over. */
export const heldKey = (key: SQL) => sql`(
  select seen.key
  from ${deduplications} as seen
  where seen.queue_no = queue.no and seen.key = ${key}
    and seen.created_at > now() - queue.dedup_window_seconds * interval '1 second'
  limit 1
)`;

/** The end of a claim of client keys: one whose window is over is taken again, one that still holds is left alone. */
export const takesOldKeys = sql`
  on conflict (queue_no, key) do update
    set message_id = excluded.message_id, body_hash = excluded.body_hash, created_at = excluded.created_at
    where seen.created_at <= now() - (
      select queue.dedup_window_seconds from ${queues} as queue where queue.no = seen.queue_no
    ) * interval '1 second'
  returning seen.message_id`;

/** How long a topic remembers a client's key, in seconds. */
export const topic_window_seconds = 300;

/** The same of keys of topics: see takesOldKeys. */
export const takesOldTopicKeys = sql`
  on conflict (topic_id, key) do update
    set created_at = excluded.created_at, delivered_queues = excluded.delivered_queues, id = excluded.id
    where seen.created_at <= now() - ${topic_window_seconds} * interval '1 second'
  returning seen.id`;
