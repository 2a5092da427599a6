import type { Broker } from "../broker/broker.ts";
import type { Job } from "./loop.ts";

const every_ms = 60_000;
const listening_ms = 3_600_000;

/** What of the keys' cache these jobs need. */
export type KeyCache = { forget(id: string): void; forgetAll(): void; takeUsed(): string[] };

/** Notes which keys were used. Every process does it for itself. */
export const keysJob = (broker: Broker, cache: Pick<KeyCache, "takeUsed">): Job => ({
  name: "keys",
  is_shared: false,
  async run() {
    await broker.touchKeys(cache.takeUsed());
    return every_ms;
  },
});

/**
 * Forgets keys that another server has revoked. Where LISTEN is not to be had, a revoked key is forgotten when the
 * cache asks for it again.
 */
export function revokedKeysJob(broker: Broker, cache: Pick<KeyCache, "forget" | "forgetAll">): Job {
  let has_started = false;
  return {
    name: "revoked keys",
    is_shared: false,
    async run() {
      if (!has_started) {
        has_started = true;
        // What was told while nothing arrived is lost.
        await broker.listenToKeys(cache.forget, () => cache.forgetAll());
      }
      return listening_ms;
    },
  };
}
