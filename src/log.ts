import type { Observation, Observer } from "./observe.ts";

export type Level = "debug" | "info" | "warn" | "error";
const ranks: Record<string, number> = { debug: 0, info: 1, warn: 2, error: 3 };

/** Writes one JSON line per record. Members after `time`, `level`, `msg` come from `details`, in their order. */
export type Log = (level: Level, message: string, details?: Record<string, unknown>) => void;

const toOutput = (line: string): void => void process.stdout.write(line);

/** A log that writes lines from `least` upwards. `own`: members that end each of them. */
export function createLog(least: Level, write = toOutput, own: Record<string, unknown> = {}): Log {
  const least_rank = ranks[least] ?? 1;
  return (level, message, details) => {
    if ((ranks[level] ?? 3) < least_rank) return;
    const record = { time: new Date().toISOString(), level: level.toUpperCase(), msg: message, ...details, ...own };
    write(`${JSON.stringify(record)}\n`);
  };
}

/**
 * Password-free text of an error and what caused it. Errors that hold SQL parameters never get here (see
 * DatabaseError).
 */
export function describeError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  // Our own errors are sentences; the name of a language error is half of what it says.
  const is_language_error = /^(Type|Range|Reference|Syntax)Error$/.test(error.name) && !("code" in error);
  const own = is_language_error ? `${error.name}: ${error.message}` : error.message;
  const cause = error.cause instanceof Error ? describeError(error.cause) : undefined;
  // Behind a sentence in brackets, else behind a colon.
  const text = cause === undefined ? own : own.endsWith(".") ? `${own} (${cause})` : `${own}: ${cause}`;
  return text.replace(/([a-z]+:\/\/[^:@/\s]*):\S*@/gi, "$1:***@");
}

type RequestOf<K> = Extract<Observation, { kind: K }>;

// Where clients put what belongs into a header: lease tokens, keys, and signatures of presigned addresses.
const secret_members =
  /(^|[?&])((?:lease_token|key|api_?key|access_token|token|secret|password|x-amz-(?:signature|security-token))=)[^&#]*/gi;
const api_key = /pq_([0-9A-Za-z]{12})_[0-9A-Za-z]+/g;

/** A part of an address without the secrets that are known to stand in one. */
const masked = (text: string): string => text.replace(secret_members, "$1$2***").replace(api_key, "pq_$1_***");

function logRequest(log: Log, { request, ...seen }: RequestOf<"request">): void {
  const after_origin = request.url.indexOf("/", request.url.indexOf("//") + 2);
  const [path = "", query = ""] = masked(request.url.slice(after_origin)).split("?", 2);
  const header = (name: string) => request.headers.get(name) ?? "";
  const now_ms = Date.now();
  log("debug", "Incoming request", {
    request: {
      time: new Date(now_ms - seen.latency_ms).toISOString(),
      method: request.method,
      host: header("host"),
      path,
      query,
      params: pathParameters(seen.route, path),
      route: seen.route,
      ip: seen.ip(),
      referer: masked(header("referer")),
      length: Number(header("content-length")),
    },
    response: {
      time: new Date(now_ms).toISOString(),
      latency: Math.round(seen.latency_ms * 1e6),
      status: seen.status,
      length: seen.response_bytes,
    },
    id: seen.id,
  });
}

function pathParameters(route: string, path: string): Record<string, string> {
  const values = path.split("/");
  const names = route.split("/");
  return Object.fromEntries(
    names.flatMap((name, i) => (name.startsWith(":") ? [[name.slice(1), (values[i] ?? "").slice(0, 64)]] : [])),
  );
}

/** The database counts as back, for the log, when it was reachable for so long. */
const back_ms_min = 2000;

/**
 * Logs when the database goes and when it is back to stay: while servers change their roles, or one of several takes no
 * writes, it comes and goes with every statement. Metrics and the health check tell each change at once.
 */
function createReachability(log: Log): (is_up: boolean, reason: string | undefined) => void {
  let is_told_down = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let down_since_ms = 0;
  return (is_up, reason) => {
    clearTimeout(timer);
    if (is_up) {
      const back_at_ms = performance.now();
      timer = setTimeout(() => {
        is_told_down = false;
        log("info", "database reachable again", { after_ms: Math.round(back_at_ms - down_since_ms) });
      }, back_ms_min);
      timer.unref();
    } else if (!is_told_down) {
      is_told_down = true;
      down_since_ms = performance.now();
      log("error", "database not reachable", { reason, effect: "requests are answered 503 until it is back" });
    }
  };
}

/** The observer that turns observations into log lines with the contract's messages. */
export function logObserver(log: Log, least: Level): Observer {
  const logs_requests = least === "debug";
  const noteReachable = createReachability(log);
  return (observation) => {
    switch (observation.kind) {
      case "request":
        if (logs_requests) logRequest(log, observation);
        break;
      case "malformed_request":
        log("debug", "malformed request", { error: observation.reason, id: observation.request_id });
        break;
      case "audit": {
        const { key_id, action, target, status, request_id } = observation;
        const outcome = status < 400 ? "done" : status === 401 || status === 403 ? "refused" : "failed";
        log("info", "audit", { key_id, action, target: masked(target), outcome, status, id: request_id });
        break;
      }
      case "internal_error":
        log("error", "internal server error", {
          where: observation.where,
          error: describeError(observation.error),
          ...(observation.error instanceof Error && { stack: observation.error.stack?.split("\n").slice(1, 8) }),
          ...(observation.request_id !== undefined && { id: observation.request_id }),
        });
        break;
      case "database_up":
        noteReachable(observation.is_up, observation.reason);
        break;
      case "job":
        if (observation.error !== undefined) {
          log("warn", "background job failed", { job: observation.job, error: describeError(observation.error) });
        } else log("debug", "background job", { job: observation.job, ...observation.details });
        break;
      case "notice":
        log(observation.level.toLowerCase() as Level, observation.message, observation.details);
        break;
    }
  };
}
