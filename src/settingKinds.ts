import { existsSync, statSync } from "node:fs";
import { BlockList, isIP, isIPv6 } from "node:net";
import { readConnection } from "./connection/connection.ts";
import { ConnectionError, trimText } from "./connection/text.ts";

// The kinds of settings: what each takes, and in which words it says so.

/** How a setting is read from text; `read` answers undefined for what is not allowed. */
export type Setting<T> = {
  default: string;
  allowed: string;
  meaning: string;
  /** It is never shown. */
  is_secret?: true;
  read: (text: string) => T | undefined;
};

/** A whole number, in digits only. */
export const whole = (min: number, max: number, default_value: number, meaning: string): Setting<number> => ({
  default: String(default_value),
  allowed: `a whole number from ${min} to ${max}`,
  meaning,
  read: (text) => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
    return value >= min && value <= max ? value : undefined;
  },
});

/** A whole number, or a word for one that is found out. */
export const wholeOr = <const W extends string>(
  word: W,
  min: number,
  max: number,
  default_value: number,
  meaning: string,
): Setting<number | W> => {
  const number = whole(min, max, default_value, meaning);
  return {
    ...number,
    allowed: `${word}, or ${number.allowed}`,
    read: (text) => (text.toLowerCase() === word ? word : number.read(text)),
  };
};

const truths = new Map<string, boolean>([
  ...["1", "t", "T", "true", "TRUE", "True"].map((text) => [text, true] as const),
  ...["0", "f", "F", "false", "FALSE", "False"].map((text) => [text, false] as const),
]);

/** True or false. */
export const truth = (default_value: boolean, meaning: string): Setting<boolean> => ({
  default: String(default_value),
  allowed: "true or false (also 1, t, 0, f)",
  meaning,
  read: (text) => truths.get(text),
});

/** One of some words, in any case. */
export const oneOf = <const T extends string>(values: readonly T[], default_value: T, meaning: string): Setting<T> => ({
  default: default_value,
  allowed: `one of ${values.join(", ")}`,
  meaning,
  read: (text) => values.find((value) => value === text.toLowerCase()),
});

