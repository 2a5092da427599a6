// The checker: from a history, what was promised and not kept. Multisets for loss and copies, and for every message and
// every ordering key the intervals of its leases, sorted: O(n log n) altogether, so a run of a hundred thousand
// messages is checked in seconds. No search for a linearization is needed, because every delivery carries the
// database's own time.

import { type Delivery, type History, hung, lost, refused, type Settle, unsure } from "./history.ts";
import {
  clock_ms,
  deliveriesOf,
  isDone,
  isSuperseded,
  isUnknown,
  type Leases,
  leasesOf,
  type Message,
  messagesOf,
  placeOf,
  tolerance_ms,
} from "./told.ts";

/** What the scenario's queue was made with. */
export type Rules = {
  /** Null: any number. */
  deliveries_max: number | null;
};

export type Findings = {
  /** Messages that were tried, and those whose publish was answered 2xx. */
  attempted: number;
  acknowledged: number;
  /** Messages with an ack that was answered 2xx. */
  acked: number;
  buried: number;
  /** Arrived although no publish of them was acknowledged: allowed, their outcome was unknown. */
  recovered: number;
  /** Deliveries of what had been delivered before: allowed, delivery is at least once. */
  redelivered: number;
  /** Settles with the token of a lease that another had followed, which were refused as they must be. */
  fenced: number;
  /** Requests that were answered 503, and those that got no answer: the outcome of all of them is unknown. */
  unavailable: number;
  unanswered: number;
  /** The longest time after a fault in which no publish was acknowledged; null: no fault. */
  recover_ms: number | null;
  /** Every violation, by the invariant that it breaks. */
  broken: Record<Invariant, string[]>;
};

/** What must hold; the texts are printed. */
export const invariants = {
  lost: "I1 an acknowledged message was neither acked nor dead-lettered",
  unexpected: "I2 something was delivered that nobody published, or not as it was published",
  doubled: "I3 a message was stored more often than its client asked for",
  overlaps: "I4 two leases of one message at the same time",
  unfenced: "I5 a token counted although a later delivery had superseded it, or a lease was lost before its end",
  undone: "I6 a message came back after its ack was answered 2xx",
  attempts: "I7 delivery_attempts did not rise, or a message was delivered or buried against its maximum",
  disordered: "I8 messages of one ordering key out of order, or two of them under a lease at once",
  early: "I9 delivered before its delay was over",
  hung: "I11 a request was pending beyond every deadline",
  dishonest: "I13 a refusal or a status that the request did not deserve",
  problems: "something happened that nobody meant to happen",
} as const;
export type Invariant = keyof typeof invariants;

type Broken = Findings["broken"];

/** I1, I2, I3: what became of every message. */
function checkMessages(
  history: History,
  messages: Map<string, Message>,
  by_id: Map<string, Delivery[]>,
  broken: Broken,
) {
  for (const delivery of history.deliveries) {
    const message = messages.get(placeOf(delivery));
    message?.deliveries.push(delivery);
    message?.ids.add(delivery.id);
    if (message?.tries[0]?.hash !== delivery.hash) broken.unexpected.push(`${placeOf(delivery)} ${delivery.id}`);
  }
  const buried = new Set(history.burials.map(placeOf));
  for (const burial of history.burials) {
    const is_ours = messages.get(placeOf(burial))?.tries[0]?.hash === burial.hash;
    if (!is_ours) broken.unexpected.push(`${placeOf(burial)} is in the dead-letter queue`);
  }
  // An ack whose outcome is unknown may have ended it, unless its token counted no more.
  const mayEnd = (ack: Settle) =>
    isDone(ack.status) || (isUnknown(ack.status) && !isSuperseded(by_id.get(ack.id) ?? [], ack));
  const ended = new Set(history.settles.filter((one) => one.verb === "ack" && mayEnd(one)).map(({ id }) => id));
  let acknowledged = 0;
  let recovered = 0;
  for (const [name, { tries, deliveries, ids }] of messages) {
    const own = tries.filter(({ status }) => isDone(status));
    if (own.length > 0) acknowledged++;
    else if (deliveries.length > 0) recovered++;
    const hasEnded = (id: string) => (id === "" ? [...ids].some((any) => ended.has(any)) : ended.has(id));
    const is_over = own.every(({ id }) => hasEnded(id)) || buried.has(name);
    if (own.length > 0 && !is_over) broken.lost.push(`${name} ${own.map(({ id }) => id).join(" ")}`);
    // Without a key, every repetition whose predecessor's outcome was unknown may have stored a copy.
    const asked = tries.filter(({ status }) => status !== refused).length;
    const copies_max = tries[0]?.dedup_id != null ? 1 : asked;
    for (const id of [...ids].slice(copies_max)) broken.doubled.push(`${name} ${id}`);
  }
  return { acknowledged, recovered };
}

