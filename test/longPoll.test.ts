import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createBroker, type ReceiveRequest } from "../src/broker/broker.ts";
import type { Db } from "../src/db/db.ts";
import { createQueue, limits, openService, serviceForFile, uniqueId, until } from "./harness.ts";
import { refused, verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ receive_limit_max: 100 });
const { call, broker } = service;
const { publish, put, receive, take, nack, extend, look, bodies, stats } = verbsOf(service);

const seconds = (since_ms: number) => (performance.now() - since_ms) / 1000;
const poll = (queue: string, query = "") => receive(queue, `?wait_seconds=20${query}`);

/** What a long poll asks the broker for. */
const waitFor = (queue_id: string): ReceiveRequest => ({
  queue_id,
  label: undefined,
  lease_seconds: undefined,
  limit: 1,
  wait_ms: 20_000,
  wait_ms_max: 20_000,
});

/** Starts a long poll and comes back when it waits. */
async function waiting<T>(start: () => Promise<T>): Promise<{ answer: Promise<T> }> {
  const before = broker.wakeups.size();
  const answer = start();
  await until(() => broker.wakeups.size() > before);
  return { answer };
}

describe("a receive with wait_seconds", () => {
  test("returns at once what is there, without waiting for its limit to fill", async () => {
    const queue = await createQueue(service);
    await put(queue);
    const started_ms = performance.now();
    expect(await poll(queue, "&limit=10")).toHaveLength(1);
    expect(seconds(started_ms)).toBeLessThan(2);
  });

  test("answers with nothing when its time is over", async () => {
    const queue = await createQueue(service);
    const started_ms = performance.now();
    const answer = await call("GET", `/v1/queues/${queue}/messages?wait_seconds=1&limit=7`);
    expect({ status: answer.status, body: answer.body }).toEqual({ status: 200, body: { data: [], limit: 7 } });
    expect(seconds(started_ms)).toBeWithin(0.95, 3);
    expect(broker.wakeups.size()).toBe(0);
  });

  test("waits as long as its queue says when it does not say; 0 does not wait", async () => {
    const queue = await createQueue(service, { receive_wait_seconds: 1 });
    const started_ms = performance.now();
    expect(await receive(queue)).toEqual([]);
    expect(seconds(started_ms)).toBeWithin(0.95, 3);
    const again_ms = performance.now();
    expect(await receive(queue, "?wait_seconds=0")).toEqual([]);
    expect(seconds(again_ms)).toBeLessThan(0.9);
    expect((await call("POST", "/v1/queues", { id: uniqueId(), receive_wait_seconds: 241 })).body.code).toBe(3);
  });

  test("does not wait with limit 0", async () => {
    const queue = await createQueue(service);
    const started_ms = performance.now();
    expect(await poll(queue, "&limit=0")).toEqual([]);
    expect(seconds(started_ms)).toBeLessThan(2);
  });

  test("of an unknown queue is refused at once, and of one that is deleted soon", async () => {
    const answer = await call("GET", `/v1/queues/${uniqueId()}/messages?wait_seconds=20`);
    expect(answer.body).toEqual(refused(5, "queue not found"));
    const queue = await createQueue(service);
    const path = `/v1/queues/${queue}/messages?wait_seconds=20`;
    const { answer: waited } = await waiting(() => call("GET", path));
    await call("DELETE", `/v1/queues/${queue}`);
    expect((await waited).body).toEqual(refused(5, "queue not found"));
  });
});

const anyMessage = { body: "woken" };

