import { deduplicationKey } from "../broker/publish/dedup.ts";
import { no_options, type Published, type PublishOptions } from "../broker/publish/publish.ts";
import { answerBatch, attempt, checkEntries } from "./batch.ts";
import { invalidParameter, invalidValue, missing, SqsError } from "./errors.ts";
import type { Facts } from "./facts.ts";
import { md5OfBody, type ReadMessage, readMessage, sequenceNumber, sizeOf } from "./messages.ts";
import { isFifo, nameOfUrl } from "./names.ts";
import type { Act, Call, Service } from "./service.ts";
import type { GivenMessage } from "./shapes.ts";

// SendMessage and SendMessageBatch.

/** Why the queue does not take a message of this size, or undefined. */
function sizeProblem({ limits }: Service, facts: Facts, bytes: number, is_entry: boolean): SqsError | undefined {
  const bytes_max = facts.message_bytes_max ?? limits.message_bytes;
  if (bytes <= bytes_max) return undefined;
  const what = is_entry ? "cannot be validated" : "are invalid";
  return invalidParameter(`One or more parameters ${what}. Reason: Message must be shorter than ${bytes_max} bytes.`);
}

/** undefined: the short way will do. A queue that looks at sizes would send it on the long one all the same. */
function optionsOf(queue: string, message: ReadMessage, facts: Facts): PublishOptions | undefined {
  const { delay_seconds, group, dedup_id } = message;
  if (isFifo(queue)) {
    // A delay of 0 is the queue's there.
    const dedup_key = dedup_id === undefined ? null : deduplicationKey("id", dedup_id);
    return { ...no_options, ordering_key: group ?? null, dedup_key };
  }
  // A standard queue may be shared by it.
  if (delay_seconds !== undefined || group !== undefined) {
    return { ...no_options, delay_seconds: delay_seconds ?? null, fairness_key: group ?? null };
  }
  return facts.message_bytes_max === null ? undefined : no_options;
}

const wrong_type = "The request include parameter that is not valid for this queue type.";

/** What only one of the two types of queues takes. */
function checkType(queue: string, { DelaySeconds, MessageDeduplicationId }: GivenMessage): void {
  if (!isFifo(queue) && MessageDeduplicationId !== undefined) {
    throw invalidValue(MessageDeduplicationId, "MessageDeduplicationId", wrong_type);
  }
  if (isFifo(queue) && DelaySeconds !== undefined && DelaySeconds > 0) {
    throw invalidValue(DelaySeconds, "DelaySeconds", wrong_type);
  }
}

/** A message of a FIFO queue must say where it belongs, and when it is the same as another. */
function checkGroup(queue: string, given: GivenMessage, facts: Facts, missing_group: SqsError): void {
  if (!isFifo(queue)) return;
  if (given.MessageGroupId === undefined) throw missing_group;
  if (given.MessageDeduplicationId !== undefined || facts.content_dedup) return;
  throw invalidParameter(
    "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly",
  );
}

function read({ limits }: Service, queue: string, given: GivenMessage, call: Call): ReadMessage {
  const message = readMessage(queue, given, call.sender, call.trace, limits.attributes);
  checkType(queue, given);
  return message;
}

function answer(message: ReadMessage, { id, ordering_seq }: Published): object {
  const { md5_of_attributes, md5_of_system_attributes } = message;
  return {
    MessageId: id,
    MD5OfMessageBody: md5OfBody(message.outgoing.body),
    ...(md5_of_attributes !== undefined && { MD5OfMessageAttributes: md5_of_attributes }),
    ...(md5_of_system_attributes !== undefined && { MD5OfMessageSystemAttributes: md5_of_system_attributes }),
    ...(ordering_seq !== undefined && { SequenceNumber: sequenceNumber(ordering_seq) }),
  };
}

/** Sends one message. */
export const sendMessage: Act<"SendMessage"> = async (service, input, call) => {
  const queue = nameOfUrl(input.QueueUrl);
  const facts = await service.facts.of(queue);
  const message = read(service, queue, input, call);
  checkGroup(queue, input, facts, missing("MessageGroupId"));
  const problem = sizeProblem(service, facts, message.outgoing.bytes, false);
  if (problem !== undefined) throw problem;
  const options = optionsOf(queue, message, facts);
  return answer(message, await service.broker.publish({ queue_id: queue, ...message.outgoing }, options));
};

/** Bytes of a batch, also of entries that cannot be sent. */
function bytesOfBatch(entries: GivenMessage[], read_entries: (ReadMessage | SqsError)[]): number {
  return entries.reduce((sum, { MessageBody = "" }, i) => {
    const own = read_entries[i];
    return sum + (own === undefined || own instanceof SqsError ? sizeOf(MessageBody, {}) : own.outgoing.bytes);
  }, 0);
}

/** Sends several messages in one statement, in order; each is answered for itself. */
export const sendMessageBatch: Act<"SendMessageBatch"> = async (service, input, call) => {
  const { broker, limits } = service;
  const queue = nameOfUrl(input.QueueUrl);
  const facts = await service.facts.of(queue);
  const entries = checkEntries(input.Entries, "SendMessage", limits);
  // Of these one fails all.
  const missing_group = invalidParameter(missing("MessageGroupId").message);
  for (const entry of entries) checkGroup(queue, entry, facts, missing_group);
  const read_entries = entries.map((entry) => attempt(() => read(service, queue, entry, call)));
  const bytes = bytesOfBatch(entries, read_entries);
  if (bytes > limits.batch_bytes) {
    throw new SqsError(
      "BatchRequestTooLong",
      `Batch requests cannot be longer than ${limits.batch_bytes} bytes. You have sent ${bytes} bytes.`,
    );
  }
  const judged = read_entries.map((own) =>
    own instanceof SqsError ? own : (sizeProblem(service, facts, own.outgoing.bytes, true) ?? own),
  );
  const messages = judged.filter((own): own is ReadMessage => !(own instanceof SqsError));
  const items = messages.map((own) => ({ ...own.outgoing, ...(optionsOf(queue, own, facts) ?? no_options) }));
  const published = items.length === 0 ? [] : await broker.publishBatch(queue, items, false);
  const outcomes = judged.map((own) => {
    if (own instanceof SqsError) return own;
    const result = published[messages.indexOf(own)];
    return result === undefined || result instanceof Error ? (result as Error) : answer(own, result);
  });
  return answerBatch(entries, outcomes);
};
