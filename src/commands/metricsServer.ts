import type { Config } from "../config.ts";
import { BrokerError } from "../errors.ts";
import { refusal, refusalOf } from "../http/output.ts";
import type { Metrics } from "../metrics.ts";
import type { Auth } from "../web/keyCache.ts";
import { createOriginRule } from "../web/origin.ts";
import { nativeResponse } from "../web/textResponse.ts";
import type { Link } from "./link.ts";
import { ownNames } from "./listeners.ts";

type MetricsServerOptions = {
  hostname: string;
  port: number;
  metrics: Metrics;
  keys: Auth | undefined;
  /** With it the port is shared with the other workers, and each of them answers for all. */
  link: Link | undefined;
  /** The API, which is asked for its health here as well: this port has no TLS, and asks for no certificates. */
  api: (request: Request) => Promise<Response>;
};

const isHealth = (request: Request) => new URL(request.url).pathname === "/v1/healthz";

/** The metrics say of every queue how it is doing. */
async function refuseUnknown(keys: Auth | undefined, request: Request): Promise<Response | undefined> {
  try {
    const identity = await keys?.identify(request.headers.get("authorization"));
    return identity?.mayAll("peek") ? undefined : refusal(new BrokerError("forbidden"));
  } catch (error) {
    return refusal(refusalOf(error, "metrics"));
  }
}

/** Serves the metrics, on every path but that of the health check. Throws where the port cannot be listened on. */
export function serveMetrics(
  config: Config,
  { hostname, port, metrics, keys, link, api }: MetricsServerOptions,
): ReturnType<typeof Bun.serve> {
  const is_open = config.PSQLQUEUE_METRICS_AUTH !== "on" || config.PSQLQUEUE_AUTH_OPEN.includes("metrics");
  const origin = createOriginRule({ origins: config.PSQLQUEUE_CORS_ORIGINS, is_open, own_names: ownNames(config) });

  /** Why nobody is told the metrics; undefined: they are. */
  async function refuseScrape(request: Request): Promise<Response | undefined> {
    if (!is_open) return await refuseUnknown(keys, request);
    const why = origin.problemOfReading(request);
    return why === undefined ? undefined : refusal(new BrokerError("forbidden", why));
  }

  return Bun.serve({
    hostname,
    port,
    reusePort: link !== undefined,
    async fetch(request) {
      if (isHealth(request)) return nativeResponse(await api(request));
      const refused = await refuseScrape(request);
      if (refused !== undefined) return nativeResponse(refused);
      const others = link === undefined ? [] : await link.collect(await metrics.collect());
      return new Response(await metrics.scrape(others), {
        headers: { "content-type": "text/plain; version=0.0.4; charset=utf-8" },
      });
    },
  });
}
