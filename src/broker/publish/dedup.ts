import { sql } from "drizzle-orm";
import { queues } from "../../db/schema.ts";

/** A constant-size key: what the client sent may be long, and an id must not meet the hash of a body. */
export const deduplicationKey = (kind: "id" | "body", text: string): string =>
  new Bun.CryptoHasher("sha256").update(`${kind}:${text}`).digest("base64url");

/** The end of a claim of client keys: one whose window is over is taken again, one that still holds is left alone. */
export const takesOldKeys = sql`
  on conflict (queue_no, key) do update
    set message_id = excluded.message_id, body_hash = excluded.body_hash, created_at = excluded.created_at
    where seen.created_at <= now() - (
      select queue.dedup_window_seconds from ${queues} as queue where queue.no = seen.queue_no
    ) * interval '1 second'
  returning seen.message_id`;
