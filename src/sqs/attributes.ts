import type { QueueStats } from "../broker/observe/stats.ts";
import type { BaseSettings, LaterInput, Queue } from "../broker/settings.ts";
import { invalidAttribute, invalidParameter, SqsError, unknownAttribute } from "./errors.ts";
import { message_bytes_max, visibility_seconds_max } from "./limits.ts";
import { arnOf, isFifo, type Place } from "./names.ts";
import { checkPolicy, checkRedriveAllowPolicy, readRedrivePolicy, writeRedrivePolicy } from "./policies.ts";
import { isXmlText } from "./xml.ts";

// The attributes of a queue: which of our settings each one is. What is no setting is kept with the queue as it was
// given (its extras).

/** What is to be stored of given attributes. */
export type Change = {
  base: Partial<BaseSettings>;
  later: LaterInput;
  extras: Record<string, string | null>;
};

/** What is known of a queue. */
export type Known = { queue: Queue; extras: Record<string, string> };

type Attribute = {
  /** Puts a value into a change. Throws what is wrong with it. */
  set(change: Change, value: string, queue: string): void;
  /** As it is answered; undefined: not shown. */
  show(known: Known, place: Place): string | undefined;
  /** Of FIFO queues only. */
  is_fifo?: true;
};

function whole(name: string, value: string, min: number, max: number): number {
  const number = /^\d{1,15}$/.test(value) ? Number(value) : Number.NaN;
  if (number >= min && number <= max) return number;
  throw invalidAttribute(name, `Must be an integer from ${min} to ${max}.`);
}

function oneOf(name: string, value: string, allowed: string[]): string {
  if (allowed.includes(value)) return value;
  throw invalidAttribute(name, `Must be one of ${allowed.join(", ")}.`);
}

/** `true` or `false`, in any case. */
const truth = (name: string, value: string): boolean => oneOf(name, value.toLowerCase(), ["true", "false"]) === "true";

const base = (name: string, setting: keyof BaseSettings, min: number, max: number): Attribute => ({
  set: (change, value) => {
    change.base[setting] = whole(name, value, min, max);
  },
  show: ({ queue }) => String(queue[setting]),
});

/** A text that is kept; an empty one goes. */
const kept = (name: string, check: (text: string) => void): Attribute => ({
  set: (change, value) => {
    if (value !== "") check(value);
    change.extras[name] = value === "" ? null : value;
  },
  show: ({ extras }) => extras[name],
});

const key_reuse_seconds_default = 300;

