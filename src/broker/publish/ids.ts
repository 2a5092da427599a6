import { B32_CHARACTERS, encodeTime } from "ulidx";

// A ULID is 10 characters of time and 16 of randomness. Ours count in the middle of the latter: 6 random characters for
// the millisecond, 6 that count up, and 4 at the end that a fan-out numbers its copies with. ulidx's own monotonic
// factory counts in the last character, which leaves a fan-out no room.
const half_bits = 30;

/** `length` characters of Crockford's base 32, of the lowest bits of `value`. */
function encodeBits(value: number, length: number): string {
  let text = "";
  for (let bits = (length - 1) * 5; bits >= 0; bits -= 5) text += B32_CHARACTERS[(value >>> bits) & 31];
  return text;
}

const pool = new Uint32Array(256);
let pool_at = pool.length;

function randomBits(bits: number): number {
  if (pool_at === pool.length) {
    crypto.getRandomValues(pool);
    pool_at = 0;
  }
  return (pool[pool_at++] ?? 0) >>> (32 - bits);
}

export type Ids = {
  /** A ULID of 26 characters, greater than every one that was made before, also when the clock steps back. */
  nextId(): string;
  /**
   * The id of a fan-out: the database replaces its last four characters by the number of the copy
   * (`psqlqueue.copy_id`), so up to 1,048,576 copies have ids of their own, in order.
   */
  nextFanOutId(): string;
};

/** Makes ids by a clock. Those of messages go by the database's, so that ids of several servers have one order. */
export function createIds(now_ms: () => number): Ids {
  let last_ms = 0;
  let time = "";
  let high = "";
  let low = 0;

  /** The first 22 characters of a ULID. */
  function nextPrefix(): string {
    const ms = Math.floor(now_ms());
    if (ms > last_ms) {
      last_ms = ms;
      time = encodeTime(ms, 10);
      high = encodeBits(randomBits(half_bits), 6);
      // The top bit stays clear: half a billion ids fit into the millisecond before the count could overflow.
      low = randomBits(half_bits - 1);
    } else {
      low += 1;
    }
    return time + high + encodeBits(low, 6);
  }

  return {
    nextId: () => nextPrefix() + encodeBits(randomBits(20), 4),
    nextFanOutId: () => `${nextPrefix()}0000`,
  };
}

/** An id of something that is not put in order by it: a batch, a task. */
export const nextId = createIds(Date.now).nextId;

/** Random lease tokens, positive and below 2^63, as decimal text: what the driver takes for a bigint array. */
export function randomTokens(count: number): string[] {
  const words = crypto.getRandomValues(new BigUint64Array(count));
  return Array.from(words, (word) => String(word >> 1n));
}
