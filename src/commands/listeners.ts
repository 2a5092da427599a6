import dns from "node:dns/promises";
import { isIP } from "node:net";
import os from "node:os";
import { type Config, ConfigError } from "../config.ts";
import { describeError } from "../log.ts";

export type ListenerName = "http" | "metrics" | "sqs";

/** A listener that could not be opened; the message says what to do. Logged under the listener's own message. */
export class ListenError extends Error {
  override readonly name = "ListenError";
  readonly listener: ListenerName;

  constructor(listener: ListenerName, message: string, cause: unknown) {
    super(message, { cause });
    this.listener = listener;
  }
}

const names = {
  http: ["PSQLQUEUE_SERVER_HOST", "PSQLQUEUE_SERVER_PORT"],
  metrics: ["PSQLQUEUE_METRICS_HOST", "PSQLQUEUE_METRICS_PORT"],
  sqs: ["PSQLQUEUE_SERVER_HOST", "PSQLQUEUE_SQS_PORT"],
} as const;

/** What the system says about an address or a port, in terms of our settings. */
function describeFailure(listener: ListenerName, config: Config, cause: unknown): string {
  const [host_name, port_name] = names[listener];
  const port = `${port_name}=${config[port_name]}`;
  const host = `${host_name}=${config[host_name]}`;
  const { code } = cause as { code?: string };
  if (code === "EADDRINUSE") {
    return `${port} is in use on ${host} already; set ${port_name} to another port, or stop what listens there`;
  }
  if (code === "EACCES" || code === "EPERM") {
    return `${port} is not allowed to this user; set ${port_name} to a port from 1024 upwards`;
  }
  const remedy = `set ${host_name} to 0.0.0.0 for all addresses of this machine, or to one of ${ownAddresses()}`;
  if (code === "EADDRNOTAVAIL") return `${host} is not an address of this machine; ${remedy}`;
  if (cause instanceof UnknownHost) return `${host} is no address, and no name that can be resolved here; ${remedy}`;
  return `${host} and ${port} cannot be listened on: ${describeError(cause)}; ${remedy}`;
}

function ownAddresses(): string {
  const all = Object.values(os.networkInterfaces()).flatMap((list) => list ?? []);
  // Addresses of one link need its name behind them, and are no use here.
  return all.flatMap(({ address }) => (address.startsWith("fe80:") ? [] : [address])).join(", ");
}

class UnknownHost extends Error {
  override readonly name = "UnknownHost";
}

/** One address, of IPv4 where there is one: every client that was told `localhost` tries that, first or second. */
async function resolveHost(host: string): Promise<string> {
  if (isIP(host) !== 0) return host;
  try {
    const found = await dns.lookup(host, { all: true });
    return (found.find(({ family }) => family === 4) ?? found[0])?.address ?? host;
  } catch (cause) {
    throw new UnknownHost(`${host} cannot be resolved`, { cause });
  }
}

/** Starts a listener. Throws ListenError. */
export async function listen<T>(listener: ListenerName, config: Config, start: () => T): Promise<Awaited<T>> {
  try {
    return await start();
  } catch (cause) {
    throw new ListenError(listener, describeFailure(listener, config, cause), cause);
  }
}

const isWildcard = (host: string) => ["0.0.0.0", "[::]"].includes(canonical(host));
/** `::0` and `0` are `[::]` and `0.0.0.0`. A name stays as it is. */
function canonical(host: string): string {
  const url = `http://${host.includes(":") ? `[${host}]` : host}`;
  return URL.canParse(url) ? new URL(url).hostname : host;
}

/** The port of a listener; undefined: there is none. */
export function portOf(listener: ListenerName, config: Config): number | undefined {
  const port = config[names[listener][1]];
  return port === "" || (listener === "sqs" && config.PSQLQUEUE_SQS === "off") ? undefined : port;
}

/** Throws ConfigError for a listener that would be in the way of another one. */
function assertApart(config: Config, other: ListenerName, listener: ListenerName): void {
  const port = portOf(listener, config);
  const [[host_name, port_name], [other_host_name, other_port_name]] = [names[listener], names[other]];
  const [host, other_host] = [config[host_name], config[other_host_name]];
  const meet = canonical(host) === canonical(other_host) || isWildcard(host) || isWildcard(other_host);
  if (port === undefined || port === 0 || port !== portOf(other, config) || !meet) return;
  throw new ConfigError(
    `${port_name}="${port}" cannot be used; allowed: another port than ${other_port_name} (${port})`,
  );
}

/**
 * Finds out, before anything is made or opened, whether the listeners can be; answers the addresses for them. Throws
 * ListenError, and ConfigError where they would be in each other's way.
 */
export async function checkListeners(config: Config): Promise<Record<ListenerName, string>> {
  assertApart(config, "http", "metrics");
  assertApart(config, "http", "sqs");
  assertApart(config, "metrics", "sqs");
  const check = async (listener: ListenerName) => {
    const port = portOf(listener, config);
    try {
      const hostname = await resolveHost(config[names[listener][0]]);
      if (port === undefined) return hostname;
      // Closed again at once: a connection is taken only by a server that can answer.
      const tried = Bun.serve({
        hostname,
        port,
        reusePort: false,
        fetch: () => new Response(null, { status: 503 }),
      });
      await tried.stop(true);
      return hostname;
    } catch (cause) {
      throw new ListenError(listener, describeFailure(listener, config, cause), cause);
    }
  };
  return { metrics: await check("metrics"), http: await check("http"), sqs: await check("sqs") };
}

/** The names that this server goes by, as far as its settings and its machine tell. */
export function ownNames(config: Config): string[] {
  const public_url = config.PSQLQUEUE_SQS_PUBLIC_URL;
  const public_names = public_url === "" ? [] : [new URL(public_url).host];
  return [os.hostname(), config.PSQLQUEUE_SERVER_HOST, ...public_names];
}

/** Where a browser on this machine finds a server that listens on `host`. */
export function urlOf(host: string, port: number, has_tls = false): string {
  return `http${has_tls ? "s" : ""}://${isWildcard(host) ? "localhost" : canonical(host)}:${port}`;
}

/** Where a server of these settings is asked for its health by a program on this machine. */
export function healthUrl(config: Config, listener: "http" | "metrics" = "http"): string {
  const [host_name, port_name] = names[listener];
  const host = canonical(config[host_name]);
  const reachable = host === "0.0.0.0" ? "127.0.0.1" : host === "[::]" ? "[::1]" : host;
  const scheme = listener === "metrics" || config.PSQLQUEUE_TLS_CERT === "" ? "http" : "https";
  return `${scheme}://${reachable}:${config[port_name]}/v1/healthz`;
}
