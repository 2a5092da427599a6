// The package's entry: what its users import. The one file that only passes on.

export type { StandardSchema } from "./bodies.ts";
export type { ConsumeOptions, Consumer, Handler, StopOptions } from "./consume.ts";
export { type Client, createClient, type HandleOptions, type TopicHandle } from "./createClient.ts";
export {
  AlreadyExistsError,
  ConflictError,
  ForbiddenError,
  InvalidBodyError,
  InvalidRequestError,
  LeaseLostError,
  NotFoundError,
  PsqlqueueError,
  TooLargeError,
  TooManyRequestsError,
  UnauthorizedError,
  UnavailableError,
  UnreachableError,
} from "./errors.ts";
export type * from "./inputs.ts";
export type { Delivery, IterateOptions } from "./iterate.ts";
export type * from "./outputs.ts";
export type { Outgoing, PeekOptions, QueueHandle } from "./queue.ts";
export type { Lease, NackOptions, Received, ReceiveOptions, SettleResult } from "./receive.ts";
export type { ClientOptions } from "./send.ts";
