import type { Outgoing } from "../broker/publish/outgoing.ts";
import { invalidParameter, invalidValue, missing, SqsError } from "./errors.ts";
import { delay_seconds_max } from "./limits.ts";
import { isFifo } from "./names.ts";
import type { GivenAttribute, GivenMessage } from "./shapes.ts";
import { isXmlText } from "./xml.ts";

// Messages: what a sender may say, how it is kept, and its checksums. Attributes of type String are the message's
// attributes, which v1 shows too; what has another type is kept beside them, with its type.

/** A typed attribute; `value` of a Binary is base64. */
export type Attribute = { type: string; value: string };

/** What is kept with a message, and no other edge shows. */
export type Extras = {
  /** The access key of the sender. */
  sender?: string;
  /** Of a standard queue; that of a FIFO queue is the message's ordering key. */
  group?: string;
  dedup_id?: string;
  trace?: string;
  /** Attributes whose type is not plainly String: the type, and the value unless it is among the message's own. */
  typed?: Record<string, [type: string, value?: string]>;
};

const attribute_name = /^(?!(?:aws|amazon)\.)(?!\.)(?!.*\.\.)(?!.*\.$)[\p{L}\p{N}_.-]{1,256}$/iu;
const attribute_type = /^(String|Number|Binary)(?:\.[^\s]*)?$/;
const type_characters_max = 256;
/** No digit may be of either of two parts: of a million of them every division would be tried. */
const number = /^[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?$/;
/** Alphanumeric and punctuation. */
const group_id = /^[!-~]{1,128}$/;

const isBinary = (type: string) => type.startsWith("Binary");

/** The bytes of a value as they are counted and hashed. */
const bytesOfValue = ({ type, value }: Attribute): Buffer => Buffer.from(value, isBinary(type) ? "base64" : "utf8");

function readAttribute(name: string, given: GivenAttribute): Attribute {
  const { DataType: type = "", StringValue, BinaryValue, StringListValues, BinaryListValues } = given;
  if (!attribute_name.test(name)) {
    throw invalidParameter(
      `Invalid name of message (user) attribute '${name}': it can only include alphanumeric characters, hyphens, ` +
        "underscores and periods, must not start or end with a period or start with AWS. or Amazon., and is 1 to 256 in length.",
    );
  }
  if (type === "") {
    throw invalidParameter(`The message attribute '${name}' must contain non-empty message attribute type.`);
  }
  const [, base] = attribute_type.exec(type) ?? [];
  if (base === undefined || type.length > type_characters_max) {
    throw invalidParameter(
      `The message attribute '${name}' has an invalid message attribute type, the set of supported type prefixes is ` +
        "Binary, Number, and String.",
    );
  }
  if ((StringListValues?.length ?? 0) > 0 || (BinaryListValues?.length ?? 0) > 0) {
    throw invalidParameter("Message attribute list values in SendMessage operation are not supported.");
  }
  const value = isBinary(type) ? BinaryValue : StringValue;
  if (value === undefined || value === "") {
    throw invalidParameter(`Message (user) attribute '${name}' must contain a non-empty value of type '${base}'.`);
  }
  if (!isXmlText(value)) {
    throw invalidParameter(`Invalid characters found in the value of message (user) attribute '${name}'.`);
  }
  if (base === "Number" && !number.test(value)) {
    throw invalidParameter(`Can't cast the value of message (user) attribute '${name}' to a number.`);
  }
  return { type, value };
}

/** The attributes that a sender gives. Throws InvalidParameterValue. */
function readAttributes(
  given: Record<string, GivenAttribute> | undefined,
  attributes_max: number,
): Record<string, Attribute> {
  const entries = Object.entries(given ?? {});
  if (entries.length > attributes_max) {
    throw invalidParameter(
      `Number of message attributes [${entries.length}] exceeds the allowed maximum [${attributes_max}].`,
    );
  }
  return Object.fromEntries(entries.map(([name, own]) => [name, readAttribute(name, own)]));
}

/** A map without a prototype: names are the client's, and one may be `__proto__`. */
const bare = <Value>() => Object.create(null) as Record<string, Value>;

const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);

const md5 = () => new Bun.CryptoHasher("md5");

/** MD5 of a body, in hex. */
export const md5OfBody = (body: string): string => md5().update(body).digest("hex");

/** MD5 of attributes as Amazon counts it; undefined for none. */
export function md5OfAttributes(attributes: Record<string, Attribute>): string | undefined {
  const names = Object.keys(attributes).sort(compare);
  if (names.length === 0) return undefined;
  const hash = md5();
  const add = (bytes: Buffer) => {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(bytes.length);
    hash.update(length).update(bytes);
  };
  for (const name of names) {
    const own = attributes[name] as Attribute;
    add(Buffer.from(name));
    add(Buffer.from(own.type));
    hash.update(Buffer.from([isBinary(own.type) ? 2 : 1]));
    add(bytesOfValue(own));
  }
  return hash.digest("hex");
}

