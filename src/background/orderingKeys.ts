import type { Broker } from "../broker/broker.ts";
import type { KeyPlace } from "../broker/manage/orderingKeys.ts";
import { observe } from "../observe.ts";
import type { Job } from "./loop.ts";

const every_ms = 20_000;
/** Pages of keys that one run looks at. */
const pages_max = 10;
const name = "ordering keys";

/** Looks at all ordering keys, a few pages a run: a key whose first message is not to be seen would stand still. */
export function orderingKeysJob(broker: Broker): Job {
  /** Where it stands; undefined: at the beginning. */
  let place: KeyPlace | undefined;
  return {
    name,
    is_shared: true,
    async run() {
      let total = 0;
      for (let pages = 1; pages <= pages_max; pages++) {
        const { count, next } = await broker.sweepOrderingKeys(place);
        total += count;
        place = next;
        if (next === undefined) break;
      }
      if (total > 0) observe({ kind: "job", job: name, details: { count: total } });
      return every_ms;
    },
  };
}
