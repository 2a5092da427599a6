import { type Config, settings } from "../config.ts";
import type { Log } from "../log.ts";
import { readCertificates } from "./certificates.ts";
import { createCrew } from "./crew.ts";
import { checkListeners } from "./listeners.ts";

// A server of several processes. This one serves nothing: it starts the workers, passes on what they tell each other,
// and starts a new one in the place of one that ended.

/** Beyond the grace period for requests: how long a worker that stops may take to close everything. */
const close_ms_max = 10_000;

export type WorkersOptions = {
  config: Config;
  /** What was given, the settings among it: each worker reads them again. */
  values: Record<string, string | undefined>;
  log: Log;
  /** Resolves when the server is to stop. */
  stopped: Promise<unknown>;
};

/**
 * Runs a server of several processes until it is told to stop; answers its exit code. A worker that cannot start at the
 * start of the server ends it, with what it said. Throws ConfigError and ListenError before any is started.
 */
export async function runWorkers({ config, values, log, stopped }: WorkersOptions): Promise<number> {
  const addresses = await checkListeners(config);
  // Each worker reads them again. Here, so that none is started with files that cannot be used.
  const certificates = readCertificates(config);
  const given = Object.fromEntries(Object.keys(settings).map((name) => [name, values[name]]));
  const crew = createCrew({ config, values: given, addresses, log });
  const stop = () => crew.stop(config.PSQLQUEUE_SHUTDOWN_GRACE_SECONDS * 1000 + close_ms_max);
  if (certificates !== undefined) process.on("SIGHUP", () => crew.signal("SIGHUP"));
  // One alone finds out whether there can be any, and which ports are free.
  const rest = Array.from({ length: config.workers - 1 }, (_, i) => i + 2);
  const starting = crew.start([1]).then((failure) => failure ?? crew.start(rest));
  const outcome = await Promise.race([starting, stopped.then(() => "stopped" as const)]);
  if (outcome !== undefined && outcome !== "stopped") {
    await stop();
    const { level, message, details } = outcome.line;
    if (outcome.stderr !== undefined) process.stderr.write(outcome.stderr);
    log(level, message, details);
    return 1;
  }
  if (outcome === undefined) {
    log("info", "workers started", { workers: config.workers, pids: crew.pids() });
    for (const { level, message, details } of crew.lines) log(level, message, details);
    await stopped;
  }
  const is_clean = await stop();
  log("info", "server exiting");
  return is_clean ? 0 : 1;
}