/** How a message comes to be ready; `prepare` before somebody waits, `cause` while he does. */
const causes: {
  name: string;
  cause: (queue: string) => Promise<unknown>;
  prepare?: (queue: string) => Promise<unknown>;
}[] = [
  { name: "a publish", cause: (queue) => put(queue, anyMessage) },
  { name: "a publish with options", cause: (queue) => put(queue, { ...anyMessage, ttl_seconds: 60 }) },
  {
    name: "a batch",
    cause: (queue) => call("POST", `/v1/queues/${queue}/messages/batch`, { messages: [anyMessage] }),
  },
  {
    name: "a nack",
    prepare: async (queue) => {
      await put(queue, anyMessage);
      await take(queue);
    },
    cause: async (queue) => {
      const [leased] = await peeked(queue, "leased");
      await nack(queue, leased ?? "");
    },
  },
  {
    name: "a release",
    prepare: async (queue) => {
      await put(queue, anyMessage);
      tokens.set(queue, (await take(queue)).lease_token);
    },
    cause: async (queue) => {
      const [leased] = await peeked(queue, "leased");
      await extend(queue, leased ?? "", 0, tokens.get(queue));
    },
  },
  {
    name: "a fan-out",
    cause: async (queue) => {
      const topic_id = uniqueId("t");
      await call("POST", "/v1/topics", { id: topic_id });
      await call("POST", "/v1/subscriptions", { id: uniqueId("s"), topic_id, queue_id: queue });
      await call("POST", `/v1/topics/${topic_id}/messages`, anyMessage);
    },
  },
  {
    name: "a redrive",
    cause: async (queue) => {
      const from = await createQueue(service);
      await put(from, anyMessage);
      await call("POST", `/v1/queues/${from}/redrive?wait=true`, { destination_queue_id: queue, limit: 1 });
    },
  },
  {
    name: "a move to the dead-letter queue",
    cause: async (queue) => {
      const from = await createQueue(service, { dead_queue_id: queue, message_max_deliveries: 1 });
      await nack(from, await put(from, anyMessage), { dead_letter: true });
    },
  },
  {
    name: "the commit of a publish by SQL",
    cause: async (queue) => {
      await service.sql`select psqlqueue.publish(${queue}, 'woken')`;
      await broker.moveOutbox();
    },
  },
  { name: "a delay that is over", cause: (queue) => put(queue, { ...anyMessage, delay_seconds: 1 }) },
  {
    name: "a delay that was over sooner than another one",
    prepare: (queue) => put(queue, { body: "later", delay_seconds: 60 }),
    cause: (queue) => put(queue, { ...anyMessage, delay_seconds: 1 }),
  },
  {
    name: "a lease that is over",
    prepare: async (queue) => {
      await put(queue, anyMessage);
      await take(queue, "?ack_deadline_seconds=1");
    },
    cause: async () => {},
  },
  {
    name: "a resume",
    prepare: async (queue) => {
      await put(queue, anyMessage);
      await call("PUT", `/v1/queues/${queue}/pause`);
    },
    cause: async (queue) => {
      expect(broker.wakeups.size()).toBe(1);
      await call("PUT", `/v1/queues/${queue}/resume`);
    },
  },
  {
    name: "a change of the time of delivery",
    prepare: (queue) => put(queue, { ...anyMessage, delay_seconds: 60 }),
    cause: async (queue) => {
      const [delayed] = await peeked(queue, "delayed");
      await call("PUT", `/v1/queues/${queue}/messages/${delayed}`, { deliver_at: "2020-01-01T00:00:00Z" });
    },
  },
];
const tokens = new Map<string, string>();
const peeked = async (queue: string, state: string): Promise<string[]> => {
  const { body } = await call("GET", `/v1/queues/${queue}/messages/peek?state=${state}`);
  return body.data.map((message: { id: string }) => message.id);
};

describe("a waiting receive is woken by", () => {
  test.each(causes.map((one) => [one.name, one] as const))("%s", async (_, { prepare, cause }) => {
    const queue = await createQueue(service, { ack_deadline_seconds: 600 });
    await prepare?.(queue);
    const { answer } = await waiting(() => bodies(queue, "?wait_seconds=20"));
    const started_ms = performance.now();
    await cause(queue);
    expect(await answer).toEqual(["woken"]);
    // At the latest the safety poll, after the second that some of them take by themselves.
    expect(seconds(started_ms)).toBeLessThan(4);
  });
});

