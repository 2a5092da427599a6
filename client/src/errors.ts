import type { ErrorBody } from "./outputs.ts";

/** What an error tells besides its text. `code` is the server's, 0 where it has not answered. */
export type ErrorFacts = {
  code: number;
  status: number;
  /** For people. */
  details?: string | undefined;
  operation?: string | undefined;
  request_id?: string | undefined;
  retry_after_seconds?: number | undefined;
};

/** Of everything that this client throws. Compare classes or codes, never texts. */
export class PsqlqueueError extends Error {
  override readonly name: string = "PsqlqueueError";
  readonly code: number;
  readonly status: number;
  readonly details: string | undefined;
  readonly operation: string | undefined;
  readonly request_id: string | undefined;
  readonly retry_after_seconds: number | undefined;

  constructor(message: string, facts: ErrorFacts, options?: ErrorOptions) {
    super(message, options);
    this.code = facts.code;
    this.status = facts.status;
    this.details = facts.details;
    this.operation = facts.operation;
    this.request_id = facts.request_id;
    this.retry_after_seconds = facts.retry_after_seconds;
  }
}

/** The request was not understood, or breaks a rule: codes 2, 3 and those of HTTP itself. */
export class InvalidRequestError extends PsqlqueueError {
  override readonly name = "InvalidRequestError";
}

/** Codes 5, 6, 8, 10, 21: there is no such queue, message, topic, subscription or task. */
export class NotFoundError extends PsqlqueueError {
  override readonly name = "NotFoundError";
}

/** Codes 4, 7, 9. */
export class AlreadyExistsError extends PsqlqueueError {
  override readonly name = "AlreadyExistsError";
}

/** Code 11: somebody else may have the message now. */
export class LeaseLostError extends PsqlqueueError {
  override readonly name = "LeaseLostError";
}

/** Codes 12, 17, 22: the queue is in use or closed, or a `dedup_id` came with another body. */
export class ConflictError extends PsqlqueueError {
  override readonly name = "ConflictError";
}

/** Code 13. */
export class TooLargeError extends PsqlqueueError {
  override readonly name = "TooLargeError";
}

/** Codes 14 and 18: rate, waiters or quota. Nothing was done. */
export class TooManyRequestsError extends PsqlqueueError {
  override readonly name = "TooManyRequestsError";
}

/** Code 15: no key, or an unknown one. */
export class UnauthorizedError extends PsqlqueueError {
  override readonly name = "UnauthorizedError";
}

/** Code 16: the key may not do this. */
export class ForbiddenError extends PsqlqueueError {
  override readonly name = "ForbiddenError";
}

/** Code 19, or 5xx of something in between. Whether the request was carried out is not known. */
export class UnavailableError extends PsqlqueueError {
  override readonly name = "UnavailableError";
}

/** No answer: refused, cut or timed out. Whether the request was carried out is not known. */
export class UnreachableError extends PsqlqueueError {
  override readonly name = "UnreachableError";
}

/** A body that the queue's schema refuses. `issues` are the validator's. */
export class InvalidBodyError extends PsqlqueueError {
  override readonly name = "InvalidBodyError";
  readonly issues: readonly { readonly message: string }[];

  constructor(message: string, issues: readonly { readonly message: string }[], options?: ErrorOptions) {
    super(message, { code: 0, status: 0 }, options);
    this.issues = issues;
  }
}

const classes = new Map<number, new (message: string, facts: ErrorFacts) => PsqlqueueError>([
  ...[2, 3, 23, 24, 27, 28, 29, 30].map((code) => [code, InvalidRequestError] as const),
  ...[5, 6, 8, 10, 20, 21, 25].map((code) => [code, NotFoundError] as const),
  ...[4, 7, 9, 26].map((code) => [code, AlreadyExistsError] as const),
  ...[12, 17, 22].map((code) => [code, ConflictError] as const),
  ...[14, 18].map((code) => [code, TooManyRequestsError] as const),
  [11, LeaseLostError],
  [13, TooLargeError],
  [15, UnauthorizedError],
  [16, ForbiddenError],
  [19, UnavailableError],
]);

/** Of an answer that is not ours, as a proxy gives it. */
const statuses = new Map([
  [401, 15],
  [403, 16],
  [413, 13],
  [429, 14],
  [502, 19],
  [503, 19],
  [504, 19],
]);

/** The error of a refusal. `body` is undefined when the answer is not one of a psqlqueue. */
export function errorOf(body: ErrorBody | undefined, facts: Omit<ErrorFacts, "code" | "details">): PsqlqueueError {
  const code = body?.code ?? 0;
  const made = classes.get(body?.code ?? statuses.get(facts.status) ?? 0) ?? PsqlqueueError;
  const text = body?.message ?? `an answer that is not one of a psqlqueue, with status ${facts.status}`;
  const message = body?.details === undefined ? text : `${text}: ${body.details}`;
  return new made(message, { ...facts, code, details: body?.details });
}

/** May the same request succeed later? */
export const isPassing = (error: unknown): boolean =>
  error instanceof UnavailableError ||
  error instanceof UnreachableError ||
  error instanceof TooManyRequestsError ||
  (error instanceof PsqlqueueError && error.status >= 500);
