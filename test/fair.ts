import { expect } from "bun:test";
import type { Service } from "./harness.ts";

/** Settings of a queue that is shared by what publishers say. */
export const fair = { fair_by: "fairness_key" };

export type FairItem = { body: string; fairness_key?: string; weight?: number; label?: string };

/** Messages `a0`, `a1`, … of the key `a`. */
export const itemsOf = (fairness_key: string, count: number, more: Partial<FairItem> = {}): FairItem[] =>
  Array.from({ length: count }, (_, i) => ({ body: `${fairness_key}${i}`, fairness_key, ...more }));

/** The key of a body of these. */
export const keyOf = (body: string): string => body.replace(/\d+$/, "");

/** How many bodies are of the key. */
export const countOf = (texts: string[], key: string): number => texts.filter((body) => keyOf(body) === key).length;

/** Publishes messages in order, in batches. */
export async function putBatch({ call }: Service, queue: string, messages: FairItem[]): Promise<void> {
  for (let from = 0; from < messages.length; from += 1000) {
    const batch = { messages: messages.slice(from, from + 1000) };
    expect((await call("POST", `/v1/queues/${queue}/messages/batch`, batch)).status).toBe(201);
  }
}
