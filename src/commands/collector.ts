import { AggregatorRegistry } from "prom-client";
import type { Numbers } from "../metrics.ts";
import type { Order } from "./workerMessages.ts";

/** How long a worker may take to tell its numbers; then those that it told before count. Scrapes wait for 10 s. */
const answer_ms_max = 4000;

/** A worker that is asked for its numbers. */
export type Counted = { number: number; send(order: Order): void };

/** The counts alone, added up: what is left of workers that are gone. */
async function addCounts(parts: Numbers[]): Promise<Numbers> {
  const sums = (await AggregatorRegistry.aggregate(parts).getMetricsAsJSON()) as Numbers;
  return sums.filter(({ type }) => ["counter", "histogram"].includes(String(type)));
}

/**
 * Collects the numbers of workers for a scrape. What a worker had counted when it was last asked stays in the sums
 * after its end: a sum that falls would read as a restart of the server.
 */
export function createCollector() {
  const last = new Map<number, Numbers>();
  const asked = new Map<number, { number: number; resolve: () => void }>();
  let ids = 0;
  let gone: Numbers = [];
  let adding: Promise<void> = Promise.resolve();

  function ask({ number, send }: Counted): Promise<void> {
    const id = ++ids;
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        asked.delete(id);
        resolve();
      };
      const timer = setTimeout(end, answer_ms_max);
      asked.set(id, { number, resolve: end });
      send({ kind: "count", id });
    });
  }

  return {
    /** The numbers of `others` and of those that are gone, for a worker that has been asked by a scrape. */
    async collect(asker: Counted, own: Numbers, others: Counted[]): Promise<Numbers[]> {
      last.set(asker.number, own);
      await Promise.all(others.map(ask));
      await adding;
      return [...others.flatMap(({ number }) => (last.has(number) ? [last.get(number) ?? []] : [])), gone];
    },
    /** A worker has answered. */
    answer(id: number, numbers: Numbers): void {
      const question = asked.get(id);
      if (question === undefined) return;
      last.set(question.number, numbers);
      question.resolve();
    },
    /** A worker has ended. */
    end(number: number): void {
      for (const question of asked.values()) if (question.number === number) question.resolve();
      const counted = last.get(number);
      last.delete(number);
      if (counted === undefined) return;
      adding = adding.then(async () => {
        gone = await addCounts([gone, counted]);
      });
    },
  };
}
