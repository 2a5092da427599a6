import { readFileSync, statSync } from "node:fs";
import tls from "node:tls";
import { type Config, ConfigError } from "../config.ts";
import { describeError, type Log } from "../log.ts";
import type { Certificates } from "../web/port.ts";

const watch_ms = 5000;

const names = ["PSQLQUEUE_TLS_CERT", "PSQLQUEUE_TLS_KEY", "PSQLQUEUE_TLS_CLIENT_CA"] as const;

function readFile(config: Config, name: (typeof names)[number]): string {
  const file = config[name];
  try {
    return readFileSync(file, "utf8");
  } catch (cause) {
    const why = `${name}=${JSON.stringify(file)} cannot be read`;
    throw new ConfigError(`${why} (${(cause as { code?: string }).code}): correct the path, or who may read it`);
  }
}

/** The certificates of the settings; undefined without them. Throws ConfigError when they cannot be used. */
export function readCertificates(config: Config): Certificates | undefined {
  if (config.PSQLQUEUE_TLS_CERT === "") return undefined;
  const cert = readFile(config, "PSQLQUEUE_TLS_CERT");
  const key = readFile(config, "PSQLQUEUE_TLS_KEY");
  const client_ca = config.PSQLQUEUE_TLS_CLIENT_CA === "" ? undefined : readFile(config, "PSQLQUEUE_TLS_CLIENT_CA");
  try {
    tls.createSecureContext({ cert, key });
  } catch (cause) {
    throw new ConfigError(
      `PSQLQUEUE_TLS_CERT and PSQLQUEUE_TLS_KEY cannot be used: ${describeError(cause)}; allowed: a certificate and its ` +
        "own key, both in PEM",
    );
  }
  try {
    if (client_ca !== undefined) tls.createSecureContext({ ca: client_ca });
  } catch (cause) {
    throw new ConfigError(
      `PSQLQUEUE_TLS_CLIENT_CA cannot be used: ${describeError(cause)}; allowed: certificates of authorities in PEM`,
    );
  }
  return { cert, key, client_ca };
}

/** When the files were last written, as one text; empty while one of them is not there. */
function stampOf(config: Config): string {
  try {
    return names.flatMap((name) => (config[name] === "" ? [] : [statSync(config[name]).mtimeMs])).join();
  } catch {
    return "";
  }
}

/**
 * Takes over new certificates when their files change, and at SIGHUP. What cannot be used is logged, and what was used
 * before goes on. Answers how to end it.
 */
export function watchCertificates(
  config: Config,
  log: Log,
  reload: (certificates: Certificates) => Promise<void>,
): () => void {
  if (config.PSQLQUEUE_TLS_CERT === "") return () => {};
  let seen = stampOf(config);
  let running: Promise<void> = Promise.resolve();

  async function takeOver(): Promise<void> {
    try {
      const certificates = readCertificates(config);
      if (certificates !== undefined) await reload(certificates);
      log("info", "certificates reloaded", { file: config.PSQLQUEUE_TLS_CERT });
    } catch (error) {
      const effect = "the certificate from before is used on";
      log("error", "certificates cannot be reloaded", { error: describeError(error), effect });
    }
  }
  const onHangup = () => {
    running = running.then(takeOver);
  };
  const timer = setInterval(() => {
    const stamp = stampOf(config);
    if (stamp === seen || stamp === "") return;
    seen = stamp;
    onHangup();
  }, watch_ms);
  timer.unref();
  process.on("SIGHUP", onHangup);
  return () => {
    clearInterval(timer);
    process.off("SIGHUP", onHangup);
  };
}
