import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  type ConsumeOptions,
  type Consumer,
  createClient,
  type Delivery,
  InvalidBodyError,
  InvalidRequestError,
  LeaseLostError,
  NotFoundError,
  type StandardSchema,
  UnavailableError,
} from "../client/src/client.ts";
import { createQueue, listen, serviceForFile, until } from "./harness.ts";
import { verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ connections_max: 10 });
const listener = await listen(service.app);
afterAll(() => listener.stop(true));
const url = `http://127.0.0.1:${listener.port}`;
const client = createClient({ url });
const { put, receive, stats, look } = verbsOf(service);

const consumers = new Set<Consumer>();
afterAll(async () => {
  await Promise.allSettled([...consumers].map((own) => own.stop({ grace_seconds: 0 })));
});

/** Consumes, and ends with the file whatever a test does. Errors are collected. */
function consuming(
  queue_id: string,
  handler: (message: Delivery<string>) => unknown,
  options: ConsumeOptions = {},
  own = client,
) {
  const errors: unknown[] = [];
  const onError = (error: unknown) => void errors.push(error);
  const consumer = own.queue(queue_id).consume(handler, { wait_seconds: 1, onError, ...options });
  consumers.add(consumer);
  return { consumer, errors };
}

/** A client whose requests to `path` are answered by `answer`, while it gives one. */
const between = (answer: (path: string) => Response | undefined) =>
  createClient({ url, fetch: async (to, init) => answer(new URL(to).pathname) ?? (await fetch(to, init)) });

const many = (count: number) => Array.from({ length: count }, (_, i) => ({ body: String(i) }));

test("every message is handled once and acked, by no more handlers at once than asked for", async () => {
  const queue = await createQueue(service);
  await client.queue(queue).publishBatch(many(500));
  const bodies: string[] = [];
  let running = 0;
  let running_max = 0;
  const handler = async ({ body }: Delivery<string>) => {
    running += 1;
    running_max = Math.max(running_max, running);
    await until(() => running_max === 20);
    running -= 1;
    bodies.push(body);
  };
  const { consumer, errors } = consuming(queue, handler, { concurrency: 20 });
  await until(async () => (await client.queue(queue).peek({ state: "acked", limit: 1 })).data.length === 1);
  await until(() => bodies.length === 500);
  await consumer.stop();
  expect(bodies.map(Number).sort((a, b) => a - b)).toEqual(many(500).map((_, i) => i));
  expect({ running_max, errors }).toEqual({ running_max: 20, errors: [] });
  expect(await stats(queue)).toMatchObject({ ready: 0, leased: 0 });
});