/** Bytes of a message as Amazon counts them: body, and names, types and values of attributes. */
export function sizeOf(body: string, attributes: Record<string, Attribute>): number {
  let bytes = Buffer.byteLength(body);
  for (const name in attributes) {
    const own = attributes[name] as Attribute;
    bytes += Buffer.byteLength(name) + Buffer.byteLength(own.type) + bytesOfValue(own).length;
  }
  return bytes;
}

/** Where a message stands in its queue, as Amazon writes it. */
export const sequenceNumber = (ordering_seq: string): string => ordering_seq.padStart(20, "0");

const invalid_characters =
  "Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | " +
  "#x10000 to #x10FFFF.";

/** A message that may be sent, and what is answered for it. */
export type ReadMessage = {
  outgoing: Outgoing & { bytes: number };
  delay_seconds: number | undefined;
  group: string | undefined;
  dedup_id: string | undefined;
  md5_of_attributes: string | undefined;
  md5_of_system_attributes: string | undefined;
};

/** Throws InvalidParameterValue for what is no id of a group, of a duplicate or of an attempt. */
export function checkGroupText(value: string | undefined, parameter: string): void {
  if (value === undefined || group_id.test(value)) return;
  throw invalidValue(
    value,
    parameter,
    `${parameter} can only include alphanumeric and punctuation characters. 1 to 128 in length.`,
  );
}

function readTrace(given: Record<string, GivenAttribute> | undefined): Record<string, Attribute> {
  const read = readAttributes(given, 1);
  for (const [name, { type }] of Object.entries(read)) {
    if (name !== "AWSTraceHeader") {
      throw invalidParameter(`Message system attribute name '${name}' is invalid.`);
    }
    if (type !== "String") {
      throw invalidParameter("The value of message system attribute 'AWSTraceHeader' must be of type 'String'.");
    }
  }
  return read;
}

/** What of a message is kept where: see Extras. */
function keep(attributes: Record<string, Attribute>, extras: Extras): Pick<Outgoing, "attributes" | "extras"> {
  const own = bare<string>();
  const typed = bare<[string, string?]>();
  for (const [name, { type, value }] of Object.entries(attributes)) {
    if (/^String(?:\.|$)/.test(type)) own[name] = value;
    if (type !== "String") typed[name] = name in own ? [type] : [type, value];
  }
  if (Object.keys(typed).length > 0) extras.typed = typed;
  return {
    attributes: Object.keys(own).length === 0 ? null : JSON.stringify(own),
    extras: Object.keys(extras).length === 0 ? null : JSON.stringify(extras),
  };
}

/**
 * Reads and checks a message. `sender`: the access key, `trace`: of the request's header. Throws what SendMessage
 * refuses, but for its size, which is the queue's matter, and what FIFO queues ask for.
 */
export function readMessage(
  queue: string,
  given: GivenMessage,
  sender: string | undefined,
  trace: string | undefined,
  attributes_max: number,
): ReadMessage {
  const { MessageBody: body, DelaySeconds: delay_seconds, MessageGroupId: group } = given;
  const { MessageDeduplicationId: dedup_id } = given;
  if (body === undefined || body === "") throw missing("MessageBody");
  if (!isXmlText(body)) throw new SqsError("InvalidMessageContents", invalid_characters);
  const attributes = readAttributes(given.MessageAttributes, attributes_max);
  const system = readTrace(given.MessageSystemAttributes);
  if (delay_seconds !== undefined && (delay_seconds < 0 || delay_seconds > delay_seconds_max)) {
    throw invalidValue(delay_seconds, "DelaySeconds", `DelaySeconds must be >= 0 and <= ${delay_seconds_max}.`);
  }
  checkGroupText(group, "MessageGroupId");
  checkGroupText(dedup_id, "MessageDeduplicationId");
  const header = system["AWSTraceHeader"]?.value ?? trace;
  const extras: Extras = {
    ...(sender !== undefined && { sender }),
    ...(group !== undefined && !isFifo(queue) && { group }),
    ...(dedup_id !== undefined && { dedup_id }),
    ...(header !== undefined && { trace: header }),
  };
  return {
    outgoing: { body, label: null, ...keep(attributes, extras), bytes: sizeOf(body, attributes) },
    delay_seconds,
    group,
    dedup_id,
    md5_of_attributes: md5OfAttributes(attributes),
    md5_of_system_attributes: md5OfAttributes(system),
  };
}

/** The attributes of a message, of whatever edge it came by. `own`: those that every edge knows. */
export function attributesOf(own: Record<string, string> | null, { typed = {} }: Extras): Record<string, Attribute> {
  const all = bare<Attribute>();
  for (const name in own) {
    const type = Object.hasOwn(typed, name) ? typed[name]?.[0] : undefined;
    all[name] = { type: type ?? "String", value: own[name] ?? "" };
  }
  for (const name in typed) {
    const [type, value] = typed[name] ?? [];
    if (type !== undefined && value !== undefined) all[name] = { type, value };
  }
  return all;
}
