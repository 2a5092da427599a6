// The kinds of settings: how a text is read, and what is said of one that cannot be.

export type Setting<T> = {
  default: string;
  allowed: string;
  meaning: string;
  /** It is never shown. */
  is_secret?: true;
  read: (text: string) => T | undefined;
};

/** A whole number within bounds. */
export const whole = (min: number, max: number, default_value: number, meaning: string): Setting<number> => ({
  default: String(default_value),
  allowed: `a whole number from ${min} to ${max}`,
  meaning,
  read: (text) => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
    return value >= min && value <= max ? value : undefined;
  },
});

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

/** One of some words. */
export const oneOf = <const T extends string>(values: readonly T[], default_value: T, meaning: string): Setting<T> => ({
  default: default_value,
  allowed: `one of ${values.join(", ")}`,
  meaning,
  read: (text) => values.find((value) => value === text.toLowerCase()),
});

/** Quotes that came along with the value (Docker's `--env-file` keeps them) would be part of a path. */
const isText = (given: string) => given.trim() !== "" && !/^(["'`]).*\1$/s.test(given);

/** A text that is not empty. */
export const text = (default_value: string, meaning: string): Setting<string> => ({
  default: default_value,
  allowed: "a text that is not empty, without quotes around it",
  meaning,
  read: (given) => (isText(given) ? given : undefined),
});

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