describe("a handler", () => {
  test("that throws has its message nacked with the error; onError says how", async () => {
    const dead_queue_id = await createQueue(service);
    const queue = await createQueue(service, { dead_queue_id, message_max_deliveries: 5 });
    await put(queue, { body: "bad" });
    const id = await put(queue, { body: "poor" });
    const onError = (error: unknown) =>
      (error as Error).message === "bad" ? { dead_letter: true } : { visibility_timeout_seconds: 60 };
    const { consumer } = consuming(
      queue,
      ({ body }) => {
        throw new Error(body);
      },
      { onError },
    );
    await until(async () => (await stats(queue)).backing_off === 1 && (await stats(dead_queue_id)).dead === 1);
    await consumer.stop();
    expect((await look(queue, id)).body).toMatchObject({ last_error: "poor", state: "backing_off" });
    expect((await client.queue(dead_queue_id).peek()).data).toMatchObject([{ body: "bad", dead: { error: "bad" } }]);
  });

  test("that throws what no server takes spoils no nack of its neighbours", async () => {
    const queue = await createQueue(service, { retry_policy: { min_seconds: 600 } });
    const texts = ["plain", "a\0b", "\u{1f600}".slice(0, 1), "x".repeat(2047) + "\u{1f600}", "é".repeat(3000)];
    const bodies = [...texts.keys(), "too long", "no text"].map(String);
    await client.queue(queue).publishBatch(bodies.map((body) => ({ body })));
    let running = 0;
    const errors: unknown[] = [];
    const handler = async ({ body }: Delivery<string>) => {
      running += 1;
      // All nacks leave at once.
      await until(() => running === bodies.length);
      throw body === "no text" ? Object.create(null) : new Error(texts[Number(body)] ?? body);
    };
    const onError = (error: unknown) => {
      errors.push(error);
      return (error as Error).message === "too long" ? { visibility_timeout_seconds: 1e9 } : undefined;
    };
    const { consumer } = consuming(queue, handler, { onError });
    await until(() => errors.length === bodies.length + 1);
    await consumer.stop();
    expect(errors.at(-1)).toBeInstanceOf(InvalidRequestError);
    const seen = (await client.queue(queue).peek({ state: "all", limit: 100 })).data;
    expect(Object.fromEntries(seen.map(({ body, state, last_error }) => [body, [state, last_error]]))).toEqual({
      0: ["backing_off", "plain"],
      1: ["backing_off", "a\ufffdb"],
      2: ["backing_off", "\ufffd"],
      3: ["backing_off", "x".repeat(2047)],
      4: ["backing_off", "é".repeat(1024)],
      "too long": ["leased", undefined],
      "no text": ["backing_off", "an error that has no text"],
    });
  });

  test("is not reached by a body that the schema throws at, and the others are handled", async () => {
    const id = await createQueue(service, { retry_policy: { min_seconds: 600 } });
    const schema: StandardSchema<number> = {
      "~standard": {
        version: 1,
        vendor: "a test",
        validate(value) {
          if (value === 2) throw new TypeError("2 is too much");
          return { value: value as number };
        },
      },
    };
    const queue = client.queue(id, { schema });
    await client.queue(id).publishBatch(many(4));
    const bodies: number[] = [];
    const told: unknown[] = [];
    const onError = (error: unknown, message?: { body: unknown }) => void told.push([error, message?.body]);
    const consumer = queue.consume(({ body }) => void bodies.push(body), { wait_seconds: 1, onError });
    consumers.add(consumer);
    await until(async () => (await stats(id)).backing_off === 1 && bodies.length === 3);
    await consumer.stop();
    expect(bodies.sort()).toEqual([0, 1, 3]);
    expect(told).toEqual([[expect.any(InvalidBodyError), "2"]]);
    expect((await client.queue(id).peek({ state: "backing_off" })).data).toMatchObject([
      { body: "2", last_error: "the schema failed: 2 is too much" },
    ]);
    // Receiving by hand nacks it as well, and brings the others.
    await client.queue(id).publishBatch(many(4));
    expect((await queue.receive({ limit: 10 })).map(({ body }) => body)).toEqual([0, 1, 3]);
    expect(await stats(id)).toMatchObject({ backing_off: 2, leased: 3 });
  });

  test("may settle its message itself", async () => {
    const queue = await createQueue(service);
    const id = await put(queue);
    const { consumer, errors } = consuming(queue, (message) => message.nack({ visibility_timeout_seconds: 60 }));
    await until(async () => (await stats(queue)).backing_off === 1);
    await consumer.stop();
    expect(errors).toEqual([]);
    expect((await look(queue, id)).body.last_error).toBeUndefined();
  });

  test("keeps its lease for as long as it works", async () => {
    const queue = await createQueue(service, { ack_deadline_seconds: 1, strict_leases: true });
    const id = await put(queue);
    let deliveries = 0;
    const { consumer, errors } = consuming(queue, async () => {
      deliveries += 1;
      const first = (await look(queue, id)).body.lease_expires_at;
      const isExtended = async (ends: string) => (await look(queue, id)).body.lease_expires_at > ends;
      await until(() => isExtended(first));
      const second = (await look(queue, id)).body.lease_expires_at;
      await until(() => isExtended(second));
    });
    await until(async () => (await look(queue, id)).body.state === "acked");
    await consumer.stop();
    expect({ deliveries, errors }).toEqual({ deliveries: 1, errors: [] });
  });

  test("is told by its signal when somebody else has the message, which is not acked", async () => {
    const queue = await createQueue(service, { ack_deadline_seconds: 1, allow_tokenless_extend: true });
    const id = await put(queue);
    let reason: unknown;
    let deliveries = 0;
    const { consumer, errors } = consuming(queue, async ({ signal }) => {
      deliveries += 1;
      if (deliveries > 1) return;
      await service.call("PUT", `/v1/queues/${queue}/messages/${id}/nack`, { visibility_timeout_seconds: 60 });
      await until(() => signal.aborted);
      reason = signal.reason;
    });
    await until(() => reason !== undefined);
    await consumer.stop();
    expect(reason).toBeInstanceOf(LeaseLostError);
    expect(errors).toEqual([reason]);
    expect((await look(queue, id)).body.state).toBe("backing_off");
  });
});

