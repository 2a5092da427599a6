import { expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { createQueue, is_embedded, serviceForFile } from "./harness.ts";
import { command } from "./modelCommands.ts";
import { verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

// A queue with ordering keys, priorities and a cap against a model of it. As in model.test.ts all times are multiples
// of ten seconds, and a run takes less than that. Which of several messages of one priority comes first is left open
// here: the model says what may be delivered, how many, and in which order within a key.

const service = await serviceForFile({ receive_limit_max: 100 });
const { call, broker } = service;
const { publish, receive, ack, nack, extend } = verbsOf(service);

const deadline_seconds = 30;
const retention_seconds = 200;
const deliveries_max = 3;

type Settings = { retry_min_seconds: number; on_dead: "move" | "block"; max_in_flight: number | null };

type Message = {
  id: string;
  key: string | undefined;
  seq: number;
  priority: number;
  place: "live" | "dead" | "gone";
  due_at: number;
  expires_at: number;
  attempts: number;
  token: string | undefined;
  /** Which delivery it was leased by, with others of its key or alone. */
  lease: number;
  lease_until: number;
  blocks: boolean;
};

class Model {
  now = 0;
  count = 0;
  messages: Message[] = [];

  readonly queue: string;
  readonly settings: Settings;

  constructor(queue: string, settings: Settings) {
    this.queue = queue;
    this.settings = settings;
  }

  isHeld = (one: Message) => one.token !== undefined && one.lease_until > this.now;
  isOver = (one: Message) => one.expires_at <= this.now && !this.isHeld(one);
  live = () => this.messages.filter((one) => one.place === "live" && !this.isOver(one));
  /** The last lease waits for no other. */
  backoff = ({ attempts }: Message) =>
    attempts >= deliveries_max ? 0 : Math.min(600, this.settings.retry_min_seconds * 2 ** (Math.max(attempts, 1) - 1));
  naturalAt = (one: Message) =>
    one.token === undefined
      ? one.due_at
      : Math.min(one.lease_until + this.backoff(one), Math.max(one.expires_at, one.lease_until));
  keyOf = (one: Message) =>
    this.live()
      .filter(({ key }) => key === one.key)
      .sort((a, b) => a.seq - b.seq);
  blockedFrom(key: string | undefined): number {
    const dead = this.messages.filter((one) => one.place === "dead" && one.blocks && one.key === key);
    return Math.min(Number.POSITIVE_INFINITY, ...dead.map(({ seq }) => seq));
  }

  canStart(one: Message): boolean {
    if (this.naturalAt(one) > this.now) return false;
    if (one.key === undefined) return true;
    const all = this.keyOf(one);
    if (all.some((other) => other !== one && this.isHeld(other))) return false;
    return all[0] === one && one.seq < this.blockedFrom(one.key);
  }

  bury(one: Message): void {
    Object.assign(one, { place: "dead", token: undefined, blocks: this.settings.on_dead === "block" });
  }

  /** What can be delivered now, with those used up that a receive meets put away. */
  heads(): Message[] {
    for (;;) {
      const heads = this.live().filter((one) => this.canStart(one));
      const used_up = heads.filter(({ attempts }) => attempts >= deliveries_max);
      if (used_up.length === 0) return heads;
      for (const one of used_up) this.bury(one);
    }
  }

  /** The ones that follow a head without a gap. */
  followers(head: Message): Message[] {
    const rest = this.keyOf(head).filter(({ seq }) => seq > head.seq);
    const end = rest.findIndex((one) => this.naturalAt(one) > this.now || one.attempts >= deliveries_max);
    return end < 0 ? rest : rest.slice(0, end);
  }

  letGo(one: Message, at: number): void {
    const { lease } = one;
    const later = this.keyOf(one).filter(
      (other) => one.key !== undefined && other.lease === lease && other.seq > one.seq,
    );
    Object.assign(one, { token: undefined, due_at: at });
    for (const other of later) {
      if (other.token === undefined) continue;
      Object.assign(other, { token: undefined, due_at: this.now, attempts: other.attempts - 1 });
    }
  }
}

const tens = (max: number) => fc.integer({ min: 0, max }).map((n) => n * 10);

const publishing = fc
  .record({
    ordering_key: fc.constantFrom("a", "a", "b", "c", undefined),
    priority: fc.constantFrom(0, 0, 5, -5),
    delay_seconds: fc.constantFrom(undefined, undefined, undefined, 10, 40),
    ttl_seconds: fc.constantFrom(undefined, undefined, undefined, 20, 60),
  })
  .map((given) =>
    command(`publish ${JSON.stringify(given)}`, async (model: Model) => {
      const answer = await publish(model.queue, { body: "x", ...given });
      expect(answer.status).toBe(204);
      model.count += 1;
      model.messages.push({
        id: answer.headers.get("x-message-id") ?? "",
        key: given.ordering_key,
        seq: model.count,
        priority: given.priority,
        place: "live",
        due_at: model.now + (given.delay_seconds ?? 0),
        expires_at: model.now + Math.min(retention_seconds, given.ttl_seconds ?? retention_seconds),
        attempts: 0,
        token: undefined,
        lease: 0,
        lease_until: 0,
        blocks: false,
      });
    }),
  );

const receiving = fc
  .record({
    limit: fc.integer({ min: 1, max: 6 }),
    key_max: fc.constantFrom(1, 1, 0, 2),
    own: fc.constantFrom(undefined, 10),
  })
  .map(({ limit, key_max, own }) =>
    command(`receive ${limit} max_per_key=${key_max} deadline=${own}`, async (model: Model) => {
      const query = `?limit=${limit}&max_per_key=${key_max}${own ? `&ack_deadline_seconds=${own}` : ""}`;
      const got = await receive(model.queue, query);
      const { max_in_flight } = model.settings;
      const held = model.live().filter(model.isHeld).length;
      const places = max_in_flight === null ? limit : Math.min(limit, Math.max(0, max_in_flight - held));
      const one_of = new Map(model.messages.map((one) => [one.id, one]));
      // Only what a receive meets is put away: where there are more than it takes, some may stay.
      const before = new Set(model.messages.filter(({ place }) => place === "dead"));
      const heads = places === 0 ? [] : model.heads();
      const delivered = got.map(({ id }) => one_of.get(id) as Message);
      const started = delivered.filter((one) => heads.includes(one));
      const shown = () => JSON.stringify({ now: model.now, got: delivered, heads, all: model.messages });
      // Any number of a key: from as few keys as possible.
      const is_whole = key_max === 0 && max_in_flight === null;
      const available = heads.reduce(
        (sum, one) => sum + 1 + (one.key === undefined ? 0 : model.followers(one).length),
        0,
      );
      const expected_count = is_whole ? Math.min(places, available) : Math.min(places, heads.length);
      const count = is_whole ? delivered.length : started.length;
      if (count !== expected_count) throw new Error(`${count} instead of ${expected_count}: ${shown()}`);
      // Behind one that has expired, or used up its deliveries, nobody has seen it: it counts with that one's priority.
      const isSeen = ({ key }: Message) =>
        key === undefined ||
        !model.messages.some(
          (one) => one.key === key && (model.isOver(one) || (one.place === "dead" && !before.has(one))),
        );
      const left = heads.filter((one) => !started.includes(one) && isSeen(one));
      const lowest = Math.min(...started.filter(isSeen).map(({ priority }) => priority));
      if (!is_whole && left.some(({ priority }) => priority > lowest)) throw new Error(`priorities: ${shown()}`);
      let followers = 0;
      for (const head of started) {
        const own_ones = delivered.filter(({ key }) => head.key !== undefined && key === head.key);
        if (head.key === undefined) continue;
        const expected = [head, ...model.followers(head)].slice(0, own_ones.length);
        if (own_ones.some((one, i) => one !== expected[i])) throw new Error(`order: ${shown()}`);
        if (key_max > 0 && own_ones.length > key_max) throw new Error(`too many of a key: ${shown()}`);
        followers += own_ones.length - 1;
      }
      if (started.length + followers !== delivered.length) throw new Error(`not to be delivered: ${shown()}`);
      if (max_in_flight !== null && followers > 0) throw new Error(`followers pass by the cap: ${shown()}`);
      model.count += 1;
      for (const [i, one] of delivered.entries()) {
        one.attempts += 1;
        Object.assign(one, {
          token: got[i]?.lease_token,
          lease: model.count,
          lease_until: model.now + (own ?? deadline_seconds),
        });
        expect(got[i]?.delivery_attempts).toBe(one.attempts);
      }
      // Heads that found no room behind the messages of one key were leased and given back: their last token is over.
      if (is_whole) for (const one of heads) if (!delivered.includes(one)) one.token = undefined;
      // A receive that was full has not met all that are used up: ask the queue.
      for (const one of model.messages) {
        if (one.place !== "dead" || before.has(one)) continue;
        const is_there = (await call("GET", `/v1/queues/${model.queue}/messages/${one.id}`)).status === 200;
        if (is_there) Object.assign(one, { place: "live", blocks: false });
      }
    }),
  );

const settling = fc
  .record({
    verb: fc.constantFrom("ack", "ack", "nack", "extend"),
    at: fc.nat(12),
    kind: fc.constantFrom("valid", "valid", "valid", "foreign"),
    seconds: fc.option(tens(5), { nil: undefined }),
  })
  .map(({ verb, at, kind, seconds }) =>
    command(`${verb} #${at} ${kind} ${seconds}`, async (model: Model) => {
      const leased = model.messages.filter(({ place, token }) => place === "live" && token !== undefined);
      const one = leased.at(-1 - (at % Math.max(1, leased.length)));
      if (one === undefined) return;
      const token = kind === "valid" ? one.token : "k4711";
      const is_lost = kind !== "valid" || model.isOver(one);
      const { queue, now } = model;
      if (verb === "ack") {
        expect((await ack(queue, one.id, token)).status).toBe(is_lost ? 409 : 204);
        if (!is_lost) one.place = "gone";
      } else if (verb === "nack") {
        const answer = await nack(queue, one.id, { lease_token: token, visibility_timeout_seconds: seconds });
        expect(answer.status).toBe(is_lost ? 409 : 204);
        if (is_lost) return;
        const is_dead = one.attempts >= deliveries_max;
        model.letGo(one, now + (seconds ?? model.backoff(one)));
        if (is_dead) model.bury(one);
      } else {
        const length = seconds ?? 20;
        const others = model.keyOf(one).filter((other) => other !== one && one.key !== undefined);
        const is_passed =
          !model.isHeld(one) && others.some((other) => model.isHeld(other) && other.lease !== one.lease);
        const is_place_gone = !model.isHeld(one) && model.settings.max_in_flight !== null && length > 0;
        const refused = is_lost || (length > 0 && is_passed) || is_place_gone;
        expect((await extend(queue, one.id, length, token)).status).toBe(refused ? 409 : 204);
        if (refused) return;
        if (length === 0) model.letGo(one, now);
        else one.lease_until = now + length;
      }
    }),
  );

const advancing = tens(4).map((n) =>
  command(`advance ${n + 10}`, async (model: Model) => {
    await service.elapse(n + 10);
    model.now += n + 10;
  }),
);

const dead_queue = await createQueue(service, { message_retention_seconds: 100_000 });

const redriving = fc.constant(
  command("redrive", async (model: Model) => {
    const answer = await call("POST", `/v1/queues/${dead_queue}/redrive?wait=true`, { limit: 1000 });
    expect(answer.status).toBe(200);
    for (const one of model.messages) {
      if (one.place !== "dead") continue;
      const { now } = model;
      Object.assign(one, {
        place: "live",
        attempts: 0,
        due_at: now,
        expires_at: now + retention_seconds,
        blocks: false,
      });
    }
  }),
);

const repairing = fc.constant(
  command("repair", async ({ queue }: Model) => {
    expect((await call("POST", `/v1/queues/${queue}/repair`)).body).toMatchObject({ repaired: 0 });
  }),
);

const sweeping = fc.constant(
  command("sweep", async () => {
    await broker.sweepExpired();
    broker.forgetFloors();
  }),
);

const settings = fc.record({
  retry_min_seconds: fc.constantFrom(0, 0, 20),
  on_dead: fc.constantFrom<Settings["on_dead"]>("move", "move", "block"),
  max_in_flight: fc.constantFrom(null, null, 3),
});

test("a queue with ordering keys, priorities and a cap does what its model does", async () => {
  const often = [publishing, publishing, receiving, receiving, receiving, settling, settling, settling, advancing];
  const commands = fc.commands([...often, publishing, redriving, repairing, sweeping], {
    maxCommands: 40,
    size: "max",
  });
  const numRuns = Number(process.env["PSQLQUEUE_TEST_MODEL_RUNS"] ?? (is_embedded ? 30 : 150));
  const property = fc.asyncProperty(settings, commands, async (given, steps) => {
    const queue = await createQueue(service, {
      ack_deadline_seconds: deadline_seconds,
      message_retention_seconds: retention_seconds,
      retry_policy: { min_seconds: given.retry_min_seconds, jitter: "none" },
      allow_delayed_ordering: true,
      priority_enabled: true,
      on_dead: given.on_dead,
      max_in_flight: given.max_in_flight,
      dead_queue_id: dead_queue,
      message_max_deliveries: deliveries_max,
    });
    await fc.asyncModelRun(() => ({ model: new Model(queue, given), real: {} }), steps);
    await call("DELETE", `/v1/queues/${queue}`);
    await call("PUT", `/v1/queues/${dead_queue}/purge`);
  });
  await fc.assert(property, { numRuns });
}, 900_000);
