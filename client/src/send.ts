import { errorOf, InvalidRequestError, PsqlqueueError, UnreachableError } from "./errors.ts";
import { type OperationName, type Operations, operations } from "./operations.ts";
import type { ErrorBody } from "./outputs.ts";

export type ClientOptions = {
  /** Where the server is, as http://localhost:8000; a path in front of `/v1` is kept. */
  url: string;
  /** An API key, sent as `Authorization: Bearer`. */
  key?: string | undefined;
  /** Instead of the platform's own. */
  fetch?: ((url: string, init: RequestInit) => Promise<Response>) | undefined;
  /** Milliseconds until a request without an answer is given up; what a receive waits is added. Default 30000. */
  timeout_ms?: number | undefined;
};

type PartOf<Name extends OperationName, Part extends string> =
  Operations[Name] extends Record<Part, infer Own> ? Own : undefined;

/** One request: ids of the path, query, body, and what cuts it short. */
export type Given<Name extends OperationName> = {
  path?: Record<string, string>;
  query?: PartOf<Name, "query">;
  body?: PartOf<Name, "body">;
  /** Ask for the result instead of 204. */
  wants_result?: boolean;
  /** What the server may take to answer beyond the timeout. */
  wait_ms?: number;
  signal?: AbortSignal | undefined;
};

/** Sends an operation and reads its answer. Throws a PsqlqueueError for every other answer, and for none. */
export type Send = <Name extends OperationName>(name: Name, given?: Given<Name>) => Promise<Operations[Name]["result"]>;

/**
 * An id as a segment of a path. URLs know no way to write `.` and `..`: every client takes them for steps between
 * folders, and `DELETE /v1/queues/..` would be another request.
 */
function segmentOf(id: string, operation: string): string {
  const refuse = (why: string) =>
    new InvalidRequestError(`${JSON.stringify(id)} cannot be an id: ${why}`, { code: 0, status: 0, operation });
  if (id === "") throw refuse("it is empty");
  if (id === "." || id === "..") throw refuse("in a URL it is a step between folders");
  if (!id.isWellFormed()) throw refuse("it holds half of a character");
  return encodeURIComponent(id);
}

function queryOf(query: Record<string, unknown>): string {
  const given = Object.entries(query).filter(([, value]) => value !== undefined);
  if (given.length === 0) return "";
  return `?${given.map(([name, value]) => `${name}=${encodeURIComponent(String(value))}`).join("&")}`;
}

/** Checks the address, and leaves out what would be doubled. Throws a TypeError that says what is wrong with it. */
function originOf(url: string): string {
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  if (parsed === undefined || !/^https?:$/.test(parsed.protocol)) {
    throw new TypeError(`url ${JSON.stringify(url)} is no address of a server; write it as http://localhost:8000`);
  }
  if (parsed.username !== "" || parsed.password !== "") {
    throw new TypeError("url holds a user or a password, which fetch refuses; give an API key as `key`");
  }
  return `${parsed.origin}${parsed.pathname.replace(/\/+$/, "")}`;
}

function retryAfterOf(response: Response): number | undefined {
  const text = response.headers.get("retry-after");
  if (text === null) return undefined;
  const seconds = /^\d+$/.test(text) ? Number(text) : (Date.parse(text) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, seconds) : undefined;
}

const isError = (value: unknown): value is ErrorBody =>
  typeof value === "object" && value !== null && typeof (value as ErrorBody).code === "number";

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Not ours: the status says the rest.
    return undefined;
  }
}

async function readAnswer(response: Response, operation: string): Promise<unknown> {
  const text = await response.text();
  const value = text === "" ? undefined : parse(text);
  if (response.ok && (text === "" || value !== undefined)) return value;
  throw errorOf(isError(value) ? value : undefined, {
    status: response.status,
    operation,
    request_id: response.headers.get("x-request-id") ?? undefined,
    retry_after_seconds: retryAfterOf(response),
  });
}

/** What sends the requests of a client. Throws a TypeError for an address that cannot be one. */
export function createSend(options: ClientOptions): Send {
  const { key, timeout_ms = 30_000 } = options;
  const origin = originOf(options.url);
  const fetch = options.fetch ?? ((url: string, init: RequestInit) => globalThis.fetch(url, init));

  return async (name, given = {}) => {
    const { path = {}, query, body, wants_result = false, wait_ms = 0, signal } = given;
    const [method = "", template = ""] = operations[name].split(" ");
    const route = template.replaceAll(/\{(\w+)\}/g, (_, own: string) => segmentOf(path[own] ?? "", name));
    signal?.throwIfAborted();
    // One controller a request: a signal that lives long would collect what depends on it.
    const controller = new AbortController();
    const abort = () => controller.abort(signal?.reason);
    signal?.addEventListener("abort", abort, { once: true });
    const limit_ms = timeout_ms + wait_ms;
    const timer = setTimeout(() => controller.abort(new Error(`no answer within ${limit_ms} ms`)), limit_ms);
    try {
      const response = await fetch(`${origin}${route}${queryOf(query ?? {})}`, {
        method,
        headers: {
          ...(body !== undefined && { "content-type": "application/json" }),
          ...(wants_result && { prefer: "return=representation" }),
          ...(key !== undefined && { authorization: `Bearer ${key}` }),
        },
        ...(body !== undefined && { body: JSON.stringify(body) }),
        signal: controller.signal,
      });
      return (await readAnswer(response, name)) as never;
    } catch (cause) {
      if (signal?.aborted) throw signal.reason;
      if (cause instanceof PsqlqueueError) throw cause;
      const text = `${origin} did not answer: ${reasonOf(cause)}`;
      throw new UnreachableError(text, { code: 0, status: 0, operation: name }, { cause });
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    }
  };
}

/** Node says "fetch failed", and why one step further in; Bun ends with what its callers may pass. */
function reasonOf(cause: unknown): string {
  const { message, cause: inner } = cause as { message?: string; cause?: { message?: string; code?: string } };
  const own = message?.replace(/\.? For more information, pass `verbose.*/s, "");
  return inner?.message || inner?.code || own || String(cause);
}