describe("stopping", () => {
  test("lets handlers end, gives back what still arrives, and loses no lease", async () => {
    const queue = await createQueue(service);
    await client.queue(queue).publishBatch(many(200));
    let begun = 0;
    let ended = 0;
    const { promise, resolve } = Promise.withResolvers<void>();
    const handler = async () => {
      begun += 1;
      await promise;
      ended += 1;
    };
    const { consumer } = consuming(queue, handler, { concurrency: 30 });
    await until(() => begun === 30);
    const stopped = consumer.stop();
    resolve();
    await stopped;
    expect({ begun, ended }).toEqual({ begun: 30, ended: 30 });
    expect(await stats(queue)).toMatchObject({ ready: 170, leased: 0, backing_off: 0 });
  });

  test("of a consumer that waits gives back what comes meanwhile", async () => {
    const queue = await createQueue(service);
    let handled = 0;
    const handle = () => {
      handled += 1;
    };
    const controller = new AbortController();
    const { consumer } = consuming(queue, handle, { signal: controller.signal, wait_seconds: 20 });
    await until(() => service.broker.wakeups.size() > 0);
    controller.abort();
    await put(queue);
    await consumer.finished;
    expect(handled).toBe(0);
    expect(await stats(queue)).toMatchObject({ ready: 1, leased: 0 });
  });

  test("after the grace aborts handlers and gives their messages back", async () => {
    const queue = await createQueue(service);
    await put(queue);
    let signal: AbortSignal | undefined;
    const { consumer } = consuming(queue, (message) => {
      signal = message.signal;
      return new Promise(() => {});
    });
    await until(() => signal !== undefined);
    await consumer.stop({ grace_seconds: 0 });
    expect(signal?.aborted).toBe(true);
    expect(await stats(queue)).toMatchObject({ ready: 1, leased: 0 });
  });

  test("happens at the end of a block that uses it", async () => {
    const queue = await createQueue(service);
    let handled = 0;
    const handle = () => {
      handled += 1;
    };
    {
      await using _consumer = client.queue(queue).consume(handle, { wait_seconds: 1 });
      await put(queue);
      await until(() => handled === 1);
    }
    await put(queue);
    expect(await receive(queue)).toHaveLength(1);
  });
});

describe("a server that refuses or is away", () => {
  const busy = () =>
    Response.json({ code: 19, message: "service unavailable" }, { status: 503, headers: { "retry-after": "0" } });

  test("is asked again, and nothing is handled twice", async () => {
    const queue = await createQueue(service);
    await client.queue(queue).publishBatch(many(20));
    let refusals = 0;
    const own = between(() => {
      if (refusals === 6 || Math.random() < 0.3) return undefined;
      refusals += 1;
      return busy();
    });
    const bodies: string[] = [];
    const { consumer, errors } = consuming(queue, ({ body }) => void bodies.push(body), {}, own);
    await until(async () => bodies.length === 20 && (await stats(queue)).leased === 0);
    await consumer.stop();
    expect(bodies.map(Number).sort((a, b) => a - b)).toEqual(many(20).map((_, i) => i));
    for (const error of errors) expect(error).toBeInstanceOf(UnavailableError);
  });

  test("is not asked before it wants to be", async () => {
    const queue = await createQueue(service);
    const times_ms: number[] = [];
    const own = between((path) => {
      if (!path.endsWith("/messages")) return undefined;
      times_ms.push(performance.now());
      return Response.json(
        { code: 14, message: "too many requests" },
        { status: 429, headers: { "retry-after": "1" } },
      );
    });
    const { consumer } = consuming(queue, () => {}, {}, own);
    await until(() => times_ms.length === 2);
    await consumer.stop();
    expect((times_ms[1] ?? 0) - (times_ms[0] ?? 0)).toBeGreaterThan(1000);
  });

  test("for good ends the consumer with the reason", async () => {
    const unknown = consuming("none", () => {}).consumer.finished.catch((error: unknown) => error);
    expect(await unknown).toBeInstanceOf(NotFoundError);
    const queue = await createQueue(service);
    const { consumer } = consuming(queue, () => {});
    // Before it happens: a reason that nobody waits for is an error of the process.
    const ended = consumer.finished.catch((error: unknown) => error);
    await until(() => service.broker.wakeups.size() > 0);
    await client.queues.delete(queue);
    expect(await ended).toBeInstanceOf(NotFoundError);
  });
});
