import type { Broker } from "../broker/broker.ts";
import type { Job } from "./loop.ts";

const every_ms = 4000;

/** Writes down what was published and acked since the last time. Every server does it for itself. */
export const ratesJob = (broker: Broker): Job => ({
  name: "rates",
  is_shared: false,
  async run() {
    await broker.flushRates();
    return every_ms;
  },
});
