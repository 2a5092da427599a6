import type { OptionSpec } from "./command.ts";

/** What every command takes that asks a server. */
export const client_options: OptionSpec[] = [
  { name: "url", value: "URL", reader: { kind: "text" }, about: "the server; else PSQLQUEUE_URL, else the profile's" },
  {
    name: "profile",
    value: "NAME",
    reader: { kind: "text" },
    about: "url and key of that name in ~/.config/psqlqueue/config.json",
  },
  { name: "json", about: "JSON instead of text; streams as one object a line" },
  { name: "quiet", short: "q", about: "print nothing but errors" },
];

/** Only for those that destroy. */
export const yes_option: OptionSpec = { name: "yes", short: "y", about: "do not ask" };

const day_seconds = 86_400;
/** As the API bounds them. */
export const int32_max = 2_147_483_647;
export const lease_seconds_max = 43_200;
export const year_seconds = 365 * day_seconds;

/** An option with a time. */
export const seconds = (name: string, about: string, min: number, max: number): OptionSpec => ({
  name,
  value: "TIME",
  reader: { kind: "seconds", min, max },
  about,
});

/** An option with a number. */
export const whole = (name: string, about: string, min: number, max: number): OptionSpec => ({
  name,
  value: "N",
  reader: { kind: "whole", min, max },
  about,
});

/** An option with a text. */
export const text = (name: string, value: string, about: string): OptionSpec => ({
  name,
  value,
  reader: { kind: "text" },
  about,
});

/** An option with one of some words. */
export const choice = (name: string, choices: readonly string[], about: string): OptionSpec => ({
  name,
  value: "WORD",
  reader: { kind: "choice", choices },
  about: `${about}: ${choices.join(", ")}`,
});

/** Pages of a list. */
export const page_options = [whole("limit", "items at most; default all", 1, int32_max)];

/** The queue that a command is about. */
export const queue_argument = { name: "QUEUE", about: "the queue's id" };

/** For commands that ask no server. */
export const json_option: OptionSpec[] = client_options.filter(({ name }) => name === "json");
export const quiet_option: OptionSpec[] = client_options.filter(({ name }) => name === "quiet");