/** I4, I6, I7 of one id, whose deliveries are in order. */
function checkLeases(deliveries: Delivery[], leases: Leases, rules: Rules, acked_ms: number, broken: Broken): void {
  let attempts = 0;
  let uncounted = 0;
  let end_ms = Number.NEGATIVE_INFINITY;
  for (const [i, delivery] of deliveries.entries()) {
    const { id, leased_ms } = delivery;
    const named = `${delivery.message} ${id} at ${leased_ms}`;
    if (leased_ms < end_ms - tolerance_ms) broken.overlaps.push(`${named}: held until ${end_ms}`);
    end_ms = Math.max(end_ms, leases.endOf(delivery));
    if ((delivery.asked_ms ?? leased_ms) > acked_ms + clock_ms) broken.undone.push(`${named}: acked at ${acked_ms}`);
    const is_beyond = rules.deliveries_max !== null && delivery.attempts > rules.deliveries_max;
    if (delivery.attempts <= attempts || delivery.attempts < i + 1 - uncounted || is_beyond) {
      broken.attempts.push(`${named}: ${delivery.attempts} after ${attempts}`);
    }
    const is_let_go = delivery.let_go_ms !== undefined;
    if (is_let_go) uncounted++;
    attempts = is_let_go ? delivery.attempts - 1 : delivery.attempts;
  }
}

/** I5: tokens that were superseded count no more, and those that were not do until their lease ends. */
function checkFencing(history: History, by_id: Map<string, Delivery[]>, leases: Leases, broken: Broken): number {
  const acks = Map.groupBy(
    history.settles.filter(({ verb }) => verb === "ack"),
    ({ id }) => id,
  );
  let fenced = 0;
  for (const settle of history.settles) {
    const { id, token, verb, status, sent_ms, answered_ms } = settle;
    const deliveries = by_id.get(id) ?? [];
    const own = deliveries.find((delivery) => delivery.token === token);
    if (own === undefined) continue;
    const named = `${verb} of ${own.message} ${id} at ${sent_ms}: ${status}`;
    if (isSuperseded(deliveries, settle)) {
      // Once the newer holder has acked, an ack of the older one is answered like a repetition.
      const is_over = (acks.get(id) ?? []).some((ack) => ack.token !== token && ack.sent_ms <= answered_ms);
      if (isDone(status) && !(verb === "ack" && is_over)) broken.unfenced.push(named);
      if (status === 409 || status === 404 || status === unsure) fenced++;
    } else if (status === 409 || status === 404) {
      // Until when it holds as far as its consumer knows; an earlier settle of its own may have let it go.
      const others = leases.settlesOf(own).filter((other) => other !== settle && other.verb !== "extend");
      const is_first = others.every((other) => other.sent_ms > sent_ms);
      const is_held = is_first && answered_ms < heldUntil(own, leases) - clock_ms;
      if (is_held) broken.unfenced.push(named);
    }
  }
  return fenced;
}

const heldUntil = (delivery: Delivery, leases: Leases) =>
  leases
    .settlesOf(delivery)
    .reduce(
      (end, { verb, status, until_ms }) => (verb === "extend" && isDone(status) ? Math.max(end, until_ms) : end),
      delivery.until_ms,
    );

/** Those that came together, where a consumer may have several of a key at once. */
const answerOf = ({ leased_ms, asked_ms, id }: Delivery) => (asked_ms === undefined ? id : `${asked_ms} ${leased_ms}`);

