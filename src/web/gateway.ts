import Memoirist from "memoirist";
import { BrokerError } from "../errors.ts";
import { observe } from "../observe.ts";
import { limitBody } from "./body.ts";
import { identityOf, meets, type Needs, setIdentity } from "./identity.ts";
import type { Auth } from "./keyCache.ts";
import { createOriginRule } from "./origin.ts";
import { addressOf, cutStatus, problemOf, withTarget } from "./request.ts";

export type GatewayOptions = {
  /** From now on every answer asks its client to close the connection, and the health check says no. */
  isStopping?: () => boolean;
  body_bytes_max: number;
  /** Origins whose pages may call; `*` allows all. */
  cors_origins: string[];
  /** Names of this server, by which browsers may ask it; those of its own network need not be named. */
  own_names?: string[];
  /** Keys are asked for. `open`: names of what needs none. */
  auth?: { keys: Auth; open: string[] } | undefined;
};

/** What an edge brings: how it words a refusal, and answers to paths that are no routes. */
export type Edge = {
  /** `request`: the one that is refused. */
  refusal(error: BrokerError, headers: Record<string, string>, request: Request): Response;
  start(path: string, request: Request): Response | undefined;
  /** How what was thrown is answered. */
  failure(error: unknown, request: Request): Response;
  needs: Needs;
  /** Does who reaches it need neither key nor signature? */
  is_open: boolean;
};

type Served = { routes: { method: string; path: string; hooks?: unknown }[] };

type Route = { path: string; methods: Set<string>; is_page: boolean; reads_messages: boolean };
type Marked = Request & { request_id?: string };
type Fetch = (request: Request) => Promise<Response>;

/** Whatever is below it tells of messages. */
const messages_path = /\/messages(?:\/|$)/;

/** A GET that changes something: HEAD, which nobody expects to, is no method of its path. */
export const has_effect = { "x-has-effect": true };

/**
 * A page: text that is the same for everybody, changes nothing, and lets nobody frame it. Links on other sites may lead
 * to it, which for everything else looks like a page of another site that asks.
 */
export const is_page = { hide: true, "x-is-page": true };

type Hooks = { detail?: { "x-has-effect"?: boolean; "x-is-page"?: boolean } } | undefined;

/** Methods that answer for others: who may GET may ask for the headers alone. */
function methodsOf({ method, hooks }: Served["routes"][number]): string[] {
  return method === "GET" && !(hooks as Hooks)?.detail?.["x-has-effect"] ? ["GET", "HEAD"] : [method];
}

/** What GET would answer, without its body. */
async function withoutBody(response: Response): Promise<Response> {
  const headers = new Headers([...response.headers]);
  if (!headers.has("content-length") && response.body !== null) {
    headers.set("content-length", String((await response.arrayBuffer()).byteLength));
  }
  return new Response(null, { status: response.status, headers });
}

/** The request's id: the client's, or a new one. The same for the whole life of the request. */
export function requestId(request: Request): string {
  const marked = request as Marked;
  marked.request_id ??= request.headers.get("x-request-id") || crypto.randomUUID();
  return marked.request_id;
}

/** Segments as the router compares them: decoded once, and encoded again where they must be. */
function normalizePath(path: string): string {
  return path
    .split("/")
    .map((segment) => {
      try {
        return encodeURIComponent(decodeURIComponent(segment));
      } catch {
        return segment;
      }
    })
    .join("/");
}

const decodeAll = (params: Record<string, string> | undefined) =>
  Object.fromEntries(Object.entries(params ?? {}).map(([name, value]) => [name, decodeSegment(value)]));

