import { sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { queues, subscriptions } from "../../db/schema.ts";
import { BrokerError } from "../../errors.ts";
import { observe } from "../../observe.ts";
import { keepLatest } from "../keepLatest.ts";
import { DecryptionError, decrypt, encrypt, keyedHash, type MasterKeys } from "../masterKeys.ts";
import { column } from "../statement.ts";
import { contentKey, deduplicationKey, markKeyed } from "./dedup.ts";

// Bodies of queues with the setting `encrypt` are sealed in this process, so that the database never sees them. What is
// not stored as it was sent says so itself, at its beginning; so it may be moved, archived and exported like any text:
//
//   magic 0: body                  a body that begins with the magic itself: nobody can send what looks sealed
//   magic 1: key_id : base64       sealed with that master key: nonce, ciphertext and tag
//
// Which queues encrypt, a server remembers, and the statements that store check it: what comes in the wrong form they
// leave out and name, and it is sent again in the right one. The memory only saves that second statement, and keeps
// bodies out of the parameters of the first.

/** How every body begins that is not stored as it was sent, and no other. */
export const magic = "\u0001psqlqueue\u0001";
const escaped = `${magic}0:`;
/** How a sealed body begins. */
export const sealed = `${magic}1:`;

/** Queues, and topics, that one server remembers at most; one that is forgotten costs a statement more. */
const known_max = 10_000;

/** A body in the form in which it is stored, and what tells whether another is the same. */
export type Form = {
  body: string;
  body_hash: string;
  is_sealed: boolean;
  /** The client's, in the form in which it is stored. */
  dedup_key: string | null;
  /** The key where there is none of the client's and the queue looks at contents; null where there is one. */
  content_key: string | null;
  /** The key under which this version, before the queue encrypted, or an older one would have stored it. */
  old_key: string | null;
};

export type Sealing = {
  /** Can bodies be sealed and opened? */
  has_keys: boolean;
  /** Has this server read which queues encrypt? If not, `load` comes before the first publish. */
  isLoaded(): boolean;
  /** Reads which queues encrypt, once; concurrent calls share one statement. Rejects with DatabaseError. */
  load(): Promise<void>;
  /** Does the queue encrypt, as far as this server knows? */
  encrypts(queue_id: string): boolean;
  note(queue_id: string, is_encrypting: boolean): void;
  /** Do some, or all, of the queues that the topic leads to encrypt, as far as this server knows? */
  leadsTo(topic_id: string): "all" | "some" | undefined;
  /** The topic leads to queues of both kinds, or may. */
  noteTopic(topic_id: string): void;
  /** A body as the queue wants it, as far as this server knows. `dedup_key`: see deduplicationKey. */
  formOf(queue_id: string, body: string, dedup_key: string | null): Form;
  /** Throws when there is no master key. */
  seal(body: string): string;
  /** The body that was sent. Throws DecryptionError. */
  open(stored: string): string;
  /** Queues that encrypt while this server has no master key, ten at most. Rejects with DatabaseError. */
  findClosed(): Promise<string[]>;
  /** What a publish is answered that this server cannot seal. Logs why. */
  refuse(where: string): BrokerError;
};

/** A body as it is stored without encryption. */
export const escapeBody = (body: string): string => (body.startsWith(magic) ? escaped + body : body);

/** Bytes of a sealed body, by those of the body. */
export const sealedBytes = (body_bytes: number): number => 4 * Math.ceil((body_bytes + 28) / 3) + sealed.length + 8;

function openBody(keys: MasterKeys, stored: string): string {
  if (!stored.startsWith(magic)) return stored;
  if (stored.startsWith(escaped)) return stored.slice(escaped.length);
  const end = stored.indexOf(":", sealed.length);
  if (!stored.startsWith(sealed) || end < 0) throw new DecryptionError("changed", "a body is in no form that is known");
  return decrypt(keys, { key_id: stored.slice(sealed.length, end), text: stored.slice(end + 1) }, "body");
}

function prepareFind(db: Db) {
  const found = db.orm
    .$with("found", {
      queue_id: column<string | null>("queue_id"),
      topic_id: column<string | null>("topic_id"),
      is_all: column<boolean>("is_all"),
    })
    .as(sql`
      (select queue.id as queue_id, null as topic_id, true as is_all
      from ${queues} as queue where queue.encrypt limit ${known_max})
      union all
      (select null, subscription.topic_id, bool_and(queue.encrypt)
      from ${subscriptions} as subscription
      join ${queues} as queue on queue.no = subscription.queue_no
      group by subscription.topic_id
      having bool_or(queue.encrypt)
      limit ${known_max})`);
  return db.orm.with(found).select().from(found).prepare("find_encrypted");
}

/** What one server knows of encryption. Without master keys nothing is sealed, and nothing sealed is opened. */
export function createSealing(db: Db, keys: MasterKeys): Sealing {
  const find = prepareFind(db);
  const known_queues = new Map<string, true>();
  const known_topics = new Map<string, "all" | "some">();
  const has_keys = keys.size > 0;
  // Without a key it makes no difference.
  let is_loaded = !has_keys;
  let loading: Promise<void> | undefined;

  async function load(): Promise<void> {
    for (const { queue_id, topic_id, is_all } of await db.run("find_encrypted", () => find.execute(), true)) {
      if (queue_id !== null) keepLatest(known_queues, queue_id, true, known_max);
      if (topic_id !== null) keepLatest(known_topics, topic_id, is_all ? "all" : "some", known_max);
    }
    is_loaded = true;
  }

  const seal = (body: string): string => {
    const { key_id, text } = encrypt(keys, body, "body");
    return `${sealed}${key_id}:${text}`;
  };

  return {
    has_keys,
    isLoaded: () => is_loaded,
    async load() {
      if (is_loaded) return;
      loading ??= load().finally(() => {
        loading = undefined;
      });
      await loading;
    },
    encrypts: (queue_id) => known_queues.has(queue_id),
    note(queue_id, is_encrypting) {
      if (is_encrypting) keepLatest(known_queues, queue_id, true, known_max);
      else known_queues.delete(queue_id);
    },
    leadsTo: (topic_id) => known_topics.get(topic_id),
    noteTopic: (topic_id) => keepLatest(known_topics, topic_id, "some", known_max),
    formOf(queue_id, body, dedup_key) {
      const is_sealed = has_keys && known_queues.has(queue_id);
      const body_hash = deduplicationKey("body", body);
      const content_key = dedup_key === null ? contentKey(body) : null;
      if (!is_sealed) {
        const old_key = dedup_key === null ? body_hash : null;
        return { body: escapeBody(body), body_hash, is_sealed, dedup_key, content_key, old_key };
      }
      // The plain hash of a short body gives it away. So it is not looked for either.
      const keyed = (hash: string) => markKeyed(keyedHash(keys, hash));
      return {
        body: seal(body),
        body_hash: keyed(body_hash),
        is_sealed,
        dedup_key: dedup_key && keyed(dedup_key),
        content_key: content_key && keyed(content_key),
        old_key: dedup_key,
      };
    },
    seal,
    open: (stored) => openBody(keys, stored),
    async findClosed() {
      if (has_keys) return [];
      const rows = await db.run("find_encrypted", () => find.execute(), true);
      return rows.flatMap(({ queue_id }) => (queue_id === null ? [] : [queue_id])).slice(0, 10);
    },
    refuse(where) {
      const error = new Error("a queue encrypts its bodies, and PSQLQUEUE_MASTER_KEY of this server is empty");
      observe({ kind: "internal_error", where, error });
      return new BrokerError("internal");
    },
  };
}
