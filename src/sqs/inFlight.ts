import type { Broker } from "../broker/broker.ts";
import { SqsError } from "./errors.ts";

/** What other servers deliver is seen after so long. */
const count_ms_max = 30_000;
/** A queue that has as many as it may is not counted more often. */
const recount_ms = 1000;
const queues_max = 10_000;

type Count = { counted: number; since: number; at_ms: number };

export type InFlight = {
  /** Throws OverLimit when the queue has as many messages in flight as it may, about. */
  check(queue: string): Promise<void>;
  note(queue: string, delivered: number): void;
};

/** Keeps the messages in flight of each queue below a limit, roughly. */
export function createInFlight(broker: Broker, limit: number): InFlight {
  /** Per queue: how many were in flight at the last count, and how many this server has delivered since. */
  const counts = new Map<string, Count>();
  const counting = new Map<string, Promise<Count>>();

  async function countAnew(queue: string): Promise<Count> {
    const { leased } = await broker.getStats(queue);
    const entry = { counted: leased, since: 0, at_ms: performance.now() };
    counts.delete(queue);
    for (const oldest of counts.keys()) {
      if (counts.size < queues_max) break;
      counts.delete(oldest);
    }
    counts.set(queue, entry);
    return entry;
  }

  /** Many that ask at once are served by one count. */
  function count(queue: string): Promise<Count> {
    const running = counting.get(queue);
    if (running !== undefined) return running;
    const started = countAnew(queue).finally(() => counting.delete(queue));
    counting.set(queue, started);
    return started;
  }

  return {
    async check(queue) {
      if (limit === Number.POSITIVE_INFINITY) return;
      let entry = counts.get(queue);
      // A count costs what is in flight: until it may be too much, all that was delivered is taken to be.
      const isStale = ({ counted, since, at_ms }: Count) =>
        performance.now() - at_ms > (counted + since >= limit ? recount_ms : count_ms_max);
      if (entry === undefined || isStale(entry)) entry = await count(queue);
      if (entry.counted < limit) return;
      throw new SqsError(
        "OverLimit",
        `${limit} messages of the queue are in flight; delete some, or let their visibility timeouts pass.`,
      );
    },
    note(queue, delivered) {
      const entry = counts.get(queue);
      if (entry !== undefined) entry.since += delivered;
    },
  };
}