test("a waiting receive is woken when a delay is over, not by the poll after it, though another label is ready", async () => {
  const queue = await createQueue(service, { ack_deadline_seconds: 600 });
  await put(queue, { body: "for others", label: "other" });
  const { answer } = await waiting(() => bodies(queue, "?wait_seconds=20&label=mine"));
  const started_ms = performance.now();
  await put(queue, { body: "woken", label: "mine", delay_seconds: 1 });
  const stored_ms = performance.now();
  expect(await answer).toEqual(["woken"]);
  expect(seconds(started_ms)).toBeGreaterThan(1);
  // The poll after it comes a second later.
  expect(seconds(stored_ms)).toBeLessThan(1.7);
});

describe("many waiters", () => {
  test("each gets what matches its label, however they interleave", async () => {
    const queue = await createQueue(service);
    const labels = ["a", "b", "c"];
    const answers = [];
    for (let i = 0; i < 12; i++) {
      const label = labels[i % 3] ?? "";
      answers.push((await waiting(() => poll(queue, `&limit=1&label=${label}`))).answer);
    }
    const order = ["c", "a", "c", "b", "c", "a", "b", "b", "a", "c", "a", "b"];
    for (const label of order) await put(queue, { body: "x", label });
    const got = (await Promise.all(answers)).map((messages) => messages.map(({ label }) => label));
    expect(got).toEqual(Array.from({ length: 12 }, (_, i) => [labels[i % 3] ?? ""]));
  });

  test("one without a label takes what nobody else does", async () => {
    const queue = await createQueue(service);
    const labelled = await waiting(() => poll(queue, "&label=never"));
    const open = await waiting(() => poll(queue));
    await put(queue, { body: "x", label: "other" });
    expect(await open.answer).toMatchObject([{ label: "other" }]);
    await put(queue, { body: "x", label: "never" });
    expect(await labelled.answer).toMatchObject([{ label: "never" }]);
  });

  test("are served in order of arrival, and one that was served joins the tail", async () => {
    const queue = await createQueue(service);
    const served: string[] = [];
    const join = async (name: string) => {
      const { answer } = await waiting(() => poll(queue, "&limit=1"));
      // In an object: a promise returned from here would be waited for.
      return { done: answer.then(([message]) => served.push(`${name} ${message?.body}`)) };
    };
    const first = [await join("A"), await join("B"), await join("C")];
    await put(queue, { body: "1" });
    await first[0]?.done;
    const later = [await join("A"), await join("D")];
    for (const body of ["2", "3", "4", "5"]) {
      await put(queue, { body });
      await until(() => served.length >= Number(body));
    }
    await Promise.all([...first, ...later].map(({ done }) => done));
    expect(served).toEqual(["A 1", "B 2", "C 3", "A 4", "D 5"]);
  });

  test("share a batch in order of arrival, each up to its limit", async () => {
    const queue = await createQueue(service);
    const answers = [];
    for (const limit of [2, 1, 3, 2]) {
      answers.push((await waiting(() => bodies(queue, `?wait_seconds=20&limit=${limit}`))).answer);
    }
    const messages = Array.from({ length: 7 }, (_, i) => ({ body: String(i) }));
    await call("POST", `/v1/queues/${queue}/messages/batch`, { messages });
    expect(await Promise.all(answers)).toEqual([["0", "1"], ["2"], ["3", "4", "5"], ["6"]]);
  });

  test("an aborted one leaves the line, and leases nothing", async () => {
    const queue = await createQueue(service);
    const leaving = new AbortController();
    const request = new Request(`http://localhost/v1/queues/${queue}/messages?wait_seconds=20`, {
      signal: leaving.signal,
    });
    const gone = await waiting(() => service.app.handle(request));
    const staying = await waiting(() => poll(queue));
    leaving.abort();
    await until(() => broker.wakeups.size() === 1);
    const id = await put(queue);
    expect(await staying.answer).toMatchObject([{ id, delivery_attempts: 1 }]);
    await (await gone.answer).text();
    const second = await put(queue);
    expect((await look(queue, second)).body).toMatchObject({ state: "ready", delivery_attempts: 0 });
  });

  test("one whose client leaves while its claim runs gives back what it got, uncounted", async () => {
    const queue = await createQueue(service);
    const id = await put(queue);
    const leaving = new AbortController();
    let found: unknown[] = [];
    const leavesLate: Db = {
      ...service.db,
      async run(name, statement, is_repeatable) {
        const rows = await service.db.run(name, statement, is_repeatable);
        if (name === "receive") {
          found = rows as unknown[];
          leaving.abort();
        }
        return rows;
      },
    };
    const late = createBroker(leavesLate, limits);
    expect(await late.receive({ ...waitFor(queue), signal: leaving.signal })).toEqual([]);
    expect(found).toMatchObject([{ id: null }, { id, delivery_attempts: 1 }]);
    await until(async () => (await look(queue, id)).body.delivery_attempts === 0);
    expect((await look(queue, id)).body.state).toBe("ready");
  });

  test("one that comes while the claim of another finds no queue is told of the queue that it knows", async () => {
    const id = uniqueId();
    const asked = { ...waitFor(id), wait_ms: 0 };
    const later: Promise<unknown>[] = [];
    const slow: Db = {
      ...service.db,
      async run(name, statement, is_repeatable) {
        const rows = await service.db.run(name, statement, is_repeatable);
        if (name === "receive" && later.length === 0) {
          await createQueue(service, { id });
          later.push(late.receive(asked));
        }
        return rows;
      },
    };
    const late = createBroker(slow, limits);
    expect(await late.receive(asked).catch(({ error }) => error)).toBe("queue_not_found");
    expect(await Promise.all(later)).toEqual([[]]);
  });
});

