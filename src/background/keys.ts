import type { Broker } from "../broker/broker.ts";
import type { Job } from "./loop.ts";

const every_ms = 60_000;

/** What of the keys' cache this job needs. */
export type KeyCache = { forget(id: string): void; forgetAll(): void; takeUsed(): string[] };

/**
 * Forgets keys that another server has revoked, and notes which were used. Where LISTEN is not to be had, a revoked key
 * is forgotten when the cache asks for it again.
 */
export function keysJob(broker: Broker, cache: KeyCache, has_peers: boolean): Job {
  broker.onKeyRevoked(cache.forget);
  let has_started = !has_peers;
  return {
    name: "keys",
    is_shared: false,
    async run() {
      if (!has_started) {
        has_started = true;
        // What was told while nothing arrived is lost.
        await broker.listenToKeys(cache.forget, () => cache.forgetAll());
      }
      await broker.touchKeys(cache.takeUsed());
      return every_ms;
    },
  };
}
