import { expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { createQueue, is_embedded, serviceForFile } from "./harness.ts";
import { verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

// One queue against a model of it: a list and a clock. All times are multiples of ten seconds, and a run takes less
// than that, so what the machine's own clock adds never decides anything but the order of what is equal: at a boundary
// the moment has come.

const service = await serviceForFile({ receive_limit_max: 100 });
const { call, broker } = service;
const { publish, receive, ack, nack, extend, look, stats } = verbsOf(service);

const deadline_seconds = 30;
const retention_seconds = 200;
const lease_seconds_max = 100;
const deliveries_max = 3;

type Settings = { is_strict: boolean; has_dead_queue: boolean; retry_min_seconds: number };

type Message = {
  id: string;
  label: string | null;
  /** live: in the queue, whatever its state; archived: acked or expired; gone: nobody knows it any more. */
  place: "live" | "archived" | "gone";
  visible_at: number;
  /** Of the statement that set visible_at: breaks ties. */
  set_by: number;
  expires_at: number;
  attempts: number;
  token: string | undefined;
  leased_at: number;
  lease_expires_at: number;
  outcome: "acked" | "expired" | undefined;
  used_token: string | undefined;
  archived_until: number;
  tokens: string[];
};

class Model {
  now = 0;
  statements = 0;
  messages: Message[] = [];

  readonly queue: string;
  readonly settings: Settings;

  constructor(queue: string, settings: Settings) {
    this.queue = queue;
    this.settings = settings;
  }

  live = () => this.messages.filter(({ place }) => place === "live");
  isHeld = (message: Message) => message.token !== undefined && message.lease_expires_at > this.now;
  hasExpired = (message: Message) => message.expires_at <= this.now && !this.isHeld(message);

  stateOf(message: Message): string | undefined {
    if (message.place === "gone") return undefined;
    if (message.place === "archived") return message.archived_until > this.now ? message.outcome : undefined;
    if (this.hasExpired(message)) return "expired";
    if (message.visible_at <= this.now) return "ready";
    if (this.isHeld(message)) return "leased";
    return message.attempts === 0 ? "delayed" : "backing_off";
  }

  /** Behind a lease or a nack; the last lease waits for no other. */
  backoff(message: Message): number {
    if (this.isExhausted(message)) return 0;
    const { attempts } = message;
    return Math.min(600, this.settings.retry_min_seconds * 2 ** (Math.max(attempts, 1) - 1));
  }

  show(message: Message, at: number): void {
    message.visible_at = at;
    message.set_by = this.statements;
  }

  end(message: Message, outcome: "acked" | "expired", token?: string): void {
    const archived_until = this.now + retention_seconds;
    Object.assign(message, { place: "archived", outcome, used_token: token, archived_until, token: undefined });
  }

  bury(message: Message): void {
    Object.assign(message, { place: "gone", token: undefined });
  }

  isExhausted = ({ attempts }: Message) => this.settings.has_dead_queue && attempts >= deliveries_max;

  /** What ack, nack and extend answer before they look at anything of their own; undefined: go on. */
  refusal(message: Message, token: string | undefined): number | undefined {
    if (this.stateOf(message) === undefined) return 404;
    if (token === undefined) return undefined;
    const is_lost = message.token !== token || this.hasExpired(message);
    const is_late = this.settings.is_strict && message.lease_expires_at <= this.now;
    return message.place !== "live" || is_lost || is_late ? 409 : undefined;
  }

  ack(message: Message, token: string | undefined): number {
    const is_repeat = message.outcome === "acked" && token !== undefined && message.used_token === token;
    if (is_repeat && this.stateOf(message) !== undefined) return 204;
    const refusal = this.refusal(message, token);
    if (refusal === undefined && message.place === "live") this.end(message, "acked", token);
    return refusal ?? 204;
  }

  nack(message: Message, token: string | undefined, seconds: number | undefined): number {
    const refusal = this.refusal(message, token);
    if (refusal !== undefined || message.place !== "live" || this.hasExpired(message)) return refusal ?? 204;
    message.token = undefined;
    if (this.isExhausted(message)) this.bury(message);
    else this.show(message, this.now + (seconds ?? this.backoff(message)));
    return 204;
  }

  extend(message: Message, token: string | undefined, seconds: number): number {
    if (token === undefined) return 400;
    const refusal = this.refusal(message, token);
    if (refusal !== undefined) return refusal;
    if (seconds > 0 && this.now - message.leased_at + seconds >= lease_seconds_max) return 400;
    if (seconds === 0) message.token = undefined;
    message.lease_expires_at = this.now + seconds;
    this.show(message, this.now + seconds + (seconds === 0 ? 0 : this.backoff(message)));
    return 204;
  }

  /** The messages that a receive delivers, in order. */
  receive(limit: number, label: string | undefined, lease_seconds: number): Message[] {
    const ready = this.live()
      .filter((one) => one.visible_at <= this.now && (label === undefined || one.label === label))
      .sort((a, b) => a.visible_at - b.visible_at || a.set_by - b.set_by || (a.id < b.id ? -1 : 1));
    const delivered: Message[] = [];
    for (const message of ready) {
      if (delivered.length === limit) break;
      if (message.expires_at <= this.now) this.end(message, "expired");
      else if (this.isExhausted(message)) this.bury(message);
      else {
        message.attempts += 1;
        message.leased_at = this.now;
        message.lease_expires_at = this.now + lease_seconds;
        this.show(message, message.lease_expires_at + this.backoff(message));
        delivered.push(message);
      }
    }
    return delivered;
  }

  counts() {
    const count = (state: string) => this.messages.filter((one) => one.place === "live" && this.stateOf(one) === state);
    const [ready, delayed, leased, backing_off] = ["ready", "delayed", "leased", "backing_off"].map(
      (state) => count(state).length,
    );
    return { ready, delayed, leased, backing_off };
  }
}

type Command = fc.AsyncCommand<Model, object>;
type TokenKind = "valid" | "stale" | "foreign" | "none";

/**
 * The embedded database's clock has milliseconds. What two commands make ready within one is ready at the same time,
 * and comes in order of publication; the model knows which command came first.
 */
async function nextMillisecond(): Promise<void> {
  const now_ms = Date.now();
  while (Date.now() <= now_ms + 1) await new Promise(setImmediate);
}

const command = (text: string, run: (model: Model) => Promise<unknown>): Command => ({
  check: () => true,
  async run(model) {
    model.statements += 1;
    if (is_embedded) await nextMillisecond();
    await run(model);
  },
  toString: () => text,
});

const tens = (max: number) => fc.integer({ min: 0, max }).map((n) => n * 10);
const labels = fc.constantFrom(undefined, undefined, "a", "b");

const publishing = fc
  .record({
    label: labels,
    delay_seconds: fc.option(tens(3), { nil: undefined }),
    ttl_seconds: fc.option(
      tens(8).map((n) => n + 10),
      { nil: undefined, freq: 4 },
    ),
  })
  .map((given) =>
    command(`publish ${JSON.stringify(given)}`, async (model) => {
      const answer = await publish(model.queue, { body: "x", ...given });
      expect(answer.status).toBe(204);
      const { now } = model;
      model.messages.push({
        id: answer.headers.get("x-message-id") ?? "",
        label: given.label ?? null,
        place: "live",
        visible_at: now + (given.delay_seconds ?? 0),
        set_by: model.statements,
        expires_at: now + Math.min(retention_seconds, given.ttl_seconds ?? retention_seconds),
        attempts: 0,
        token: undefined,
        leased_at: 0,
        lease_expires_at: 0,
        outcome: undefined,
        used_token: undefined,
        archived_until: 0,
        tokens: [],
      });
    }),
  );

const receiving = fc
  .record({ limit: fc.integer({ min: 0, max: 4 }), label: labels, own: fc.constantFrom(undefined, undefined, 10, 60) })
  .map(({ limit, label, own }) =>
    command(`receive ${limit} label=${label} deadline=${own}`, async (model) => {
      const query = `?limit=${limit}${label ? `&label=${label}` : ""}${own ? `&ack_deadline_seconds=${own}` : ""}`;
      const got = await receive(model.queue, query);
      const expected = model.receive(limit, label, own ?? deadline_seconds);
      const shown = got.map((one) => ({ id: one.id, attempts: one.delivery_attempts, label: one.label }));
      expect(shown).toEqual(expected.map(({ id, attempts, label: own_label }) => ({ id, attempts, label: own_label })));
      let statement = 0;
      for (const [i, message] of expected.entries()) {
        // A receive that met what it must not deliver asks again, and what it leases then is visible a little later.
        if (i > 0 && got[i]?.lease_expires_at !== got[i - 1]?.lease_expires_at) statement += 1;
        message.set_by = model.statements + statement / 10;
        message.token = got[i]?.lease_token;
        message.tokens.unshift(message.token ?? "");
      }
    }),
  );

const settling = fc
  .record({
    verb: fc.constantFrom("ack", "nack", "extend"),
    at: fc.nat(20),
    kind: fc.constantFrom<TokenKind>("valid", "valid", "valid", "stale", "foreign", "none"),
    seconds: fc.option(tens(6), { nil: undefined }),
  })
  .map(({ verb, at, kind, seconds }) =>
    command(`${verb} #${at} ${kind} ${seconds}`, async (model) => {
      // Counted from the youngest: those are where things happen.
      const message = model.messages.at(-1 - (at % Math.max(1, model.messages.length)));
      if (message === undefined) return;
      const token = { valid: message.tokens[0], stale: message.tokens[1], foreign: "4711", none: undefined }[kind];
      const { queue } = model;
      const [answer, expected] =
        verb === "ack"
          ? [await ack(queue, message.id, token), model.ack(message, token)]
          : verb === "nack"
            ? [
                await nack(queue, message.id, { lease_token: token, visibility_timeout_seconds: seconds }),
                model.nack(message, token, seconds),
              ]
            : [await extend(queue, message.id, seconds ?? 20, token), model.extend(message, token, seconds ?? 20)];
      expect(answer.status).toBe(expected);
    }),
  );

const advancing = tens(5).map((n) =>
  command(`advance ${n + 10}`, async (model) => {
    await service.elapse(n + 10);
    model.now += n + 10;
  }),
);

/** Nothing but what time alone would do. */
const sweeping = fc.constant(
  command("sweep", async (model) => {
    await broker.sweepExhausted(60);
    for (const message of model.live()) {
      const { visible_at, token } = message;
      const is_fresh = visible_at <= model.now && visible_at > model.now - 60 && token !== undefined;
      if (is_fresh && model.isExhausted(message) && !model.hasExpired(message)) model.bury(message);
    }
    await broker.sweepExpired();
    const live = model.live().sort((a, b) => (a.id < b.id ? -1 : 1));
    if ((live[0]?.expires_at ?? Number.POSITIVE_INFINITY) > model.now) return;
    for (const message of live) {
      if (model.hasExpired(message)) model.end(message, "expired");
    }
  }),
);

/** The net below the sweeps: once round the table. */
const walking = fc.constant(
  command("walk", async (model) => {
    let place: Parameters<typeof broker.sweepOverdue>[0];
    do place = (await broker.sweepOverdue(place)).next;
    while (place !== undefined);
    for (const message of model.live()) {
      if (model.hasExpired(message)) model.end(message, "expired");
      else if (model.isExhausted(message) && message.visible_at <= model.now && !model.isHeld(message)) {
        model.bury(message);
      }
    }
  }),
);

const looking = fc.constant(
  command("look", async (model) => {
    expect(await stats(model.queue)).toMatchObject(model.counts());
    for (const message of model.messages.slice(-6)) {
      const { body } = await look(model.queue, message.id);
      expect({ id: message.id, state: body.state }).toEqual({ id: message.id, state: model.stateOf(message) });
    }
  }),
);

const restarting = fc.constant(command("restart", async () => broker.forgetFloors()));

const purging = fc.constant(
  command("purge", async (model) => {
    expect((await call("PUT", `/v1/queues/${model.queue}/purge`)).status).toBe(204);
    for (const message of model.messages) model.bury(message);
  }),
);

const settingsOf = ({ is_strict, has_dead_queue, retry_min_seconds }: Settings, dead: string) => ({
  ack_deadline_seconds: deadline_seconds,
  message_retention_seconds: retention_seconds,
  strict_leases: is_strict,
  max_lease_seconds: lease_seconds_max,
  retry_policy: { min_seconds: retry_min_seconds, jitter: "none" },
  ...(has_dead_queue && { dead_queue_id: dead, message_max_deliveries: deliveries_max }),
});

const dead_queue = await createQueue(service);

const recreating = fc.constant(
  command("delete and create", async (model) => {
    expect((await call("DELETE", `/v1/queues/${model.queue}`)).status).toBe(204);
    const body = { id: model.queue, ...settingsOf(model.settings, dead_queue) };
    expect((await call("POST", "/v1/queues", body)).status).toBe(201);
    for (const message of model.messages) model.bury(message);
  }),
);

const settings = fc.record({
  is_strict: fc.boolean(),
  has_dead_queue: fc.boolean(),
  retry_min_seconds: fc.constantFrom(0, 0, 20),
});

test("a queue does what its model does", async () => {
  const often = [publishing, publishing, receiving, receiving, receiving, settling, settling, settling, advancing];
  const seldom = [fc.oneof(sweeping, walking), restarting, fc.oneof(purging, recreating, looking)];
  const commands = fc.commands([...often, looking, ...seldom], { maxCommands: 40, size: "max" });
  const numRuns = Number(process.env["PSQLQUEUE_TEST_MODEL_RUNS"] ?? (is_embedded ? 50 : 400));
  let slowest_ms = 0;
  const property = fc.asyncProperty(settings, commands, async (given, steps) => {
    const queue = await createQueue(service, settingsOf(given, dead_queue));
    const started_ms = performance.now();
    await fc.asyncModelRun(() => ({ model: new Model(queue, given), real: {} }), steps);
    slowest_ms = Math.max(slowest_ms, performance.now() - started_ms);
    await call("DELETE", `/v1/queues/${queue}`);
    await call("PUT", `/v1/queues/${dead_queue}/purge`);
  });
  await fc.assert(property, { numRuns });
  expect(slowest_ms).toBeLessThan(10_000);
}, 900_000);
