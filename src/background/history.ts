import type { Broker } from "../broker/broker.ts";
import type { Job } from "./loop.ts";

const minute_ms = 60_000;
/** Past a full minute, whose last counts arrive some seconds late. */
const after_ms = 20_000;

/** Writes the last minute of every queue down, for charts. */
export const historyJob = (broker: Broker): Job => ({
  name: "history",
  is_shared: true,
  async run() {
    await broker.recordMinutes();
    return minute_ms - (Date.now() % minute_ms) + after_ms;
  },
});
