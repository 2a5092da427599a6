import { expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { createQueue, is_embedded, serviceForFile } from "./harness.ts";
import { command } from "./modelCommands.ts";
import { verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

// A shared queue against a model of start-time fair queuing, exactly: which messages a receive returns. Weights are
// powers of two, so that the arithmetic of both is exact; as in model.test.ts all times are multiples of ten seconds.

const service = await serviceForFile({ receive_limit_max: 100 });
const { call, elapse } = service;
const { receive, ack, nack, extend } = verbsOf(service);

const deadline_seconds = 30;

type Message = {
  id: string;
  key: string;
  /** Since when it can be delivered, and which of those of that time is first: what was decided earlier. */
  due_at: number;
  seq: number;
  token: string | undefined;
  lease_until: number;
};
type Key = { time: number; weight: number; is_ready: boolean };

class Model {
  now = 0;
  seq = 0;
  time = 0;
  messages: Message[] = [];
  keys = new Map<string, Key>();

  readonly queue: string;
  readonly per_key: number | null;

  constructor(queue: string, per_key: number | null) {
    this.queue = queue;
    this.per_key = per_key;
  }

  isHeld = (one: Message) => one.token !== undefined && one.lease_until > this.now;
  isReady = (one: Message) => (one.token === undefined ? one.due_at : one.lease_until) <= this.now;
  readyOf = (key: string) =>
    this.messages
      .filter((one) => one.key === key && this.isReady(one))
      .sort((a, b) => this.seenAt(a) - this.seenAt(b) || a.seq - b.seq || (a.id < b.id ? -1 : 1));
  seenAt = (one: Message) => (one.token === undefined ? one.due_at : one.lease_until);
  roomOf = (key: string) =>
    (this.per_key ?? Number.POSITIVE_INFINITY) -
    this.messages.filter((one) => one.key === key && this.isHeld(one)).length;

  /** What has become ready since: a key that was idle starts where the queue is. */
  note(): void {
    for (const [key, own] of this.keys) {
      const is_ready = this.readyOf(key).length > 0;
      if (is_ready && !own.is_ready) own.time = Math.max(own.time, this.time);
      own.is_ready = is_ready;
    }
  }

  /** The next messages, in the order of their turns, as they are before the receive. */
  receive(limit: number): Message[] {
    this.note();
    // Of equal turns that of the key is first which was first at the beginning.
    const open = [...this.keys]
      .filter(([, own]) => own.is_ready)
      .sort(([a, x], [b, y]) => x.time - y.time || (a < b ? -1 : 1))
      .map(([key, own]) => ({ own, start: own.time, left: this.readyOf(key).slice(0, Math.max(0, this.roomOf(key))) }));
    const turns: { one: Message; own: Key; start: number }[] = [];
    while (turns.length < limit) {
      const next = open
        .filter(({ left }) => left.length > 0)
        .reduce<(typeof open)[number] | undefined>((a, b) => (a === undefined || b.start < a.start ? b : a), undefined);
      if (next === undefined) break;
      turns.push({ one: next.left.shift() as Message, own: next.own, start: next.start });
      next.start += 1 / next.own.weight;
    }
    for (const { own, start } of turns) {
      own.time = start + 1 / own.weight;
      this.time = Math.max(this.time, start);
    }
    return turns.map(({ one }) => one);
  }
}

const publishing = fc
  .record({
    key: fc.constantFrom("a", "a", "b", "c", "d", ""),
    weight: fc.constantFrom(1, 1, 2, 4),
    count: fc.integer({ min: 1, max: 4 }),
    delay_seconds: fc.constantFrom(undefined, undefined, undefined, 10, 40),
  })
  .map((given) =>
    command(`publish ${JSON.stringify(given)}`, async (model: Model) => {
      const { key, weight, count, delay_seconds } = given;
      const fairness_key = key === "" ? undefined : key;
      const messages = Array.from({ length: count }, () => ({ body: "x", fairness_key, weight, delay_seconds }));
      const answer = await call("POST", `/v1/queues/${model.queue}/messages/batch`, { messages });
      expect(answer.status).toBe(201);
      model.seq += 1;
      for (const { id } of answer.body.data as { id: string }[]) {
        const due_at = model.now + (delay_seconds ?? 0);
        model.messages.push({ id, key, due_at, seq: model.seq, token: undefined, lease_until: 0 });
      }
      const own = model.keys.get(key) ?? { time: model.time, weight, is_ready: false };
      model.keys.set(key, { ...own, weight });
    }),
  );

const receiving = fc.integer({ min: 1, max: 8 }).map((limit) =>
  command(`receive ${limit}`, async (model: Model) => {
    const expected = model.receive(limit);
    const got = await receive(model.queue, `?limit=${limit}`);
    const shown = () => JSON.stringify({ now: model.now, got, expected, keys: [...model.keys], all: model.messages });
    const ids = (of: { id: string }[]) => of.map(({ id }) => id).sort();
    if (String(ids(got)) !== String(ids(expected))) throw new Error(`not what was expected: ${shown()}`);
    model.seq += 1;
    for (const { id, lease_token } of got) {
      const one = model.messages.find((own) => own.id === id) as Message;
      Object.assign(one, { token: lease_token, lease_until: model.now + deadline_seconds, seq: model.seq });
    }
    model.note();
  }),
);

const settling = fc
  .record({
    at: fc.nat(),
    verb: fc.constantFrom("ack", "ack", "nack", "release", "extend"),
    seconds: fc.constantFrom(0, 10, 40),
  })
  .map(({ at, verb, seconds }) =>
    command(`${verb} ${at} ${seconds}`, async (model: Model) => {
      const held = model.messages.filter(model.isHeld);
      const one = held[at % Math.max(1, held.length)];
      if (one === undefined) return;
      const { queue } = model;
      const answer =
        verb === "ack"
          ? await ack(queue, one.id, one.token)
          : verb === "nack"
            ? await nack(queue, one.id, { lease_token: one.token, visibility_timeout_seconds: seconds })
            : await extend(queue, one.id, verb === "release" ? 0 : seconds + 10, one.token);
      expect(answer.status).toBe(204);
      model.seq += 1;
      one.seq = model.seq;
      if (verb === "ack") model.messages = model.messages.filter((own) => own !== one);
      else if (verb === "extend") one.lease_until = model.now + seconds + 10;
      else {
        Object.assign(one, { token: undefined, due_at: model.now + (verb === "nack" ? seconds : 0) });
      }
    }),
  );

const advancing = fc.integer({ min: 1, max: 4 }).map((n) =>
  command(`elapse ${n * 10}`, async (model: Model) => {
    await elapse(n * 10);
    model.now += n * 10;
  }),
);

test("a shared queue does what its model does", async () => {
  const often = [publishing, publishing, publishing, receiving, receiving, receiving, settling, settling];
  const commands = fc.commands([...often, advancing], { maxCommands: 40, size: "max" });
  const numRuns = Number(process.env["PSQLQUEUE_TEST_MODEL_RUNS"] ?? (is_embedded ? 15 : 100));
  const property = fc.asyncProperty(fc.constantFrom(null, null, 2), commands, async (max_in_flight_per_key, steps) => {
    const queue = await createQueue(service, {
      ack_deadline_seconds: deadline_seconds,
      message_retention_seconds: 100_000,
      fair_by: "fairness_key",
      max_in_flight_per_key,
    });
    await fc.asyncModelRun(() => ({ model: new Model(queue, max_in_flight_per_key), real: {} }), steps);
    await call("DELETE", `/v1/queues/${queue}`);
  });
  await fc.assert(property, { numRuns });
}, 900_000);
