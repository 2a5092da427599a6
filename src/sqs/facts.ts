import type { Broker } from "../broker/broker.ts";

/** What a request must know of its queue before it is sent. */
export type Facts = { message_bytes_max: number | null; content_dedup: boolean; ack_deadline_seconds: number };

/** How long facts are believed that another server, or another edge, may have changed. */
const fresh_ms = 1000;
/** Queues that are remembered. */
const queues_max = 10_000;

type Entry = { at_ms: number; facts: Promise<Facts> };

export type FactsOfQueues = {
  /** Throws `queue_not_found`. */
  of(queue: string): Promise<Facts>;
  /** It was changed here. */
  forget(queue: string): void;
};

/** Remembers for a moment what sends must know, so that a send is one statement. */
export function createFacts(broker: Broker): FactsOfQueues {
  const known = new Map<string, Entry>();

  async function find(queue: string): Promise<Facts> {
    try {
      const found = await broker.getQueue(queue);
      return {
        message_bytes_max: found.max_message_bytes,
        content_dedup: found.content_dedup,
        ack_deadline_seconds: found.ack_deadline_seconds,
      };
    } catch (error) {
      known.delete(queue);
      throw error;
    }
  }

  return {
    of(queue) {
      const now_ms = performance.now();
      const entry = known.get(queue);
      if (entry !== undefined && now_ms - entry.at_ms < fresh_ms) return entry.facts;
      // The oldest goes first.
      known.delete(queue);
      for (const oldest of known.keys()) {
        if (known.size < queues_max) break;
        known.delete(oldest);
      }
      const facts = find(queue);
      known.set(queue, { at_ms: now_ms, facts });
      return facts;
    },
    forget: (queue) => void known.delete(queue),
  };
}
