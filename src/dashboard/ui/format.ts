const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** 1,234,567 */
export const count = (value: number): string => whole.format(value);

/** 1.2M, where there is little room; exact below ten thousand. */
export const compact = (value: number): string => (value < 10_000 ? whole.format(value) : short.format(value));

/** A number and its noun. */
export const plural = (value: number, noun: string): string =>
  `${whole.format(value)} ${noun}${value === 1 ? "" : "s"}`;

/** Messages per second: 0, 0.05, 3.2, 1.2K. */
export function rate(value: number): string {
  if (value === 0) return "0";
  if (value < 1) return value.toFixed(2);
  return value < 100 ? value.toFixed(1) : short.format(value);
}

const steps: [seconds: number, unit: string][] = [
  [86_400, "d"],
  [3600, "h"],
  [60, "m"],
  [1, "s"],
];

/** 3d 4h, 12m 5s, 0s: the two largest units. */
export function duration(seconds: number): string {
  const total = Math.max(0, Math.floor(seconds));
  const first = steps.findIndex(([own]) => total >= own);
  if (first < 0) return "0s";
  const [own, unit] = steps[first] ?? [1, "s"];
  const [next, next_unit] = steps[first + 1] ?? [0, ""];
  const rest = next === 0 ? 0 : Math.floor((total % own) / next);
  return `${Math.floor(total / own)}${unit}${rest > 0 ? ` ${rest}${next_unit}` : ""}`;
}

/** `5m ago` or `in 5m`. */
export function relative(time: string, now_ms = Date.now()): string {
  const seconds = (Date.parse(time) - now_ms) / 1000;
  if (Math.abs(seconds) < 1) return "now";
  return seconds < 0 ? `${duration(-seconds)} ago` : `in ${duration(seconds)}`;
}

/** A time in the reader's zone, with seconds. */
export const moment = (time: string): string => {
  const date = new Date(time);
  const two = (value: number) => String(value).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
};

/** 12 B, 3.4 kB, 1.2 MB */
export function bytes(value: number): string {
  if (value < 1000) return `${value} B`;
  return value < 1_000_000 ? `${(value / 1000).toFixed(1)} kB` : `${(value / 1_000_000).toFixed(1)} MB`;
}

/** backing_off → backing off */
export const words = (name: string): string => name.replaceAll("_", " ");

/** What stands in the place of a body that cannot be decrypted. */
export const whyUnreadable = {
  key_missing: "encrypted with a master key that the server does not have",
  changed: "encrypted, and changed since: it cannot be decrypted",
};
