import { invalidValue, SqsError } from "./errors.ts";

// A receipt handle describes itself, so that garbage, another queue's, a stale one and that of a deleted message are
// told apart without a table: base64url of a mark, the lease token, the message's id and the queue's name.

const handle_pattern = /^r1 (k?\d{1,19}) ([0-9A-HJKMNP-TV-Z]{26}) ([!-~]{1,255})$/;
const handle_characters_max = 1024;

export type Receipt = { id: string; lease_token: string };

/** The handle of one delivery of a message. */
export const handleOf = (queue: string, id: string, lease_token: string): string =>
  Buffer.from(`r1 ${lease_token} ${id} ${queue}`, "latin1").toString("base64url");

/** What a handle of this queue says. Throws ReceiptHandleIsInvalid for every other text. */
export function readHandle(queue: string, handle: string): Receipt {
  if (handle.length <= handle_characters_max && /^[\w-]+$/.test(handle)) {
    const bytes = Buffer.from(handle, "base64url");
    const [, lease_token, id, name] = handle_pattern.exec(bytes.toString("latin1")) ?? [];
    // Of two texts with the same bytes one is ours.
    const is_ours = name === queue && bytes.toString("base64url") === handle;
    if (is_ours && lease_token !== undefined && id !== undefined) return { id, lease_token };
  }
  throw new SqsError("ReceiptHandleIsInvalid", `The input receipt handle "${handle}" is not a valid receipt handle.`);
}

/** Its message is not under the lease that it names any more. */
export const expiredHandle = (handle: string): SqsError =>
  invalidValue(handle, "ReceiptHandle", "The receipt handle has expired.");

/** The same, where the visibility was to change. */
export const unavailableHandle = (handle: string): SqsError =>
  invalidValue(handle, "ReceiptHandle", "Message does not exist or is not available for visibility timeout change.");
