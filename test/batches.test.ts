import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createQueue, serviceForFile, uniqueId } from "./harness.ts";
import { type Delivered, refused, verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ receive_limit_max: 1000 });
const { call, elapse } = service;
const { put, receive, take, ack, look, bodies, stats, secondsUntil } = verbsOf(service);

const invalid = (details: string) => refused(3, "request validation failed", details);
const unknown_id = "01JZZZZZZZZZZZZZZZZZZZZZZZ";
const numbered = (count: number) => Array.from({ length: count }, (_, i) => ({ body: String(i) }));

describe("a batch of publishes", () => {
  const batch = (queue: string, body: unknown, query = "") =>
    call("POST", `/v1/queues/${queue}/messages/batch${query}`, body);

  test("is stored in the order of the list, with every member of a single publish", async () => {
    const queue = await createQueue(service);
    const answer = await batch(queue, { messages: numbered(1000) });
    expect(answer.status).toBe(201);
    expect(answer.body.data).toHaveLength(1000);
    const got = await receive(queue, "?limit=1000");
    expect(got.map(({ body }) => body)).toEqual(numbered(1000).map(({ body }) => body));
    expect(answer.body).toEqual({ data: got.map(({ id }) => ({ id, deduplicated: false })) });

    const full = { body: "b", label: "l", attributes: { k: "v" }, delay_seconds: 60, ttl_seconds: 600 };
    const [{ id }] = (await batch(queue, { messages: [full] })).body.data;
    const { body } = await look(queue, id);
    expect(body).toMatchObject({ body: "b", label: "l", attributes: { k: "v" }, state: "delayed" });
    expect(await secondsUntil(body.visible_at)).toBeWithin(55, 60.01);
    expect(await secondsUntil(body.expires_at)).toBeWithin(595, 600.01);
  });

  test("has 1 to 1000 items", async () => {
    const queue = await createQueue(service);
    const blank = invalid("messages: cannot be blank.");
    for (const body of [{}, { messages: [] }, { messages: null }])
      expect((await batch(queue, body)).body).toEqual(blank);
    expect((await batch(queue, { messages: numbered(1001) })).body).toEqual(
      invalid("messages: the length must be no more than 1000."),
    );
    for (const messages of ["x", {}, [1], [null], [{ body: 1 }]]) {
      expect((await batch(queue, { messages })).body).toEqual(refused(2, "malformed request body"));
    }
    expect((await batch(uniqueId(), { messages: numbered(2) })).body).toEqual(refused(5, "queue not found"));
    expect((await batch(queue, { messages: numbered(1) }, "?atomic=x")).body).toEqual(
      invalid("atomic: must be in a valid format."),
    );
    expect((await stats(queue)).ready).toBe(0);
  });

  const broken = [
    { body: "fine" },
    { body: "x", deliver_at: "2999-01-01T00:00:00Z", delay_seconds: 1 },
    { body: "", label: "x".repeat(256) },
    ...numbered(8),
    { body: "x", ttl_seconds: 0 },
  ];

  test("fails whole for one bad item; each problem by its index, then its name", async () => {
    const queue = await createQueue(service);
    const answer = await batch(queue, { messages: broken });
    expect(answer.status).toBe(400);
    expect(answer.body).toEqual(
      invalid(
        "messages[2].body: cannot be blank; messages[2].label: the length must be no more than 255; " +
          "messages[11].ttl_seconds: must be no less than 1.",
      ),
    );
    const rules = await batch(queue, { messages: broken.slice(0, 2) });
    expect(rules.body).toEqual(invalid("messages[1].delay_seconds: must not be given together with deliver_at."));
    expect(await receive(queue)).toEqual([]);
  });

  test("with atomic=false stores what can be, and says of the others why not", async () => {
    const queue = await createQueue(service);
    const answer = await batch(queue, { messages: broken }, "?atomic=false");
    expect(answer.status).toBe(200);
    const got = await receive(queue, "?limit=100");
    expect(got.map(({ body }) => body)).toEqual(["fine", ...numbered(8).map(({ body }) => body)]);
    const stored = got.map(({ id }) => ({ id, deduplicated: false }));
    expect(answer.body.data).toEqual([
      stored[0],
      { error: invalid("delay_seconds: must not be given together with deliver_at.") },
      { error: invalid("body: cannot be blank; label: the length must be no more than 255.") },
      ...stored.slice(1),
      { error: invalid("ttl_seconds: must be no less than 1.") },
    ]);
    const malformed = { error: refused(2, "malformed request body") };
    const wrong = await batch(queue, { messages: [{ body: 1 }, 7, { body: "y" }] }, "?atomic=false");
    expect(wrong.body.data).toEqual([malformed, malformed, { id: (await take(queue)).id, deduplicated: false }]);
    const none = await batch(queue, { messages: [{ body: "" }] }, "?atomic=false");
    expect({ status: none.status, body: none.body }).toEqual({
      status: 200,
      body: { data: [{ error: invalid("body: cannot be blank.") }] },
    });
    expect((await batch(queue, { messages: [] }, "?atomic=false")).body.details).toBe("messages: cannot be blank.");
  });

  test("to a topic is one transaction: every copy of every item, in order, or none", async () => {
    const [all, some] = [await createQueue(service), await createQueue(service)];
    const topic = uniqueId("t");
    const path = `/v1/topics/${topic}/messages/batch`;
    const messages = numbered(50).map((one, i) => ({ ...one, attributes: { even: String(i % 2 === 0) } }));
    expect((await call("POST", path, { messages })).body).toEqual(refused(8, "topic not found"));
    await call("POST", "/v1/topics", { id: topic });
    const subscribe = (queue_id: string, message_filters?: unknown) =>
      call("POST", "/v1/subscriptions", { id: uniqueId("s"), topic_id: topic, queue_id, message_filters });
    await subscribe(all);
    await subscribe(some, { even: ["true"] });
    const answer = await call("POST", path, { messages });
    expect(answer.status).toBe(201);
    expect(answer.body).toEqual({ data: messages.map((_, i) => ({ delivered_queues: i % 2 === 0 ? 2 : 1 })) });
    expect(await bodies(all, "?limit=100")).toEqual(messages.map(({ body }) => body));
    expect(await bodies(some, "?limit=100")).toEqual(messages.flatMap(({ body }, i) => (i % 2 === 0 ? [body] : [])));

    // One item goes to a closed queue: nothing is stored, of the others neither.
    await call("PUT", `/v1/queues/${some}/pause`, { publish: true, consume: false });
    const refusal = await call("POST", path, { messages: messages.slice(1, 3) });
    expect({ status: refusal.status, body: refusal.body }).toEqual({ status: 409, body: refused(17, "queue closed") });
    expect(await receive(all)).toEqual([]);
    expect((await call("POST", path, { messages: [messages[1]] })).status).toBe(201);
    expect(await bodies(all)).toEqual([messages[1]?.body ?? ""]);

    // Each for itself: what can be stored is, the others say why not.
    const each = await call("POST", `${path}?atomic=false`, { messages: [messages[1], messages[2], { body: "" }] });
    expect({ status: each.status, body: each.body }).toEqual({
      status: 200,
      body: {
        data: [
          { delivered_queues: 1 },
          { error: refused(17, "queue closed") },
          { error: invalid("body: cannot be blank.") },
        ],
      },
    });
    expect(await bodies(all)).toEqual([messages[1]?.body ?? ""]);
    expect((await call("POST", `/v1/topics/nobody/messages/batch?atomic=false`, { messages })).body.code).toBe(8);
    expect((await call("POST", path, { messages: [{ body: "a" }, { body: "" }] })).body).toEqual(
      invalid("messages[1].body: cannot be blank."),
    );
  });

  test("a closed queue refuses a batch as a whole", async () => {
    const queue = await createQueue(service);
    await call("PUT", `/v1/queues/${queue}/pause`, { publish: true, consume: false });
    for (const query of ["", "?atomic=false"]) {
      expect((await batch(queue, { messages: numbered(2) }, query)).body).toEqual(refused(17, "queue closed"));
    }
    expect(await receive(queue)).toEqual([]);
  });
});

