import type { Broker } from "../broker/broker.ts";
import type { Job } from "./loop.ts";

const every_ms = 10_000;

/** Keeps the time of the database known, which ids of messages are made of. */
export const clockJob = (broker: Broker): Job => ({
  name: "clock",
  is_shared: false,
  async run() {
    await broker.clock.measure();
    return every_ms;
  },
});
