import { badNetwork, governedQueues, lostAnswers, unknownCommits } from "./connections.ts";
import { control, crashedDatabase, killedBackends, killedServers } from "./crashes.ts";
import { crashPoints } from "./crashPoints.ts";
import { killedEmbedded, secondProcesses } from "./embedded.ts";
import { failovers } from "./failover.ts";
import { leaseRaces, steppedClocks } from "./leases.ts";
import { partitions } from "./partitions.ts";
import { pooledSessions, pooledTransactions } from "./pooler.ts";
import { fullDisk, overload, pinnedSnapshot } from "./pressure.ts";
import { gracefulStops } from "./restarts.ts";
import type { Scenario } from "./scenario.ts";
import { brokenSqs } from "./sqs.ts";
import { brokenTopics } from "./topics.ts";
import { killedWorkers } from "./workers.ts";

/** Every scenario, in the order of the plan. */
export const scenarios: Scenario[] = [
  control,
  killedServers,
  crashedDatabase,
  killedBackends,
  unknownCommits,
  badNetwork,
  lostAnswers,
  leaseRaces,
  steppedClocks,
  fullDisk,
  failovers,
  pinnedSnapshot,
  overload,
  gracefulStops,
  partitions,
  killedEmbedded,
  secondProcesses,
  crashPoints,
  governedQueues,
  killedWorkers,
  brokenTopics,
  brokenSqs,
  pooledSessions,
  pooledTransactions,
];
