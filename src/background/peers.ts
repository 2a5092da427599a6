import type { Broker } from "../broker/broker.ts";
import { observe } from "../observe.ts";
import type { Job } from "./loop.ts";
import { moveOutbox } from "./outbox.ts";

const every_ms = 10_000;

/**
 * Tells the other servers of the database that this one lives, and listens to their wake-ups. Where LISTEN is not to be
 * had (a pooler in transaction mode) the waiters poll more often instead, until it is.
 */
export function peersJob(broker: Broker): Job {
  let has_started = false;
  let is_deaf = false;

  async function listen(): Promise<void> {
    await broker.notifier.listen(broker.wakeups.wake, (is_listening, error) => {
      broker.wakeups.setListening(is_listening);
      if (is_listening) {
        // What was sent while nothing arrived is lost.
        broker.wakeups.wakeAll();
        if (is_deaf) observe({ kind: "notice", level: "INFO", message: "LISTEN is available again" });
      } else if (!is_deaf) {
        const details = { effect: "waiting receives poll every 250 ms instead", error: String(error) };
        observe({ kind: "notice", level: "WARN", message: "LISTEN is not available", details });
      }
      is_deaf = !is_listening;
    });
    await broker.listenToOutbox(() => void moveOutbox(broker).catch(() => {}));
  }

  return {
    name: "peers",
    is_shared: false,
    async run() {
      if (!has_started) {
        has_started = true;
        await listen();
      }
      await broker.notifier.announce();
      return every_ms;
    },
  };
}
