import { json } from "./output.ts";

const docs_path = "/v1/swagger/index.html";
const goTo = (location: string): Response => new Response(null, { status: 302, headers: { location, vary: "accept" } });

export type StartOptions = {
  version: string;
  /** The port of the metrics, once it is known. */
  metricsPort?: () => number | undefined;
  /** Where a browser begins, when there is a dashboard. */
  home?: string;
};

/**
 * Where people begin who do not know the paths. A browser comes to the dashboard or the docs, and who asks for JSON is
 * told what there is; to everybody else these are unknown paths, as they are in psqlqueue 0.4.1.
 */
export function createStart({ version, metricsPort, home }: StartOptions) {
  const paths = new Set(["/", "/v1", "/v1/", "/docs", "/docs/", "/healthz"]);

  /** undefined: not one of these paths, or not asked for so. */
  return (path: string, request: Request): Response | undefined => {
    if (!paths.has(path)) return undefined;
    const accept = request.headers.get("accept") ?? "";
    if (accept.includes("text/html")) {
      if (path === "/healthz") return new Response(null, { status: 302, headers: { location: "/v1/healthz" } });
      return goTo(path === "/" && home !== undefined ? home : docs_path);
    }
    if (!accept.includes("application/json")) return undefined;
    const metrics_port = metricsPort?.();
    return json(
      200,
      {
        name: "psqlqueue",
        version,
        ...(home !== undefined && { ui: home }),
        docs: docs_path,
        openapi: "/v1/swagger/doc.json",
        health: "/v1/healthz",
        ...(metrics_port !== undefined && { metrics_port }),
      },
      { vary: "accept" },
    );
  };
}
