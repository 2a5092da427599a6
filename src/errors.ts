/**
 * Every refusal a client can get: name → code, HTTP status, message. Codes are API: never renumbered, never reused.
 * Codes 1–10 are those of psqlqueue 0.4.1; clients compare codes, not texts.
 */
export const catalogue = {
  internal: { code: 1, status: 500, message: "internal server error" },
  malformed_body: { code: 2, status: 400, message: "malformed request body" },
  validation_failed: { code: 3, status: 400, message: "request validation failed" },
  queue_exists: { code: 4, status: 400, message: "queue already exists" },
  queue_not_found: { code: 5, status: 404, message: "queue not found" },
  message_not_found: { code: 6, status: 404, message: "message not found" },
  topic_exists: { code: 7, status: 400, message: "topic already exists" },
  topic_not_found: { code: 8, status: 404, message: "topic not found" },
  subscription_exists: { code: 9, status: 400, message: "subscription already exists" },
  subscription_not_found: { code: 10, status: 404, message: "subscription not found" },
  lease_lost: { code: 11, status: 409, message: "lease lost" },
  queue_in_use: { code: 12, status: 409, message: "queue in use" },
  payload_too_large: { code: 13, status: 413, message: "payload too large" },
  too_many_requests: { code: 14, status: 429, message: "too many requests" },
  unauthorized: { code: 15, status: 401, message: "unauthorized" },
  forbidden: { code: 16, status: 403, message: "forbidden" },
  queue_closed: { code: 17, status: 409, message: "queue closed" },
  quota_exceeded: { code: 18, status: 429, message: "quota exceeded" },
  unavailable: { code: 19, status: 503, message: "service unavailable" },
  task_not_found: { code: 21, status: 404, message: "task not found" },
  dedup_conflict: { code: 22, status: 409, message: "dedup conflict" },
  route_not_found: { code: 23, status: 404, message: "route not found" },
  method_not_allowed: { code: 24, status: 405, message: "method not allowed" },
  key_not_found: { code: 25, status: 404, message: "api key not found" },
  bad_request: { code: 27, status: 400, message: "bad request" },
  request_timeout: { code: 28, status: 408, message: "request timeout" },
  headers_too_large: { code: 29, status: 431, message: "request headers too large" },
  expectation_failed: { code: 30, status: 417, message: "expectation failed" },
} as const;

export type ErrorName = keyof typeof catalogue;

/** What is wrong with a member that only the broker can judge. Each edge has its own words for it. */
export type Problem = {
  field: string;
  /**
   * `together`: it must be given together with the member `bound`; `not_together`: it must not. `not_enabled`: for this
   * queue; `not_offered`: by this server. `alike`: for a queue and its dead-letter queue. `keeps_order`: the order
   * of messages is kept by it.
   */
  rule:
    | "blank"
    | "at_most"
    | "itself"
    | "leads_back"
    | "together"
    | "not_together"
    | "not_enabled"
    | "not_offered"
    | "alike"
    | "keeps_order";
  bound?: number | string;
};

/** What the caller caused, or must wait out. `details` is a sentence for people; it never holds message content. */
export class BrokerError extends Error {
  override readonly name = "BrokerError";
  readonly error: ErrorName;
  readonly details: string | undefined;
  /** Of `too_many_requests`: when the next try has a chance. */
  readonly retry_after_seconds: number | undefined;
  /** Of `validation_failed`, when it is the broker that found it. */
  readonly problem: Problem | undefined;

  constructor(
    error: ErrorName,
    details?: string,
    options?: ErrorOptions & { problem?: Problem; retry_after_seconds?: number },
  ) {
    super(catalogue[error].message, options);
    this.error = error;
    this.details = details;
    this.problem = options?.problem;
    this.retry_after_seconds = options?.retry_after_seconds;
  }
}

/** A member that does not fit what is stored. */
export const invalid = (field: string, rule: Problem["rule"], bound?: number | string): BrokerError =>
  new BrokerError("validation_failed", undefined, { problem: { field, rule, ...(bound !== undefined && { bound }) } });

/**
 * - `unavailable`: the statement never reached the database; nothing happened.
 * - `lost`: the connection ended, or the deadline passed, while the statement was out; it may have happened.
 * - `timeout`: the database cancelled it (statement or lock timeout); nothing happened.
 * - `conflict`: serialization failure or deadlock; nothing happened, the same call may succeed.
 * - `rejected`: a value that the database refuses (SQLSTATE classes 22, 23, 54): one item of a batch is bad.
 * - `failed`: anything else; a bug of ours or of the set-up.
 */
export type DatabaseFailure = "unavailable" | "lost" | "timeout" | "conflict" | "rejected" | "failed";

/**
 * A statement that did not succeed. Carries the statement's name, SQLSTATE and constraint only: the driver's own error
 * holds SQL text and parameters, which are message bodies, and must not reach a log.
 */
export class DatabaseError extends Error {
  override readonly name = "DatabaseError";
  readonly failure: DatabaseFailure;
  /** SQLSTATE, or the driver's code for a connection (`ECONNREFUSED`, `CONNECTION_CLOSED`, …). */
  readonly code: string;
  readonly statement: string;
  readonly constraint: string | undefined;

  constructor(failure: DatabaseFailure, code: string, statement: string, constraint?: string) {
    super(`${statement}: ${failure} (${code}${constraint === undefined ? "" : `, ${constraint}`})`);
    this.failure = failure;
    this.code = code;
    this.statement = statement;
    this.constraint = constraint;
  }
}

/** Why one item of many has no result. */
export type Failure = BrokerError | DatabaseError;

/**
 * Runs what explains or completes some of the results of a statement that has committed. When the database fails only
 * now, it fails those items and no other: what succeeded has succeeded, and a caller told otherwise would do it twice.
 */
export async function completeResults<Result>(
  results: (Result | Failure)[],
  places: Iterable<number>,
  complete: () => Promise<void>,
): Promise<void> {
  try {
    await complete();
  } catch (error) {
    if (!(error instanceof DatabaseError)) throw error;
    for (const i of places) results[i] = error;
  }
}

/** A database that this program must not or cannot work with. The message says what, why, and what to do. */
export class MigrationError extends Error {
  override readonly name = "MigrationError";
}
