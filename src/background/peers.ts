import type { Broker } from "../broker/broker.ts";
import { observe } from "../observe.ts";
import type { Job } from "./loop.ts";
import { moveOutbox } from "./outbox.ts";

const every_ms = 10_000;

/** Notifications arrive from now on, or no longer. */
export function hearListening({ wakeups }: Broker, is_listening: boolean): void {
  wakeups.setListening(is_listening);
  // What was sent while nothing arrived is lost.
  if (is_listening) wakeups.wakeAll();
}

/** What the processes of one server besides this one are told. */
export type Relay = { woken(queue_id: string): void; listening(is_listening: boolean): void };

/**
 * Tells the other servers of the database that this one lives, and listens to their wake-ups. Where LISTEN is not to be
 * had (a pooler in transaction mode) the waiters poll more often instead, until it is.
 */
export function peersJob(broker: Broker, relay?: Relay): Job {
  let has_started = false;
  let is_deaf = false;

  function wake(queue_id: string): void {
    broker.wakeups.wake(queue_id);
    relay?.woken(queue_id);
  }

  async function listen(): Promise<void> {
    await broker.notifier.listen(wake, (is_listening, error) => {
      hearListening(broker, is_listening);
      relay?.listening(is_listening);
      if (is_listening) {
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
