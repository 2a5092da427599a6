import { type TSchema, Type } from "@sinclair/typebox";
import { BrokerError, catalogue, DatabaseError, type ErrorName, type Problem } from "../errors.ts";
import { observe } from "../observe.ts";
import { markStream } from "../web/answer.ts";
import { ClientGoneError } from "../web/request.ts";
import { textResponse } from "../web/textResponse.ts";
import { describeHeaders, type RequestHeader, type ResponseHeader } from "./headers.ts";

const json_type = "application/json; charset=utf-8";

/**
 * A JSON response of text that is JSON already. Its length is announced: the access log and the metrics read it there.
 */
export function jsonText(status: number, text: string): Response {
  const headers = {
    "content-type": json_type,
    // A receive and a statistic are different every time; no cache between us and the client may keep one.
    "cache-control": "no-store",
  };
  return textResponse(status, text, headers);
}

/** The same of a text that is made while it is written, and whose length nobody knows yet. */
export const jsonStream = (status: number, stream: ReadableStream<Uint8Array>): Response =>
  markStream(new Response(stream, { status, headers: { "content-type": json_type, "cache-control": "no-store" } }));

/** A JSON response. */
export function json(status: number, value: unknown, headers?: Record<string, string>): Response {
  const response = jsonText(status, JSON.stringify(value));
  for (const name in headers) response.headers.set(name, headers[name] ?? "");
  return response;
}

/** Did the client ask for the result instead of 204? */
export const wantsRepresentation = (request: Request): boolean =>
  /(^|[,;\s])return=("?)representation\2($|[,;\s])/i.test(request.headers.get("prefer") ?? "");

/** 204 without a body. */
export function noContent(headers?: Record<string, string>): Response {
  return textResponse(204, undefined, headers);
}

const words: Record<Problem["rule"], string> = {
  blank: "cannot be blank",
  at_most: "must be no greater than",
  itself: "must not be the queue itself",
  leads_back: "must not lead back to the queue",
  together: "must be given together with",
  not_enabled: "is not enabled for this queue",
  not_offered: "is not enabled for this server",
  alike: "must be the same for a queue and its dead-letter queue; to change it, take dead_queue_id away first",
  keeps_order: "must stay, for with ordering_scope key_label the order is kept by it; publish the message anew instead",
  not_together: "must not be given together with",
};

/** A problem that the broker found, in the words of v1. */
const wordProblem = ({ field, rule, bound }: Problem): string =>
  `${field}: ${words[rule]}${bound === undefined ? "" : ` ${bound}`}.`;

/** `{code, message, details?}`. Codes 1–10 carry details with code 3 only. */
export function errorBody(error: BrokerError): { code: number; message: string; details?: string } {
  const { code, message } = catalogue[error.error];
  const details = error.problem === undefined ? error.details : wordProblem(error.problem);
  const has_details = details !== undefined && (code === 3 || code > 10);
  return { code, message, ...(has_details && { details }) } as ReturnType<typeof errorBody>;
}

/** Of one item of a batch: see errorBody. */
export const itemError = Type.Optional(
  Type.Object({ code: Type.Integer(), message: Type.String(), details: Type.Optional(Type.String()) }),
);

/** Database failures that pass: the caller should come back. */
const passing = new Set(["unavailable", "lost", "timeout", "conflict"]);

/** By SQLSTATE, what is known of why the database does not do it. A statement that fails is undone. */
const reasons: Record<string, string> = {
  "57014":
    "a statement took longer than PSQLQUEUE_DATABASE_STATEMENT_TIMEOUT_MS allows, and was undone; come back, or ask for " +
    "less at once",
  "55P03": "a statement waited too long for a lock that another one holds, and was undone; come back",
  "53100": "the database's disk is full: nothing can be stored until there is room",
};

/** What the caller is told of an error. What it did not cause, and does not pass, is logged and told to nobody. */
export function refusalOf(error: unknown, where: string, request_id?: string): BrokerError {
  if (error instanceof BrokerError) return error;
  if (error instanceof DatabaseError && passing.has(error.failure)) {
    return new BrokerError("unavailable", `${reasons[error.code] ?? "the database does not answer"} (${error.code})`);
  }
  // Nobody's fault, and nobody is there to be told.
  if (error instanceof ClientGoneError) return new BrokerError("bad_request", error.message);
  observe({ kind: "internal_error", where, error, ...(request_id !== undefined && { request_id }) });
  return new BrokerError("internal");
}

/** The response of a refusal: see errorBody. */
export function refusal(error: BrokerError, headers?: Record<string, string>): Response {
  const { status } = catalogue[error.error];
  const response = json(status, errorBody(error));
  if (status === 503 || status === 429) response.headers.set("retry-after", String(error.retry_after_seconds ?? 1));
  if (status === 401) response.headers.set("www-authenticate", "Bearer");
  for (const [name, value] of Object.entries(headers ?? {})) response.headers.set(name, value);
  return response;
}

/** `{"data":[…],"offset":n,"limit":n}`; offset is left out when it is 0. */
export function page(data: unknown[], offset: number, limit: number): Response {
  return json(200, { data, ...(offset > 0 && { offset }), limit });
}

type Success = {
  status: 200 | 201 | 202 | 204;
  schema?: TSchema;
  description: string;
  headers?: ResponseHeader[];
};

type More = {
  /** Headers that the request may have, beside those that every request may have. */
  takes?: RequestHeader[];
  /** A body that works as it stands, after those of the operations before it. */
  example?: object;
};

const every_error = [
  "payload_too_large",
  "forbidden",
  "method_not_allowed",
  "bad_request",
  "request_timeout",
  "unavailable",
  "internal",
] as const;

function headersOf(status: number): ResponseHeader[] {
  if (status === 405) return ["Allow"];
  return status === 429 || status === 503 ? ["Retry-After"] : [];
}

/** The refusal of one operation, as the document shows it: which codes it may hold. */
const errorOf = (operation_id: string, names: ErrorName[]) => ({
  title: `${operation_id[0]?.toUpperCase()}${operation_id.slice(1)}Error`,
  type: "object",
  required: ["code", "message"],
  properties: {
    code: { type: "integer", enum: names.map((name) => catalogue[name].code), description: "What clients compare" },
    message: { type: "string" },
    details: { type: "string", description: "For people" },
  },
});

/**
 * The `detail` of a route: what the document says of it. `errors` are the names of the refusals it may answer. Schemas
 * with a title become named components.
 */
export function documents(
  operation_id: string,
  tag: string,
  summary: string,
  successes: Success[],
  errors: ErrorName[],
  { takes = [], example }: More = {},
) {
  const responses: Record<string, unknown> = {};
  for (const { status, description, schema, headers = [] } of successes) {
    const content = schema && { content: { "application/json": { schema } } };
    responses[status] = { description, headers: describeHeaders(headers), ...content };
  }
  const every: ErrorName[] = [...errors, ...every_error];
  const schema = errorOf(operation_id, every);
  for (const status of new Set(every.map((name) => catalogue[name].status))) {
    const names = every.filter((name) => catalogue[name].status === status);
    responses[status] = {
      description: names.map((name) => `${catalogue[name].code}: ${catalogue[name].message}`).join("; "),
      headers: describeHeaders(headersOf(status)),
      content: {
        "application/json": { schema, example: errorBody(new BrokerError(names[0] as ErrorName)) },
      },
    };
  }
  const notes = { takes, example };
  return { operationId: operation_id, tags: [tag], summary, responses, "x-notes": notes } as object;
}
