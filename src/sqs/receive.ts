import type { LeasedMessage } from "../broker/deliver/lease.ts";
import { bytesOf } from "../broker/deliver/receive.ts";
import { invalidValue, unknownAttribute } from "./errors.ts";
import { visibility_seconds_max } from "./limits.ts";
import {
  type Attribute,
  attributesOf,
  checkGroupText,
  type Extras,
  md5OfAttributes,
  md5OfBody,
  sequenceNumber,
} from "./messages.ts";
import { arnOf, isFifo, nameOfUrl, type Place } from "./names.ts";
import { handleOf } from "./receipts.ts";
import { type Act, type Call, nothing, type Service } from "./service.ts";
import type { Input } from "./shapes.ts";

// ReceiveMessage.

/** Asked for by this name only: the label that v1 gives a message. */
const label_attribute = "psqlqueue.label";

type Shown = { queue: string; message: LeasedMessage; extras: Extras; place: Place };
type Dead = { source_queue_id: string; attempts: number };

const milliseconds = (time: string) => String(Date.parse(time.replace(" ", "T").replace(/\+00$/, "Z")));
/** The id of a message in a queue that looks at contents. */
const contentId = (body: string) => new Bun.CryptoHasher("sha256").update(body).digest("hex");
const deadOf = ({ dead }: LeasedMessage) => (dead === null ? undefined : (JSON.parse(dead) as Dead));

const system: Record<string, (shown: Shown) => string | undefined> = {
  SenderId: ({ extras, place }) => extras.sender ?? place.account_id,
  SentTimestamp: ({ message }) => milliseconds(message.created_at),
  // Ours begin anew in the dead-letter queue; Amazon's go on.
  ApproximateReceiveCount: ({ message }) => String(message.delivery_attempts + (deadOf(message)?.attempts ?? 0)),
  ApproximateFirstReceiveTimestamp: ({ message }) => milliseconds(message.first_leased_at),
  SequenceNumber: ({ message }) => (message.ordering_seq === null ? undefined : sequenceNumber(message.ordering_seq)),
  MessageGroupId: ({ message, extras }) => message.ordering_key ?? extras.group,
  MessageDeduplicationId: ({ message, extras, queue }) =>
    extras.dedup_id ?? (isFifo(queue) ? contentId(message.body) : undefined),
  AWSTraceHeader: ({ extras }) => extras.trace,
  DeadLetterQueueSourceArn: ({ message, place }) => {
    const dead = deadOf(message);
    return dead && arnOf(place, dead.source_queue_id);
  },
};
const system_names = Object.keys(system);

/** The system attributes that are asked for. Throws InvalidAttributeName. */
function readSystemNames({ AttributeNames = [], MessageSystemAttributeNames = [] }: Input<"ReceiveMessage">): string[] {
  const asked = [...AttributeNames, ...MessageSystemAttributeNames];
  for (const name of asked) if (name !== "All" && !Object.hasOwn(system, name)) throw unknownAttribute(name);
  return asked.includes("All") ? system_names : [...new Set(asked)];
}

/** Which of a message's own attributes are asked for: all of them, by name, and by the beginning of a name. */
function readAttributeNames(asked: string[]): (name: string) => boolean {
  if (asked.some((name) => name === "All" || name === "*" || name === ".*")) return () => true;
  const names = new Set(asked);
  const prefixes = asked.flatMap((name) => (name.endsWith(".*") ? [name.slice(0, -2)] : []));
  return (name) => names.has(name) || prefixes.some((prefix) => name.startsWith(prefix));
}

const written = ({ type, value }: Attribute) =>
  type.startsWith("Binary") ? { DataType: type, BinaryValue: value } : { DataType: type, StringValue: value };

function showAttributes(call: Call, message: LeasedMessage, extras: Extras, asked: string[]): object {
  if (asked.length === 0 || (message.attributes === null && extras.typed === undefined && message.label === null)) {
    return nothing;
  }
  const isAsked = readAttributeNames(asked);
  const own = message.attributes === null ? null : (JSON.parse(message.attributes) as Record<string, string>);
  const chosen = Object.entries(attributesOf(own, extras)).filter(([name]) => isAsked(name));
  if (message.label !== null && message.label !== "" && asked.includes(label_attribute)) {
    chosen.push([label_attribute, { type: "String", value: message.label }]);
  }
  if (chosen.length === 0) return nothing;
  // The sums are of what is shown: clients refuse what another sum comes with.
  const shown = chosen.map(([name, { type, value }]): [string, Attribute] => [
    call.asShown(name),
    { type, value: call.asShown(value) },
  ]);
  return {
    MD5OfMessageAttributes: md5OfAttributes(Object.fromEntries(shown)),
    MessageAttributes: Object.fromEntries(shown.map(([name, attribute]) => [name, written(attribute)])),
  };
}

