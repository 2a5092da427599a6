import type { Broker } from "../broker/broker.ts";
import { observe } from "../observe.ts";
import type { Job } from "./loop.ts";
import { moveOutbox } from "./outbox.ts";

const every_ms = 10_000;

/**
 * Tells the other servers of the database that this one lives, and listens to their wake-ups. Where LISTEN is not to be
 * had (a pooler in transaction mode) the waiters poll more often instead, and the job tries again.
 */
export function peersJob(broker: Broker): Job {
  let unlisten: (() => Promise<void>) | undefined;
  let is_deaf = false;

  async function listen(): Promise<void> {
    try {
      unlisten = await broker.notifier.listen(broker.wakeups.wake, () => {
        broker.wakeups.setListening(true);
        // What was sent while the connection was away is lost.
        broker.wakeups.wakeAll();
      });
      await broker.listenToOutbox(() => void moveOutbox(broker).catch(() => {}));
      is_deaf = false;
    } catch (error) {
      broker.wakeups.setListening(false);
      if (!is_deaf) {
        const details = { effect: "waiting receives poll every 250 ms instead", error: String(error) };
        observe({ kind: "notice", level: "WARN", message: "LISTEN is not available", details });
      }
      is_deaf = true;
    }
  }

  return {
    name: "peers",
    is_shared: false,
    async run() {
      if (unlisten === undefined) await listen();
      await broker.notifier.announce();
      return every_ms;
    },
  };
}
