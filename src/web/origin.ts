/** Seconds for which a browser remembers a preflight. */
const preflight_seconds = 600;

/** `http://host:port` of an origin against the Host header; a default port counts as left out. */
function isOwnOrigin(origin: string, request: Request): boolean {
  const host = request.headers.get("host");
  if (host === null || !URL.canParse(origin)) return false;
  const url = new URL(origin);
  const default_port = url.protocol === "https:" ? ":443" : ":80";
  const bare = (text: string) =>
    (text.endsWith(default_port) ? text.slice(0, -default_port.length) : text).toLowerCase();
  return bare(url.host) === bare(host);
}

/** Which pages of other sites may call. `origins`: theirs; `*` allows all. */
export function createOriginRule(origins: string[]) {
  const allows = (origin: string) => origins.includes("*") || origins.includes(origin);

  /**
   * Is it a page of another site that asks, and one that nobody allowed? Any content type is JSON here, and GET leases.
   */
  function isForeign(request: Request): boolean {
    const origin = request.headers.get("origin");
    if (origin !== null && allows(origin)) return false;
    if (request.headers.get("sec-fetch-site") === "cross-site") return true;
    return origin !== null && !isOwnOrigin(origin, request);
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
    isForeign,
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