type Asked = { queue: string; names: string[]; asked: string[] };

function show(service: Service, call: Call, { queue, names, asked }: Asked, message: LeasedMessage): object {
  const body = call.asShown(message.body);
  const extras: Extras = message.extras === null ? {} : JSON.parse(message.extras);
  const shown = { queue, message, extras, place: service.place };
  const Attributes: Record<string, string> = {};
  for (const name of names) {
    const value = system[name]?.(shown);
    if (value !== undefined) Attributes[name] = value;
  }
  return {
    MessageId: message.id,
    ReceiptHandle: handleOf(queue, message.id, message.lease_token),
    MD5OfBody: md5OfBody(body),
    Body: body,
    ...(names.length > 0 && { Attributes }),
    ...showAttributes(call, message, extras, asked),
  };
}

function checkNumbers({ limits }: Service, input: Input<"ReceiveMessage">): void {
  const { MaxNumberOfMessages: count, WaitTimeSeconds: wait, VisibilityTimeout: visibility } = input;
  const { receive_messages, receive_wait_seconds } = limits;
  if (count !== undefined && (count < 1 || count > receive_messages)) {
    throw invalidValue(count, "MaxNumberOfMessages", `Must be between 1 and ${receive_messages}, if provided.`);
  }
  if (wait !== undefined && (wait < 0 || wait > receive_wait_seconds)) {
    throw invalidValue(wait, "WaitTimeSeconds", `Must be >= 0 and <= ${receive_wait_seconds}, if provided.`);
  }
  if (visibility !== undefined && (visibility < 0 || visibility > visibility_seconds_max)) {
    throw invalidValue(
      visibility,
      "VisibilityTimeout",
      `Must be between 0 and ${visibility_seconds_max}, if provided.`,
    );
  }
}

/** What an attempt with this id returned, hidden anew; undefined when that does not hold any more. */
async function repeat(service: Service, queue: string, input: Input<"ReceiveMessage">) {
  const { broker, attempts, facts } = service;
  const messages = attempts.find(queue, input.ReceiveRequestAttemptId ?? "");
  if (messages === undefined) return undefined;
  const ack_deadline_seconds = input.VisibilityTimeout ?? (await facts.of(queue)).ack_deadline_seconds;
  const items = messages.map(({ id, lease_token }) => ({ queue_id: queue, id, lease_token, ack_deadline_seconds }));
  const results = await broker.extendBatch(items);
  return results.some((result) => result instanceof Error) ? undefined : messages;
}

/** Receives up to ten messages, and waits for the first of them if asked to. */
export const receiveMessage: Act<"ReceiveMessage"> = async (service, input, call) => {
  const { broker, limits } = service;
  const queue = nameOfUrl(input.QueueUrl);
  checkNumbers(service, input);
  const names = readSystemNames(input);
  const asked = input.MessageAttributeNames ?? [];
  const attempt = isFifo(queue) ? input.ReceiveRequestAttemptId : undefined;
  if (attempt !== undefined) checkGroupText(attempt, "ReceiveRequestAttemptId");
  const known = attempt === undefined ? undefined : await repeat(service, queue, input);
  if (known !== undefined)
    return { Messages: known.map((message) => show(service, call, { queue, names, asked }, message)) };
  await service.in_flight.check(queue);
  const wait = input.WaitTimeSeconds;
  const wait_ms_max = Math.min(limits.receive_wait_seconds, service.wait_seconds_max) * 1000;
  // Without a wait asked for, the queue's own may hold; whether, only the database knows.
  if (wait !== 0) call.mayWait(wait === undefined ? wait_ms_max : wait * 1000);
  const leased = await broker.receive({
    queue_id: queue,
    label: undefined,
    limit: input.MaxNumberOfMessages ?? 1,
    lease_seconds: input.VisibilityTimeout,
    max_per_key: isFifo(queue) ? 0 : undefined,
    wait_ms: wait === undefined ? undefined : wait * 1000,
    wait_ms_max,
    signal: call.signal,
  });
  if (leased.length === 0) return nothing;
  service.in_flight.note(queue, leased.length);
  if (attempt !== undefined) service.attempts.remember(queue, attempt, leased);
  const bytes = bytesOf(leased);
  call.whenSent(() => broker.answered(bytes));
  call.whenUnsent(() => broker.takeBack(queue, leased));
  return { Messages: leased.map((message) => show(service, call, { queue, names, asked }, message)) };
};
