import type { Broker } from "../broker/broker.ts";
import { archiveJob } from "./archive.ts";
import { clockJob } from "./clock.ts";
import { historyJob } from "./history.ts";
import type { Job } from "./loop.ts";
import { orderingKeysJob } from "./orderingKeys.ts";
import { outboxJob } from "./outbox.ts";
import { overdueJob } from "./overdue.ts";
import { ratesJob } from "./rates.ts";
import { snapshotsJob } from "./snapshots.ts";
import { sweepJobs } from "./sweeps.ts";
import { tasksJob } from "./tasks.ts";

/** Every job of a server. A new one is a file beside this one, and a line here. */
export function jobsOf(broker: Broker): Job[] {
  const tasks = tasksJob(broker);
  return [
    tasks,
    outboxJob(broker, tasks.wake),
    archiveJob(broker),
    overdueJob(broker),
    orderingKeysJob(broker),
    snapshotsJob(broker),
    ratesJob(broker),
    clockJob(broker),
    historyJob(broker),
    ...sweepJobs(broker),
  ];
}
