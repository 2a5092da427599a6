import { FormatRegistry, Kind, type TObject, type TSchema, Type, TypeRegistry } from "@sinclair/typebox";
import { nearestOf } from "../nearest.ts";

// What is legal on the wire, member by member. Schemas are TypeBox; each is the document, the type and the check of its
// endpoint. Elysia's own validation is stepped round (`described`): it coerces "5" to 5, drops `__proto__`, and cannot
// tell a wrong type (code 2) from a wrong value (code 3).

const int32_max = 2_147_483_647;
const encoder = new TextEncoder();

/** Can PostgreSQL store it unchanged? It refuses NUL, and a lone surrogate would become U+FFFD. */
export const isText = (value: string): boolean => !value.includes("\0") && value.isWellFormed();

const fitsBytes = (value: string, max: number) => value.length * 3 <= max || encoder.encode(value).length <= max;

const rfc3339_pattern = /^\d{4}-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)([.,]\d+)?([Zz]|[+-](\d\d):(\d\d))$/;

function isRfc3339(value: string): boolean {
  const match = rfc3339_pattern.exec(value);
  if (match === null) return false;
  const [, month, day, hour, minute, second, , , zone_hour = "0", zone_minute = "0"] = match.map((part) => part ?? "0");
  const days_max = new Date(Date.UTC(Number(value.slice(0, 4)) || 400, Number(month), 0)).getUTCDate();
  const is_date = Number(month) >= 1 && Number(month) <= 12 && Number(day) >= 1 && Number(day) <= days_max;
  const is_time = Number(hour) <= 23 && Number(minute) <= 59 && Number(second) <= 59;
  return is_date && is_time && Number(zone_hour) <= 24 && Number(zone_minute) <= 60;
}

FormatRegistry.Set("text", isText);
FormatRegistry.Set("label", (value) => isText(value) && fitsBytes(value, label_bytes_max));
FormatRegistry.Set("ordering_key", (value) => isText(value) && fitsBytes(value, ordering_key_bytes_max));
FormatRegistry.Set("date-time", isRfc3339);

/** A JSON object, not an array. */
export const isMap = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const isStringOrNull = (value: unknown) => typeof value === "string" || value === null;
const everyValue = (value: unknown, test: (item: unknown) => boolean) => {
  if (!isMap(value)) return false;
  // `for in` and not Object.values: `__proto__` is data like any other key.
  for (const key in value) if (!test(value[key])) return false;
  return true;
};
const isStringMap = (value: unknown) => everyValue(value, isStringOrNull);
const isFilterMap = (value: unknown) =>
  everyValue(value, (list) => list === null || (Array.isArray(list) && list.every(isStringOrNull)));

function hasOnlyText(value: unknown): boolean {
  if (typeof value === "string") return isText(value);
  if (Array.isArray(value)) return value.every(hasOnlyText);
  if (!isMap(value)) return true;
  for (const key in value) if (!isText(key) || !hasOnlyText(value[key])) return false;
  return true;
}

TypeRegistry.Set("StringMap", (_, value) => isStringMap(value) && hasOnlyText(value));
TypeRegistry.Set("FilterMap", (_, value) => isFilterMap(value) && hasOnlyText(value));

const label_bytes_max = 255;
const ordering_key_bytes_max = 256;

