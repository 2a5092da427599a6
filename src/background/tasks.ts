import type { Broker } from "../broker/broker.ts";
import { observe } from "../observe.ts";
import type { Job } from "./loop.ts";

const every_ms = 1000;
const busy_ms = 5;
const name = "tasks";
/** The look for exhausted messages goes back further than the last one, by far more than a statement takes. */
const exhausted_every_ms = 4000;
const exhausted_seconds = 60;

/** Moves what users published by SQL; a message whose queue is gone is dropped with a line in the log. */
export async function moveOutbox(broker: Broker): Promise<void> {
  const { dropped } = await broker.moveOutbox();
  if (dropped === 0) return;
  const details = { count: dropped, why: "their queue was deleted before they were moved to it" };
  observe({ kind: "notice", level: "WARN", message: "messages published by SQL were dropped", details });
}

/**
 * Runs redrives, purges and the like in steps, moves the outbox, and dead-letters what nobody asks for any more. One
 * server of a database does it; another takes over within 30 s when that one falls silent.
 */
export function tasksJob(broker: Broker, holder: string): Job & { resign(): Promise<void> } {
  let looked_ms = Number.NEGATIVE_INFINITY;
  let led_ms = Number.NEGATIVE_INFINITY;
  let is_leader = false;
  return {
    name,
    async run() {
      if (performance.now() - led_ms > 10_000) {
        is_leader = await broker.lead(name, holder);
        led_ms = performance.now();
      }
      if (!is_leader) return every_ms;
      const work = await broker.findWork();
      if (work.has_outbox) await moveOutbox(broker);
      const is_busy = work.has_tasks && (await broker.runTasks()).is_busy;
      if (performance.now() - looked_ms >= exhausted_every_ms) {
        looked_ms = performance.now();
        const count = await broker.sweepExhausted(exhausted_seconds);
        if (count > 0) observe({ kind: "job", job: "dead letters", details: { count } });
      }
      return is_busy ? busy_ms : every_ms;
    },
    resign: () => broker.resign(name, holder),
  };
}
