import type { Broker } from "../broker/broker.ts";
import type { Job } from "./loop.ts";

/** Without being woken. */
const every_ms = 30_000;
const busy_ms = 5;

/** Goes on with redrives, purges and the like, a step of each a run; `wake` says that there are some. */
export function tasksJob(broker: Broker): Job & { wake(): void } {
  let wake = () => {};
  return {
    name: "tasks",
    is_shared: true,
    async run() {
      const { is_busy } = await broker.runTasks();
      return is_busy ? busy_ms : every_ms;
    },
    onStart(own) {
      wake = own;
    },
    wake: () => wake(),
  };
}
