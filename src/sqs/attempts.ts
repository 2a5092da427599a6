import type { LeasedMessage } from "../broker/deliver/lease.ts";
import { bytesOf } from "../broker/deliver/receive.ts";

// What receives of FIFO queues with an id of their own have returned: the same id returns the same messages with the
// same handles for some minutes, as long as none of them was deleted or changed. Each server knows its own.

const kept_ms = 300_000;
const attempts_max = 1000;
const bytes_max = 67_108_864;

type Attempt = { key: string; at_ms: number; bytes: number; messages: LeasedMessage[] };

export type Attempts = {
  /** What the attempt returned, if that still holds as far as this server knows. */
  find(queue: string, id: string): LeasedMessage[] | undefined;
  remember(queue: string, id: string, messages: LeasedMessage[]): void;
  /** A message was deleted, or its visibility changed: what returned it holds no more. */
  touch(message_id: string): void;
};

/** The attempts of one server. */
export function createAttempts(): Attempts {
  const attempts = new Map<string, Attempt>();
  const key_of_message = new Map<string, string>();
  let bytes = 0;

  function forget(key: string): void {
    const attempt = attempts.get(key);
    if (attempt === undefined) return;
    attempts.delete(key);
    bytes -= attempt.bytes;
    for (const { id } of attempt.messages) if (key_of_message.get(id) === key) key_of_message.delete(id);
  }

  /** In the order in which they were made: the oldest first. */
  function forgetOld(): void {
    for (const { key, at_ms } of attempts.values()) {
      const is_full = attempts.size > attempts_max || bytes > bytes_max;
      if (!is_full && performance.now() - at_ms < kept_ms) break;
      forget(key);
    }
  }

  const keyOf = (queue: string, id: string) => `${queue}\n${id}`;

  return {
    find(queue, id) {
      forgetOld();
      return attempts.get(keyOf(queue, id))?.messages;
    },
    remember(queue, id, messages) {
      const key = keyOf(queue, id);
      forget(key);
      const attempt = { key, at_ms: performance.now(), bytes: bytesOf(messages), messages };
      attempts.set(key, attempt);
      bytes += attempt.bytes;
      for (const message of messages) key_of_message.set(message.id, key);
      forgetOld();
    },
    touch(message_id) {
      const key = key_of_message.get(message_id);
      if (key !== undefined) forget(key);
    },
  };
}
