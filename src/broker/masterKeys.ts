import { createCipheriv, createDecipheriv, createHmac, randomBytes } from "node:crypto";

/** Keys of 32 bytes by their ids. The first encrypts, all decrypt. A key that stands alone may have the id "". */
export type MasterKeys = ReadonlyMap<string, Uint8Array>;

/** What a broker keeps secrets with; without master keys it keeps none. */
export type Secrets = { master_keys?: MasterKeys };

export type Encrypted = { key_id: string; text: string };

/** What is encrypted: a text of one kind cannot be passed off as one of another. */
export type Purpose = "secret" | "body";

/** Why a text cannot be decrypted. The message names the key, and is for the log. */
export class DecryptionError extends Error {
  override readonly name = "DecryptionError";
  readonly reason: "key_missing" | "changed";

  constructor(reason: DecryptionError["reason"], message: string, options?: ErrorOptions) {
    super(message, options);
    this.reason = reason;
  }
}

const algorithm = "aes-256-gcm";
const nonce_bytes = 12;
const tag_bytes = 16;

// The id is bound to the text: one cannot be passed off as one of another key.
const boundTo = (purpose: Purpose, key_id: string) =>
  Buffer.from(purpose === "secret" ? key_id : `${purpose}:${key_id}`);

/** Encrypts what must be read again, with the first master key. Throws when there is none. */
export function encrypt(keys: MasterKeys, plain: string, purpose: Purpose = "secret"): Encrypted {
  const [first] = keys;
  if (first === undefined) throw new Error("there is no master key");
  const [key_id, key] = first;
  const nonce = randomBytes(nonce_bytes);
  const cipher = createCipheriv(algorithm, key, nonce, { authTagLength: tag_bytes });
  cipher.setAAD(boundTo(purpose, key_id));
  const parts = [nonce, cipher.update(plain, "utf8"), cipher.final()];
  return { key_id, text: Buffer.concat([...parts, cipher.getAuthTag()]).toString("base64") };
}

/** The keys that may have encrypted it. A key without an id has one, or is another's, once there are several. */
function candidates(keys: MasterKeys, key_id: string): Uint8Array[] {
  const key = keys.get(key_id);
  if (key !== undefined) return [key];
  return key_id === "" ? [...keys.values()] : [];
}

/** Decrypts. Throws DecryptionError when the key is not there any more, and when the text was changed. */
export function decrypt(keys: MasterKeys, { key_id, text }: Encrypted, purpose: Purpose = "secret"): string {
  const name = `the master key ${JSON.stringify(key_id)}`;
  const tried = candidates(keys, key_id);
  if (tried.length === 0) throw new DecryptionError("key_missing", `${name} is not in PSQLQUEUE_MASTER_KEY`);
  const bytes = Buffer.from(text, "base64");
  let cause: unknown;
  for (const key of tried) {
    try {
      const nonce = bytes.subarray(0, nonce_bytes);
      const decipher = createDecipheriv(algorithm, key, nonce, { authTagLength: tag_bytes });
      decipher.setAAD(boundTo(purpose, key_id));
      decipher.setAuthTag(bytes.subarray(Math.max(nonce_bytes, bytes.length - tag_bytes)));
      return Buffer.concat([decipher.update(bytes.subarray(nonce_bytes, -tag_bytes)), decipher.final()]).toString();
    } catch (error) {
      cause = error;
    }
  }
  throw new DecryptionError("changed", `what ${name} encrypted has been changed, or that key has`, { cause });
}

/**
 * A hash that tells nothing without the keys. By the one with the lowest id, the oldest if ids grow with time: whatever
 * their order on a server is, and while a new one is added, hashes stay the same. Throws when there is none.
 */
export function keyedHash(keys: MasterKeys, text: string): string {
  const [oldest_id] = [...keys.keys()].sort((a, b) => (a < b ? -1 : 1));
  const oldest = keys.get(oldest_id ?? "");
  if (oldest === undefined) throw new Error("there is no master key");
  // A key of its own, so that one key does not do two things.
  const key = createHmac("sha256", oldest).update("psqlqueue: hashes").digest();
  return createHmac("sha256", key).update(text).digest("base64url");
}
