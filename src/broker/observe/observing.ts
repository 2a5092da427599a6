import type { Db } from "../../db/db.ts";
import type { ScanFloors } from "../deliver/scanFloors.ts";
import { createInspection } from "../manage/inspection.ts";
import { createDepths, metrics_effort } from "./depths.ts";
import { createHistory } from "./history.ts";
import { createOverview } from "./overview.ts";
import { createStats } from "./stats.ts";
import { createTableHealth } from "./tableHealth.ts";

/** Everything that looks and changes nothing: numbers of queues now and in the last day, groups, the tables. */
export function createObserving(db: Db, floorOf: ScanFloors["floorOf"]) {
  const depths = createDepths(db, floorOf);
  return {
    ...createStats(db, floorOf),
    ...createHistory(db, depths),
    ...createOverview(db, depths),
    ...createInspection(db),
    ...createTableHealth(db),
    /** The states of the first `queues_max` queues by id, for the metrics: bounded, whatever they hold. */
    listDepths: (queues_max: number) => depths.listDepths(queues_max, metrics_effort),
    /** The states of all queues after this one, together. */
    sumDepthsAfter: depths.sumDepthsAfter,
  };
}
