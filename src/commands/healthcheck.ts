import tls from "node:tls";
import type { Config } from "../config.ts";
import { describeError } from "../log.ts";
import type { Certificates } from "../web/port.ts";
import { readCertificates } from "./certificates.ts";
import { healthUrl } from "./listeners.ts";

/**
 * Throws unless TLS is served there. Whoever asks for certificates of clients judges ours only after the handshake, as
 * of TLS 1.3: that we have none does not matter.
 */
function shakeHands(url: string, timeout_ms: number): Promise<void> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve, reject) => {
    const host = hostname.replace(/^\[(.*)\]$/, "$1");
    const options = { host, port: Number(port), rejectUnauthorized: false, minVersion: "TLSv1.3" } as const;
    const socket = tls.connect(options, () => {
      resolve();
      socket.destroy();
    });
    socket.setTimeout(timeout_ms, () => socket.destroy(new Error(`no handshake within ${timeout_ms} ms`)));
    socket.on("error", reject);
  });
}

/** Throws when nobody answers. */
async function problemAt(url: string, timeout_ms: number, certificates?: Certificates): Promise<string | undefined> {
  // The server's certificate is for the names that clients use.
  const tls_options = { ...certificates, rejectUnauthorized: false };
  const response = await fetch(url, { signal: AbortSignal.timeout(timeout_ms), tls: tls_options });
  if (response.ok) return undefined;
  return `${url} answered ${response.status}: ${(await response.text()).slice(0, 500)}`;
}

/**
 * Why a server of these settings on this machine cannot serve requests; undefined: it can. Where it asks for
 * certificates of clients, and its own is none of them, the metrics port tells. Throws ConfigError when its own cannot
 * be used.
 */
export async function problemOfServer(config: Config, timeout_ms: number): Promise<string | undefined> {
  const certificates = readCertificates(config);
  let url = healthUrl(config);
  try {
    try {
      return await problemAt(url, timeout_ms, certificates);
    } catch (error) {
      if (certificates?.client_ca === undefined) throw error;
      await shakeHands(url, timeout_ms);
    }
    url = healthUrl(config, "metrics");
    return await problemAt(url, timeout_ms);
  } catch (error) {
    return `${url} did not answer: ${describeError(error)}`;
  }
}