/** I8, one answer at a time: what is held of a key when the next of it is leased. */
function checkHeld(key: string, deliveries: Delivery[], leases: Leases, broken: Broken): void {
  let held: Delivery[] = [];
  for (const together of Map.groupBy(deliveries, answerOf).values()) {
    const [{ message, leased_ms }] = together as [Delivery];
    const others = held.filter((other) => together.every((own) => own.message !== other.message));
    for (const other of others) {
      const end_ms = leases.endOf(other);
      if (leased_ms >= end_ms - tolerance_ms) continue;
      broken.disordered.push(`${key}: ${message} at ${leased_ms} while ${other.message} is held until ${end_ms}`);
    }
    held = together;
  }
}

/** I8: by real time. What was acknowledged before another was sent must come first, and one at a time. */
function checkOrder(history: History, messages: Map<string, Message>, leases: Leases, broken: Broken): void {
  // What was told when its lease may have been over already says nothing of the order.
  const isTold = ({ asked_ms, leased_ms, until_ms }: Delivery) => asked_ms === undefined || leased_ms < until_ms;
  const ordered = history.deliveries.filter((own) => own.ordering_key !== null && isTold(own));
  const keyOf = ({ ordering_key, queue }: Delivery) => `${ordering_key} in ${queue}`;
  for (const [key, deliveries] of Map.groupBy(ordered, keyOf)) {
    deliveries.sort((a, b) => a.leased_ms - b.leased_ms);
    checkHeld(key, deliveries, leases, broken);
    const seen = new Set<string>();
    let sent_ms = Number.NEGATIVE_INFINITY;
    for (const { message, queue } of deliveries) {
      if (seen.has(message)) continue;
      seen.add(message);
      const tries = messages.get(placeOf({ message, queue }))?.tries ?? [];
      const done_ms = Math.min(
        ...tries.filter(({ status }) => isDone(status)).map(({ answered_ms }) => answered_ms),
        Number.POSITIVE_INFINITY,
      );
      if (sent_ms > done_ms + clock_ms) {
        broken.disordered.push(`${key}: ${message}, stored by ${done_ms}, after one sent at ${sent_ms}`);
      }
      sent_ms = Math.max(sent_ms, tries[0]?.sent_ms ?? Number.NEGATIVE_INFINITY);
    }
  }
}

/** I9: of a publish and of a nack. */
function checkDelays(messages: Map<string, Message>, by_id: Map<string, Delivery[]>, leases: Leases, broken: Broken) {
  for (const { tries, deliveries } of messages.values()) {
    const delay_ms = tries[0]?.delay_ms ?? 0;
    for (const { message, leased_ms, created_ms } of deliveries) {
      if (leased_ms < created_ms + delay_ms - tolerance_ms) broken.early.push(`${message} at ${leased_ms}`);
    }
  }
  for (const deliveries of by_id.values()) {
    for (const [i, delivery] of deliveries.entries()) {
      const next = deliveries[i + 1];
      for (const { verb, status, sent_ms, visibility_ms } of next === undefined ? [] : leases.settlesOf(delivery)) {
        const is_early = verb === "nack" && isDone(status) && (next?.leased_ms ?? 0) < sent_ms + visibility_ms;
        if (is_early) broken.early.push(`${delivery.message} at ${next?.leased_ms}, nacked at ${sent_ms}`);
      }
    }
  }
}

/** I11, I13: answers as such. */
function checkAnswers(history: History, broken: Broken): void {
  for (const { message, status, sent_ms, copies, delivered_queues = copies.length } of history.tries) {
    if (isDone(status) && delivered_queues !== copies.length) {
      broken.dishonest.push(`publish of ${message}: to ${delivered_queues} queues, and ${copies.length} match`);
    }
    if (status === hung) broken.hung.push(`publish of ${message} at ${sent_ms}`);
    else if (status > 0 && !isDone(status) && status !== 503) broken.dishonest.push(`publish of ${message}: ${status}`);
  }
  for (const { verb, id, status, sent_ms } of history.settles) {
    if (status === hung) broken.hung.push(`${verb} of ${id} at ${sent_ms}`);
    else if (status > 0 && !isDone(status) && ![404, 409, 503, unsure].includes(status)) {
      broken.dishonest.push(`${verb} of ${id}: ${status}`);
    }
  }
}

