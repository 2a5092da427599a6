// The checker: from a history, what was promised and not kept. Multisets for loss and copies, and for every message and
// every ordering key the intervals of its leases, sorted: O(n log n) altogether, so a run of a hundred thousand
// messages is checked in seconds. No search for a linearization is needed, because every delivery carries the
// database's own time.

import { type Delivery, type History, hung, lost, type PublishTry, refused, type Settle } from "./history.ts";

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

/** Answers carry microseconds, as fractions of a double. */
const tolerance_ms = 0.01;
/** Between reading a clock here and there: both are the machine's, and ours is cut to milliseconds. */
const clock_ms = 2;

const isDone = (status: number) => status >= 200 && status < 300;
const isUnknown = (status: number) => status === lost || status === hung || status === 503;

type Message = { tries: PublishTry[]; deliveries: Delivery[]; ids: Set<string> };

function messagesOf(history: History): Map<string, Message> {
  const messages = new Map<string, Message>();
  for (const one of history.tries) {
    const message = messages.get(one.message) ?? { tries: [], deliveries: [], ids: new Set() };
    message.tries.push(one);
    if (isDone(one.status)) message.ids.add(one.id);
    messages.set(one.message, message);
  }
  return messages;
}

/** Deliveries of each id in the order of their leases. */
function deliveriesOf(history: History): Map<string, Delivery[]> {
  const by_id = Map.groupBy(history.deliveries, ({ id }) => id);
  for (const deliveries of by_id.values()) deliveries.sort((a, b) => a.leased_ms - b.leased_ms);
  return by_id;
}

type Leases = { endOf(delivery: Delivery): number; settlesOf(delivery: Delivery): Settle[] };

const leaseOf = ({ id, token }: { id: string; token: string }) => `${id} ${token}`;

/** When leases ended at the earliest: at their deadline, as extended, or when an ack or a nack of theirs was sent. */
function leasesOf(history: History): Leases {
  const by_lease = Map.groupBy(history.settles, leaseOf);
  const settlesOf = (delivery: Delivery) => by_lease.get(leaseOf(delivery)) ?? [];
  return {
    settlesOf,
    endOf(delivery) {
      let until_ms = delivery.until_ms;
      let end_ms = Number.POSITIVE_INFINITY;
      for (const { verb, status, until_ms: extended_ms, sent_ms } of settlesOf(delivery)) {
        if (verb === "extend") until_ms = isDone(status) ? Math.max(until_ms, extended_ms) : until_ms;
        else if (sent_ms >= delivery.leased_ms - clock_ms) end_ms = Math.min(end_ms, sent_ms);
      }
      return Math.min(until_ms, end_ms);
    },
  };
}

type Broken = Findings["broken"];

