import { SqsError } from "./errors.ts";
import type { Shape } from "./shapes.ts";

// The JSON 1.0 protocol: an object in, an object out.

const decoder = new TextDecoder("utf-8", { fatal: true });

const refuse = (what: string) => new SqsError("SerializationException", what);

const isMap = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** The body as an object. Throws SerializationException. */
export function parseJson(bytes: Uint8Array): Record<string, unknown> {
  if (bytes.length === 0) return {};
  let value: unknown;
  try {
    value = JSON.parse(decoder.decode(bytes));
  } catch (cause) {
    // The parser's own message quotes the body.
    const why =
      cause instanceof SyntaxError ? "not JSON" : cause instanceof RangeError ? "nested too deep" : "not UTF-8";
    throw refuse(`The request body is ${why}.`);
  }
  if (!isMap(value)) throw refuse("The request body is not a JSON object.");
  return value;
}

const base64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}(?:==)?|[A-Za-z0-9+/]{3}=?)?$/;

/** Is it base64, with or without its padding? */
export const isBase64 = (text: string): boolean => base64.test(text);

/**
 * What a value holds of its shape, as far as the shape goes: what it does not know is passed over, null is absent, and
 * a value of another type is refused. `path` names it in the refusal.
 */
export function readJson(shape: Shape, value: unknown, path: string): unknown {
  switch (shape.kind) {
    case "text":
      if (typeof value !== "string") throw refuse(`${path} must be a string.`);
      return value;
    case "blob":
      if (typeof value !== "string" || !isBase64(value)) throw refuse(`${path} must be base64.`);
      return value;
    case "integer":
      if (!Number.isSafeInteger(value)) throw refuse(`${path} must be an integer.`);
      return value;
    case "list":
      if (!Array.isArray(value)) throw refuse(`${path} must be a list.`);
      return value.map((item, i) => readJson(shape.of, item, `${path}[${i}]`));
    case "map":
      if (!isMap(value)) throw refuse(`${path} must be a map.`);
      return Object.fromEntries(
        Object.entries(value).flatMap(([name, item]) =>
          item === null ? [] : [[name, readJson(shape.of, item, `${path}.${name}`)]],
        ),
      );
    case "members": {
      if (!isMap(value)) throw refuse(`${path || "The request"} must be a structure.`);
      const read: Record<string, unknown> = {};
      for (const name in shape.members) {
        const own = Object.hasOwn(value, name) ? value[name] : undefined;
        if (own != null)
          read[name] = readJson(shape.members[name] as Shape, own, path === "" ? name : `${path}.${name}`);
      }
      return read;
    }
  }
}