/** Quotes that came along with the value (Docker's `--env-file` keeps them) would be part of a path or a secret. */
const isQuoted = (given: string) => /^(["'`]).*\1$/s.test(given);
const isText = (given: string) => given.trim() !== "" && !isQuoted(given);

/** A text that is not empty. */
export const text = (default_value: string, meaning: string): Setting<string> => ({
  default: default_value,
  allowed: "a text that is not empty, without quotes around it",
  meaning,
  read: (given) => (isText(given) ? given : undefined),
});

/** An IPv6 address may stand in brackets, as in a URL. */
export const host = (default_value: string, meaning: string): Setting<string> => ({
  default: default_value,
  allowed: "an address or a name of this machine, without a port",
  meaning,
  read: (given) => {
    const bare = /^\[(.*)\]$/.exec(given)?.[1] ?? given;
    if (isIPv6(bare)) return bare;
    return bare === given && /^[\w.-]+$/.test(given) ? given : undefined;
  },
});

/** Why a connection string cannot be used. */
export function problemOf(given: string): string | undefined {
  try {
    if (trimText(given) !== "") readConnection(given);
    return undefined;
  } catch (error) {
    if (error instanceof ConnectionError) return error.message;
    throw error;
  }
}

/** A connection string, or nothing. */
export const databaseUrl = (meaning: string): Setting<string> => ({
  default: "",
  allowed: "empty, or postgres://user:password@host:port/database",
  meaning,
  read: (given) => (problemOf(given) === undefined ? trimText(given) : undefined),
});

/** The path of a file that is there, or nothing. */
export const databaseUrlFile = (meaning: string): Setting<string> => ({
  default: "",
  allowed: "empty, or the path of a file that can be read",
  meaning,
  read: (given) => (given === "" || (existsSync(given) && statSync(given).isFile()) ? given : undefined),
});

/** A text, or nothing. */
export const optionalText = (meaning: string): Setting<string> => ({
  default: "",
  allowed: "a text, or empty, without quotes around it",
  meaning,
  read: (given) => (given === "" || isText(given) ? given : undefined),
});

/** Some of these names, separated by commas. */
export const names = (known: readonly string[], default_value: string, meaning: string): Setting<string[]> => ({
  default: default_value,
  allowed: `some of ${known.join(", ")}, separated by commas, or none`,
  meaning,
  read: (given) => {
    const list = given.split(",").flatMap((item) => (item.trim() === "" ? [] : [item.trim().toLowerCase()]));
    return list.every((item) => known.includes(item)) ? list : undefined;
  },
});

const secret_characters_min = 16;
/** A text that nobody guesses, or nothing. */
export const secret = (meaning: string): Setting<string> => ({
  default: "",
  allowed: `empty, or at least ${secret_characters_min} characters without a blank, and without quotes around them`,
  meaning,
  is_secret: true,
  read: (given) => (given === "" || (/^[!-~]{16,512}$/.test(given) && !isQuoted(given)) ? given : undefined),
});

/** Adds `10.0.0.7`, `10.0.0.0/8` or the like of IPv6; answers whether it is one. */
function addNetwork(list: BlockList, item: string): boolean {
  const [address = "", bits, ...more] = item.split("/");
  const version = isIP(address);
  if (version === 0 || more.length > 0) return false;
  const family = version === 4 ? "ipv4" : "ipv6";
  const bits_max = version === 4 ? 32 : 128;
  if (bits === undefined) list.addAddress(address, family);
  else if (/^\d{1,3}$/.test(bits) && Number(bits) <= bits_max) list.addSubnet(address, Number(bits), family);
  else return false;
  return true;
}

/** Addresses and networks of proxies. */
export const proxies: Setting<BlockList> = {
  default: "",
  allowed: "addresses and networks such as 10.0.0.0/8 separated by commas, or none",
  meaning: "proxies whose X-Forwarded-Host and X-Forwarded-Proto say how SQS clients call this server; empty: none",
  read: (given) => {
    const list = new BlockList();
    const items = given.split(",").flatMap((item) => (item.trim() === "" ? [] : [item.trim()]));
    return items.every((item) => addNetwork(list, item)) ? list : undefined;
  },
};

/** Origins of web pages. */
export const origins: Setting<string[]> = {
  default: "",
  allowed: "origins such as https://app.example.com separated by commas, or *",
  meaning:
    "origins whose pages may call the API, and names by which browsers may ask without TLS and keys; empty: none",
  read: (given) => {
    const list = given.split(",").flatMap((item) => (item.trim() === "" ? [] : [item.trim()]));
    const isOrigin = (item: string) => item === "*" || (URL.canParse(item) && new URL(item).origin === item);
    return list.every(isOrigin) ? list : undefined;
  },
};

/** On or off. */
export const onOff = (default_value: "on" | "off", meaning: string) => oneOf(["on", "off"], default_value, meaning);

/** A port, or none. */
export const portOrNone = (meaning: string): Setting<number | ""> => ({
  default: "",
  allowed: "empty, or a whole number from 0 to 65535",
  meaning,
  read: (given) => {
    if (given === "") return "";
    const value = /^\d{1,5}$/.test(given) ? Number(given) : Number.NaN;
    return value <= 65535 ? value : undefined;
  },
});

/** A text of a form. */
export const matching = (
  default_value: string,
  pattern: RegExp,
  allowed: string,
  meaning: string,
): Setting<string> => ({
  default: default_value,
  allowed,
  meaning,
  read: (given) => (pattern.test(given) ? given : undefined),
});

/** An address that others are told. */
export const baseUrl = (meaning: string): Setting<string> => ({
  default: "",
  allowed: "empty, or an address such as https://queue.example.com",
  meaning,
  read: (given) => {
    if (given === "") return "";
    const is_url = URL.canParse(given) && /^https?:$/.test(new URL(given).protocol) && !/[?#]/.test(given);
    return is_url ? given.replace(/\/+$/, "") : undefined;
  },
});

/** Secrets by their ids. */
export const accessKeys: Setting<ReadonlyMap<string, string>> = {
  default: "",
  allowed: "ids and secrets such as AKIDEXAMPLE:secret, separated by commas, without quotes around them",
  meaning: "access keys of SQS clients, one of which a signature must be made with",
  is_secret: true,
  read: (given) => {
    const pairs = given.split(",").flatMap((item) => (item.trim() === "" ? [] : [item.trim()]));
    const read = pairs.map((pair) => /^([!-9;-~]{1,128}):([!-~]{8,256})$/.exec(pair));
    if (isQuoted(given) || read.some((match) => match === null)) return undefined;
    return new Map(read.map((match) => [match?.[1] ?? "", match?.[2] ?? ""]));
  },
};

/** Keys that encrypt bodies of messages, and secrets which must be read again. */
export const masterKeys: Setting<ReadonlyMap<string, Uint8Array>> = {
  default: "",
  allowed: "empty, 32 bytes in base64, or several such as 2026:base64,2025:base64; the first encrypts, all decrypt",
  meaning:
    "encrypts bodies of queues with the setting encrypt, and secrets of keys that sign SQS requests; else there are none",
  is_secret: true,
  read: (given) => {
    const items = given.split(",").flatMap((item) => (item.trim() === "" ? [] : [item.trim()]));
    const pairs = items.map((item): [string, Uint8Array] => {
      const [, id = "", text = ""] = /^(?:([\w.-]{1,64}):)?([A-Za-z0-9+/_=-]+)$/.exec(item) ?? [];
      return [id, Buffer.from(text, "base64")];
    });
    const is_usable = pairs.every(([id, key]) => key.length === 32 && (id !== "" || pairs.length === 1));
    return is_usable && new Set(pairs.map(([id]) => id)).size === pairs.length ? new Map(pairs) : undefined;
  },
};
