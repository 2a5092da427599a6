// The ground of a flatness row: what is compared, and the measurements that the rows are made of.

import type { Load, Measured } from "../load.ts";
import type { Options } from "../options.ts";
import type { Subject } from "../subject.ts";
import type { Workload } from "../workload.ts";

/** One comparison. `b` is the difficult side; `ratio` is b to a, and meets the bar when it is on its side of it. */
export type FlatRow = {
  what: string;
  unit: string;
  a: string;
  b: string;
  ratio: number;
  bar: { max: number } | { min: number };
  errors: Record<string, number>;
  note?: string;
};

/** What a row is measured with. */
export type Bed = { subject: Subject; load: Load; options: Options; onStep: (step: string) => void };

/** A row cannot be measured against this server: it needs a way to its database. */
export class NeedsDatabase extends Error {
  override readonly name = "NeedsDatabase";
}

/** Of the messages that are stored. */
export const label = "my-label";
const receive_limit = 10;
const receives_per_round = 40;
const job_ms_max = 60_000;

/** A count, with its thousands apart. */
export const grouped = (value: number) => Math.round(value).toLocaleString("en-US").replaceAll(",", " ");

/** A measurement, with three digits at least. */
export const text = (value: number) => (value >= 100 ? grouped(value) : value.toPrecision(3));

/** Measurements of one row; what goes wrong in them is added to `errors`. */
export function createSide({ subject, load, options }: Bed, errors: Record<string, number>) {
  const note = (measured: Measured) => {
    for (const [name, count] of Object.entries(measured.errors)) errors[name] = (errors[name] ?? 0) + count;
    return measured;
  };
  const checkFull = (done: number, wanted: number) => {
    if (done < wanted) errors["incomplete"] = (errors["incomplete"] ?? 0) + 1;
  };
  const workload = (own: Partial<Workload> & Pick<Workload, "kind" | "queues">): Workload => ({
    body_bytes: options.body_bytes,
    label,
    limit: receive_limit,
    batch: 1,
    after: "ack",
    ...own,
  });
  return {
    /** p50 in ms of receives, one after the other; what they received is left leased, or nacked. */
    async receive(own: Partial<Workload> & Pick<Workload, "queues">, count = receives_per_round): Promise<number> {
      const full = workload({ kind: "receive", after: "leave", ...own });
      const messages_max = count * full.limit;
      const job = { connections: 1, workload: full, warmup_ms: 0, duration_ms: job_ms_max, messages_max };
      const measured = note(await load.run(subject, job));
      checkFull(full.after === "leave" ? measured.received : measured.settled, messages_max);
      return measured.latency.receive.p50;
    },
    /** Messages per second of a closed loop. */
    async throughput(own: Pick<Workload, "kind" | "queues">, seconds: number, warmup_seconds = 0): Promise<number> {
      const job = {
        connections: 64,
        workload: workload(own),
        warmup_ms: warmup_seconds * 1000,
        duration_ms: seconds * 1000,
      };
      const measured = note(await load.run(subject, job));
      return (own.kind === "publish" ? measured.published : measured.settled) / measured.seconds;
    },
    /** p50 in ms of publishes, one after the other. */
    async publish(queues: string[], count: number): Promise<number> {
      const job = {
        connections: 1,
        workload: workload({ kind: "publish", queues }),
        warmup_ms: 0,
        duration_ms: job_ms_max,
        messages_max: count,
      };
      const measured = note(await load.run(subject, job));
      checkFull(measured.published, count);
      return measured.latency.publish.p50;
    },
  };
}
