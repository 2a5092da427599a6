import type { BatcherOptions } from "../batcher.ts";
import type { MessageEvent, NoteMessages } from "../observe.ts";

type Flush<Item, Result> = BatcherOptions<Item, Result>["flush"];

/** Counts what statements did, once per queue and not once per item. `onAcked` is called for each queue of acks. */
export const createCounted =
  (note: NoteMessages, onAcked: (queue_id: string) => void) =>
  <Item extends { queue_id: string }, Result>(event: MessageEvent, flush: Flush<Item, Result>): Flush<Item, Result> =>
  async (items) => {
    const results = await flush(items);
    const counts = new Map<string, number>();
    const repeats = new Map<string, number>();
    for (const [i, result] of results.entries()) {
      if (result instanceof Error) continue;
      const { queue_id } = items[i] as Item;
      const own = (result as { deduplicated?: boolean } | undefined)?.deduplicated ? repeats : counts;
      own.set(queue_id, (own.get(queue_id) ?? 0) + 1);
    }
    for (const [queue_id, count] of counts) {
      note(event, queue_id, count);
      if (event === "acked") onAcked(queue_id);
    }
    for (const [queue_id, count] of repeats) note("deduplicated", queue_id, count);
    return results;
  };