/** Members that more than one endpoint uses. */
export const member = {
  /** Of something that a path names: `.` and `..` there are steps, which clients take before they ask. */
  id: (description: string) =>
    Type.String({
      pattern: "^(\\.{0,2}[a-zA-Z0-9\\-_]|\\.{3})[a-zA-Z0-9\\-._]*$",
      minLength: 1,
      maxLength: 255,
      description,
    }),
  seconds: (description: string, minimum: number, maximum = int32_max) =>
    Type.Integer({ minimum, maximum, description }),
  label: Type.String({ format: "label", maxBytes: label_bytes_max, description: "At most 255 bytes of UTF-8" }),
  priority: Type.Integer({
    minimum: -100,
    maximum: 100,
    description: "Higher ones are delivered first; default 0. Other than 0 only where the queue has priority_enabled",
  }),
  ordering_key: Type.String({
    format: "ordering_key",
    minLength: 1,
    maxBytes: ordering_key_bytes_max,
    description: "Messages of a queue with the same key are delivered in order, one at a time; at most 256 bytes",
  }),
  fairness_key: Type.String({
    format: "ordering_key",
    minLength: 1,
    maxBytes: ordering_key_bytes_max,
    description: "Whose message it is, in a queue that is shared by it: see fair_by; at most 256 bytes",
  }),
  weight: Type.Integer({
    minimum: 1,
    maximum: 100,
    description:
      "Turns that its key gets in a shared queue for one of another; that of its latest message counts; default 1",
  }),
  body: Type.String({ format: "text", minLength: 1, description: "Anything but empty; white space alone is fine" }),
  attributes: Type.Unsafe<Record<string, string | null>>({
    [Kind]: "StringMap",
    type: "object",
    additionalProperties: { type: "string", nullable: true },
    description: "A flat map of strings; a null value reads as the empty string",
  }),
  filters: Type.Unsafe<Record<string, (string | null)[] | null>>({
    [Kind]: "FilterMap",
    type: "object",
    additionalProperties: { type: "array", nullable: true, items: { type: "string", nullable: true } },
    description: "Attribute name to the values that pass: AND over names, OR within a list; {} passes everything",
  }),
  /** Typed and then ignored. */
  readOnlyTime: Type.String({ format: "date-time", readOnly: true }),
  readOnlyText: Type.String({ readOnly: true }),
  readOnlyCount: Type.Integer({ minimum: 0, readOnly: true }),
  /** A query number: digits only, lowered to its maximum. */
  limit: (maximum: number, description: string, fallback?: number) =>
    Type.Integer({
      minimum: 0,
      maximum,
      lowered: true,
      description,
      ...(fallback !== undefined && { default: fallback }),
    }),
  offset: Type.Integer({ minimum: 0, maximum: int32_max, default: 0, description: "Rows to skip" }),
  text: (description: string) => Type.String({ format: "text", description }),
  /** A time that goes to PostgreSQL, which knows no year 0, no comma and no zone beyond 15:59. */
  time: (description: string) =>
    Type.String({ format: "date-time", pattern: "^(?!0000)[^,]*([Zz]|[+-](0\\d|1[0-5]):[0-5]\\d)$", description }),
  dedupId: Type.String({
    pattern: "^[!-~]+$",
    minLength: 1,
    maxLength: 128,
    description: "A publish with the same id within the queue's window is a duplicate of the first",
  }),
  choice: <T extends string>(values: T[], description: string) =>
    Type.Unsafe<T>(Type.String({ pattern: `^(${values.join("|")})$`, enum: values, description })),
  /** A query flag: true or false. */
  flag: (description: string) => Type.Boolean({ description }),
  /** 1 to `maxItems` objects. */
  list: <T extends TObject>(item: T, maxItems: number, description: string) =>
    Type.Array(item, { minItems: 1, maxItems, description }),
};

/** JSON text of a map of strings, with null values as "". */
export function attributesText(attributes: Record<string, string | null> | undefined): string | null {
  if (attributes === undefined) return null;
  for (const key in attributes) {
    if (attributes[key] === null) return JSON.stringify(attributes, (_, value) => (value === null ? "" : value));
  }
  return JSON.stringify(attributes);
}

type Problem = "malformed" | string | undefined;

/** Member → what is wrong with it, in the contract's words. */
export type Problems = Map<string, string>;

/** What is wrong with one member: "malformed" for a wrong type, a text of the contract for a wrong value. */
export function judge(given_schema: TSchema, is_required: boolean, value: unknown): Problem {
  const schema = nonNull(given_schema);
  if (value === undefined || (value === null && schema !== given_schema))
    return is_required ? "cannot be blank" : undefined;
  const kind = schema[Kind];
  if (kind === "StringMap" || kind === "FilterMap") {
    if (!(kind === "StringMap" ? isStringMap(value) : isFilterMap(value))) return "malformed";
    return hasOnlyText(value) ? undefined : "must be in a valid format";
  }
  if (kind === "Integer") return judgeInteger(schema, is_required, value);
  if (kind === "Number") return judgeNumber(schema, value);
  if (kind === "Object") return isMap(value) ? undefined : "malformed";
  if (kind === "Boolean") return typeof value === "boolean" ? undefined : "malformed";
  if (typeof value !== "string") return "malformed";
  if (schema.readOnly === true) return schema["format"] === undefined || isRfc3339(value) ? undefined : "malformed";
  if (value === "" && (is_required || schema["format"] === "ordering_key")) return "cannot be blank";
  if (schema["format"] === "date-time" && !isRfc3339(value)) return "must be in a valid format";
  if (schema["enum"] !== undefined && !schema["enum"].includes(value))
    return `must be one of ${schema["enum"].join(", ")}`;
  const is_valid = schema["pattern"] === undefined || new RegExp(schema["pattern"]).test(value);
  if (!is_valid || !isText(value)) return "must be in a valid format";
  const length_max: number | undefined = schema["maxLength"] ?? schema["maxBytes"];
  const is_short =
    schema["maxLength"] === undefined ? fitsBytes(value, length_max ?? Infinity) : value.length <= (length_max ?? 0);
  return is_short ? undefined : `the length must be no more than ${length_max}`;
}

