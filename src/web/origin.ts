import { isIP } from "node:net";
import { isEncrypted } from "./request.ts";

// Which requests of browsers are served. A program sends none of the headers that are looked at here, and passes.

/** Seconds for which a browser remembers a preflight. */
const preflight_seconds = 600;

const foreign = "a page of another site asks; PSQLQUEUE_CORS_ORIGINS can allow its origin";
const unknown_name =
  "a browser asks by a public name, without TLS, and no keys are asked for: any page could do that (DNS rebinding); use " +
  "localhost, an IP address or a name without a dot, or allow it: PSQLQUEUE_CORS_ORIGINS=http://name:port of this server";

/** Names below these are of one machine or one network: nobody has a page there for all the world to open. */
const local_names = /(?:^|\.)(?:localhost|local|internal|home\.arpa)$/;

type Headers = { get(name: string): string | null; has(name: string): boolean };

export type OriginRules = {
  /** Those of other pages that may call; `*` allows all. */
  origins: string[];
  /** Does who reaches this server need no key? */
  is_open: boolean;
  /** Names of this server, beside those that every server may have. */
  own_names: string[];
};

/** `http://host:port` of an address against the Host header; a default port counts as left out. */
function isOwn(address: string, headers: Headers): boolean {
  const host = headers.get("host");
  if (host === null || !URL.canParse(address)) return false;
  const url = new URL(address);
  const default_port = url.protocol === "https:" ? ":443" : ":80";
  const bare = (text: string) =>
    (text.endsWith(default_port) ? text.slice(0, -default_port.length) : text).toLowerCase();
  return bare(url.host) === bare(host);
}

/**
 * Is it a browser that asks without TLS? Then it tells neither origin nor site of a GET. No page can leave languages
 * out, nor ask for `br`, which browsers do over TLS only. Node.js sends languages and a mode, Deno languages and `br`.
 */
const isPlainBrowser = (headers: Headers): boolean =>
  headers.has("accept-language") &&
  !headers.has("sec-fetch-mode") &&
  !(headers.get("accept-encoding") ?? "").includes("br");

const nameOf = (host: string): string => host.toLowerCase().replace(/:\d*$/, "").replace(/\.$/, "");

/** Which requests of browsers may pass. */
export function createOriginRule({ origins, is_open, own_names }: OriginRules) {
  const allows = (origin: string) => origins.includes("*") || origins.includes(origin);
  const allowed_names = origins.filter((origin) => URL.canParse(origin)).map((origin) => new URL(origin).host);
  const names = new Set([...own_names, ...allowed_names].map(nameOf));

  /** Is it a name that no page of the internet can have, or one of this server? */
  function isKnownName(host: string | null): boolean {
    if (host === null || origins.includes("*")) return true;
    const name = nameOf(host);
    return !name.includes(".") || name.startsWith("[") || isIP(name) !== 0 || local_names.test(name) || names.has(name);
  }

  /**
   * A page may lead its own name to this server's address once it is loaded, and is then of the same origin. Over TLS
   * it cannot: the certificate would be of another name. `Sec-Fetch-Site` is sent over TLS and to localhost only.
   */
  function isRebound({ headers }: Request): boolean {
    const origin = headers.get("origin");
    const is_plain =
      origin === null ? !headers.has("sec-fetch-site") && isPlainBrowser(headers) : !origin.startsWith("https:");
    return is_plain && !isKnownName(headers.get("host"));
  }

  /** Why the request is refused for who made the browser send it; undefined: it is not. */
  function problemOf(request: Request, is_sensitive: boolean): string | undefined {
    const { headers } = request;
    const origin = headers.get("origin");
    const site = headers.get("sec-fetch-site");
    if (origin !== null && allows(origin)) return undefined;
    // Any content type is JSON here, and GET leases.
    if (site === "cross-site" || (origin !== null && !isOwn(origin, headers))) return foreign;
    // An image or a script, of another port or a neighbouring name.
    if (site === "same-site" && origin === null && is_sensitive) return foreign;
    return is_open && !isEncrypted(request) && isRebound(request) ? unknown_name : undefined;
  }

  function preflight(request: Request, methods: string[]): Response | undefined {
    const origin = request.headers.get("origin");
    if (origin === null || !allows(origin) || !request.headers.has("access-control-request-method")) return undefined;
    const headers = {
      "access-control-allow-methods": methods.join(", "),
      "access-control-allow-headers": request.headers.get("access-control-request-headers") ?? "content-type",
      "access-control-max-age": String(preflight_seconds),
    };
    return new Response(null, { status: 204, headers });
  }

  return {
    problemOf,
    /** Why a request is refused that only reads what pages of other sites cannot; undefined: it is not. */
    problemOfReading: (request: Request) => (is_open && isRebound(request) ? unknown_name : undefined),
    /** The answer to a preflight; undefined when it is none, or of an origin that may not call. */
    preflight,
    /** Lets the page read the answer. */
    allowReading(request: Request, response: Response): void {
      const origin = request.headers.get("origin");
      if (origin === null || !allows(origin)) return;
      response.headers.set("access-control-allow-origin", origin);
      response.headers.append("vary", "origin");
    },
  };
}
