// What goes on while things break: publishers that repeat what they must, and consumers that work, fail, come late and
// die. Every decision comes from the seed; every request and answer goes to the history.

import type { Client, Reply } from "./client.ts";
import { type Content, type Edge, nameIn } from "./edges.ts";
import { type Delivery, type History, hashOf, hung, lost, now_ms, type PublishTry, refused } from "./history.ts";
import type { Random } from "./random.ts";

const keys_count = 64;
/** Publishes and settles that go through the routes for batches. */
const batch_part = 0.2;
/** A pause before a server, or another one, is asked again. */
const pause_ms = 40;
/** Of a client that does not know whether its message was stored and has no key. */
const tries_max = 20;

export type LoadOptions = {
  /** Whom requests go to, by turns. */
  ports: number[];
  edge: Edge;
  /** As the queues were made with. */
  ack_deadline_ms: number;
  /** Messages a second, of all publishers. */
  rate_max: number;
  /** Messages that were published and not yet acked: publishers wait beyond it. */
  backlog_max: number;
  publishers: number;
  consumers: number;
  /** Requests that each of them has under way. */
  lanes: number;
  work: Work;
  /** The queue knows priorities, and messages have some. */
  has_priorities: boolean;
};

/** What consumers do with a message. */
export type Work = {
  /** How long it takes. */
  low_ms: number;
  high_ms: number;
  /** Parts of 1. Abandoned: its consumer died, and the lease runs out. */
  abandoned: number;
  nacked: number;
  extended: number;
  /** Of those that were delivered before: acked with the token of the earlier delivery, first. */
  stale: number;
  /** Messages that one consumer works on at once. */
  at_once: number;
};

/** A consumer that acks at once, mostly. */
export const quick_work: Work = {
  low_ms: 0,
  high_ms: 0,
  abandoned: 0.005,
  nacked: 0.02,
  extended: 0.05,
  stale: 0.5,
  at_once: 40,
};

export type Load = {
  acknowledged(): number;
  acked(): number;
  /** No new message is begun; resolves when those under way have ended. */
  stopPublishing(): Promise<void>;
  /** Ends the consumers; resolves when they have. */
  stopConsuming(): Promise<void>;
};

const isDone = ({ status }: Reply) => status >= 200 && status < 300;
const isUnknown = ({ status }: Reply) => status === lost || status === hung || status === refused || status === 503;

