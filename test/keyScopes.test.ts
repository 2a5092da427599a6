// What the scopes of a key mean, how they are read, and how far they reach.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createIdentity } from "../src/web/identity.ts";
import { bearer, openSecured, settings } from "./secured.ts";

setDefaultTimeout(60_000);

const { ask, keyOf, queueOf, sql } = await openSecured();
const identityFor = (queues: string[]) =>
  createIdentity({ id: "x", namespace: null, scopes: [{ actions: ["publish"], queues }] });

/** What a regular expression says, which is slow for a few patterns, and right. */
const slowly = (pattern: string, id: string) =>
  new RegExp(`^${pattern.replaceAll(".", "\\.").replaceAll("*", ".*")}$`).test(id);

describe("patterns", () => {
  test("mean what they say", () => {
    const identity = identityFor(["a.b", "x*y", "*-end"]);
    const ids = ["a.b", "aXb", "xy", "x.1.y", "xyz", "q-end", "-end", "end", "axy"];
    expect(ids.filter((id) => identity.may("publish", "queue", id))).toEqual(["a.b", "xy", "x.1.y", "q-end", "-end"]);
    expect(identity.may("publish", "topic", "a.b")).toBe(false);
    expect(identity.may("consume", "queue", "a.b")).toBe(false);
  });

  test("mean the same in a path and in a list, whatever stands between their stars", async () => {
    const patterns = ["a*a", "a*b*a", "*a*b*", "**", "a**a", "ab*ab", "*aba*aba*", "_*", "a_b*", "*.*", "", "aba"];
    const ids = [
      "a",
      "aa",
      "aba",
      "ab",
      "abab",
      "abba",
      "ababa",
      "abaaba",
      "abababa",
      "a_b",
      "a.b",
      "axb",
      "a-b",
      "_a",
    ];
    const prefix = "pat.";
    for (const id of ids) {
      expect((await ask("POST", "/v1/queues", { id: prefix + id, ...settings })).status).toBe(201);
    }
    for (const pattern of patterns) {
      const own = prefix + pattern;
      const expected = ids.map((id) => prefix + id).filter((id) => slowly(own, id));
      expect([
        own,
        ids.map((id) => prefix + id).filter((id) => identityFor([own]).may("publish", "queue", id)),
      ]).toEqual([own, expected]);
      const listed = await ask(
        "GET",
        "/v1/queues?limit=100",
        undefined,
        bearer(await keyOf(["peek"], { queues: [own] })),
      );
      expect([own, listed.body.data.map(({ id }: { id: string }) => id).sort()]).toEqual([own, expected.sort()]);
    }
  });

  test.each([
    ["team-*-*-*-dlq", `team-${"-".repeat(4000)}`],
    [`${"*a".repeat(8)}*b`, "a".repeat(60)],
    [`${"*a".repeat(120)}*b`, "a".repeat(255)],
    [`${"*ab".repeat(80)}*b*`, "ab".repeat(2000)],
  ])("of many stars are compared at once with any id: %s", async (pattern, id) => {
    const key = bearer(await keyOf(["publish", "peek"], { queues: [pattern] }));
    const started_ms = performance.now();
    expect((await ask("POST", `/v1/queues/${id}/messages`, { body: "x" }, key)).status).toBe(403);
    expect((await ask("GET", "/v1/queues", undefined, key)).body.data).toEqual([]);
    expect(performance.now() - started_ms).toBeLessThan(1500);
  });

  test("of a hundred, many stars each, are compared at once with all queues of a list", async () => {
    const long = `${"a".repeat(240)}.`;
    for (let i = 0; i < 20; i++) await queueOf({ id: `${long}${i}` });
    const queues = Array.from({ length: 100 }, (_, i) => `${"*a".repeat(110)}*b${i}`);
    const key = bearer(await keyOf(["peek"], { queues: [...queues.slice(1), `${long}7`] }));
    const started_ms = performance.now();
    const { body } = await ask("GET", "/v1/queues", undefined, key);
    expect(body.data.map(({ id }: { id: string }) => id)).toEqual([`${long}7`]);
    expect(performance.now() - started_ms).toBeLessThan(1500);
  });
});

