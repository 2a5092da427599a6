import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";

/** Keys of 32 bytes by their ids. The first encrypts, all decrypt. */
export type MasterKeys = ReadonlyMap<string, Uint8Array>;

/** What a broker keeps secrets with; without master keys it keeps none. */
export type Secrets = { master_keys?: MasterKeys };

export type Encrypted = { key_id: string; text: string };

const algorithm = "aes-256-gcm";
const nonce_bytes = 12;
const tag_bytes = 16;

/** Encrypts what must be read again, with the first master key. Throws when there is none. */
export function encrypt(keys: MasterKeys, plain: string): Encrypted {
  const [first] = keys;
  if (first === undefined) throw new Error("there is no master key");
  const [key_id, key] = first;
  const nonce = randomBytes(nonce_bytes);
  const cipher = createCipheriv(algorithm, key, nonce);
  // The id is bound to it: a text cannot be passed off as one of another key.
  cipher.setAAD(Buffer.from(key_id));
  const body = Buffer.concat([cipher.update(plain, "utf8"), cipher.final()]);
  return { key_id, text: Buffer.concat([nonce, body, cipher.getAuthTag()]).toString("base64") };
}

/** Decrypts. Throws when the key is not there any more, and when the text was changed. */
export function decrypt(keys: MasterKeys, { key_id, text }: Encrypted): string {
  const key = keys.get(key_id);
  if (key === undefined) throw new Error(`the master key ${JSON.stringify(key_id)} is not in PSQLQUEUE_MASTER_KEY`);
  const bytes = Buffer.from(text, "base64");
  const decipher = createDecipheriv(algorithm, key, bytes.subarray(0, nonce_bytes));
  decipher.setAAD(Buffer.from(key_id));
  decipher.setAuthTag(bytes.subarray(-tag_bytes));
  return Buffer.concat([decipher.update(bytes.subarray(nonce_bytes, -tag_bytes)), decipher.final()]).toString("utf8");
}