/** Those that can be set, in the order of the answers. */
const settable: Record<string, Attribute> = {
  VisibilityTimeout: base("VisibilityTimeout", "ack_deadline_seconds", 0, visibility_seconds_max),
  MessageRetentionPeriod: base("MessageRetentionPeriod", "message_retention_seconds", 60, 1_209_600),
  DelaySeconds: base("DelaySeconds", "delivery_delay_seconds", 0, 900),
  MaximumMessageSize: {
    // The largest is every message's limit already; as a setting it would cost each publish a look at its size.
    set: (change, value) => {
      const bytes = whole("MaximumMessageSize", value, 1024, message_bytes_max);
      change.later.max_message_bytes = bytes === message_bytes_max ? null : bytes;
    },
    show: ({ queue }) => String(queue.max_message_bytes ?? message_bytes_max),
  },
  ReceiveMessageWaitTimeSeconds: {
    set: (change, value) => {
      change.later.receive_wait_seconds = whole("ReceiveMessageWaitTimeSeconds", value, 0, 20);
    },
    show: ({ queue }) => String(queue.receive_wait_seconds),
  },
  RedrivePolicy: {
    set: (change, value, queue) => {
      const none = { dead_queue_id: null, message_max_deliveries: null };
      Object.assign(change.later, value === "" ? none : readRedrivePolicy(value, queue));
    },
    show: ({ queue: { dead_queue_id, message_max_deliveries } }, place) =>
      dead_queue_id === null || message_max_deliveries === null
        ? undefined
        : writeRedrivePolicy(place, { dead_queue_id, message_max_deliveries }),
  },
  RedriveAllowPolicy: kept("RedriveAllowPolicy", checkRedriveAllowPolicy),
  Policy: kept("Policy", checkPolicy),
  KmsMasterKeyId: {
    set: (change, value) => {
      change.extras["KmsMasterKeyId"] = value === "" ? null : value;
      if (value !== "") change.extras["SqsManagedSseEnabled"] = "false";
    },
    show: ({ extras }) => extras["KmsMasterKeyId"],
  },
  KmsDataKeyReusePeriodSeconds: {
    set: (change, value) => {
      change.extras["KmsDataKeyReusePeriodSeconds"] = String(whole("KmsDataKeyReusePeriodSeconds", value, 60, 86_400));
    },
    show: ({ extras: { KmsMasterKeyId, KmsDataKeyReusePeriodSeconds } }) =>
      KmsMasterKeyId === undefined ? undefined : (KmsDataKeyReusePeriodSeconds ?? String(key_reuse_seconds_default)),
  },
  SqsManagedSseEnabled: {
    set: (change, value) => {
      const is_on = truth("SqsManagedSseEnabled", value);
      change.extras["SqsManagedSseEnabled"] = String(is_on);
      if (is_on) change.extras["KmsMasterKeyId"] = null;
    },
    show: ({ extras }) => extras["SqsManagedSseEnabled"] ?? "true",
  },
  FifoQueue: {
    // Its name says it: see checkTypes.
    set: (_, value) => void truth("FifoQueue", value),
    show: () => "true",
    is_fifo: true,
  },
  ContentBasedDeduplication: {
    set: (change, value) => {
      change.later.content_dedup = truth("ContentBasedDeduplication", value);
    },
    show: ({ queue }) => String(queue.content_dedup),
    is_fifo: true,
  },
  DeduplicationScope: {
    set: (change, value) => {
      const scope = oneOf("DeduplicationScope", value, ["queue", "messageGroup"]);
      change.later.dedup_scope = scope === "queue" ? "queue" : "ordering_key";
    },
    show: ({ queue }) => (queue.dedup_scope === "queue" ? "queue" : "messageGroup"),
    is_fifo: true,
  },
  FifoThroughputLimit: {
    set: (change, value) => {
      change.extras["FifoThroughputLimit"] = oneOf("FifoThroughputLimit", value, ["perQueue", "perMessageGroupId"]);
    },
    show: ({ extras }) => extras["FifoThroughputLimit"] ?? "perQueue",
    is_fifo: true,
  },
};

const counts: Record<string, (stats: QueueStats) => number> = {
  ApproximateNumberOfMessages: ({ ready }) => ready,
  ApproximateNumberOfMessagesNotVisible: ({ leased }) => leased,
  ApproximateNumberOfMessagesDelayed: ({ delayed, backing_off }) => delayed + backing_off,
};

const seconds = (time: string) => String(Math.floor(Date.parse(time) / 1000));

const computed: Record<string, (known: Known, place: Place) => string> = {
  CreatedTimestamp: ({ queue }) => seconds(queue.created_at),
  LastModifiedTimestamp: ({ queue }) => seconds(queue.updated_at),
  QueueArn: ({ queue }, place) => arnOf(place, queue.id),
};

const ofFifo = (name: string) =>
  new SqsError("InvalidAttributeName", `You can specify the ${name} only when FifoQueue is set to true.`);

/** Attributes that only FIFO queues have, and how they are refused on others. */
function checkTypes(given: Record<string, string>, is_fifo: boolean): void {
  for (const name in given) {
    if (!Object.hasOwn(settable, name)) throw unknownAttribute(name);
    if (is_fifo || settable[name]?.is_fifo === undefined) continue;
    throw name === "FifoQueue" || name === "ContentBasedDeduplication" ? unknownAttribute(name) : ofFifo(name);
  }
  if (given["KmsMasterKeyId"] && given["SqsManagedSseEnabled"]?.toLowerCase() === "true") {
    throw new SqsError(
      "InvalidAttributeName",
      "You can use one type of server-side encryption (SSE) at one time. You can either enable KMS SSE or SQS SSE.",
    );
  }
}

