import type { OptionSpec } from "./command.ts";

const units = new Map([
  ["", 1],
  ["s", 1],
  ["m", 60],
  ["h", 3600],
  ["d", 86_400],
]);

/** Seconds of `90`, `90s`, `15m`, `12h`, `14d`; undefined when it is none of these. */
function readSeconds(text: string): number | undefined {
  const [, digits = "", unit = ""] = /^(\d{1,12})([smhd]?)$/.exec(text) ?? [];
  return digits === "" ? undefined : Number(digits) * (units.get(unit) ?? 1);
}

const within = (value: number | undefined, { min, max }: { min: number; max: number }) =>
  value !== undefined && value >= min && value <= max;

/** Reads the value of an option. Throws a sentence. `before`: what the same option gave before. */
export function readValue({ name, reader }: OptionSpec, text: string, before: unknown): string | number | object {
  const refuse = (what: string) => new Error(`--${name} ${JSON.stringify(text)} is not understood: ${what}`);
  switch (reader?.kind) {
    case "directory":
      if (text === "" || text.startsWith("-")) throw new Error(`--${name} needs ${reader.needs}`);
      return text;
    case "choice":
      if (!reader.choices.includes(text)) throw refuse(`give one of ${reader.choices.join(", ")}`);
      return text;
    case "whole": {
      const value = /^-?\d{1,15}$/.test(text) ? Number(text) : undefined;
      if (!within(value, reader)) throw refuse(`give a whole number from ${reader.min} to ${reader.max}`);
      return value as number;
    }
    case "seconds": {
      const value = readSeconds(text);
      if (within(value, reader)) return value as number;
      throw refuse(`give a time such as 90s, 15m, 12h or 14d, from ${reader.min} to ${reader.max} seconds`);
    }
    case "pairs": {
      const equals = text.indexOf("=");
      if (equals < 1) throw refuse(`give a name, =, and a value, as ${reader.example}`);
      const pairs = Object.entries((before as Record<string, string> | undefined) ?? {});
      // Not an object literal: `__proto__` is data like any other name.
      return Object.fromEntries([...pairs, [text.slice(0, equals), text.slice(equals + 1)]]);
    }
    default:
      return text;
  }
}