/** Starts publishers and consumers; they go on until they are stopped. */
export function startLoad(history: History, client: Client, random: Random, options: LoadOptions): Load {
  const { ports, edge } = options;
  let acknowledged = 0;
  let acked = 0;
  let is_publishing = true;
  let is_consuming = true;
  let begun = 0;
  const started_ms = performance.now();
  const acked_ids = new Set<string>();

  const mayPublish = () =>
    acknowledged - acked < options.backlog_max &&
    begun < ((performance.now() - started_ms) / 1000) * options.rate_max + options.publishers * options.lanes;

  async function publish(own: Random, lane: string, count: number): Promise<void> {
    const seed = own.below(2 ** 31);
    const filler = "x".repeat(60 + own.below(200));
    const sha = new Bun.CryptoHasher("sha256").update(`${seed} ${filler}`).digest("hex").slice(0, 32);
    const body = JSON.stringify({ p: lane, c: count, seed, sha, filler });
    const message = `${lane}.${count}`;
    // In this order: chance decides one after the other.
    const chosen = {
      ...(own.chance(0.25) && { label: own.pick(["a", "b", "c"]) }),
      ...(own.chance(0.2) && { attributes: { seed: String(seed) } }),
      ...(own.chance(0.2) && { ordering_key: `k${own.below(keys_count)}` }),
    };
    const made: Content = {
      body,
      ...chosen,
      ...(chosen.ordering_key === undefined && own.chance(0.02) && { delay_seconds: 1 }),
      ...(own.chance(0.3) && { dedup_id: message }),
      ...(options.has_priorities && { priority: own.below(5) }),
    };
    const content = edge.adapt(made, message);
    const { dedup_id = null, ordering_key = null, delay_seconds = 0, label, attributes } = content;
    const hash = hashOf({ body, label, attributes, ordering_key });
    const is_batch = own.chance(batch_part);
    let at = own.below(ports.length);
    let asked = 0;
    while (true) {
      const one: PublishTry = {
        kind: "publish",
        message,
        copies: edge.queuesOf(content).map((queue) => ({ queue, id: "" })),
        hash,
        dedup_id,
        ordering_key,
        delay_ms: delay_seconds * 1000,
        sent_ms: now_ms(),
        answered_ms: Number.POSITIVE_INFINITY,
        status: lost,
      };
      history.tries.push(one);
      const reply = await edge.publish(client, ports[at++ % ports.length] as number, content, is_batch);
      const { status, is_first, copies, delivered_queues } = reply;
      Object.assign(one, { answered_ms: now_ms(), status, copies, ...(is_first && { is_first }) });
      if (delivered_queues !== undefined) one.delivered_queues = delivered_queues;
      if (isDone(reply)) acknowledged += copies.length;
      if (!isUnknown(reply)) return;
      if (reply.status !== refused) asked++;
      // Who has no key must choose between losing the message and having it twice.
      const gives_up = dedup_id === null && reply.status !== refused && (own.chance(0.5) || asked >= tries_max);
      if (gives_up) return;
      if (!is_publishing && reply.status === refused && asked === 0) return;
      await Bun.sleep(pause_ms);
    }
  }

  async function publishAll(own: Random, lane: string): Promise<void> {
    for (let count = 0; is_publishing; ) {
      if (mayPublish()) {
        begun++;
        await publish(own, lane, count++);
      } else await Bun.sleep(2);
    }
  }

  async function settle(
    own: Random,
    verb: "ack" | "nack" | "extend",
    { id, token, queue }: Pick<Delivery, "id" | "token" | "queue">,
    port: number,
  ): Promise<Reply> {
    const seconds = verb === "nack" ? own.below(2) : 0;
    const more = {
      ...(verb === "nack" && { visibility_timeout_seconds: seconds }),
      ...(verb === "extend" && { ack_deadline_seconds: options.ack_deadline_ms / 1000 }),
    };
    const one = { kind: "settle" as const, verb, id, token, visibility_ms: seconds * 1000 };
    const record = { ...one, sent_ms: now_ms(), answered_ms: Number.POSITIVE_INFINITY, status: lost, until_ms: 0 };
    history.settles.push(record);
    const asked = { verb, id, lease_token: token, ...more };
    const reply = await edge.settle(client, port, queue, asked, own.chance(batch_part));
    const { status, until_ms, is_first } = reply;
    Object.assign(record, { answered_ms: now_ms(), status, until_ms, ...(is_first && { is_first }) });
    if (verb === "ack" && isDone(reply) && !acked_ids.has(id)) {
      acked_ids.add(id);
      acked++;
    }
    return reply;
  }

  const last_tokens = new Map<string, string>();

  /** Answers when it was nacked; undefined: it was not. */
  async function work(own: Random, delivery: Delivery): Promise<number | undefined> {
    const { work: habits } = options;
    const earlier = last_tokens.get(delivery.id);
    last_tokens.set(delivery.id, delivery.token);
    const fate = own.next();
    const is_extended = own.chance(habits.extended);
    const is_stale = own.chance(habits.stale);
    const work_ms = own.between(habits.low_ms, habits.high_ms);
    let at = own.below(ports.length);
    const port = () => ports[at++ % ports.length] as number;
    if (earlier !== undefined && is_stale) {
      const stale = { id: delivery.id, token: earlier, queue: delivery.queue };
      await settle(own, own.pick(["ack", "nack", "extend"] as const), stale, port());
    }
    if (fate < habits.abandoned) return undefined;
    if (work_ms > 0) {
      await Bun.sleep(is_extended ? work_ms / 2 : work_ms);
      if (is_extended) {
        await settle(own, "extend", delivery, port());
        await Bun.sleep(work_ms / 2);
      }
    } else if (is_extended) await settle(own, "extend", delivery, port());
    if (fate < habits.abandoned + habits.nacked) {
      const nacked_ms = now_ms();
      await settle(own, "nack", delivery, port());
      return nacked_ms;
    }
    for (let tries = 0; isUnknown(await settle(own, "ack", delivery, port())) && tries < 200 && is_consuming; tries++) {
      await Bun.sleep(pause_ms);
    }
    if (acked_ids.has(delivery.id)) last_tokens.delete(delivery.id);
    return undefined;
  }

  /** One after the other, until one is nacked: those of a key that came together go together. */
  async function workAll(own: Random, deliveries: Delivery[]): Promise<void> {
    for (const [i, delivery] of deliveries.entries()) {
      const nacked_ms = await work(own, delivery);
      if (nacked_ms === undefined) continue;
      for (const later of deliveries.slice(i + 1)) later.let_go_ms = nacked_ms;
      return;
    }
  }

  async function consume(own: Random): Promise<void> {
    const busy = new Set<Promise<void>>();
    for (let at = own.below(ports.length); is_consuming; at++) {
      const room = options.work.at_once - busy.size;
      if (room < Math.min(10, options.work.at_once)) {
        await Promise.race(busy);
        continue;
      }
      const queue = edge.queues[Math.floor(at / ports.length) % edge.queues.length] as string;
      const asked_ms = now_ms();
      const reply = await edge.receive(client, ports[at % ports.length] as number, queue, Math.min(room, 50));
      if (reply.status !== 200) {
        if (!isUnknown(reply)) history.problems.push(`a receive was answered ${reply.status}: ${reply.text}`);
        if (reply.status === hung) history.problems.push("a receive was not answered");
        await Bun.sleep(pause_ms);
        continue;
      }
      const deliveries = edge.read(reply.text, queue, asked_ms);
      history.deliveries.push(...deliveries);
      for (const together of Map.groupBy(deliveries, ({ id, ordering_key }) => ordering_key ?? id).values()) {
        const done: Promise<void> = workAll(own, together)
          .catch((error) => void history.problems.push(`a consumer failed: ${error}`))
          .finally(() => busy.delete(done));
        busy.add(done);
      }
    }
    await Promise.all(busy);
  }

  const lanesOf = (who: string, count: number) =>
    Array.from({ length: count * options.lanes }, (_, n) => ({ own: random.fork(`${who} ${n}`), lane: String(n) }));
  const publishing = Promise.all(
    lanesOf("publisher", options.publishers).map(({ own, lane }) => publishAll(own, lane)),
  );
  const consuming = Promise.all(lanesOf("consumer", options.consumers).map(({ own }) => consume(own)));

  return {
    acknowledged: () => acknowledged,
    acked: () => acked,
    async stopPublishing() {
      is_publishing = false;
      await publishing;
    },
    async stopConsuming() {
      is_consuming = false;
      await consuming;
    },
  };
}

/** Empties the dead-letter queue into the history. Call when nothing else goes on. */
export async function exhume(history: History, client: Client, port: number, dead_queue: string): Promise<void> {
  while (true) {
    const reply = await client.call(port, "GET", `/v1/queues/${dead_queue}/messages?limit=100`);
    if (reply.status !== 200) throw new Error(`the dead-letter queue was answered ${reply.status}: ${reply.text}`);
    const { data } = JSON.parse(reply.text) as {
      data: (Record<string, string> & { dead?: Record<string, unknown> })[];
    };
    if (data.length === 0) return;
    for (const { body = "", label, attributes, ordering_key, dead } of data) {
      const hash = hashOf({ body, label, attributes, ordering_key });
      const [reason, attempts] = [String(dead?.["reason"]), Number(dead?.["attempts"])];
      const queue = String(dead?.["source_queue_id"]);
      history.burials.push({ kind: "burial", message: nameIn(body), queue, hash, reason, attempts });
    }
    const items = data.map(({ id, lease_token }) => ({ id, lease_token }));
    const acks = await client.call(port, "POST", `/v1/queues/${dead_queue}/ack`, { items });
    if (acks.status !== 200) throw new Error(`acks in the dead-letter queue were answered ${acks.status}`);
  }
}