/** As the router of the application does; what cannot be decoded is no id of anything. */
function decodeSegment(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

/**
 * What happens to every request before and after its route: unknown path 404, other method 405, foreign browser 403, no
 * key 401, a key that does not allow it 403, announced size 413, in this order; then request id, CORS headers, access
 * log and metrics.
 */
export function createGateway(options: GatewayOptions, { refusal, start, failure, needs, is_open }: Edge) {
  const origin = createOriginRule({ origins: options.cors_origins, is_open, own_names: options.own_names ?? [] });
  const router = new Memoirist<Route>();
  const routes = new Map<string, Route>();

  function refuse(request: Request, route: Route | undefined): Response | undefined {
    const problem = problemOf(request);
    if (problem !== undefined) return refusal(problem, {}, request);
    if (route === undefined) return refusal(new BrokerError("route_not_found"), {}, request);
    if (!route.methods.has(request.method)) {
      const answer = request.method === "OPTIONS" ? origin.preflight(request, [...route.methods]) : undefined;
      const allow = [...route.methods].join(", ");
      return answer ?? refusal(new BrokerError("method_not_allowed"), { allow }, request);
    }
    if (route.is_page) return undefined;
    // Where a GET has an effect there is no HEAD.
    const has_effect = (request.method !== "GET" && request.method !== "HEAD") || !route.methods.has("HEAD");
    const why = origin.problemOf(request, has_effect || route.reads_messages);
    return why === undefined ? undefined : refusal(new BrokerError("forbidden", why), {}, request);
  }

  function refuseSize(request: Request): Response | undefined {
    const length = request.headers.get("content-length");
    if (length === null || Number(length) <= options.body_bytes_max) return undefined;
    return refusal(new BrokerError("payload_too_large", `at most ${options.body_bytes_max} bytes`), {}, request);
  }

  const needOf = (method: string, path: string) => needs[`${method === "HEAD" ? "GET" : method} ${path}`];

  /** Finds out whose request it is, and whether its key allows it. */
  async function authorize(
    asked: Request,
    route: Route,
    params: Record<string, string>,
  ): Promise<Response | undefined> {
    const need = needOf(asked.method, route.path);
    // The same text for everybody, which asks for a key itself.
    if (need === undefined && route.is_page) return undefined;
    if (options.auth === undefined || (typeof need === "string" && options.auth.open.includes(need))) return undefined;
    try {
      const identity = await options.auth.keys.identify(asked.headers.get("authorization"));
      setIdentity(asked, identity);
      if (meets(identity, need, params)) return undefined;
      return refusal(new BrokerError("forbidden", "the key does not allow this"), {}, asked);
    } catch (error) {
      return failure(error, asked);
    }
  }

  /** What was changed, and what was refused, and by whom. */
  function audit(request: Request, asked: Request, route: string, status: number): void {
    if (options.auth === undefined) return;
    const need = needOf(request.method, route);
    const is_refused = status === 401 || status === 403;
    if (!is_refused && (typeof need !== "object" || need.action !== "manage")) return;
    const url = request.url;
    const target = url.slice(url.indexOf("/", url.indexOf("//") + 2)).split("?", 1)[0] ?? "";
    observe({
      kind: "audit",
      key_id: identityOf(asked)?.key_id ?? null,
      action: typeof need === "object" ? need.action : "",
      target: `${request.method} ${target}`,
      status,
      request_id: requestId(request),
    });
  }

  function finish(request: Request, response: Response, route: string, started_ms: number): Response {
    const id = requestId(request);
    response.headers.set("x-request-id", id);
    if (options.isStopping?.()) response.headers.set("connection", "close");
    origin.allowReading(request, response);
    observe({
      kind: "request",
      id,
      request,
      ip: () => addressOf(request),
      route,
      latency_ms: performance.now() - started_ms,
      status: cutStatus(request) ?? response.status,
      response_bytes: Number(response.headers.get("content-length") ?? 0),
    });
    return response;
  }

  async function answerHead(fetch: Fetch, asked: Request): Promise<Response> {
    const as_get = withTarget(asked, "GET", asked.url);
    const identity = identityOf(asked);
    if (identity !== undefined) setIdentity(as_get, identity);
    (as_get as Marked).request_id = requestId(asked);
    return await withoutBody(await fetch(as_get));
  }

  return {
    /** Learns the routes; before the first request. */
    open(app: Served): void {
      for (const own of app.routes) {
        const { path } = own;
        const known = routes.get(path);
        if (known !== undefined) for (const method of methodsOf(own)) known.methods.add(method);
        else {
          const is_page = (own.hooks as Hooks)?.detail?.["x-is-page"] === true;
          const reads_messages = messages_path.test(path);
          const route = { path, methods: new Set(methodsOf(own)), is_page, reads_messages };
          routes.set(path, route);
          router.add("ANY", path, route);
          router.add("ANY", `${path}/`, route);
        }
      }
    },

    async enter(fetch: Fetch, request: Request): Promise<Response> {
      const started_ms = performance.now();
      const { url } = request;
      const path_start = url.indexOf("/", url.indexOf("//") + 2);
      const query_start = url.indexOf("?", path_start);
      let path = path_start < 0 ? "/" : url.slice(path_start, query_start < 0 ? undefined : query_start);
      let asked = request;
      if (path.includes("%")) {
        path = normalizePath(path);
        const rewritten = url.slice(0, path_start) + path + (query_start < 0 ? "" : url.slice(query_start));
        if (rewritten !== url) {
          asked = withTarget(request, request.method, rewritten);
          (asked as Marked).request_id = requestId(request);
        }
      }
      const match = path.includes("//") ? undefined : (router.find("ANY", path) ?? undefined);
      const found = match?.store;
      const route = found?.path ?? "";
      observe({ kind: "request_started", route });
      if (!request.headers.has("content-length")) limitBody(asked, options.body_bytes_max);
      const is_read = request.method === "GET" || request.method === "HEAD";
      const begin =
        found === undefined && is_read && problemOf(request) === undefined ? start(path, request) : undefined;
      const response =
        begin ??
        refuse(request, found) ??
        (options.auth && found ? await authorize(asked, found, decodeAll(match?.params)) : undefined) ??
        refuseSize(request) ??
        (await (asked.method === "HEAD" ? answerHead(fetch, asked) : fetch(asked)));
      audit(request, asked, route, response.status);
      return finish(request, response, route, started_ms);
    },
  };
}
