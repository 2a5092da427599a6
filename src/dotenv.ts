import { existsSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import { ConfigError } from "./config.ts";

/** A line that is not understood. Holds no value: it may be a secret. */
export type DotenvWarning = { line: number; reason: string };

export type Dotenv = {
  /** The file that was read. */
  file: string;
  /** Without the empty ones, which are as if they were not set. */
  values: Record<string, string>;
  warnings: DotenvWarning[];
};

/**
 * The first `.env` from `directory` upwards. A directory of that name is none: Python keeps its packages in such. What
 * lies in a directory that this user may not look into is not for us.
 */
function findDotenv(directory: string): string | undefined {
  for (let at = path.resolve(directory); ; at = path.dirname(at)) {
    const file = path.join(at, ".env");
    if (existsSync(file) && !statSync(file).isDirectory()) return file;
    if (at === path.dirname(at)) return undefined;
  }
}

/**
 * UTF-8, or UTF-16 as Windows' editors and PowerShell write it, with or without a byte order mark. Without one it is
 * known by its first character, which is ASCII: a name, a blank or `#`.
 */
function decode(bytes: Uint8Array): string {
  const [first, second] = bytes;
  const is_little = (first === 0xff && second === 0xfe) || (first !== 0 && second === 0);
  const is_big = (first === 0xfe && second === 0xff) || (first === 0 && second !== 0);
  return new TextDecoder(is_little ? "utf-16le" : is_big ? "utf-16be" : "utf-8").decode(bytes);
}

/** `NAME=` or `NAME: `, with `export ` or without. */
const head = /[^\S\n]*(?:export[^\S\n]+)?([\w.-]+)(?:[^\S\n]*=|:(?=\s|$))[^\S\n]*/y;
/** A value in quotes, which may have several lines, and what may stand behind it. */
const quoted = /(?:'((?:\\'|[^'])*)'|"((?:\\"|[^"])*)"|`((?:\\`|[^`])*)`)(?=[^\S\n]*(?:\n|$)|[^\S\n]*#)/y;
const rest_of_line = /[^\n]*/y;

function readValue(text: string, at: number): { value: string; end: number; problem?: string } {
  quoted.lastIndex = at;
  const match = quoted.exec(text);
  if (match !== null) {
    const [whole, single, double, back] = match;
    // Backslashes mean nothing else: paths of Windows have many.
    const value = double?.replaceAll("\\n", "\n").replaceAll("\\r", "\r") ?? single ?? back ?? "";
    return { value, end: at + whole.length };
  }
  rest_of_line.lastIndex = at;
  const given = rest_of_line.exec(text)?.[0] ?? "";
  const value = given.replace(/(^|\s+)#.*$/, "").trim();
  const end = at + given.length;
  if (!/^['"`]/.test(value)) return { value, end };
  const is_closed = value.indexOf(value[0] ?? "", 1) > 0;
  return { value, end, problem: is_closed ? "text behind the closing quote" : "a quote that is not closed" };
}

/**
 * Reads as the package dotenv does, but that `#` begins a comment only at the start of a value or after a blank: what a
 * password holds is kept. `$` means nothing. The last of several lines with one name wins. What is not understood is
 * passed over or taken as it is written, and told.
 */
function parse(text: string): Pick<Dotenv, "values" | "warnings"> {
  const values = new Map<string, string>();
  const warnings: DotenvWarning[] = [];
  const lineAt = (position: number) => text.slice(0, position).split("\n").length;
  const warn = (position: number, reason: string) => warnings.push({ line: lineAt(position), reason });
  for (let at = 0; at < text.length; ) {
    head.lastIndex = at;
    const match = head.exec(text);
    rest_of_line.lastIndex = at;
    const line = rest_of_line.exec(text)?.[0] ?? "";
    if (match === null) {
      if (!/^\s*(#|$)/.test(line)) warn(at, "it is not NAME=value");
      at += line.length + 1;
      continue;
    }
    const { value, end, problem } = readValue(text, at + match[0].length);
    if (problem !== undefined) warn(at, problem);
    else if (/[\ufffd\0]/.test(value)) warn(at, "bytes that are neither UTF-8 nor UTF-16");
    values.set(match[1] ?? "", value);
    // What is left of the line is blank or a comment.
    rest_of_line.lastIndex = end;
    at = end + (rest_of_line.exec(text)?.[0] ?? "").length + 1;
  }
  const given = [...values].filter(([, value]) => value !== "");
  return { values: Object.fromEntries(given), warnings };
}

/** Reads the first `.env` from `directory` upwards; undefined without one. Throws ConfigError when it is unreadable. */
export function readDotenv(directory: string): Dotenv | undefined {
  const file = findDotenv(directory);
  if (file === undefined) return undefined;
  try {
    return { file, ...parse(decode(readFileSync(file)).replaceAll(/\r\n?/g, "\n")) };
  } catch (cause) {
    throw new ConfigError(
      `${file} cannot be read: ${(cause as Error).message}; make it readable for this user, or start in a directory that ` +
        "has none above it",
    );
  }
}