type Item = { id: string; lease_token?: string; [member: string]: unknown };
const settle = (queue: string, verb: string, items: unknown, beside: Record<string, unknown> = {}) =>
  call("POST", `/v1/queues/${queue}/${verb}`, { items, ...beside });
const statuses = async (queue: string, verb: string, items: Item[], beside?: Record<string, unknown>) => {
  const answer = await settle(queue, verb, items, beside);
  expect(answer.status).toBe(200);
  // One result per item, in order.
  expect(answer.body.results.map(({ id }: Item) => id)).toEqual(items.map(({ id }) => id));
  return answer.body.results.map(({ status }: { status: string }) => status);
};

async function taken(count: number, settings: Record<string, unknown> = {}) {
  const queue = await createQueue(service, settings);
  await call("POST", `/v1/queues/${queue}/messages/batch`, { messages: numbered(count) });
  return { queue, messages: await receive(queue, "?limit=1000") };
}

const keyed = ({ id, lease_token }: Delivered): Item => ({ id, lease_token });

describe.each(["ack", "nack", "extend"])("a batch of %ss", (verb) => {
  const beside = verb === "extend" ? { ack_deadline_seconds: 20 } : {};

  test("answers for each item alone, whatever the others are", async () => {
    const { queue, messages } = await taken(4);
    const [a, b, c, d] = messages.map(keyed) as [Item, Item, Item, Item];
    const items = [
      a,
      { ...b, lease_token: "1" },
      { id: unknown_id, lease_token: "1" },
      { ...c, lease_token: "nonsense" },
      d,
    ];
    expect(await statuses(queue, verb, items, beside)).toEqual(["ok", "lease_lost", "not_found", "lease_lost", "ok"]);
    const state = { ack: "acked", nack: "ready", extend: "leased" }[verb] ?? "";
    const seen = await Promise.all([a, b, c, d].map(async ({ id }) => (await look(queue, id)).body.state));
    expect(seen).toEqual([state, "leased", "leased", state]);
  });

  test("works an id once, with its first appearance, and repeats the result", async () => {
    const { queue, messages } = await taken(2);
    const [a, b] = messages.map(keyed) as [Item, Item];
    const lost = { ...b, lease_token: "1" };
    expect(await statuses(queue, verb, [a, lost, { ...a, lease_token: "1" }, b, a], beside)).toEqual([
      "ok",
      "lease_lost",
      "ok",
      "lease_lost",
      "ok",
    ]);
  });

  test("takes 1000 items in one go, and refuses what is no list of them", async () => {
    const { queue, messages } = await taken(1000);
    expect(new Set(await statuses(queue, verb, messages.map(keyed), beside))).toEqual(new Set(["ok"]));
    const ask = async (items: unknown) => (await settle(queue, verb, items, beside)).body;
    expect(await ask([])).toEqual(invalid("items: cannot be blank."));
    expect(await ask(undefined)).toEqual(invalid("items: cannot be blank."));
    expect(await ask([...messages.map(keyed), { id: unknown_id }])).toEqual(
      invalid("items: the length must be no more than 1000."),
    );
    expect(await ask([{ id: "a" }, {}, { id: "" }, { id: "a b" }])).toEqual(
      invalid("items[1].id: cannot be blank; items[2].id: cannot be blank; items[3].id: must be in a valid format."),
    );
    expect(await ask([{ id: 1 }])).toEqual(refused(2, "malformed request body"));
    expect((await settle(uniqueId(), verb, [{ id: "a" }], beside)).body).toEqual(refused(5, "queue not found"));
  });

  test("of another queue's messages finds none", async () => {
    const { messages } = await taken(1);
    const other = await createQueue(service);
    expect(await statuses(other, verb, messages.map(keyed), beside)).toEqual(["not_found"]);
  });
});

