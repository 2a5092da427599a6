import type { Broker } from "../broker/broker.ts";
import type { Job } from "./loop.ts";

const every_ms = 1000;
const busy_ms = 5;

/** Goes on with redrives, purges and the like, a step of each a run. */
export const tasksJob = (broker: Broker): Job => ({
  name: "tasks",
  is_shared: true,
  async run() {
    const { is_busy } = await broker.runTasks();
    return is_busy ? busy_ms : every_ms;
  },
});
