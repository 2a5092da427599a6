import { and, asc, isNotNull, sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { api_keys } from "../../db/rightsSchema.ts";
import { observe } from "../../observe.ts";
import { keepLatest } from "../keepLatest.ts";
import { DecryptionError, decrypt, type Encrypted, type MasterKeys } from "../masterKeys.ts";
import { value } from "../statement.ts";

/** How often it is said of a key that its secret cannot be decrypted, and of how many keys that is remembered. */
const told_ms_min = 3_600_000;
const told_max = 1000;
/** Keys whose secrets are tried at once, and how many of them are named. */
const tried_max = 1000;
const closed_max = 10;

type Row = Pick<typeof api_keys.$inferSelect, "id" | "encrypted_secret" | "encryption_key_id">;

/** The secret as it is stored; undefined: the key does not sign. */
const storedSecret = ({ encrypted_secret: text, encryption_key_id: key_id }: Row): Encrypted | undefined =>
  text === null || key_id === null ? undefined : { text, key_id };

/** API keys that sign requests: their secrets are kept, encrypted with a master key. */
export function createSigningKeys(db: Db, master_keys: MasterKeys) {
  const told = new Map<string, number>();
  const list = db.orm
    .select({
      id: api_keys.id,
      encrypted_secret: api_keys.encrypted_secret,
      encryption_key_id: api_keys.encryption_key_id,
    })
    .from(api_keys)
    .where(and(isNotNull(api_keys.encrypted_secret), sql`${api_keys.expires_at} > now() is not false`))
    .orderBy(asc(api_keys.id))
    .limit(value("limit"))
    .prepare("list_signing_keys");

  /** The secret, or why it cannot be decrypted; undefined: there is none. */
  function open(row: Row): string | DecryptionError | undefined {
    const stored = storedSecret(row);
    try {
      return stored && decrypt(master_keys, stored);
    } catch (error) {
      if (error instanceof DecryptionError) return error;
      throw error;
    }
  }

  /** Not each time: whoever guesses may ask as often as they like. */
  function tell(key_id: string, reason: string): void {
    const now_ms = performance.now();
    if (now_ms - (told.get(key_id) ?? Number.NEGATIVE_INFINITY) < told_ms_min) return;
    keepLatest(told, key_id, now_ms, told_max);
    const effect = "what it signs is refused as if there were no such key; as a Bearer key it works";
    const remedy = "give PSQLQUEUE_MASTER_KEY that key back, behind the others, or make this API key anew";
    const message = "a key signs requests, and its secret cannot be decrypted";
    observe({ kind: "notice", level: "WARN", message, details: { key_id, reason, effect, remedy } });
  }

  return {
    /** The secret of a key; undefined: it does not sign, or cannot be decrypted, which the log tells. */
    secretOf(row: Row): string | undefined {
      const secret = open(row);
      if (!(secret instanceof DecryptionError)) return secret;
      tell(row.id, secret.message);
      return undefined;
    },

    /** Ids of keys that sign and whose secrets cannot be decrypted: some of them, if there are many. */
    async findClosedKeys(): Promise<string[]> {
      const rows = await db.run("list_signing_keys", () => list.execute({ limit: tried_max }), true);
      return rows.flatMap((row) => (open(row) instanceof DecryptionError ? [row.id] : [])).slice(0, closed_max);
    },
  };
}