test("more waiters than allowed are told to come back; a stop answers all with nothing", async () => {
  const small = await openService({ waiters_max: 3 });
  const queue = await createQueue(small);
  const path = `/v1/queues/${queue}/messages?wait_seconds=20&limit=2`;
  const answers = Array.from({ length: 3 }, () => small.call("GET", path));
  await until(() => small.broker.wakeups.size() === 3);
  const refusal = await small.call("GET", path);
  expect(refusal.status).toBe(429);
  expect(refusal.body).toMatchObject({ code: 14, message: "too many requests" });
  expect(Number(refusal.headers.get("retry-after"))).toBeGreaterThan(0);
  // Without waiting there is room.
  expect((await small.call("GET", `/v1/queues/${queue}/messages?wait_seconds=0`)).status).toBe(200);
  small.broker.wakeups.stop();
  for (const answer of await Promise.all(answers)) {
    expect({ status: answer.status, body: answer.body }).toEqual({ status: 200, body: { data: [], limit: 2 } });
  }
  expect((await small.call("GET", path)).body).toEqual({ data: [], limit: 2 });
  expect(small.broker.wakeups.size()).toBe(0);
  await small.close();
});

test("5,000 waiters on 50 idle queues cost fewer than two queries a second, and none when they have left", async () => {
  let queries = 0;
  const counting: Db = {
    ...service.db,
    run: (name, statement, is_repeatable) => {
      queries += 1;
      return service.db.run(name, statement, is_repeatable);
    },
  };
  const counted = createBroker(counting, limits);
  const queues = await Promise.all(Array.from({ length: 50 }, () => createQueue(service)));
  const answers = Array.from({ length: 5000 }, (_, i) => counted.receive(waitFor(queues[i % 50] as string)));
  await until(() => counted.wakeups.size() === 5000);
  // Each came with a look of its own; those have ended when no query comes for a while.
  let [seen, since_ms] = [-1, 0];
  await until(() => {
    if (queries !== seen) [seen, since_ms] = [queries, performance.now()];
    return performance.now() - since_ms > 300;
  });
  const [before, started_ms] = [queries, performance.now()];
  await until(() => seconds(started_ms) > 3);
  expect((queries - before) / seconds(started_ms)).toBeLessThan(2);
  counted.wakeups.stop();
  expect((await Promise.all(answers)).flat()).toEqual([]);
  const left = queries;
  await until(() => seconds(started_ms) > 5);
  expect(queries - left).toBeLessThanOrEqual(1);
  expect((await stats(queues[0] as string)).ready).toBe(0);
  expect((await publish(queues[0] as string, { body: "x" })).status).toBe(204);
});
