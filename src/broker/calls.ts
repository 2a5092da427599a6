import { type BatcherOptions, createBatcher } from "../batcher.ts";
import type { Failure } from "../errors.ts";

type Flush<Item, Result> = BatcherOptions<Item, Result>["flush"];
type CallOptions<Item> = Omit<BatcherOptions<Item[], unknown>, "flush" | "count" | "weight"> & {
  weight: (item: Item) => number;
};

/**
 * Calls that bring many items each → statements that carry those of many calls. The items of a call stay together.
 * Result i of a call belongs to its item i.
 */
export function gatherCalls<Item, Result>(
  options: CallOptions<Item>,
  flush: Flush<Item, Result>,
): (items: Item[]) => Promise<(Result | Failure)[]> {
  const calls = createBatcher<Item[], (Result | Failure)[]>({
    ...options,
    count: (items) => items.length,
    weight: (items) => items.reduce((sum, item) => sum + options.weight(item), 0),
    async flush(all) {
      const results = await flush(all.flat());
      let at = 0;
      return all.map((items) => {
        at += items.length;
        return results.slice(at - items.length, at);
      });
    },
  });
  return (items) => calls.call(items);
}
