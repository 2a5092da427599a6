// What an export is: a line of JSON for each queue, topic, subscription and message, between a first and a last one.
// Members are named as the columns are; times are absolute.

/** Raised when an older program could not read it. */
export const format = 1;

/** What lines may be about, in the order in which they stand. */
export const kinds = ["queue", "topic", "subscription", "message"] as const;
export type Kind = (typeof kinds)[number];
export type Counts = Record<Kind, number>;

/** Nothing yet. */
export const noCounts = (): Counts => ({ queue: 0, topic: 0, subscription: 0, message: 0 });

/** `2 queues, 1 topic`; what there is none of is left out. */
export function describeCounts(counts: Counts): string {
  const parts = kinds.flatMap((kind) => {
    const count = counts[kind];
    return count === 0 ? [] : [`${count} ${kind}${count === 1 ? "" : "s"}`];
  });
  return parts.length === 0 ? "nothing" : parts.join(", ");
}

/** A sentence for people: what is wrong with an export, or in the way of one. */
export class TransferError extends Error {
  override readonly name = "TransferError";
}
