// What a message costs must not depend on what else is there. Each row compares two states of the server in one run.

import type { FlatName } from "../options.ts";
import { type Bed, type FlatRow, NeedsDatabase } from "./bed.ts";
import { measureIdle, measurePinned, measureSingle } from "./others.ts";
import { measureBacklog, measureInFlight, measureQueues, measureRareLabel } from "./stored.ts";

const measures: Record<FlatName, (bed: Bed, size: number) => Promise<FlatRow[]>> = {
  idle: measureIdle,
  single: measureSingle,
  backlog: measureBacklog,
  "in-flight": measureInFlight,
  "rare-label": measureRareLabel,
  queues: measureQueues,
  "pinned-horizon": measurePinned,
};

/** Measures the rows that are asked for, those first that need a quiet server. */
export async function measureFlat(bed: Bed): Promise<{ rows: FlatRow[]; skipped: FlatName[] }> {
  const rows: FlatRow[] = [];
  const skipped: FlatName[] = [];
  for (const name of Object.keys(measures) as FlatName[]) {
    const asked = bed.options.flat.find((item) => item.name === name);
    if (asked === undefined) continue;
    bed.onStep(`${name}, ${asked.size}`);
    try {
      rows.push(...(await measures[name](bed, asked.size)));
    } catch (error) {
      if (!(error instanceof NeedsDatabase)) throw error;
      skipped.push(name);
    }
  }
  return { rows, skipped };
}
