import { timingSafeEqual } from "node:crypto";
import { BrokerError } from "../errors.ts";
import { createIdentity, type Identity, type Rights, root } from "./identity.ts";

// Whose key a request has. Keys are kept for a while, so that most requests are known without the database.

/** A key as its store knows it. */
export type KnownKey = Rights & {
  secret_hash: string;
  is_expired: boolean;
  /** Until it expires; null: never. */
  expires_in_ms: number | null;
  rate_limit: { count: number; per_seconds: number; burst: number } | null;
};

/** A key that signs. `admit` is to be called once its signature was found right: it counts the request. */
export type Signer = { secret: string; identity: Identity; admit(): Identity | Promise<Identity> };

export type AuthOptions = {
  /** Where keys are kept. Rejects when they cannot be asked for. */
  find(id: string): Promise<KnownKey | undefined>;
  /** The same with its secret, which must be known to check a signature; undefined also for one that cannot sign. */
  findSigning(id: string): Promise<(KnownKey & { secret: string }) | undefined>;
  hash(secret: string): string;
  /** Takes up to `wanted` of what the key may still ask for, over all servers. */
  claim(id: string, wanted: number): Promise<number>;
  /** All rights, and kept nowhere; empty: there is none. */
  root_key: string;
};

export type Auth = {
  /**
   * Whose request it is. Throws `unauthorized`, the same for every reason, and `too_many_requests`. Answers at once for
   * a key that was seen in the last 30 s.
   */
  identify(authorization: string | null): Identity | Promise<Identity>;
  /** The key of this id, if it is one that signs. */
  findSigner(id: string): Promise<Signer | undefined>;
  /** A key was revoked. */
  forget(id: string): void;
  /** Nobody would tell of revoked keys: all are asked for again. */
  forgetAll(): void;
  /** The keys that were used since the last call. */
  takeUsed(): string[];
};

const cache_ms_max = 30_000;
const unknown_ms_max = 2000;
const cached_max = 10_000;
/** Of a rate limit, so many milliseconds' worth is taken at once. */
const claim_ms = 50;
const key_text = /^pq_([0-9A-Za-z]{12})_([0-9A-Za-z]{43})$/;

type Bucket = { tokens: number; blocked_until_ms: number; claiming: Promise<void> | undefined };
type Cached = {
  text: Buffer;
  identity: Identity | undefined;
  until_ms: number;
  limit: KnownKey["rate_limit"];
  bucket: Bucket;
};

const unauthorized = () => new BrokerError("unauthorized", "a valid key is needed: Authorization: Bearer pq_…");

const isSame = (a: Buffer, b: Buffer): boolean => a.length === b.length && timingSafeEqual(a, b);

