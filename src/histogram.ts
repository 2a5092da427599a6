import type { Metric, Registry } from "prom-client";

/** One combination of labels. */
export type Series = {
  /** Counts a value. */
  observe(value: number): void;
};

type Labels = Record<string, string>;

/**
 * A histogram whose series are looked up once, and count by themselves. The library's makes an object and a key of the
 * labels for every value, which at two values a request is as much as the routing.
 */
export function createHistogram(
  registry: Registry,
  { name, help, buckets }: { name: string; help: string; buckets: number[] },
): { of(labels: Labels): Series } {
  const all: { labels: Labels; counts: number[]; sum: number; count: number }[] = [];

  function open(labels: Labels): Series {
    // The last are those beyond all bounds.
    const counts = new Array<number>(buckets.length + 1).fill(0);
    const own = { labels, counts, sum: 0, count: 0 };
    all.push(own);
    return {
      observe(value) {
        let at = 0;
        while (at < buckets.length && value > (buckets[at] as number)) at++;
        counts[at] = (counts[at] as number) + 1;
        own.sum += value;
        own.count += 1;
      },
    };
  }

  const values = () =>
    all.flatMap(({ labels, counts, sum, count }) => {
      let so_far = 0;
      const bounded = buckets.map((bound, i) => {
        so_far += counts[i] as number;
        return { labels: { le: bound, ...labels }, value: so_far, metricName: `${name}_bucket` };
      });
      return [
        ...bounded,
        { labels: { le: "+Inf", ...labels }, value: count, metricName: `${name}_bucket` },
        { labels, value: sum, metricName: `${name}_sum` },
        { labels, value: count, metricName: `${name}_count` },
      ];
    });
  const described = { name, help, type: "histogram", aggregator: "sum" };
  const metric = { ...described, get: async () => ({ ...described, values: values() }) };
  registry.registerMetric(metric as unknown as Metric);
  return { of: open };
}
