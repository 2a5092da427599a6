// What one job has seen: counts, errors, latencies.

import { build, type Histogram } from "hdr-histogram-js";
import { kinds, PUBLISH, SETTLE } from "./workload.ts";

/** Milliseconds. */
export type Latency = { count: number; p50: number; p99: number; p999: number; max: number };

/** The measured part of a job. */
export type Result = {
  seconds: number;
  requests: number;
  /** Answered 2xx. */
  published: number;
  received: number;
  settled: number;
  /** Receives that brought nothing. */
  empty: number;
  /** Messages left in the queues by this job, warm-up included; below 0 when it took more than it brought. */
  left: number;
  /** Status, or `lost` (connection) or `unanswered` (at the end), and how often. */
  errors: Record<string, number>;
  latency: Record<"all" | (typeof kinds)[number], Latency>;
  /** How late the generator itself was, p99: part of the latencies of an open loop. */
  lateness_ms: number;
  /** CPU seconds of the generator. */
  cpu_seconds: number;
};

const micros_max = 120_000_000;

const histogram = () =>
  build({ bitBucketSize: 32, highestTrackableValue: micros_max, numberOfSignificantValueDigits: 3 });

function summarize(recorded: Histogram): Latency {
  const at = (percentile: number) => recorded.getValueAtPercentile(percentile) / 1000;
  const count = recorded.totalCount;
  if (count === 0) return { count, p50: 0, p99: 0, p999: 0, max: 0 };
  return { count, p50: at(50), p99: at(99), p999: at(99.9), max: recorded.maxValue / 1000 };
}

const micros = (ms: number) => Math.min(micros_max, Math.max(1, Math.round(ms * 1000)));

/** Begins to count. `left`: what the warm-up has left in the queues. */
export function createTally(left = 0) {
  return {
    requests: 0,
    published: 0,
    received: 0,
    settled: 0,
    empty: 0,
    left,
    errors: {} as Record<string, number>,
    histograms: kinds.map(histogram),
    late: histogram(),
    cpu: process.cpuUsage(),
    started_ms: performance.now(),
  };
}

/** A count under way. */
export type Tally = ReturnType<typeof createTally>;

/** Counts what is no good answer. */
export function noteError(tally: Tally, name: string, count = 1): void {
  tally.errors[name] = (tally.errors[name] ?? 0) + count;
}

/** Counts an answer, for so many messages; one that is not 2xx is an error, whatever was asked. */
export function noteAnswer(tally: Tally, kind: number, count: number, status: number, latency_ms: number): void {
  tally.requests += 1;
  tally.histograms[kind]?.recordValue(micros(latency_ms));
  if (status < 200 || status > 299) noteError(tally, String(status));
  else if (kind === PUBLISH) tally.published += count;
  else if (kind === SETTLE) tally.settled += count;
}

/** Counts the messages of a receive. */
export function noteReceived(tally: Tally, count: number): void {
  tally.received += count;
  if (count === 0) tally.empty += 1;
}

/** Counts how late a request was sent though a connection was free. */
export function noteLate(tally: Tally, ms: number): void {
  tally.late.recordValue(micros(ms));
}

/** Requests of an open loop that have no answer at the end count with the time that they have waited. */
export function noteUnanswered(tally: Tally, waited_ms: number[]): void {
  for (const ms of waited_ms) tally.histograms[PUBLISH]?.recordValue(micros(ms));
  if (waited_ms.length > 0) noteError(tally, "unanswered", waited_ms.length);
}

/** The result of what was counted until now; `ended_ms` ends the measured part. */
export function resultOf(tally: Tally, ended_ms: number): Result {
  const cpu = process.cpuUsage(tally.cpu);
  const all = histogram();
  for (const own of tally.histograms) all.add(own);
  const [publish, receive, settle] = tally.histograms as [Histogram, Histogram, Histogram];
  const { requests, published, received, settled, empty, errors } = tally;
  return {
    seconds: (ended_ms - tally.started_ms) / 1000,
    requests,
    published,
    received,
    settled,
    empty,
    left: tally.left + published - received,
    errors,
    latency: {
      all: summarize(all),
      publish: summarize(publish),
      receive: summarize(receive),
      settle: summarize(settle),
    },
    lateness_ms: tally.late.totalCount === 0 ? 0 : tally.late.getValueAtPercentile(99) / 1000,
    cpu_seconds: (cpu.user + cpu.system) / 1e6,
  };
}