/** Does the request for a new queue ask for a FIFO queue? Throws InvalidAttributeValue. */
export function asksForFifo(given: Record<string, string>): boolean {
  return Object.hasOwn(given, "FifoQueue") && truth("FifoQueue", given["FifoQueue"] ?? "");
}

/** What given attributes change. Throws InvalidAttributeName, InvalidAttributeValue, InvalidParameterValue. */
export function readChange(given: Record<string, string>, queue: string): Change {
  const is_fifo = isFifo(queue);
  checkTypes(given, is_fifo);
  if (is_fifo && Object.hasOwn(given, "FifoQueue") && !asksForFifo(given)) {
    throw invalidAttribute("FifoQueue", "Modifying queue type is not supported.");
  }
  const change: Change = { base: {}, later: {}, extras: {} };
  for (const [name, value] of Object.entries(given)) {
    if (!isXmlText(value)) throw invalidAttribute(name, "Invalid characters found.");
    settable[name]?.set(change, value, queue);
  }
  return change;
}

/** Throws InvalidAttributeValue where a limit per group would go with a window that all groups share. */
export function checkThroughput({ later, extras }: Change, known?: Known): void {
  const own = [later.dedup_scope, extras["FifoThroughputLimit"]];
  if (own.every((given) => given === undefined)) return;
  const scope = later.dedup_scope ?? known?.queue.dedup_scope ?? "queue";
  const limit = extras["FifoThroughputLimit"] ?? known?.extras["FifoThroughputLimit"];
  if (limit !== "perMessageGroupId" || scope !== "queue") return;
  throw invalidAttribute(
    "FifoThroughputLimit",
    "perMessageGroupId is allowed only when the value of DeduplicationScope is messageGroup.",
  );
}

/** The settings of a new queue that says nothing. */
export const new_base: BaseSettings = {
  ack_deadline_seconds: 30,
  message_retention_seconds: 345_600,
  delivery_delay_seconds: 0,
};

const isKnown = (name: string) =>
  Object.hasOwn(settable, name) || Object.hasOwn(counts, name) || Object.hasOwn(computed, name);

/** The names that are asked for, `All` written out. Throws InvalidAttributeName. */
export function readNames(asked: string[]): string[] {
  for (const name of asked) if (name !== "All" && !isKnown(name)) throw unknownAttribute(name);
  return asked.includes("All")
    ? [...Object.keys(counts), ...Object.keys(computed), ...Object.keys(settable)]
    : [...new Set(asked)];
}

/** Is one of them counted? */
export const needsStats = (names: string[]): boolean => names.some((name) => Object.hasOwn(counts, name));

/** Attributes of a queue by name, those that it has. */
export function showAttributes(
  known: Known,
  place: Place,
  names: string[],
  stats?: QueueStats,
): Record<string, string> {
  const is_fifo = isFifo(known.queue.id);
  const shown: Record<string, string> = {};
  for (const name of names) {
    const attribute = settable[name];
    let value: string | undefined;
    if (attribute !== undefined) value = attribute.is_fifo && !is_fifo ? undefined : attribute.show(known, place);
    else if (stats !== undefined && Object.hasOwn(counts, name)) value = String(counts[name]?.(stats));
    else value = computed[name]?.(known, place);
    if (value !== undefined) shown[name] = value;
  }
  return shown;
}

/** The first of the given attributes that the queue has another value of; undefined: none. Throws as readChange. */
export function firstDifference(given: Record<string, string>, known: Known, place: Place): string | undefined {
  const { base, later, extras } = readChange(given, known.queue.id);
  const wanted = {
    queue: { ...known.queue, ...base, ...(later as Partial<Queue>) },
    extras: Object.fromEntries(
      Object.entries({ ...known.extras, ...extras }).filter((entry): entry is [string, string] => entry[1] !== null),
    ),
  };
  const names = Object.keys(given);
  const [own, other] = [showAttributes(known, place, names), showAttributes(wanted, place, names)];
  return names.find((name) => own[name] !== other[name]);
}

/** A dead-letter queue that is not there, or does not want this queue's messages. */
export const refusedTarget = (policy: string, reason: string): SqsError =>
  invalidParameter(`Value ${policy} for parameter RedrivePolicy is invalid. Reason: ${reason}`);