function judgeInteger(schema: TSchema, is_required: boolean, value: unknown): Problem {
  // 1e400 parses to Infinity: a number above every bound.
  if (typeof value !== "number" || !(Number.isInteger(value) || Math.abs(value) === Infinity)) return "malformed";
  // No count and no time is negative: that is another type.
  if (value < 0 && !(schema["minimum"] < 0)) return "malformed";
  if (schema.readOnly === true) return undefined;
  if (is_required && value === 0 && schema["minimum"] > 0) return "cannot be blank";
  if (value < schema["minimum"]) return `must be no less than ${schema["minimum"]}`;
  if (value > schema["maximum"]) return `must be no greater than ${schema["maximum"]}`;
  return undefined;
}

function judgeNumber(schema: TSchema, value: unknown): Problem {
  if (typeof value !== "number") return "malformed";
  if (value < schema["minimum"]) return `must be no less than ${schema["minimum"]}`;
  if (value > schema["maximum"]) return `must be no greater than ${schema["maximum"]}`;
  return undefined;
}

/** The items of a list, and its length. */
function judgeList(name: string, schema: TSchema, value: unknown, problems: Problems): "malformed" | undefined {
  if (!Array.isArray(value)) return "malformed";
  if (value.length === 0) problems.set(name, "cannot be blank");
  if (value.length > schema["maxItems"]) {
    problems.set(name, `the length must be no more than ${schema["maxItems"]}`);
    return undefined;
  }
  let answer: "malformed" | undefined;
  const items = schema["items"] as TSchema;
  for (const [i, item] of value.entries()) {
    if (items[Kind] !== "Object") {
      const problem = judge(items, true, item);
      if (problem === "malformed") answer = problem;
      else if (problem !== undefined) problems.set(`${name}[${i}]`, problem);
    } else if (!isMap(item)) return "malformed";
    else answer = judgeAll(items as TObject, item, problems, `${name}[${i}].`) ?? answer;
  }
  return answer;
}

/** `T | null` → `T`. */
function nonNull(schema: TSchema): TSchema {
  const options = schema["anyOf"] as TSchema[] | undefined;
  return options?.find((option) => option[Kind] !== "Null") ?? schema;
}

/** Is the member an object with members of its own? */
export const isObject = (schema: TSchema) => nonNull(schema)[Kind] === "Object";

/** Is a member that the schema does not know refused? So where one that is misspelt would give more than was meant. */
export const isStrict = (schema: TSchema) => nonNull(schema)["additionalProperties"] === false;

const unknown_named_max = 5;
const unknown_characters_max = 64;

/** Members of a strict object that it has not, and nulls, which mean nothing there that a person could know. */
function judgeStrict({ properties }: TObject, value: Record<string, unknown>, problems: Problems, prefix: string) {
  const known = Object.keys(properties);
  const shown = known.filter((name) => properties[name]?.readOnly !== true);
  const unknown = Object.keys(value).filter((name) => !known.includes(name));
  for (const name of unknown.slice(0, unknown_named_max)) {
    const nearest = nearestOf(name, shown, 3);
    const hint = nearest === undefined ? `there are ${shown.join(", ")}` : `${nearest} may be meant`;
    problems.set(prefix + name.slice(0, unknown_characters_max), `is unknown, ${hint}`);
  }
  for (const name of known) if (value[name] === null) problems.set(prefix + name, "must not be null");
}

/** May the member be null, and mean something by it? */
export const isNullable = (schema: TSchema) => nonNull(schema) !== schema;

/** Collects what is wrong with the members of an object; "malformed" when one has the wrong type. */
export function judgeAll(
  schema: TObject,
  value: Record<string, unknown>,
  problems: Problems,
  prefix = "",
): "malformed" | undefined {
  let answer: "malformed" | undefined;
  if (isStrict(schema)) judgeStrict(schema, value, problems, prefix);
  for (const [name, own] of Object.entries(schema.properties)) {
    const given = Object.hasOwn(value, name) ? value[name] : undefined;
    if (given === null && isStrict(schema)) continue;
    const is_required = schema.required?.includes(name) ?? false;
    if (own[Kind] === "Array" && given !== undefined) {
      answer = judgeList(prefix + name, own, given, problems) ?? answer;
      continue;
    }
    const solid = nonNull(own);
    if (solid[Kind] === "Object" && isMap(given)) {
      answer = judgeAll(solid as TObject, given, problems, `${prefix}${name}.`) ?? answer;
      continue;
    }
    const problem = judge(own, is_required, given);
    if (problem === "malformed") answer = "malformed";
    else if (problem !== undefined) problems.set(prefix + name, problem);
  }
  return answer;
}

/** `items[10].id` after `items[2].id`: by name, index, then name. */
const sortable = (name: string) => name.replace(/\[(\d+)\]/, (_, index: string) => `[${index.padStart(6, "0")}]`);

/** The `details` of code 3: sorted by name, each once. */
export function describe(problems: Problems): string {
  const names = [...problems.keys()].sort((a, b) => (sortable(a) < sortable(b) ? -1 : 1));
  return `${names.map((name) => `${name}: ${problems.get(name)}`).join("; ")}.`;
}
