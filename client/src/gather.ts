type Waiting<Item, Result> = { item: Item; resolve(result: Result): void; reject(error: unknown): void };

/**
 * Many single calls → few batched ones. The first leaves at once; what comes while it is on its way leaves together
 * when it is back. `send` answers one result per item, in order.
 */
export function gather<Item, Result>(send: (items: Item[]) => Promise<Result[]>, items_max: number) {
  const waiting: Waiting<Item, Result>[] = [];
  let is_sending = false;

  async function run(): Promise<void> {
    is_sending = true;
    // What the same turn of the event loop brings goes along.
    await null;
    while (waiting.length > 0) {
      const batch = waiting.splice(0, items_max);
      try {
        const results = await send(batch.map(({ item }) => item));
        for (const [i, { resolve }] of batch.entries()) resolve(results[i] as Result);
      } catch (error) {
        for (const { reject } of batch) reject(error);
      }
    }
    is_sending = false;
  }

  return (item: Item): Promise<Result> =>
    new Promise((resolve, reject) => {
      waiting.push({ item, resolve, reject });
      if (!is_sending) void run();
    });
}
