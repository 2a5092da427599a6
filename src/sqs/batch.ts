import { SqsError, toSqsError } from "./errors.ts";
import type { Limits } from "./limits.ts";

// Batches: each entry has an id, and is answered under it for itself.

const entry_id = /^[\w-]{1,80}$/;

type Entry = { Id?: string | undefined };

/** Checks what refuses a batch as a whole, in this order. `kind`: as in SendMessageBatch. */
export function checkEntries<E extends Entry>(
  entries: E[] | undefined,
  kind: "SendMessage" | "DeleteMessage" | "ChangeMessageVisibility",
  limits: Limits,
): (E & { Id: string })[] {
  if (entries === undefined || entries.length === 0) {
    throw new SqsError("EmptyBatchRequest", `There should be at least one ${kind}BatchRequestEntry in the request.`);
  }
  if (entries.length > limits.entries) {
    throw new SqsError(
      "TooManyEntriesInBatchRequest",
      `Maximum number of entries per request are ${limits.entries}. You have sent ${entries.length}.`,
    );
  }
  const seen = new Set<string>();
  for (const { Id = "" } of entries) {
    if (seen.has(Id)) throw new SqsError("BatchEntryIdsNotDistinct", `Id ${Id} repeated.`);
    seen.add(Id);
  }
  for (const { Id = "" } of entries) {
    if (entry_id.test(Id)) continue;
    throw new SqsError(
      "InvalidBatchEntryId",
      "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most 80 " +
        "letters long.",
    );
  }
  return entries as (E & { Id: string })[];
}

/** What became of an entry: its answer, or why there is none. */
export type Outcome = object | Error;

/** The answer of a batch. A list without members is left out. */
export function answerBatch(entries: { Id: string }[], outcomes: Outcome[]): object {
  const Successful: object[] = [];
  const Failed: object[] = [];
  for (const [i, { Id }] of entries.entries()) {
    const outcome = outcomes[i] as Outcome;
    if (!(outcome instanceof Error)) Successful.push({ Id, ...outcome });
    else {
      const error = toSqsError(outcome, "batch");
      // The queue is a matter of all.
      if (error.error === "QueueDoesNotExist") throw error;
      Failed.push({ Id, SenderFault: error.fault === "Sender", Code: error.code, Message: error.message });
    }
  }
  return { ...(Successful.length > 0 && { Successful }), ...(Failed.length > 0 && { Failed }) };
}

/** The outcome of work on one entry: what it answers or throws. */
export function attempt<Result extends object>(work: () => Result): Result | SqsError {
  try {
    return work();
  } catch (error) {
    if (error instanceof SqsError) return error;
    throw error;
  }
}
