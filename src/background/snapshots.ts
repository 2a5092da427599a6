import type { Broker } from "../broker/broker.ts";
import { observe } from "../observe.ts";
import type { Job } from "./loop.ts";

const every_ms = 20_000;
/** A snapshot held longer than this is somebody's forgotten transaction. */
const age_seconds_max = 300;
/** The same holder is named again after so long. */
const again_ms = 300_000;

/**
 * Warns of a transaction that holds an old snapshot, by name and with what to do: speed stays the same, but no dead row
 * is removed until it ends, and the disk fills. The usual death of queues on PostgreSQL.
 */
export function createSnapshotWatch(broker: Pick<Broker, "findOldestSnapshot">, seconds_max = age_seconds_max) {
  let warned: { of: string; at_ms: number } | undefined;
  return async (): Promise<void> => {
    const snapshot = await broker.findOldestSnapshot();
    if (snapshot === null || snapshot.age_seconds < seconds_max) return;
    const { age_seconds, pid, application_name, user, state } = snapshot;
    const of = `${pid} ${application_name}`;
    if (warned?.of === of && performance.now() - warned.at_ms < again_ms) return;
    warned = { of, at_ms: performance.now() };
    const remedy =
      pid === null ? "commit or roll back the prepared transaction" : `select pg_terminate_backend(${pid})`;
    observe({
      kind: "notice",
      level: "WARN",
      message: "a transaction holds an old snapshot",
      details: {
        pid,
        application_name,
        user,
        state,
        age_seconds: Math.round(age_seconds),
        effect: "vacuum cannot remove dead rows, and disk use grows until it ends",
        remedy,
      },
    });
  };
}

/** Looks for such transactions. */
export function snapshotsJob(broker: Broker): Job {
  const watch = createSnapshotWatch(broker);
  return {
    name: "snapshots",
    is_shared: true,
    async run() {
      await watch();
      return every_ms;
    },
  };
}