/** I1, I2, I3: what became of every message. */
function checkMessages(history: History, messages: Map<string, Message>, broken: Broken) {
  for (const delivery of history.deliveries) {
    const message = messages.get(delivery.message);
    message?.deliveries.push(delivery);
    message?.ids.add(delivery.id);
    if (message?.tries[0]?.hash !== delivery.hash) broken.unexpected.push(`${delivery.message} ${delivery.id}`);
  }
  const buried = new Set(history.burials.map(({ message }) => message));
  for (const { message, hash } of history.burials) {
    if (messages.get(message)?.tries[0]?.hash !== hash) broken.unexpected.push(`${message} in the dead-letter queue`);
  }
  // An ack whose outcome is unknown may have ended it.
  const acks = history.settles.filter(({ verb, status }) => verb === "ack" && (isDone(status) || isUnknown(status)));
  const ended = new Set(acks.map(({ id }) => id));
  let acknowledged = 0;
  let recovered = 0;
  for (const [name, { tries, deliveries, ids }] of messages) {
    const own = tries.filter(({ status }) => isDone(status));
    if (own.length > 0) acknowledged++;
    else if (deliveries.length > 0) recovered++;
    const is_over = own.every(({ id }) => ended.has(id)) || buried.has(name);
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
  let end_ms = Number.NEGATIVE_INFINITY;
  for (const [i, delivery] of deliveries.entries()) {
    const { id, leased_ms } = delivery;
    const named = `${delivery.message} ${id} at ${leased_ms}`;
    if (leased_ms < end_ms - tolerance_ms) broken.overlaps.push(`${named}: held until ${end_ms}`);
    end_ms = Math.max(end_ms, leases.endOf(delivery));
    if (leased_ms > acked_ms + clock_ms) broken.undone.push(`${named}: acked at ${acked_ms}`);
    const is_beyond = rules.deliveries_max !== null && delivery.attempts > rules.deliveries_max;
    if (delivery.attempts <= attempts || delivery.attempts < i + 1 || is_beyond) {
      broken.attempts.push(`${named}: ${delivery.attempts} after ${attempts}`);
    }
    attempts = delivery.attempts;
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
    const at = deliveries.findIndex((delivery) => delivery.token === token);
    const own = deliveries[at];
    if (own === undefined) continue;
    const named = `${verb} of ${own.message} ${id} at ${sent_ms}: ${status}`;
    const is_superseded = deliveries.slice(at + 1).some(({ leased_ms }) => leased_ms < sent_ms - clock_ms);
    if (is_superseded) {
      // Once the newer holder has acked, an ack of the older one is answered like a repetition.
      const is_over = (acks.get(id) ?? []).some((ack) => ack.token !== token && ack.sent_ms <= answered_ms);
      if (isDone(status) && !(verb === "ack" && is_over)) broken.unfenced.push(named);
      if (status === 409 || status === 404) fenced++;
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

/** I8: by real time. What was acknowledged before another was sent must come first, and one at a time. */
function checkOrder(history: History, messages: Map<string, Message>, leases: Leases, broken: Broken): void {
  const ordered = history.deliveries.filter(({ ordering_key }) => ordering_key !== null);
  for (const [key, deliveries] of Map.groupBy(ordered, ({ ordering_key }) => ordering_key)) {
    deliveries.sort((a, b) => a.leased_ms - b.leased_ms);
    const seen = new Set<string>();
    let sent_ms = Number.NEGATIVE_INFINITY;
    let held: { message: string; end_ms: number } = { message: "", end_ms: Number.NEGATIVE_INFINITY };
    for (const delivery of deliveries) {
      const { message, leased_ms } = delivery;
      if (held.message !== message && leased_ms < held.end_ms - tolerance_ms) {
        broken.disordered.push(`${key}: ${message} at ${leased_ms} while ${held.message} is held until ${held.end_ms}`);
      }
      held = { message, end_ms: leases.endOf(delivery) };
      if (seen.has(message)) continue;
      seen.add(message);
      const tries = messages.get(message)?.tries ?? [];
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
  for (const { message, status, sent_ms } of history.tries) {
    if (status === hung) broken.hung.push(`publish of ${message} at ${sent_ms}`);
    else if (status > 0 && !isDone(status) && status !== 503) broken.dishonest.push(`publish of ${message}: ${status}`);
  }
  for (const { verb, id, status, sent_ms } of history.settles) {
    if (status === hung) broken.hung.push(`${verb} of ${id} at ${sent_ms}`);
    else if (status > 0 && !isDone(status) && ![404, 409, 503].includes(status)) {
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
  const { acknowledged, recovered } = checkMessages(history, messages, broken);
  const by_id = deliveriesOf(history);
  const leases = leasesOf(history);
  const acked = new Map<string, number>();
  for (const { verb, status, id, answered_ms } of history.settles) {
    if (verb === "ack" && isDone(status)) acked.set(id, Math.min(acked.get(id) ?? answered_ms, answered_ms));
  }
  for (const [id, deliveries] of by_id) {
    checkLeases(deliveries, leases, rules, acked.get(id) ?? Number.POSITIVE_INFINITY, broken);
  }
  for (const { message, reason, attempts } of history.burials) {
    if (reason !== "max_deliveries" || attempts !== rules.deliveries_max) {
      broken.attempts.push(`${message} was buried: ${reason} after ${attempts}`);
    }
    const is_acked = [...(messages.get(message)?.ids ?? [])].some((id) => acked.has(id));
    const has_copies = (messages.get(message)?.ids.size ?? 0) > 1;
    if (is_acked && !has_copies) broken.undone.push(`${message} was acked, and is in the dead-letter queue`);
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
