// Batches of many callers that leave in one statement: each keeps its own fate.

import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { addObserver } from "../src/observe.ts";
import { createQueue, serviceForFile, uniqueId } from "./harness.ts";
import { refused, verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ receive_limit_max: 1000, lanes: 1 });
const { call } = service;
const { put, receive, stats } = verbsOf(service);

/** The statements that were sent. */
let statements: { verb: string; items: number }[] = [];
afterAll(
  addObserver((observation) => {
    if (observation.kind === "batch") statements.push(observation);
  }),
);

/** How many items each of a verb had, since this was asked last. */
function sentFor(verb: string): number[] {
  const own = statements.filter((statement) => statement.verb === verb);
  statements = statements.filter((statement) => statement.verb !== verb);
  return own.map(({ items }) => items);
}

const bodiesOf = (own: string, count = 10) => Array.from({ length: count }, (_, i) => ({ body: `${own}-${i}` }));
const publish = (queue: string, own: string, query = "", messages: object[] = bodiesOf(own)) =>
  call("POST", `/v1/queues/${queue}/messages/batch${query}`, { messages });
const many = <T>(count: number, each: (own: string) => Promise<T>) =>
  Promise.all(Array.from({ length: count }, (_, n) => each(String(n))));

test("batches that come together leave together, each in its order", async () => {
  const queues = [await createQueue(service), await createQueue(service)];
  sentFor("publish_batch");
  const answers = await many(40, (own) => publish(queues[Number(own) % 2] as string, own));
  expect(answers.map(({ status }) => status)).toEqual(Array(40).fill(201));
  const sent = sentFor("publish_batch");
  expect(sent.reduce((sum, items) => sum + items, 0)).toBe(400);
  expect(sent.length).toBeLessThan(10);
  for (const [k, queue] of queues.entries()) {
    const got = await receive(queue, "?limit=1000");
    const ids = new Map(got.map(({ id, body }) => [id, body]));
    for (const [n, answer] of answers.entries()) {
      if (n % 2 !== k) continue;
      const own = answer.body.data.map(({ id }: { id: string }) => ids.get(id));
      expect(own).toEqual(bodiesOf(String(n)).map(({ body }) => body));
    }
    expect(got.length).toBe(200);
  }
});

test("a batch to no queue, to a closed one, or with a message that its queue refuses fails nobody else's", async () => {
  const [open, closed, small, limited] = [
    await createQueue(service),
    await createQueue(service),
    await createQueue(service, { max_message_bytes: 3 }),
    await createQueue(service, { max_depth: 15 }),
  ];
  await call("PUT", `/v1/queues/${closed}/pause`, { publish: true, consume: false });
  const none = uniqueId();
  const long = [{ body: "abc" }, { body: "abcd" }, { body: "ab" }];
  // It leaves at once; the others gather behind it.
  const first = publish(open, "first");
  const [to_none, to_closed, atomic, single, ...rest] = await Promise.all([
    publish(none, "n"),
    publish(closed, "c"),
    publish(small, "s", "", long),
    publish(small, "s", "?atomic=false", long),
    publish(limited, "a"),
    publish(limited, "b"),
    publish(open, "o"),
  ]);
  expect((await first).status).toBe(201);
  expect(to_none?.body).toEqual(refused(5, "queue not found"));
  expect(to_closed?.body).toEqual(refused(17, "queue closed"));
  expect(atomic?.status).toBe(413);
  const outcomes = single?.body.data.map((item: { id?: string; error?: { code: number } }) => item.error?.code ?? "ok");
  expect(outcomes).toEqual(["ok", expect.any(Number), "ok"]);
  const [one, other, own] = rest.map(({ status }) => status);
  expect([[one, other].sort(), own]).toEqual([[201, 429], 201]);
  const depths = await Promise.all([open, closed, small, limited].map(async (queue) => (await stats(queue)).ready));
  expect(depths).toEqual([20, 0, 2, 10]);
});

test("a queue that looks at messages is sent them by the other statement from then on, also one by one", async () => {
  const queue = await createQueue(service, { content_dedup: true, dedup_window_seconds: 600 });
  expect((await publish(queue, "a")).status).toBe(201);
  for (const verb of ["publish", "publish_batch", "publish_with_options"]) sentFor(verb);
  expect((await publish(queue, "a")).body.data.every((item: { deduplicated: boolean }) => item.deduplicated)).toBe(
    true,
  );
  await put(queue, { body: "alone" });
  expect([sentFor("publish"), sentFor("publish_batch"), sentFor("publish_with_options")]).toEqual([[], [], [1]]);
  expect((await stats(queue)).ready).toBe(11);
});

test("acks, nacks and extensions of many callers leave together, and a message twice among them is ended once", async () => {
  const queue = await createQueue(service);
  await publish(queue, "x", "", bodiesOf("x", 200));
  const got = await receive(queue, "?limit=1000");
  const itemsOf = (from: number) =>
    got.slice(from * 10, from * 10 + 10).map(({ id, lease_token }) => ({ id, lease_token }));
  const settle = (verb: string, from: number, more = {}) =>
    call("POST", `/v1/queues/${queue}/${verb}`, { items: itemsOf(from), ...more });
  for (const verb of ["ack_batch", "nack_batch", "extend_batch"]) sentFor(verb);
  const statuses = (answer: { body: { results: { status: string }[] } }) => answer.body.results.map((r) => r.status);
  const extended = await many(20, (own) => settle("extend", Number(own), { ack_deadline_seconds: 60 }));
  const acked = await many(20, (own) => settle("ack", Number(own) % 10));
  const nacked = await many(10, (own) => settle("nack", 10 + Number(own)));
  for (const answer of [...extended, ...acked, ...nacked]) expect(statuses(answer)).toEqual(Array(10).fill("ok"));
  for (const verb of ["ack_batch", "nack_batch", "extend_batch"]) expect(sentFor(verb).length).toBeLessThan(6);
  expect(await stats(queue)).toMatchObject({ ready: 100, leased: 0 });
});
