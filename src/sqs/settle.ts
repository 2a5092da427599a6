import type { Broker } from "../broker/broker.ts";
import { BrokerError, type Failure } from "../errors.ts";
import { answerBatch, attempt, checkEntries, type Outcome } from "./batch.ts";
import { invalidValue, missing, SqsError } from "./errors.ts";
import { visibility_seconds_max } from "./limits.ts";
import { isFifo, nameOfUrl } from "./names.ts";
import { expiredHandle, type Receipt, readHandle, unavailableHandle } from "./receipts.ts";
import { type Act, nothing, type Service } from "./service.ts";

// DeleteMessage, ChangeMessageVisibility and their batches. What a handle is worth:
//
//   handle                     delete, standard   delete, FIFO   change of visibility
//   current, in flight         deletes            deletes        changes
//   its time is over           deletes            expired        changes; FIFO: expired
//   message received again     nothing, no error  expired        unavailable
//   message deleted            no error           no error       unavailable

const is = (outcome: unknown, ...names: string[]): boolean =>
  outcome instanceof BrokerError && names.includes(outcome.error);

type Held = Receipt & { handle: string };

function read(queue: string, handle: string | undefined): Held {
  if (handle === undefined || handle === "") throw missing("ReceiptHandle");
  return { handle, ...readHandle(queue, handle) };
}

/** Is the message finished, and not only somebody else's? */
async function hasEnded(broker: Broker, queue: string, id: string): Promise<boolean> {
  try {
    const { state } = await broker.getMessage(queue, id);
    return state === "acked" || state === "expired";
  } catch (error) {
    if (is(error, "message_not_found")) return true;
    throw error;
  }
}

/** What became of a delete. */
async function judgeDelete(
  { broker, has_legacy_handles }: Service,
  queue: string,
  { id, handle }: Held,
  outcome: undefined | Failure,
): Promise<Outcome> {
  if (outcome === undefined || is(outcome, "message_not_found")) return nothing;
  if (!is(outcome, "lease_lost")) return outcome;
  if (isFifo(queue)) return (await hasEnded(broker, queue, id)) ? nothing : expiredHandle(handle);
  // Deletes nothing: the message is another consumer's now.
  if (has_legacy_handles) await broker.ack({ queue_id: queue, id, lease_token: null });
  return nothing;
}

/** Acks in one statement; each is answered for itself. */
async function deleteAll(service: Service, queue: string, held: (Held | SqsError)[]): Promise<Outcome[]> {
  for (const own of held) if (!(own instanceof SqsError)) service.attempts.touch(own.id);
  const known = [...new Map(held.flatMap((own) => (own instanceof SqsError ? [] : [[own.handle, own]]))).values()];
  const items = known.map(({ id, lease_token }) => ({ queue_id: queue, id, lease_token }));
  const acked = items.length === 0 ? [] : await service.broker.ackBatch(items);
  const judged = await Promise.all(known.map((own, i) => judgeDelete(service, queue, own, acked[i])));
  const byHandle = new Map(known.map((own, i) => [own.handle, judged[i] as Outcome]));
  return held.map((own) => (own instanceof SqsError ? own : (byHandle.get(own.handle) as Outcome)));
}

/** Deletes a received message. Repeatable. */
export const deleteMessage: Act<"DeleteMessage"> = async (service, input) => {
  const queue = nameOfUrl(input.QueueUrl);
  await service.facts.of(queue);
  const held = read(queue, input.ReceiptHandle);
  const item = { queue_id: queue, id: held.id, lease_token: held.lease_token };
  service.attempts.touch(held.id);
  const outcome = await service.broker.ack(item).catch((error: Failure) => error);
  const judged = await judgeDelete(service, queue, held, outcome);
  if (judged instanceof Error) throw judged;
  return judged;
};

