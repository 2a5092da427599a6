import type { Bodies } from "./bodies.ts";
import { InvalidBodyError } from "./errors.ts";
import { textOf } from "./errorText.ts";
import type { NackInput } from "./inputs.ts";
import type { Operations } from "./operations.ts";
import type { Message, SettleResults } from "./outputs.ts";
import type { Send } from "./send.ts";

/** A message that was received: leased until `lease_expires_at`. */
export type Received<Body> = Omit<Message, "body"> & { body: Body };
/** Which message, and under which lease. A received message is one. */
export type Lease = { id: string; lease_token?: string | undefined };
export type NackOptions = Omit<NackInput, "lease_token">;
export type SettleResult = SettleResults["results"][number];

export type Query<Name extends keyof Operations> = Operations[Name] extends { query: infer Own } ? Own : never;
export type ReceiveOptions = Query<"receiveMessages"> & {
  /** Cuts the wait short. What the server leases at that very moment may come back only when its lease ends. */
  signal?: AbortSignal | undefined;
};

/** The longest that a server may wait when a receive does not say. */
const queue_wait_ms_max = 240_000;

/** A validator that throws says no as well: the other messages are leased, and none of them may be forgotten. */
function invalidOf(error: unknown): InvalidBodyError {
  if (error instanceof InvalidBodyError) return error;
  return new InvalidBodyError(`the schema failed: ${textOf(error)}`, [], { cause: error });
}

/** Receives, and reads bodies. Answers what could not be read apart, and how many the server gives at most. */
export async function receive<Output>(send: Send, id: string, bodies: Bodies<never, Output>, options: ReceiveOptions) {
  const { signal, ...query } = options;
  const wait_ms = query.wait_seconds === undefined ? queue_wait_ms_max : query.wait_seconds * 1000;
  const { data, limit } = await send("receiveMessages", { path: { queue_id: id }, query, wait_ms, signal });
  const messages: Received<Output>[] = [];
  const invalid: { message: Message; error: InvalidBodyError }[] = [];
  for (const message of data) {
    try {
      messages.push({ ...message, body: await bodies.read(message.body) });
    } catch (error) {
      invalid.push({ message, error: invalidOf(error) });
    }
  }
  return { messages, invalid, limit, count: data.length };
}