describe("the members of the items", () => {
  test("ack: a repeat is a success, without a token too", async () => {
    const { queue, messages } = await taken(3);
    const [a, b, c] = messages.map(keyed) as [Item, Item, Item];
    await ack(queue, a.id, a.lease_token);
    expect(await statuses(queue, "ack", [a, { id: b.id }, c])).toEqual(["ok", "ok", "ok"]);
    expect(await statuses(queue, "ack", [a, b, c, { id: b.id }])).toEqual(["ok", "lease_lost", "ok", "lease_lost"]);
  });

  test("nack: beside the list for all, in an item for it alone", async () => {
    const dead_queue_id = await createQueue(service);
    const { queue, messages } = await taken(4, { dead_queue_id, message_max_deliveries: 9 });
    const [a, b, c, d] = messages.map(keyed) as [Item, Item, Item, Item];
    const items = [
      a,
      { ...b, visibility_timeout_seconds: 0 },
      { ...c, error: "own" },
      { ...d, dead_letter: true, visibility_timeout_seconds: 70 },
    ];
    const beside = { visibility_timeout_seconds: 60, error: "common" };
    expect(await statuses(queue, "nack", items, beside)).toEqual(["ok", "ok", "ok", "ok"]);
    const seen = await Promise.all([a, b, c].map(async ({ id }) => (await look(queue, id)).body));
    expect(seen.map(({ state, last_error }) => ({ state, last_error }))).toEqual([
      { state: "backing_off", last_error: "common" },
      { state: "ready", last_error: "common" },
      { state: "backing_off", last_error: "own" },
    ]);
    expect(await secondsUntil(seen[0].visible_at)).toBeWithin(55, 60.01);
    expect((await take(dead_queue_id)).dead).toMatchObject({ reason: "rejected", error: "common" });
    const rejected = await statuses(queue, "nack", [a], { dead_letter: true });
    expect(rejected).toEqual(["lease_lost"]);
    expect((await settle(queue, "nack", [{ id: "a", visibility_timeout_seconds: 43_201 }])).body).toEqual(
      invalid("items[0].visibility_timeout_seconds: must be no greater than 43200."),
    );
  });

  test("extend: seconds are needed, in the item or beside the list", async () => {
    const { queue, messages } = await taken(3);
    const [a, b, c] = messages.map(keyed) as [Item, Item, Item];
    const items = [a, { ...b, ack_deadline_seconds: 0 }, { ...c, ack_deadline_seconds: 500 }];
    expect(await statuses(queue, "extend", items, { ack_deadline_seconds: 100 })).toEqual(["ok", "ok", "ok"]);
    expect((await look(queue, b.id)).body.state).toBe("ready");
    expect(await secondsUntil((await look(queue, a.id)).body.lease_expires_at)).toBeWithin(95, 100.01);
    expect(await secondsUntil((await look(queue, c.id)).body.lease_expires_at)).toBeWithin(495, 500.01);
    expect((await settle(queue, "extend", [a, { ...c, ack_deadline_seconds: 5 }])).body).toEqual(
      invalid("items[0].ack_deadline_seconds: cannot be blank."),
    );
    await elapse(600);
    expect(await statuses(queue, "extend", [a], { ack_deadline_seconds: 100 })).toEqual(["ok"]);
  });

  test("two batches of the same messages at once: one of them wins each", async () => {
    const { queue, messages } = await taken(200);
    const items = messages.map(keyed);
    const [acks, nacks] = await Promise.all([
      statuses(queue, "ack", items),
      statuses(queue, "nack", items.toReversed(), { visibility_timeout_seconds: 0 }),
    ]);
    const pairs = items.map((_, i) => [acks[i], nacks[items.length - 1 - i]].sort().join());
    expect(new Set(pairs)).toEqual(new Set(["lease_lost,ok"]));
    expect((await stats(queue)).ready).toBe(nacks.filter((status: string) => status === "ok").length);
    await put(queue);
  });
});