/** How long after a fault it may show. */
const fault_ms_max = 15_000;

/** For each fault, the longest pause between acknowledged publishes that begins between it and the next one. */
export function recoveriesOf({ faults, tries }: Pick<History, "faults" | "tries">): { name: string; ms: number }[] {
  const answered = tries.flatMap(({ status, answered_ms }) => (isDone(status) ? [answered_ms] : []));
  answered.sort((a, b) => a - b);
  const in_order = faults.toSorted((a, b) => a.at_ms - b.at_ms);
  let next = 0;
  return in_order.flatMap(({ name, at_ms }, i) => {
    const until_ms = Math.min(in_order[i + 1]?.at_ms ?? Number.POSITIVE_INFINITY, at_ms + fault_ms_max);
    let ms: number | undefined;
    let since_ms = at_ms;
    while (next < answered.length && (answered[next] as number) < at_ms) next++;
    for (let k = next; k < answered.length && since_ms < until_ms; k++) {
      ms = Math.max(ms ?? 0, (answered[k] as number) - since_ms);
      since_ms = answered[k] as number;
    }
    return ms === undefined ? [] : [{ name, ms }];
  });
}

/** Judges a history after a complete drain. */
export function check(history: History, rules: Rules): Findings {
  const broken = Object.fromEntries(Object.keys(invariants).map((name) => [name, []])) as unknown as Broken;
  const messages = messagesOf(history);
  const by_id = deliveriesOf(history);
  const { acknowledged, recovered } = checkMessages(history, messages, by_id, broken);
  const leases = leasesOf(history);
  const acked = new Map<string, number>();
  for (const { verb, status, id, answered_ms } of history.settles) {
    if (verb === "ack" && isDone(status)) acked.set(id, Math.min(acked.get(id) ?? answered_ms, answered_ms));
  }
  for (const [id, deliveries] of by_id) {
    checkLeases(deliveries, leases, rules, acked.get(id) ?? Number.POSITIVE_INFINITY, broken);
  }
  for (const burial of history.burials) {
    const { message, reason, attempts } = burial;
    const { ids = new Set<string>() } = messages.get(placeOf(burial)) ?? {};
    if (reason !== "max_deliveries" || attempts !== rules.deliveries_max) {
      broken.attempts.push(`${message} was buried: ${reason} after ${attempts}`);
    }
    const is_acked = [...ids].some((id) => acked.has(id));
    if (is_acked && ids.size <= 1) broken.undone.push(`${message} was acked, and is in the dead-letter queue`);
  }
  const fenced = checkFencing(history, by_id, leases, broken);
  checkOrder(history, messages, leases, broken);
  checkDelays(messages, by_id, leases, broken);
  checkAnswers(history, broken);
  broken.problems.push(...history.problems);
  const redelivered = [...by_id.values()].reduce((sum, deliveries) => sum + deliveries.length - 1, 0);
  const counts = { attempted: messages.size, acknowledged, acked: acked.size, buried: history.burials.length };
  const statuses = [...history.tries, ...history.settles].map(({ status }) => status);
  const countOf = (status: number) => statuses.filter((own) => own === status).length;
  const recoveries = recoveriesOf(history).map(({ ms }) => ms);
  const recover_ms = recoveries.length === 0 ? null : Math.max(...recoveries);
  const unknown = { unavailable: countOf(503), unanswered: countOf(lost) + countOf(hung) };
  return { ...counts, ...unknown, recovered, redelivered, fenced, recover_ms, broken };
}

/** A line for every invariant that is broken: how often, and the first few times. Empty when all hold. */
export function failuresOf({ broken }: Findings): string[] {
  return (Object.keys(invariants) as Invariant[])
    .filter((name) => broken[name].length > 0)
    .map((name) => `${invariants[name]}: ${broken[name].length} times, as ${broken[name].slice(0, 3).join("; ")}`);
}
