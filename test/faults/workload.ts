// What goes on while things break: publishers that repeat what they must, and consumers that work, fail, come late and
// die. Every decision comes from the seed; every request and answer goes to the history.

import type { Client, Reply } from "./client.ts";
import {
  type Delivery,
  type History,
  hashOf,
  hung,
  lost,
  now_ms,
  type PublishTry,
  refused,
  timeOf,
} from "./history.ts";
import type { Random } from "./random.ts";
import { publishOne, settleOne } from "./requests.ts";

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
  queue: string;
  dead_queue: string;
  /** As the queue was made with. */
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
  const { ports, queue } = options;
  let acknowledged = 0;
  let acked = 0;
  let is_publishing = true;
  let is_consuming = true;
  let begun = 0;
  const started_ms = performance.now();
  const messages_path = `/v1/queues/${queue}/messages`;
  const acked_ids = new Set<string>();

  const mayPublish = () =>
    acknowledged - acked < options.backlog_max &&
    begun < ((performance.now() - started_ms) / 1000) * options.rate_max + options.publishers * options.lanes;

  async function publish(own: Random, lane: string, count: number): Promise<void> {
    const seed = own.below(2 ** 31);
    const filler = "x".repeat(60 + own.below(200));
    const sha = new Bun.CryptoHasher("sha256").update(`${seed} ${filler}`).digest("hex").slice(0, 32);
    const body = JSON.stringify({ p: lane, c: count, seed, sha, filler });
    const label = own.chance(0.25) ? own.pick(["a", "b", "c"]) : null;
    const attributes = own.chance(0.2) ? { seed: String(seed) } : null;
    const ordering_key = own.chance(0.2) ? `k${own.below(keys_count)}` : null;
    const delay_seconds = ordering_key === null && own.chance(0.02) ? 1 : 0;
    const dedup_id = own.chance(0.3) ? `${lane}.${count}` : null;
    const content = {
      body,
      ...(label !== null && { label }),
      ...(attributes !== null && { attributes }),
      ...(ordering_key !== null && { ordering_key }),
      ...(delay_seconds > 0 && { delay_seconds }),
      ...(dedup_id !== null && { dedup_id }),
      ...(options.has_priorities && { priority: own.below(5) }),
    };
    const message = `${lane}.${count}`;
    const hash = hashOf({ body, label, attributes, ordering_key });
    const is_batch = own.chance(batch_part);
    let at = own.below(ports.length);
    let asked = 0;
    while (true) {
      const one: PublishTry = {
        kind: "publish",
        message,
        hash,
        dedup_id,
        ordering_key,
        delay_ms: delay_seconds * 1000,
        sent_ms: now_ms(),
        answered_ms: Number.POSITIVE_INFINITY,
        status: lost,
        id: "",
      };
      history.tries.push(one);
      const reply = await publishOne(client, ports[at++ % ports.length] as number, queue, content, is_batch);
      const { status, id, is_first } = reply;
      Object.assign(one, { answered_ms: now_ms(), status, id, ...(is_first && { is_first }) });
      if (isDone(reply)) acknowledged++;
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
    { id, token }: Pick<Delivery, "id" | "token">,
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
    const reply = await settleOne(client, port, queue, asked, own.chance(batch_part));
    const { status, until_ms, is_first } = reply;
    Object.assign(record, { answered_ms: now_ms(), status, until_ms, ...(is_first && { is_first }) });
    if (verb === "ack" && isDone(reply) && !acked_ids.has(id)) {
      acked_ids.add(id);
      acked++;
    }
    return reply;
  }

  const last_tokens = new Map<string, string>();

  async function work(own: Random, delivery: Delivery): Promise<void> {
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
      const stale = { id: delivery.id, token: earlier };
      await settle(own, own.pick(["ack", "nack", "extend"] as const), stale, port());
    }
    if (fate < habits.abandoned) return;
    if (work_ms > 0) {
      await Bun.sleep(is_extended ? work_ms / 2 : work_ms);
      if (is_extended) {
        await settle(own, "extend", delivery, port());
        await Bun.sleep(work_ms / 2);
      }
    } else if (is_extended) await settle(own, "extend", delivery, port());
    if (fate < habits.abandoned + habits.nacked) {
      await settle(own, "nack", delivery, port());
      return;
    }
    for (let tries = 0; isUnknown(await settle(own, "ack", delivery, port())) && tries < 200 && is_consuming; tries++) {
      await Bun.sleep(pause_ms);
    }
    if (acked_ids.has(delivery.id)) last_tokens.delete(delivery.id);
  }

  function deliver(text: string): Delivery[] {
    const { data } = JSON.parse(text) as { data: Record<string, string>[] };
    return data.map((given) => {
      const { id = "", body = "", lease_token = "", lease_expires_at = "", created_at = "" } = given;
      const until_ms = timeOf(lease_expires_at);
      const { label, attributes, ordering_key } = given;
      const delivery: Delivery = {
        kind: "delivery",
        message: nameIn(body),
        hash: hashOf({ body, label, attributes, ordering_key }),
        id,
        token: lease_token,
        attempts: Number(given["delivery_attempts"]),
        ordering_key: ordering_key ?? null,
        created_ms: timeOf(created_at),
        leased_ms: until_ms - options.ack_deadline_ms,
        until_ms,
      };
      history.deliveries.push(delivery);
      return delivery;
    });
  }

  async function consume(own: Random): Promise<void> {
    const busy = new Set<Promise<void>>();
    for (let at = own.below(ports.length); is_consuming; at++) {
      const room = options.work.at_once - busy.size;
      if (room < Math.min(10, options.work.at_once)) {
        await Promise.race(busy);
        continue;
      }
      const target = `${messages_path}?limit=${Math.min(room, 50)}&wait_seconds=1`;
      const reply = await client.call(ports[at % ports.length] as number, "GET", target);
      if (reply.status !== 200) {
        if (!isUnknown(reply)) history.problems.push(`a receive was answered ${reply.status}: ${reply.text}`);
        if (reply.status === hung) history.problems.push("a receive was not answered");
        await Bun.sleep(pause_ms);
        continue;
      }
      for (const delivery of deliver(reply.text)) {
        const done: Promise<void> = work(own, delivery)
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

function nameIn(body: string): string {
  try {
    const { p, c } = JSON.parse(body) as { p: string; c: number };
    return `${p}.${c}`;
  } catch {
    return "not ours";
  }
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
      history.burials.push({ kind: "burial", message: nameIn(body), hash, reason, attempts });
    }
    const items = data.map(({ id, lease_token }) => ({ id, lease_token }));
    const acks = await client.call(port, "POST", `/v1/queues/${dead_queue}/ack`, { items });
    if (acks.status !== 200) throw new Error(`acks in the dead-letter queue were answered ${acks.status}`);
  }
}
