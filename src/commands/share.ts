import type { Config } from "../config.ts";

/** The settings of one worker: what is for the whole server is shared evenly, and no worker has less than one. */
export function shareOf(config: Config): Config {
  const { workers } = config;
  const share = (value: number) => Math.max(1, Math.floor(value / workers));
  return Object.freeze({
    ...config,
    PSQLQUEUE_DATABASE_MAX_CONNS: share(config.PSQLQUEUE_DATABASE_MAX_CONNS),
    PSQLQUEUE_DATABASE_MIN_CONNS: Math.floor(config.PSQLQUEUE_DATABASE_MIN_CONNS / workers),
    PSQLQUEUE_BATCH_LANES: share(config.PSQLQUEUE_BATCH_LANES),
    PSQLQUEUE_BATCH_MAX_WAITING: share(config.PSQLQUEUE_BATCH_MAX_WAITING),
    PSQLQUEUE_MAX_WAITERS: share(config.PSQLQUEUE_MAX_WAITERS),
    PSQLQUEUE_WAITING_MAX_BYTES: share(config.PSQLQUEUE_WAITING_MAX_BYTES),
    PSQLQUEUE_ANSWERS_MAX_BYTES: share(config.PSQLQUEUE_ANSWERS_MAX_BYTES),
  });
}
