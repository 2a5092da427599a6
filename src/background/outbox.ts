import type { Broker } from "../broker/broker.ts";
import { observe } from "../observe.ts";
import type { Job } from "./loop.ts";

const every_ms = 1000;

/** Moves what users published by SQL; a message whose queue is gone is dropped with a line in the log. */
export async function moveOutbox(broker: Broker): Promise<void> {
  const { dropped } = await broker.moveOutbox();
  if (dropped === 0) return;
  const details = { count: dropped, why: "their queue was deleted before they were moved to it" };
  observe({ kind: "notice", level: "WARN", message: "messages published by SQL were dropped", details });
}

/** Looks for what no notification told of, and tells the tasks' job when there are any. */
export const outboxJob = (broker: Broker, wakeTasks: () => void): Job => ({
  name: "outbox",
  is_shared: true,
  async run() {
    const { has_outbox, has_tasks } = await broker.findWork();
    if (has_tasks) wakeTasks();
    if (has_outbox) await moveOutbox(broker);
    return every_ms;
  },
});
