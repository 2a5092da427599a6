import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { type ConsumeOptions, type Consumer, createClient, type Delivery } from "../client/src/client.ts";
import { createQueue, listen, serviceForFile, until } from "./harness.ts";
import { verbsOf } from "./verbs.ts";

// Consumers of queues that have nothing for them, or whose settings are not made for consumers.

setDefaultTimeout(90_000);

const service = await serviceForFile({ connections_max: 10 });
const listener = await listen(service.app);
afterAll(() => listener.stop(true));
const url = `http://127.0.0.1:${listener.port}`;
const client = createClient({ url });
const { put, receive, look } = verbsOf(service);

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

describe("a queue that has nothing", () => {
  /** Consumes by `client`, and answers when it asked. */
  async function asking(queue: string, options: ConsumeOptions, count: number) {
    const times_ms: number[] = [];
    const own = between((path) => {
      if (path.endsWith("/messages")) times_ms.push(performance.now());
      return undefined;
    });
    const bodies: string[] = [];
    const { consumer, errors } = consuming(queue, ({ body }) => void bodies.push(body), options, own);
    await until(() => times_ms.length >= count);
    return { times_ms, bodies, consumer, errors };
  }

  test("is asked less and less often where a server lets nobody wait", async () => {
    const queue = await createQueue(service);
    const { times_ms, bodies, consumer } = await asking(queue, { wait_seconds: 0 }, 5);
    const pauses_ms = times_ms.slice(1, 5).map((time_ms, i) => time_ms - (times_ms[i] ?? 0));
    for (const [i, pause_ms] of pauses_ms.entries()) expect(pause_ms).toBeGreaterThan(45 * 2 ** i);
    await put(queue, { body: "late" });
    await until(() => bodies.length === 1);
    await consumer.stop();
    expect(bodies).toEqual(["late"]);
  });

  test("is asked less and less often while it is paused, also one message after the other", async () => {
    const queue = await createQueue(service);
    await put(queue);
    await client.queue(queue).pause();
    const { times_ms, bodies, consumer } = await asking(queue, { wait_seconds: 0 }, 4);
    expect((times_ms[3] ?? 0) - (times_ms[0] ?? 0)).toBeGreaterThan(340);
    await client.queue(queue).resume();
    await until(() => bodies.length === 1);
    await consumer.stop();

    await client.queue(queue).pause();
    const begun_ms = performance.now();
    let asked = 0;
    const stopping = new AbortController();
    const own = between((path) => {
      if (path.endsWith("/messages") && ++asked === 4) stopping.abort();
      return undefined;
    });
    for await (const _ of own.queue(queue).messages({ signal: stopping.signal, wait_seconds: 0 }))
      throw new Error("a message");
    expect(performance.now() - begun_ms).toBeGreaterThan(340);
  });
});

test("a queue whose own lease ends at once is consumed under a lease that is asked for", async () => {
  const queue = await createQueue(service);
  await service.sql`update psqlqueue.queues set ack_deadline_seconds = 0 where id = ${queue}`;
  const id = await put(queue);
  let deliveries = 0;
  let is_done = false;
  const { consumer, errors } = consuming(queue, async () => {
    deliveries += 1;
    await until(() => is_done);
  });
  await until(async () => (await look(queue, id)).body.state === "leased");
  expect(await receive(queue)).toEqual([]);
  is_done = true;
  await until(async () => (await look(queue, id)).body.state === "acked");
  await consumer.stop();
  expect({ deliveries, errors }).toEqual({ deliveries: 1, errors: [] });
});
