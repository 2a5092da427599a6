import { asc, eq, sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { api_keys } from "../../db/rightsSchema.ts";
import { BrokerError } from "../../errors.ts";
import { encrypt, type MasterKeys } from "../masterKeys.ts";
import { column, prepare, rfc3339, value } from "../statement.ts";
import { createSigningKeys } from "./signingKeys.ts";

/** Rights: what may be done, to which queues and topics. Without both lists: to all of them. */
export type Scope = { actions: string[]; queues?: string[]; topics?: string[] };
/** `count` requests in `per_seconds`, `burst` of them at once. */
export type RateLimit = { count: number; per_seconds: number; burst: number };

export type NewKey = {
  name: string;
  scopes: Scope[];
  namespace: string | null;
  expires_at: string | null;
  rate_limit: RateLimit | null;
  /** Its secret can sign: it is kept, encrypted with the master key. */
  sigv4: boolean;
};

/** As lists show it: never the secret, nor what it could be guessed from. */
export type ApiKey = NewKey & { id: string; created_at: string; last_used_at: string | null };
/** What a server needs to know a key again. */
export type StoredKey = NewKey & {
  id: string;
  secret_hash: string;
  is_expired: boolean;
  expires_in_ms: number | null;
};

const channel = "psqlqueue_keys";
const characters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const id_characters = 12;
/** 43 characters of 62 hold 256 bits. */
const secret_characters = 43;

/** Random characters, each as likely as every other. */
function randomText(length: number): string {
  let made = "";
  while (made.length < length) {
    // 248 is the largest multiple of 62 that a byte holds.
    for (const byte of crypto.getRandomValues(new Uint8Array(2 * length))) {
      if (byte < 248 && made.length < length) made += characters[byte % characters.length];
    }
  }
  return made;
}

/** What is stored of a secret: hexadecimal SHA-256. */
export const hashSecret = (secret: string): string => new Bun.CryptoHasher("sha256").update(secret).digest("hex");

type Row = typeof api_keys.$inferSelect;

/** Only what counts: whatever else was given was stored once, and must not be shown as if it held. */
const presentScope = ({ actions, queues, topics }: Scope): Scope => ({
  actions,
  ...(queues !== undefined && { queues }),
  ...(topics !== undefined && { topics }),
});

const present = (row: Row): ApiKey => ({
  id: row.id,
  name: row.name,
  scopes: row.scopes.map(presentScope),
  namespace: row.namespace,
  expires_at: row.expires_at === null ? null : rfc3339(row.expires_at),
  rate_limit: row.rate_limit,
  sigv4: row.encrypted_secret !== null,
  created_at: rfc3339(row.created_at),
  last_used_at: row.last_used_at === null ? null : rfc3339(row.last_used_at),
});

/** API keys: made, listed, revoked, and known again. */
export function createKeys(db: Db, master_keys: MasterKeys) {
  const { orm } = db;
  const revoked = new Set<(id: string) => void>();
  const insert = orm
    .insert(api_keys)
    .values({
      id: value("id"),
      name: value("name"),
      secret_hash: value("secret_hash"),
      scopes: sql`${value("scopes")}::text::jsonb`,
      namespace: value("namespace"),
      expires_at: sql`${value("expires_at")}::text::timestamptz`,
      rate_limit: sql`${value("rate_limit")}::text::jsonb`,
      encrypted_secret: value("encrypted_secret"),
      encryption_key_id: value("encryption_key_id"),
    })
    .returning()
    .prepare("create_key");
  const list = orm
    .select()
    .from(api_keys)
    .orderBy(asc(api_keys.id))
    .limit(value("limit"))
    .offset(value("offset"))
    .prepare("list_keys");
  const remove = orm
    .delete(api_keys)
    .where(eq(api_keys.id, value("id")))
    .returning({ id: api_keys.id, sent: sql`pg_notify(${channel}, ${api_keys.id})::text` })
    .prepare("delete_key");
  return {
    /** Can keys be made whose secrets are kept? */
    keepsSecrets: master_keys.size > 0,

    /**
     * Makes a key. `key` is the whole text, which nobody can show again. One that signs needs a master key.
     */
    async createKey(given: NewKey): Promise<ApiKey & { key: string }> {
      const id = randomText(id_characters);
      const secret = randomText(secret_characters);
      const encrypted = given.sigv4 ? encrypt(master_keys, secret) : undefined;
      const rows = await db.run("create_key", () =>
        insert.execute({
          id,
          name: given.name,
          secret_hash: hashSecret(secret),
          scopes: JSON.stringify(given.scopes),
          namespace: given.namespace,
          expires_at: given.expires_at,
          rate_limit: given.rate_limit === null ? null : JSON.stringify(given.rate_limit),
          encrypted_secret: encrypted?.text ?? null,
          encryption_key_id: encrypted?.key_id ?? null,
        }),
      );
      return { ...present(rows[0] as Row), key: `pq_${id}_${secret}` };
    },

    async listKeys(limit: number, offset: number): Promise<ApiKey[]> {
      return (await db.run("list_keys", () => list.execute({ limit, offset }), true)).map(present);
    },

    /** Revokes a key: other servers hear of it at once where LISTEN works. Throws `key_not_found`. */
    async deleteKey(id: string): Promise<void> {
      const rows = await db.run("delete_key", () => remove.execute({ id }));
      if (rows.length === 0) throw new BrokerError("key_not_found");
      for (const call of revoked) call(id);
    },

    /** Calls `call` for each key that is revoked on this server. */
    onKeyRevoked(call: (id: string) => void): void {
      revoked.add(call);
    },

    /** The same of the other servers, while `onListening` says so. */
    listenToKeys: (onKey: (id: string) => void, onListening: (is_listening: boolean) => void) =>
      db.listen(channel, onKey, onListening),

    ...createKeyFinding(db, master_keys),
    ...createKeyUse(db),
  };
}

/** Keys known again, by who sends them and by who signs with them. */
function createKeyFinding(db: Db, master_keys: MasterKeys) {
  const signing = createSigningKeys(db, master_keys);
  const find = db.orm
    .select({
      key: api_keys,
      is_expired: sql<boolean>`coalesce(${api_keys.expires_at} <= now(), false)`.as("is_expired"),
      expires_in_ms: sql<number | null>`(extract(epoch from ${api_keys.expires_at} - now()) * 1000)::float8`.as(
        "expires_in_ms",
      ),
    })
    .from(api_keys)
    .where(eq(api_keys.id, value("id")))
    .prepare("find_key");

  async function findRow(id: string) {
    const [row] = await db.run("find_key", () => find.execute({ id }), true);
    if (row === undefined) return undefined;
    const { is_expired, expires_in_ms, key } = row;
    const stored: StoredKey = { ...present(key), secret_hash: key.secret_hash, is_expired, expires_in_ms };
    return { key, stored };
  }

  return {
    /** The key as a Bearer key, for which no master key is needed. */
    findKey: async (id: string): Promise<StoredKey | undefined> => (await findRow(id))?.stored,

    /** The key with its secret, if it is one that signs, and its secret can be decrypted. */
    async findSigningKey(id: string): Promise<(StoredKey & { secret: string }) | undefined> {
      const found = await findRow(id);
      const secret = found && signing.secretOf(found.key);
      return found === undefined || secret === undefined ? undefined : { ...found.stored, secret };
    },

    findClosedKeys: signing.findClosedKeys,
  };
}

/** What keys are used for: when, and how often they still may be. */
function createKeyUse(db: Db) {
  const { orm } = db;
  const touch = prepare<{ id: string }>(
    orm
      .update(api_keys)
      .set({ last_used_at: sql`date_trunc('minute', now())` })
      .where(sql`${api_keys.id} = any(${value("ids")}::text[])`)
      .returning({ id: api_keys.id }),
    "touch_keys",
  );
  // A bucket that fills with time. What is asked for is given as far as it is there.
  const bucket = orm.$with("bucket", {}).as(sql`
    select key.id, least(
        (key.rate_limit ->> 'burst')::float8,
        coalesce(key.rate_tokens, (key.rate_limit ->> 'burst')::float8)
          + extract(epoch from clock_timestamp() - coalesce(key.rate_at, clock_timestamp()))::float8
            * (key.rate_limit ->> 'count')::float8 / (key.rate_limit ->> 'per_seconds')::float8
      ) as filled
    from ${api_keys} as key
    where key.id = ${value("id")} and key.rate_limit is not null
    for update of key`);
  const taken = orm.$with("taken", { granted: column<number>("granted") }).as(sql`
      update ${api_keys} as key
      set rate_tokens = bucket.filled - given.granted, rate_at = clock_timestamp()
      from bucket
      cross join lateral (select floor(least(bucket.filled, ${value("wanted")}::float8))::int as granted) as given
      where key.id = bucket.id
      returning given.granted`);
  const claim = prepare<{ granted: number }>(orm.with(bucket, taken).select().from(taken), "claim_key_rate");

  return {
    /** Notes that keys were used in this minute. Repeatable. */
    async touchKeys(ids: string[]): Promise<void> {
      if (ids.length > 0) await db.run("touch_keys", () => touch.execute({ ids }), true);
    },

    /** Takes up to `wanted` requests from what the key may still ask for, over all servers together. */
    async claimRate(id: string, wanted: number): Promise<number> {
      const [row] = await db.run("claim_key_rate", () => claim.execute({ id, wanted }));
      return row?.granted ?? 0;
    },
  };
}
