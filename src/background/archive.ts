import type { Broker } from "../broker/broker.ts";
import { observe } from "../observe.ts";
import type { Job } from "./loop.ts";

const every_ms = 3_600_000;

/** Makes the archive's next days and drops old ones. Fails while pg_dump reads the archive, and is tried again. */
export const archiveJob = (broker: Broker): Job => ({
  name: "archive",
  is_shared: true,
  async run() {
    const kept = await broker.keepArchive();
    if (kept.days_dropped > 0) observe({ kind: "job", job: "archive", details: kept });
    return every_ms;
  },
});
