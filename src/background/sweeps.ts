import type { Broker } from "../broker/broker.ts";
import { observe } from "../observe.ts";
import type { Job } from "./loop.ts";

const every_ms = 20_000;
/** For what grows by a row a day. */
const seldom_ms = 300_000;
/** Far more than a statement takes: what the last run could not see yet is seen by this one. */
const exhausted_every_ms = 4000;
const exhausted_seconds = 60;

/** Jobs that are one sweep: each its own, so that one which fails or takes long holds up no other. */
function sweep(name: string, delay_ms: number, run: () => Promise<number>): Job {
  return {
    name,
    is_shared: true,
    async run() {
      const count = await run();
      if (count > 0) observe({ kind: "job", job: name, details: { count } });
      return delay_ms;
    },
  };
}

/** What keeps the tables small. Nothing's correctness depends on it having run. */
export const sweepJobs = (broker: Broker): Job[] => [
  sweep("expired messages", every_ms, broker.sweepExpired),
  sweep("dead letters", exhausted_every_ms, () => broker.sweepExhausted(exhausted_seconds)),
  sweep("client keys", every_ms, broker.sweepDeduplications),
  sweep("publish batches", every_ms, broker.sweepBatches),
  sweep("keys that share no queue", every_ms, broker.sweepFairKeys),
  sweep("deleted queues", every_ms, broker.sweepDeletedQueues),
  sweep("ended tasks", seldom_ms, broker.forgetTasks),
  sweep("silent servers", seldom_ms, broker.sweepLeaders),
];
