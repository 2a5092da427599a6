import type { Db } from "../../db/db.ts";
import type { NoteMessages } from "../../observe.ts";
import type { RepairFair } from "../manage/fairKeys.ts";
import type { Removals } from "../manage/removal.ts";
import type { Settle } from "../settle/settle.ts";
import { createArchiveSweep } from "./archive.ts";
import { createDeduplicationSweep } from "./deduplications.ts";
import { createDeletedQueueSweep } from "./deletedQueues.ts";
import { createExhaustedSweep } from "./exhausted.ts";
import { createExpiredSweep } from "./expired.ts";
import { createFairSweep } from "./fairKeys.ts";
import { createOverdueSweep } from "./overdue.ts";
import { createPublishBatchSweep } from "./publishBatches.ts";

/** What sweeps do their work with. */
export type SweepTools = { settle: Settle; note: NoteMessages; removals: Removals; repairFair: RepairFair };

/** What keeps the tables small, and nets for what should not happen; each may be run again at any time. */
export const createSweeps = (db: Db, { settle, note, removals, repairFair }: SweepTools) => ({
  ...createExpiredSweep(db, settle, note),
  ...createOverdueSweep(db, settle),
  ...createExhaustedSweep(db, settle),
  ...createArchiveSweep(db),
  ...createDeduplicationSweep(db),
  ...createPublishBatchSweep(db),
  ...createFairSweep(db, repairFair),
  ...createDeletedQueueSweep(db, removals),
});
