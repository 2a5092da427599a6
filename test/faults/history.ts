// What happened in a scenario, as its clients saw it: what was sent, when, and what was answered. Times are
// milliseconds of this machine's clock, which is the database's too; those from answers are the database's own.

import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";

/** No answer came: the connection was lost after the request was sent, so nobody knows what became of it. */
export const lost = 0;
/** The connection was refused: nothing was sent. */
export const refused = -1;
/** No answer came within the longest time that any request may take. */
export const hung = -2;

/** Answered with success, and nobody knows what became of it: some protocols say so of an ack that was too late. */
export const unsure = 202;

/** The message that a publish stores in one queue; the id is empty where its answer named none. */
export type Copy = { queue: string; id: string };

/** One request to publish. `message` names the message: a client that repeats it sends another try of the same. */
export type PublishTry = {
  kind: "publish";
  message: string;
  /** One for each queue that it must come to. */
  copies: Copy[];
  /** How many that were, by the answer, where it says so. */
  delivered_queues?: number;
  /** Of body, label, attributes and ordering key. */
  hash: string;
  dedup_id: string | null;
  ordering_key: string | null;
  delay_ms: number;
  sent_ms: number;
  answered_ms: number;
  /** Of the answer, or `lost`, `refused`, `hung`. */
  status: number;
  /** The first request of its connection was lost. */
  is_first?: boolean;
};

export type Delivery = {
  kind: "delivery";
  message: string;
  hash: string;
  queue: string;
  id: string;
  token: string;
  attempts: number;
  ordering_key: string | null;
  created_ms: number;
  /** The database's times of the lease. */
  leased_ms: number;
  until_ms: number;
  /** Where the answer does not tell them, when it was asked: the lease began by `leased_ms`, and held `until_ms`. */
  asked_ms?: number;
  /** A nack of an earlier one of its key in the same answer was sent, which lets it go, too, and may not count it. */
  let_go_ms?: number;
};

export type Settle = {
  kind: "settle";
  verb: "ack" | "nack" | "extend";
  id: string;
  token: string;
  /** Of a nack. */
  visibility_ms: number;
  sent_ms: number;
  answered_ms: number;
  status: number;
  /** The new end of an extended lease. */
  until_ms: number;
  is_first?: boolean;
};

/** A message that was found in the dead-letter queue after the drain. */
export type Burial = {
  kind: "burial";
  message: string;
  /** That it was in before. */
  queue: string;
  hash: string;
  reason: string;
  attempts: number;
};

/** Something was broken on purpose. */
export type Fault = { kind: "fault"; name: string; at_ms: number };

export type Happening = PublishTry | Delivery | Settle | Burial | Fault;

export type History = {
  tries: PublishTry[];
  deliveries: Delivery[];
  settles: Settle[];
  burials: Burial[];
  faults: Fault[];
  /** What nobody meant to happen: a process that ended by itself, an answer of no known kind. */
  problems: string[];
};

/** A history in which nothing has happened yet. */
export const createHistory = (): History => ({
  tries: [],
  deliveries: [],
  settles: [],
  burials: [],
  faults: [],
  problems: [],
});

/** Where a file about a run is kept. */
export function historyFile(name: string): string {
  const directory = path.join(import.meta.dir, "histories");
  mkdirSync(directory, { recursive: true });
  return path.join(directory, name);
}

/** Milliseconds, of the clock that the database reads too. */
export const now_ms = (): number => Date.now();

/** Milliseconds of a time in an answer, with its microseconds. */
export function timeOf(text: string): number {
  const fraction = /\.\d{3}(\d{1,3})/.exec(text)?.[1] ?? "";
  return Date.parse(text) + Number(fraction.padEnd(3, "0")) / 1000;
}

/** What is compared of a message between its publish and its deliveries. */
export function hashOf(parts: { body: string; label: unknown; attributes: unknown; ordering_key: unknown }): string {
  const text = JSON.stringify([parts.body, parts.label ?? null, parts.attributes ?? null, parts.ordering_key ?? null]);
  return new Bun.CryptoHasher("sha256").update(text).digest("base64url");
}

const atOf = (happening: Happening): number => {
  if (happening.kind === "fault") return happening.at_ms;
  if (happening.kind === "delivery") return happening.leased_ms;
  return happening.kind === "burial" ? Number.POSITIVE_INFINITY : happening.sent_ms;
};

/** Writes a history as lines of JSON, in the order of its times; the first line is `header`. */
export function saveHistory(history: History, file: string, header: object): void {
  const { tries, deliveries, settles, burials, faults } = history;
  const all: Happening[] = [...tries, ...deliveries, ...settles, ...burials, ...faults];
  all.sort((a, b) => atOf(a) - atOf(b));
  const lines = [header, ...all, ...history.problems.map((problem) => ({ kind: "problem", problem }))];
  writeFileSync(file, lines.map((line) => JSON.stringify(line)).join("\n") + "\n");
}
