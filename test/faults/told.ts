// What a history tells of messages, of the deliveries of an id, and of leases.

import { type Delivery, type History, hung, lost, type PublishTry, type Settle, unsure } from "./history.ts";

/** Answers carry microseconds, as fractions of a double. */
export const tolerance_ms = 0.01;
/** Between reading a clock here and there: both are the machine's, and ours is cut to milliseconds. */
export const clock_ms = 2;

/** The outcome is known, and it is what was asked for. */
export const isDone = (status: number) => status >= 200 && status < 300 && status !== unsure;
/** It may have happened. */
export const isUnknown = (status: number) => status === lost || status === hung || status === 503 || status === unsure;

/** A message is in one queue: a publish to a topic makes several. `id`: what a try's answer said of this one. */
export type Message = { tries: (PublishTry & { id: string })[]; deliveries: Delivery[]; ids: Set<string> };

/** A message is one in one queue. */
export const placeOf = ({ message, queue }: { message: string; queue: string }) => `${message} in ${queue}`;

/** Every message that was tried, without its deliveries. */
export function messagesOf(history: History): Map<string, Message> {
  const messages = new Map<string, Message>();
  for (const one of history.tries) {
    for (const { queue, id } of one.copies) {
      const place = placeOf({ message: one.message, queue });
      const message = messages.get(place) ?? { tries: [], deliveries: [], ids: new Set() };
      message.tries.push({ ...one, id });
      if (isDone(one.status) && id !== "") message.ids.add(id);
      messages.set(place, message);
    }
  }
  return messages;
}

/**
 * Deliveries of each id in the order of their leases. Where the answers do not tell the times, in that of the
 * attempts: an answer that was late would be out of order.
 */
export function deliveriesOf(history: History): Map<string, Delivery[]> {
  const by_id = Map.groupBy(history.deliveries, ({ id }) => id);
  for (const deliveries of by_id.values()) {
    deliveries.sort((a, b) => (a.asked_ms === undefined ? a.leased_ms - b.leased_ms : a.attempts - b.attempts));
  }
  return by_id;
}

/** Has a later delivery of the message begun for sure when this was sent? */
export const isSuperseded = (deliveries: Delivery[], { token, sent_ms }: Settle): boolean => {
  const at = deliveries.findIndex((delivery) => delivery.token === token);
  // Where answers tell no times, all are of one clock.
  const isBefore = ({ leased_ms, asked_ms }: Delivery) =>
    asked_ms === undefined ? leased_ms < sent_ms - clock_ms : leased_ms <= sent_ms;
  return at >= 0 && deliveries.slice(at + 1).some(isBefore);
};

export type Leases = { endOf(delivery: Delivery): number; settlesOf(delivery: Delivery): Settle[] };

const leaseOf = ({ id, token }: { id: string; token: string }) => `${id} ${token}`;

/** When leases ended at the earliest: at their deadline, as extended, or when an ack or a nack of theirs was sent. */
export function leasesOf(history: History): Leases {
  const by_lease = Map.groupBy(history.settles, leaseOf);
  const settlesOf = (delivery: Delivery) => by_lease.get(leaseOf(delivery)) ?? [];
  return {
    settlesOf,
    endOf(delivery) {
      let until_ms = delivery.until_ms;
      let end_ms = delivery.let_go_ms ?? Number.POSITIVE_INFINITY;
      for (const { verb, status, until_ms: extended_ms, sent_ms } of settlesOf(delivery)) {
        if (verb === "extend") until_ms = isDone(status) ? Math.max(until_ms, extended_ms) : until_ms;
        else if (sent_ms >= delivery.leased_ms - clock_ms) end_ms = Math.min(end_ms, sent_ms);
      }
      return Math.min(until_ms, end_ms);
    },
  };
}
