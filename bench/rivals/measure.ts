// The work: the same for every queue.

import { closeSync, fdatasyncSync, openSync, writeSync } from "node:fs";
import path from "node:path";
import { temporaryDirectory } from "../children.ts";
import { median } from "../rounds.ts";
import type { Latency } from "../tally.ts";
import type { Hands, Measured } from "./hands.ts";
import type { Job } from "./worker.ts";

/** What is asked of every queue, in this order. */
export const works = [
  { name: "publish", publishers: 1, consumers: 0 },
  { name: "publish", publishers: 64, consumers: 0 },
  { name: "receive+ack", publishers: 0, consumers: 64 },
  { name: "both", publishers: 64, consumers: 64 },
] as const;

/** One of them. */
export type Work = (typeof works)[number];

/** One measurement. */
export type Row = {
  /** Published; acked, where there are consumers. */
  messages_per_second: number;
  publish: Latency;
  ack: Latency;
  /** Of client, server and database together. */
  cpu_us: number;
  client_us: number;
  other_cores: number;
};

const warmup_ms = 500;
/** Who has not consumed yet does so for a moment: how fast is it? too low a guess grows. */
const probe = { publishers: 0, consumers: 64, warmup_ms: 0, duration_ms: 400 };
const probe_fill = 4000;
const rate_min = 1000;
const fill_factor = 1.3;
const growth = 4;
const attempts_max = 8;
const flush_bytes = 100;
const flushes = 200;
/** Of its time a measurement must have lasted. */
const enough_part = 0.5;

function rowOf(measured: Measured, has_consumers: boolean): Row {
  const messages = has_consumers ? measured.settled : measured.published;
  const perMessage = (seconds: number) => (seconds / messages) * 1e6;
  return {
    messages_per_second: messages / measured.seconds,
    publish: measured.latency.publish,
    ack: measured.latency.settle,
    cpu_us: perMessage(measured.cpu_seconds + measured.servers_seconds),
    client_us: perMessage(measured.cpu_seconds),
    other_cores: measured.other_seconds / measured.seconds,
  };
}

/** Milliseconds of a write of 100 bytes that is on disk when it is over: what a confirm costs at least. */
export function measureFlush(): number {
  const file = openSync(path.join(temporaryDirectory(), "flush"), "a");
  const written = "x".repeat(flush_bytes);
  try {
    return median(
      Array.from({ length: flushes }, () => {
        const began_ms = performance.now();
        writeSync(file, written);
        fdatasyncSync(file);
        return performance.now() - began_ms;
      }),
    );
  } finally {
    closeSync(file);
  }
}

/** What can be measured of one queue. One call at a time. */
export function createBench(hands: Hands, seconds: number) {
  const duration_ms = seconds * 1000;
  let rate = 0;

  /** Consumes from a queue that holds enough for it. */
  async function consume(job: Job): Promise<Measured> {
    if (rate === 0) {
      await hands.fillTo(probe_fill);
      const probed = await hands.run(probe);
      rate = Math.max(rate_min, probed.settled / probed.seconds);
    }
    for (let attempt = 0; attempt < attempts_max; attempt++) {
      await hands.fillTo(Math.ceil((rate * (warmup_ms + duration_ms) * fill_factor) / 1000));
      const measured = await hands.run(job);
      const is_enough = measured.seconds * 1000 > duration_ms * enough_part;
      rate = is_enough ? measured.settled / measured.seconds : rate * growth;
      if (is_enough) return measured;
    }
    throw new Error(`the queue was empty too soon, ${attempts_max} times`);
  }

  /** Puts the queue through one work, and answers its row. */
  return async ({ publishers, consumers }: Work): Promise<Row> => {
    const job = { publishers, consumers, warmup_ms, duration_ms };
    return rowOf(publishers === 0 ? await consume(job) : await hands.run(job), consumers > 0);
  };
}
