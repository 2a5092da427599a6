import { BrokerError, DatabaseError } from "../errors.ts";
import { observe } from "../observe.ts";
import { ClientGoneError } from "../web/request.ts";

// Every refusal of Amazon SQS that this endpoint can give: its name in the JSON protocol → its code in the query
// protocol, which the header `x-amzn-query-error` carries too.

type Entry = {
  code: string;
  status: number;
  /** Where it differs. */
  query_status?: number;
  fault?: "Receiver";
};

const prefix = "AWS.SimpleQueueService";

const catalogue = {
  QueueDoesNotExist: { code: `${prefix}.NonExistentQueue`, status: 400 },
  QueueNameExists: { code: "QueueAlreadyExists", status: 400 },
  QueueDeletedRecently: { code: `${prefix}.QueueDeletedRecently`, status: 400 },
  PurgeQueueInProgress: { code: `${prefix}.PurgeQueueInProgress`, status: 403 },
  InvalidAttributeName: { code: "InvalidAttributeName", status: 400 },
  InvalidAttributeValue: { code: "InvalidAttributeValue", status: 400 },
  InvalidParameterValueException: { code: "InvalidParameterValue", status: 400 },
  MissingRequiredParameterException: { code: "MissingParameter", status: 400 },
  ReceiptHandleIsInvalid: { code: "ReceiptHandleIsInvalid", status: 400, query_status: 404 },
  InvalidMessageContents: { code: "InvalidMessageContents", status: 400 },
  EmptyBatchRequest: { code: `${prefix}.EmptyBatchRequest`, status: 400 },
  TooManyEntriesInBatchRequest: { code: `${prefix}.TooManyEntriesInBatchRequest`, status: 400 },
  BatchEntryIdsNotDistinct: { code: `${prefix}.BatchEntryIdsNotDistinct`, status: 400 },
  InvalidBatchEntryId: { code: `${prefix}.InvalidBatchEntryId`, status: 400 },
  BatchRequestTooLong: { code: `${prefix}.BatchRequestTooLong`, status: 400 },
  OverLimit: { code: "OverLimit", status: 403 },
  ResourceNotFoundException: { code: "ResourceNotFoundException", status: 404 },
  UnsupportedOperation: { code: `${prefix}.UnsupportedOperation`, status: 400 },
  UnknownOperationException: { code: "InvalidAction", status: 400 },
  MissingAction: { code: "MissingAction", status: 400 },
  SerializationException: { code: "MalformedInput", status: 400 },
  RequestThrottled: { code: "RequestThrottled", status: 403 },
  RequestEntityTooLarge: { code: "RequestEntityTooLarge", status: 413 },
  MissingAuthenticationToken: { code: "MissingAuthenticationToken", status: 403 },
  IncompleteSignature: { code: "IncompleteSignature", status: 403 },
  InvalidClientTokenId: { code: "InvalidClientTokenId", status: 403 },
  SignatureDoesNotMatch: { code: "SignatureDoesNotMatch", status: 403 },
  AccessDenied: { code: "AccessDenied", status: 403 },
  RequestExpired: { code: "RequestExpired", status: 400 },
  MethodNotAllowed: { code: "MethodNotAllowed", status: 405 },
  NotFound: { code: "NotFound", status: 404 },
  ServiceUnavailable: { code: "ServiceUnavailable", status: 503, fault: "Receiver" },
  InternalError: { code: "InternalError", status: 500, fault: "Receiver" },
} as const satisfies Record<string, Entry>;

export type SqsErrorName = keyof typeof catalogue;

/** A refusal in the words of Amazon SQS. */
export class SqsError extends Error {
  override readonly name = "SqsError";
  readonly error: SqsErrorName;

  constructor(error: SqsErrorName, message: string) {
    super(message);
    this.error = error;
  }

  get code(): string {
    return catalogue[this.error].code;
  }

  get fault(): "Sender" | "Receiver" {
    return (catalogue[this.error] as Entry).fault ?? "Sender";
  }

  statusIn(protocol: "json" | "query"): number {
    const { status, query_status = status } = catalogue[this.error] as Entry;
    return protocol === "query" ? query_status : status;
  }

  /** The query protocol adds to one of the texts. */
  messageIn(protocol: "json" | "query"): string {
    if (protocol === "json" || this.error !== "QueueDoesNotExist") return this.message;
    return this.message.replace(/\.$/, " for this wsdl version.");
  }
}

/** There is no such queue. */
export const noQueue = (): SqsError => new SqsError("QueueDoesNotExist", "The specified queue does not exist.");

/** A parameter is not what it may be. */
export const invalidParameter = (message: string): SqsError => new SqsError("InvalidParameterValueException", message);

/** The most usual wording of that. */
export const invalidValue = (value: unknown, parameter: string, reason: string): SqsError =>
  invalidParameter(`Value ${value} for parameter ${parameter} is invalid. Reason: ${reason}`);

/** A parameter is missing. */
export const missing = (parameter: string): SqsError =>
  new SqsError("MissingRequiredParameterException", `The request must contain the parameter ${parameter}.`);

/** An attribute of a queue is not what it may be. */
export const invalidAttribute = (name: string, reason: string): SqsError =>
  new SqsError("InvalidAttributeValue", `Invalid value for the parameter ${name}. Reason: ${reason}`);

/** There is no attribute of that name, for this kind of queue. */
export const unknownAttribute = (name: string): SqsError =>
  new SqsError("InvalidAttributeName", `Unknown Attribute ${name}.`);

/** Database failures that pass: the caller should come back. */
const passing = new Set(["unavailable", "lost", "timeout", "conflict"]);

function ofBroker({ error, message, details = message }: BrokerError): SqsError {
  switch (error) {
    case "queue_not_found":
      return noQueue();
    case "queue_closed":
      return new SqsError("UnsupportedOperation", "Publishing to this queue is paused; resume it first.");
    case "quota_exceeded":
      return new SqsError("OverLimit", "The queue holds as much as its quota allows; receive and delete messages.");
    case "too_many_requests":
      return new SqsError("RequestThrottled", `Too many requests: ${details}`);
    case "unavailable":
      return new SqsError("ServiceUnavailable", `The service is not available at the moment: ${details}`);
    case "payload_too_large":
      return new SqsError("RequestEntityTooLarge", `The request is too large: ${details}`);
    case "forbidden":
      return new SqsError("AccessDenied", `Access denied: ${details}`);
    case "method_not_allowed":
      return new SqsError("MethodNotAllowed", "This endpoint takes POST and GET.");
    case "route_not_found":
      return new SqsError("NotFound", "There is nothing at this address.");
    case "internal":
      return new SqsError("InternalError", "We encountered an internal error. Please try again.");
    default:
      return new SqsError("SerializationException", details);
  }
}

/** What the caller is told of an error. What it did not cause, and does not pass, is logged and told to nobody. */
export function toSqsError(error: unknown, where: string, request_id?: string): SqsError {
  if (error instanceof SqsError) return error;
  if (error instanceof BrokerError) return ofBroker(error);
  if (error instanceof DatabaseError && passing.has(error.failure)) {
    return new SqsError("ServiceUnavailable", `The database does not answer (${error.code}).`);
  }
  if (error instanceof ClientGoneError) return new SqsError("SerializationException", error.message);
  observe({ kind: "internal_error", where, error, ...(request_id !== undefined && { request_id }) });
  return ofBroker(new BrokerError("internal"));
}