/** Deletes several, in one statement. */
export const deleteMessageBatch: Act<"DeleteMessageBatch"> = async (service, input) => {
  const queue = nameOfUrl(input.QueueUrl);
  await service.facts.of(queue);
  const entries = checkEntries(input.Entries, "DeleteMessage", service.limits);
  const held = entries.map(({ ReceiptHandle }) => attempt(() => read(queue, ReceiptHandle)));
  return answerBatch(entries, await deleteAll(service, queue, held));
};

function checkSeconds(seconds: number | undefined): number {
  if (seconds === undefined) throw missing("VisibilityTimeout");
  if (seconds >= 0 && seconds <= visibility_seconds_max) return seconds;
  throw invalidValue(seconds, "VisibilityTimeout", `Must be between 0 and ${visibility_seconds_max}, if provided.`);
}

type Changing = Held & { seconds: number };

const asItem = (queue: string, { id, lease_token, seconds }: Changing) => ({
  queue_id: queue,
  id,
  lease_token,
  ack_deadline_seconds: seconds,
  // Visible again at once, the handle still deletes until the message is received again. Not so in a FIFO queue.
  keeps_token: !isFifo(queue),
});

/** What became of a change of visibility. */
async function judgeChange(
  { broker }: Service,
  queue: string,
  { id, handle, seconds }: Changing,
  outcome: object | Failure,
): Promise<Outcome> {
  if (!(outcome instanceof Error)) return nothing;
  if (is(outcome, "validation_failed")) {
    const why = `Total VisibilityTimeout for the message is beyond the limit [${visibility_seconds_max} seconds].`;
    return invalidValue(seconds, "VisibilityTimeout", why);
  }
  if (is(outcome, "message_not_found")) return unavailableHandle(handle);
  if (!is(outcome, "lease_lost")) return outcome;
  const has_expired = isFifo(queue) && !(await hasEnded(broker, queue, id));
  return has_expired ? expiredHandle(handle) : unavailableHandle(handle);
}

/** Hides a received message for so long from now; 0 shows it again. */
export const changeMessageVisibility: Act<"ChangeMessageVisibility"> = async (service, input) => {
  const queue = nameOfUrl(input.QueueUrl);
  await service.facts.of(queue);
  const changing = { ...read(queue, input.ReceiptHandle), seconds: checkSeconds(input.VisibilityTimeout) };
  service.attempts.touch(changing.id);
  const outcome = await service.broker.extend(asItem(queue, changing)).catch((error: Failure) => error);
  const judged = await judgeChange(service, queue, changing, outcome);
  if (judged instanceof Error) throw judged;
  return judged;
};

/** Changes the visibility of several, in one statement. */
export const changeMessageVisibilityBatch: Act<"ChangeMessageVisibilityBatch"> = async (service, input) => {
  const queue = nameOfUrl(input.QueueUrl);
  await service.facts.of(queue);
  const entries = checkEntries(input.Entries, "ChangeMessageVisibility", service.limits);
  const read_entries = entries.map(({ ReceiptHandle, VisibilityTimeout }) =>
    attempt(() => ({ ...read(queue, ReceiptHandle), seconds: checkSeconds(VisibilityTimeout) })),
  );
  // A message that is named twice is changed once, as the first of them says.
  const changing = new Map<string, Changing>();
  for (const own of read_entries) {
    if (!(own instanceof SqsError) && !changing.has(own.handle)) changing.set(own.handle, own);
  }
  const asked = [...changing.values()];
  for (const { id } of asked) service.attempts.touch(id);
  const results = asked.length === 0 ? [] : await service.broker.extendBatch(asked.map((own) => asItem(queue, own)));
  const judged = await Promise.all(
    asked.map((own, i) => judgeChange(service, queue, own, results[i] as object | Failure)),
  );
  const byHandle = new Map(asked.map((own, i) => [own.handle, judged[i] as Outcome]));
  return answerBatch(
    entries,
    read_entries.map((own) => (own instanceof SqsError ? own : (byHandle.get(own.handle) as Outcome))),
  );
};
