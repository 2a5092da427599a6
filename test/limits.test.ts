import { heapStats } from "bun:jsc";
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createQueue, is_embedded, openService, serviceForFile } from "./harness.ts";
import { verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

// Everything that clients can make grow has a limit, in count and in bytes.

const service = await serviceForFile({ receive_limit_max: 1000, answer_bytes_max: 1000 });
const { call, broker } = service;
const { put, bodies, receive, stats } = verbsOf(service);
const of = (bytes: number) => ({ body: "x".repeat(bytes) });
const lengths = async (queue: string, query = "?limit=10") => (await bodies(queue, query)).map((body) => body.length);

describe("a receive is bounded in bytes", () => {
  test("and returns fewer messages, in order, each of them once", async () => {
    const queue = await createQueue(service);
    for (const bytes of [400, 500, 300, 900, 100]) await put(queue, of(bytes));
    expect(await lengths(queue)).toEqual([400, 500]);
    expect(await stats(queue)).toMatchObject({ leased: 2, ready: 3 });
    expect([await lengths(queue), await lengths(queue), await lengths(queue)]).toEqual([[300], [900, 100], []]);
  });

  test("and returns one message at least, however large it is", async () => {
    const queue = await createQueue(service);
    for (const bytes of [10, 5000, 6_000_000, 20]) await put(queue, of(bytes));
    expect([await lengths(queue), await lengths(queue), await lengths(queue)]).toEqual([[10], [5000], [6_000_000]]);
    expect(await stats(queue)).toMatchObject({ leased: 3, ready: 1 });
  });

  test("counts attributes", async () => {
    const queue = await createQueue(service);
    for (let i = 0; i < 3; i++) await put(queue, { body: "x", attributes: { a: "y".repeat(600) } });
    expect([await lengths(queue), await lengths(queue)]).toEqual([[1], [1]]);
  });

  test("for each of many consumers: what is leased is delivered", async () => {
    const queue = await createQueue(service);
    for (let i = 0; i < 12; i++) await put(queue, of(400));
    const received = await Promise.all(Array.from({ length: 6 }, () => lengths(queue)));
    expect(received).toEqual(new Array(6).fill([400, 400]));
    expect(await stats(queue)).toMatchObject({ leased: 12, ready: 0 });
  });

  test("and a consumer that waits is served when others have read theirs", async () => {
    const tight = await openService({ answers_bytes_max: 6_000_000, receive_limit_max: 10 });
    try {
      const queue = await createQueue(tight);
      const verbs = verbsOf(tight);
      // Large enough to be written in chunks: a smaller answer is handed over whole, and holds nothing.
      for (let i = 0; i < 3; i++) await verbs.put(queue, of(9_000_000));
      const get = () => tight.app.handle(new Request(`http://localhost/v1/queues/${queue}/messages?wait_seconds=5`));
      const [first, second] = [await get(), await get()];
      const third = get();
      expect(await verbs.stats(queue)).toMatchObject({ leased: 2, ready: 1 });
      for (const answer of [Promise.resolve(first), Promise.resolve(second), third]) {
        expect(((await (await answer).json()) as { data: unknown[] }).data).toHaveLength(1);
      }
    } finally {
      await tight.close();
    }
  });
});

test("bodies that wait for the database are bounded together: what finds no room is refused", async () => {
  const tight = await openService({ waiting_bytes_max: 100_000 });
  try {
    const queue = await createQueue(tight);
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => tight.call("POST", `/v1/queues/${queue}/messages`, of(50_000))),
    );
    const refused = answers.filter(({ status }) => status === 503);
    expect(refused.length).toBeGreaterThan(0);
    expect(refused[0]?.body).toMatchObject({ code: 19 });
    const { ready } = await verbsOf(tight).stats(queue);
    expect(ready).toBe(answers.length - refused.length);
    expect((await tight.call("POST", `/v1/queues/${queue}/messages`, of(50_000))).status).toBe(204);
  } finally {
    await tight.close();
  }
});

test("a receive of nothing does not use up the scan that finds what was committed late", async () => {
  const queue = await createQueue(service);
  expect(await receive(queue, "?limit=0")).toEqual([]);
  expect((await call("GET", "/v1/queues/unknown/messages?limit=0")).body.code).toBe(5);
});

// Of the process, whatever its database.
test.if(!is_embedded)(
  "filters that clients make up leave nothing behind",
  async () => {
    const queue = await createQueue(service);
    const from = { queue_id: queue, wait_ms_max: 0, wait_ms: 0, limit: 1 };
    const ask = async (count: number) => {
      for (let done = 0; done < count; done += 100) {
        await Promise.all(
          Array.from({ length: 100 }, (_, i) =>
            broker.receive({ ...from, label: crypto.randomUUID(), lease_seconds: (done + i) % 43_000 }),
          ),
        );
      }
      Bun.gc(true);
      return heapStats().objectCount;
    };
    const before = await ask(3000);
    const after = await ask(20_000);
    // One object that stays for each filter would be 20,000. How much memory the process keeps is the runtime's matter.
    expect(after - before).toBeLessThan(5000);
  },
  120_000,
);
