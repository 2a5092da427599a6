import type { Broker } from "../broker/broker.ts";
import type { Place } from "../broker/sweep/overdue.ts";
import { observe } from "../observe.ts";
import type { Job } from "./loop.ts";

const every_ms = 20_000;
/** Pages of the scan of the whole table that one run reads: while it finds nothing, and while it does. */
const idle_pages_max = 5;
const busy_pages_max = 100;
const name = "overdue messages";

/** Scans the whole table, a few pages a run, for what the other sweeps do not see. */
export function overdueJob(broker: Broker): Job {
  /** Where the scan stands; undefined: at its beginning. */
  let place: Place | undefined;
  return {
    name,
    is_shared: true,
    async run() {
      let total = 0;
      for (let pages = 1; pages <= busy_pages_max; pages++) {
        const { count, next, failures } = await broker.sweepOverdue(place);
        total += count;
        // The scan comes round again: one place that fails must not keep it from all that stands behind.
        for (const error of failures) observe({ kind: "job", job: name, error });
        place = next;
        if (next === undefined || (count === 0 && pages >= idle_pages_max)) break;
      }
      if (total > 0) observe({ kind: "job", job: name, details: { count: total } });
      return every_ms;
    },
  };
}