describe("a key is refused, and what is wrong with it is told,", () => {
  const rate_limit = { count: 1, per_seconds: 1, burst: 1 };
  test.each([
    [{ scopes: [{ actions: ["publish"], queue: ["orders*"] }] }, "scopes[0].queue: is unknown, queues may be meant."],
    [
      { scopes: [{ actions: ["publish"], resources: ["orders*"] }] },
      "scopes[0].resources: is unknown, there are actions, queues, topics.",
    ],
    [{ scopes: [{ actions: ["publish"], queue: null }] }, "scopes[0].queue: is unknown, queues may be meant."],
    [{ scopes: [{ actions: ["publish"], queues: null }] }, "scopes[0].queues: must not be null."],
    [
      { scopes: [{ actions: ["publish"] }, { actions: ["peek"], queues: null, topics: null }] },
      "scopes[1].queues: must not be null; scopes[1].topics: must not be null.",
    ],
    [{ namspace: "acme" }, "namspace: is unknown, namespace may be meant."],
    [{ expire_at: "2050-01-01T00:00:00Z" }, "expire_at: is unknown, expires_at may be meant."],
    [{ rate_limit: { ...rate_limit, bursts: 5 } }, "rate_limit.bursts: is unknown, burst may be meant."],
    [{ rate_limit: { ...rate_limit, burst: null } }, "rate_limit.burst: must not be null."],
  ])("%j", async (given, details) => {
    const answer = await ask("POST", "/v1/keys", { name: "x", scopes: [{ actions: ["peek"] }], ...given });
    expect([answer.status, answer.body.code, answer.body.details]).toEqual([400, 3, details]);
  });

  test("and not when it has what another is shown with", async () => {
    const given = { name: "one", scopes: [{ actions: ["peek"], queues: ["a*"] }] };
    const { key: _, ...shown } = (await ask("POST", "/v1/keys", given)).body;
    const { status, body } = await ask("POST", "/v1/keys", shown);
    expect([status, body]).toEqual([201, { ...shown, id: body.id, created_at: body.created_at, key: body.key }]);
    expect(body.id).not.toBe(shown.id);
  });
});

test("what was stored of a scope once and is not known is not shown as if it held", async () => {
  const { id } = (await ask("POST", "/v1/keys", { name: "old", scopes: [{ actions: ["publish"] }] })).body;
  const stored = [{ actions: ["publish"], queue: ["orders*"] }];
  await sql`update psqlqueue.api_keys set scopes = ${JSON.stringify(stored)}::text::jsonb where id = ${id}`;
  const { data } = (await ask("GET", "/v1/keys?limit=1000")).body;
  expect(data.find((key: { id: string }) => key.id === id).scopes).toEqual([{ actions: ["publish"] }]);
});

test("a key of a namespace makes no subscription of another name, and is told the same whether there is one", async () => {
  const own = bearer(await keyOf(["*"], {}, { namespace: "acme" }));
  for (const id of ["acme.sub", "acme.other"]) {
    expect((await ask("POST", "/v1/queues", { id, ...settings }, own)).status).toBe(201);
    expect((await ask("POST", "/v1/topics", { id }, own)).status).toBe(201);
  }
  const queue_id = await queueOf();
  const topic_id = `t-${queue_id}`;
  await ask("POST", "/v1/topics", { id: topic_id });
  expect((await ask("POST", "/v1/subscriptions", { id: "foreign", topic_id, queue_id })).status).toBe(201);
  const subscribe = (id: string, to = "acme.sub") =>
    ask("POST", "/v1/subscriptions", { id, topic_id: to, queue_id: to }, own);
  const refused = await subscribe("foreign");
  expect([refused.status, refused.body.code]).toEqual([403, 16]);
  for (const id of ["nowhere", "acme", "acmes.sub"]) {
    const { status, body } = await subscribe(id);
    expect([id, status, body]).toEqual([id, 403, refused.body]);
  }
  expect((await subscribe("acme.sub")).status).toBe(201);
  expect((await subscribe("acme.sub", "acme.other")).body.code).toBe(9);
});

test("a dead-letter queue is deleted with the right to those only that lose it by that", async () => {
  const queues = ["cut-dead", "cut-source", "cut.foreign"];
  const dead = { dead_queue_id: "cut-dead", message_max_deliveries: 3 };
  for (const id of queues) await queueOf({ id, ...(id !== "cut-dead" && dead) });
  const own = bearer(await keyOf(["manage"], { queues: ["cut-*"] }));
  const deadQueueOf = async (id: string) => (await ask("GET", `/v1/queues/${id}`)).body.dead_queue_id;
  expect((await ask("DELETE", "/v1/queues/cut-dead", undefined, own)).status).toBe(409);
  expect((await ask("DELETE", "/v1/queues/cut-dead?force=true", undefined, own)).status).toBe(403);
  expect([await deadQueueOf("cut-source"), await deadQueueOf("cut.foreign")]).toEqual(["cut-dead", "cut-dead"]);
  await ask("DELETE", "/v1/queues/cut.foreign");
  expect((await ask("DELETE", "/v1/queues/cut-dead?force=true", undefined, own)).status).toBe(204);
  expect(await deadQueueOf("cut-source")).toBe(null);
  expect((await ask("DELETE", "/v1/queues/cut-dead?force=true", undefined, own)).status).toBe(404);
});
