// JSON as it was written: numbers of other programs have digits that those of JavaScript do not keep.

/** A number that JavaScript would show otherwise than it was written. */
export class Digits {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }

  toString(): string {
    return this.text;
  }
}

export type Json = null | boolean | number | string | Digits | Json[] | { [name: string]: Json };

/** Is it a list or a map? */
export const isNested = (value: Json): value is Json[] | { [name: string]: Json } =>
  typeof value === "object" && value !== null && !(value instanceof Digits);

/** Browsers that are some years old do not say how a number was written. */
type Reviver = (name: string, value: Json, context?: { source?: string }) => Json;

/** Reads JSON text. Throws SyntaxError. */
export function readJson(text: string): Json {
  const keepDigits: Reviver = (_, value, context) =>
    typeof value === "number" && context?.source !== undefined && context.source !== String(value)
      ? new Digits(context.source)
      : value;
  return JSON.parse(text, keepDigits as (name: string, value: unknown) => unknown) as Json;
}

const token = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g;
const closes: Record<string, string> = { "{": "}", "[": "]" };

/** JSON text on lines of its own, two spaces deeper with each level, and otherwise as it was. Throws SyntaxError. */
export function indentJson(text: string): string {
  JSON.parse(text);
  const tokens = text.match(token) ?? [];
  let out = "";
  let depth = 0;
  const breakLine = () => {
    out += `\n${"  ".repeat(depth)}`;
  };
  for (const [i, own] of tokens.entries()) {
    if (own === "}" || own === "]") {
      depth -= 1;
      if (closes[tokens[i - 1] ?? ""] !== own) breakLine();
      out += own;
    } else if (own === "{" || own === "[") {
      depth += 1;
      out += own;
      if (tokens[i + 1] !== closes[own]) breakLine();
    } else {
      out += own === ":" ? ": " : own;
      if (own === ",") breakLine();
    }
  }
  return out;
}
