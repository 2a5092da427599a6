import { doublePrecision, jsonb, primaryKey } from "drizzle-orm/pg-core";
import { moment, plainText, psqlqueue, text } from "./schema.ts";

/** API keys. The secret itself is kept nowhere: it has full entropy, so its SHA-256 is enough to know it again. */
export const api_keys = psqlqueue.table("api_keys", {
  created_at: moment("created_at").notNull().defaultNow(),
  expires_at: moment("expires_at"),
  /** To the minute. */
  last_used_at: moment("last_used_at"),
  /** What the key may still ask for at `rate_at`: a bucket that all servers take from. */
  rate_tokens: doublePrecision("rate_tokens"),
  rate_at: moment("rate_at"),
  id: text("id").primaryKey(),
  name: plainText("name").notNull(),
  secret_hash: text("secret_hash").notNull(),
  scopes: jsonb("scopes").$type<{ actions: string[]; queues?: string[]; topics?: string[] }[]>().notNull(),
  /** It sees ids that begin with this and a dot, and no others. */
  namespace: text("namespace"),
  rate_limit: jsonb("rate_limit").$type<{ count: number; per_seconds: number; burst: number }>(),
  /** For signatures: the secret, encrypted with the master key of this id. */
  encrypted_secret: text("encrypted_secret"),
  encryption_key_id: text("encryption_key_id"),
});

/** Which queues and topics a role of PostgreSQL may use by SQL. A role that is in none of the rows may use all. */
export const sql_rights = psqlqueue.table(
  "sql_rights",
  {
    role: text("role").notNull(),
    action: text("action").notNull(),
    pattern: text("pattern").notNull(),
  },
  (right) => [primaryKey({ columns: [right.role, right.action, right.pattern] })],
);