/** Knows keys again. Safe to be asked concurrently. */
export function createAuth({ find, findSigning, hash, claim, root_key }: AuthOptions): Auth {
  const cached = new Map<string, Cached>();
  const signers = new Map<string, { signer: Signer; until_ms: number }>();
  const used = new Set<string>();
  const root_bytes = Buffer.from(root_key);
  /** Raised by every revocation. What was asked for before one, and is answered after it, is kept by nobody. */
  let generation = 0;

  function keep(id: string, entry: Cached, asked_in: number): Cached {
    if (asked_in !== generation) return entry;
    cached.delete(id);
    if (cached.size >= cached_max) {
      const [oldest] = cached.keys();
      if (oldest !== undefined) cached.delete(oldest);
    }
    cached.set(id, entry);
    return entry;
  }

  async function lookUp(id: string, secret: string, text: Buffer): Promise<Identity> {
    const asked_in = generation;
    const asked_ms = performance.now();
    const known = await find(id);
    // Compared also when there is no such key, so that the time does not tell.
    const is_right = isSame(Buffer.from(hash(secret)), Buffer.from(known?.secret_hash ?? hash("")));
    const bucket = cached.get(id)?.bucket ?? { tokens: 0, blocked_until_ms: 0, claiming: undefined };
    if (known === undefined || !is_right || known.is_expired) {
      // Not in the place of a right one: somebody who guesses must not make its owner slow.
      if (!cached.has(id)) {
        const until_ms = asked_ms + unknown_ms_max;
        keep(id, { text, identity: undefined, until_ms, limit: null, bucket }, asked_in);
      }
      throw unauthorized();
    }
    const until_ms = asked_ms + Math.min(cache_ms_max, known.expires_in_ms ?? cache_ms_max);
    const entry = { text, identity: createIdentity(known), until_ms, limit: known.rate_limit, bucket };
    return await admit(id, keep(id, entry, asked_in));
  }

  /** Counts a request against the key's rate limit. */
  function admit(id: string, { identity, limit, bucket }: Cached): Identity | Promise<Identity> {
    if (identity === undefined) throw unauthorized();
    used.add(id);
    if (limit === null) return identity;
    if (bucket.tokens >= 1) {
      bucket.tokens -= 1;
      return identity;
    }
    return refill(id, identity, limit, bucket);
  }

  /** Takes some from all servers' bucket, little enough that no server keeps many to itself. */
  async function refill(
    id: string,
    identity: Identity,
    limit: NonNullable<Cached["limit"]>,
    bucket: Bucket,
  ): Promise<Identity> {
    const per_ms = limit.count / limit.per_seconds / 1000;
    while (bucket.tokens < 1) {
      const wait_ms = bucket.blocked_until_ms - performance.now();
      if (wait_ms > 0) {
        throw new BrokerError("too_many_requests", `the key may ask ${limit.count} times in ${limit.per_seconds} s`, {
          retry_after_seconds: Math.ceil(wait_ms / 1000),
        });
      }
      bucket.claiming ??= claim(id, Math.max(1, Math.min(limit.burst, Math.floor(per_ms * claim_ms))))
        .then((granted) => {
          bucket.tokens += granted;
          if (granted === 0) bucket.blocked_until_ms = performance.now() + Math.min(1000, 1 / per_ms);
        })
        .finally(() => {
          bucket.claiming = undefined;
        });
      await bucket.claiming;
    }
    bucket.tokens -= 1;
    return identity;
  }

  return {
    identify(authorization) {
      const text = /^bearer +(\S+) *$/i.exec(authorization ?? "")?.[1];
      if (text === undefined) throw unauthorized();
      const bytes = Buffer.from(text);
      if (root_key !== "" && isSame(bytes, root_bytes)) return root;
      const [, id, secret] = key_text.exec(text) ?? [];
      if (id === undefined || secret === undefined) throw unauthorized();
      const entry = cached.get(id);
      if (entry !== undefined && entry.until_ms > performance.now() && isSame(entry.text, bytes))
        return admit(id, entry);
      return lookUp(id, secret, bytes);
    },
    async findSigner(id) {
      const kept = signers.get(id);
      if (kept !== undefined && kept.until_ms > performance.now()) return kept.signer;
      const asked_in = generation;
      const asked_ms = performance.now();
      const known = await findSigning(id);
      if (known === undefined || known.is_expired) return undefined;
      const identity = createIdentity(known);
      const bucket = { tokens: 0, blocked_until_ms: 0, claiming: undefined };
      const until_ms = asked_ms + Math.min(cache_ms_max, known.expires_in_ms ?? cache_ms_max);
      const entry: Cached = { text: Buffer.alloc(0), identity, until_ms, limit: known.rate_limit, bucket };
      const signer = { secret: known.secret, identity, admit: () => admit(id, entry) };
      if (asked_in !== generation) return signer;
      if (signers.size >= cached_max) signers.clear();
      signers.set(id, { signer, until_ms });
      return signer;
    },
    forget(id) {
      generation += 1;
      cached.delete(id);
      signers.delete(id);
    },
    forgetAll() {
      generation += 1;
      cached.clear();
      signers.clear();
    },
    takeUsed() {
      const ids = [...used];
      used.clear();
      return ids;
    },
  };
}
