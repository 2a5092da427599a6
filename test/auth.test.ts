// API keys: who may do what, over every route.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { hashSecret } from "../src/broker/manage/keys.ts";
import { needs } from "../src/http/actions.ts";
import { type AuditObservation, addObserver } from "../src/observe.ts";
import type { Action } from "../src/web/identity.ts";
import { createAuth } from "../src/web/keyCache.ts";
import { openService, type Service, uniqueId, until } from "./harness.ts";

setDefaultTimeout(90_000);

const root_key = "root-key-of-the-tests";
const plain = await openService();
const createKeys = (asked: () => Service) =>
  createAuth({
    find: (id) => asked().broker.findKey(id),
    findSigning: (id) => asked().broker.findSigningKey(id),
    hash: hashSecret,
    claim: (id, wanted) => asked().broker.claimRate(id, wanted),
    root_key,
  });
const keys = createKeys(() => owner);
const service = await openService({
  ...(plain.url !== "" && { url: plain.url }),
  auth: { keys, open: ["healthz"] },
});
service.broker.onKeyRevoked(keys.forget);
// On the embedded database, which has one server, the plain one has its own.
const owner: Service = plain.url === "" ? service : plain;
afterAll(() => Promise.all([service.close(), plain.close()]));

const bearer = (key: string) => ({ authorization: `Bearer ${key}` });
const as = (key: string) => (method: string, path: string, body?: unknown) =>
  service.call(method, path, body, bearer(key));
const asRoot = as(root_key);
const makeKey = async (given: Record<string, unknown>): Promise<string> => {
  const { body, status } = await asRoot("POST", "/v1/keys", { name: "test", ...given });
  expect(status).toBe(201);
  return body.key;
};
const keyFor = (actions: string[], only: { queues?: string[]; topics?: string[] } = {}) =>
  makeKey({ scopes: [{ actions, ...only }] });

const audits: AuditObservation[] = [];
afterAll(addObserver((one) => (one.kind === "audit" ? audits.push(one) : undefined)));

const settings = { ack_deadline_seconds: 30, message_retention_seconds: 60 };
beforeAll(async () => {
  for (const id of ["mine", "theirs"]) {
    await asRoot("POST", "/v1/queues", { id, ...settings });
    await asRoot("POST", "/v1/topics", { id });
    await asRoot("POST", "/v1/subscriptions", { id, topic_id: id, queue_id: id });
  }
});

const routes = service.app.routes.map(({ method, path }) => `${method} ${path}`);
const bodies: Record<string, unknown> = {
  "POST /v1/queues": { id: "mine", ...settings },
  "PUT /v1/queues/:queue_id": settings,
  "POST /v1/topics": { id: "mine" },
  "POST /v1/subscriptions": { id: "mine", topic_id: "mine", queue_id: "mine" },
  "POST /v1/keys": { name: "x", scopes: [{ actions: ["peek"] }] },
};
const pathOf = (path: string, id: string) =>
  path.replace(/:(queue|topic|subscription)_id/, id).replace(/:\w+_id/, "01ARZ3NDEKTSV4RRFFQ69G5FAV");

describe("every route", () => {
  test("says what it needs", () => {
    expect(routes.filter((route) => needs[route] === undefined)).toEqual([]);
    expect(Object.keys(needs).filter((route) => !routes.includes(route))).toEqual([]);
  });

  test("is closed to no key, a wrong one, one that has expired, and one that was revoked, in the same words", async () => {
    const revoked = await keyFor(["*"]);
    await asRoot("DELETE", `/v1/keys/${revoked.split("_")[1]}`);
    const soon = new Date(Date.now() + 3_600_000).toISOString();
    const expired = await makeKey({ scopes: [{ actions: ["*"] }], expires_at: soon });
    await owner.sql`update psqlqueue.api_keys set expires_at = now() where id = ${expired.split("_")[1] ?? ""}`;
    const right = await keyFor(["*"]);
    const wrong = `${right.slice(0, -1)}${right.endsWith("a") ? "b" : "a"}`;
    const headers: Record<string, string>[] = [
      {},
      { authorization: "" },
      { authorization: right },
      { authorization: `Basic ${btoa(`x:${right}`)}` },
      bearer("nonsense"),
      bearer(`pq_${"0".repeat(12)}_${"0".repeat(43)}`),
      ...[revoked, expired, wrong, `${root_key}x`].map(bearer),
    ];
    for (const route of routes.filter((one) => needs[one] !== "healthz")) {
      const [method = "", path = ""] = route.split(" ");
      for (const own of headers) {
        const answer = await service.call(method, pathOf(path, "mine"), bodies[route], own);
        const seen = { status: answer.status, code: answer.body?.code, asks: answer.headers.get("www-authenticate") };
        expect([route, own, seen]).toEqual([route, own, { status: 401, code: 15, asks: "Bearer" }]);
      }
    }
    expect((await service.call("GET", "/v1/healthz")).status).toBe(200);
    expect((await as(right)("GET", "/v1/queues/mine")).status).toBe(200);
  });

  const actions: (Action | "*")[] = ["publish", "consume", "peek", "manage", "*"];
  test.each(actions)("does what the action %s allows, to what the key is for, and nothing else", async (action) => {
    const wide = await keyFor([action]);
    const narrow = await keyFor([action], { queues: ["min*"], topics: ["mine"] });
    for (const route of routes) {
      const need = needs[route];
      if (typeof need !== "object") continue;
      const [method = "", path = ""] = route.split(" ");
      const may = action === "*" || need.action === action;
      const ask = async (key: string, id: string, body = bodies[route]) =>
        (await as(key)(method, pathOf(path, id), body)).status;
      const is_harmful = method === "DELETE" || path.includes("/keys");
      if (!may) {
        expect([route, await ask(wide, "mine")]).toEqual([route, 403]);
        expect([route, await ask(narrow, "mine")]).toEqual([route, 403]);
        continue;
      }
      if (is_harmful) continue;
      expect([route, [401, 403].includes(await ask(wide, "mine"))]).toEqual([route, false]);
      if (need.on === "all") expect([route, await ask(narrow, "mine")]).toEqual([route, 403]);
      if (!path.includes("_id")) continue;
      // The same for what is there and what is not.
      for (const id of ["theirs", "nowhere"]) expect([route, id, await ask(narrow, id)]).toEqual([route, id, 403]);
    }
  });
});

describe("a key", () => {
  test("is shown once; lists and the database hold no secret", async () => {
    const scopes = [{ actions: ["publish"], queues: ["orders*"] }];
    const { body, status } = await asRoot("POST", "/v1/keys", { name: "orders", scopes });
    expect(status).toBe(201);
    expect(body.key).toMatch(/^pq_[0-9A-Za-z]{12}_[0-9A-Za-z]{43}$/);
    expect(body).toMatchObject({ name: "orders", scopes, namespace: null, expires_at: null, last_used_at: null });
    const listed = await asRoot("GET", "/v1/keys?limit=1000");
    expect(listed.text).not.toContain(body.key.split("_")[2]);
    expect(listed.body.data.find(({ id }: { id: string }) => id === body.id)).toEqual({ ...body, key: undefined });
    const rows = await owner.sql`select to_jsonb(key)::text as row from psqlqueue.api_keys as key`;
    expect(JSON.stringify(rows)).not.toContain(body.key.split("_")[2]);
  });

  test("lists what it may see, and pages over that", async () => {
    for (let i = 0; i < 6; i++) await asRoot("POST", "/v1/queues", { id: `page-${i % 2}-${i}`, ...settings });
    const key = await keyFor(["peek"], { queues: ["page-1-*"] });
    const ids = async (query: string) =>
      (await as(key)("GET", `/v1/queues?${query}`)).body.data.map(({ id }: { id: string }) => id);
    expect(await ids("limit=2")).toEqual(["page-1-1", "page-1-3"]);
    expect(await ids("limit=2&offset=2")).toEqual(["page-1-5"]);
    expect((await as(key)("GET", "/v1/topics")).body.data).toEqual([]);
    expect((await as(key)("GET", "/v1/subscriptions")).body.data).toEqual([]);
    expect(
      (await as(await keyFor(["peek"], { queues: ["mine"], topics: ["mine"] }))("GET", "/v1/subscriptions")).body.data,
    ).toHaveLength(1);
  });

  test("of a namespace sees and makes only what begins with it", async () => {
    const key = await makeKey({ scopes: [{ actions: ["*"] }], namespace: "acme" });
    const call = as(key);
    expect((await call("POST", "/v1/queues", { id: "acme.a", ...settings })).status).toBe(201);
    for (const id of ["other", "acme", "acmes.a", "acme-a"]) {
      expect([id, (await call("POST", "/v1/queues", { id, ...settings })).status]).toEqual([id, 403]);
    }
    const { body } = await call("GET", "/v1/queues");
    expect(body.data.map(({ id }: { id: string }) => id)).toEqual(["acme.a"]);
    expect((await call("GET", "/v1/keys")).status).toBe(403);
    expect((await call("GET", "/v1/queues/mine")).status).toBe(403);
  });

  test("that names another queue needs the right to that one too", async () => {
    const call = as(await keyFor(["manage"], { queues: ["end-*"], topics: ["end-*"] }));
    const dead = { dead_queue_id: "theirs", message_max_deliveries: 3 };
    expect((await call("POST", "/v1/queues", { id: "end-a", ...settings, ...dead })).status).toBe(403);
    expect((await call("POST", "/v1/queues", { id: "end-a", ...settings })).status).toBe(201);
    expect((await call("PUT", "/v1/queues/end-a", { ...settings, ...dead })).status).toBe(403);
    await call("POST", "/v1/topics", { id: "end-t" });
    const subscribe = (topic_id: string, queue_id: string) =>
      call("POST", "/v1/subscriptions", { id: `end-${topic_id}`, topic_id, queue_id });
    expect((await subscribe("end-t", "theirs")).status).toBe(403);
    expect((await subscribe("mine", "end-a")).status).toBe(403);
    expect((await subscribe("end-t", "end-a")).status).toBe(201);
    expect((await call("POST", "/v1/queues/end-a/redrive")).status).toBe(403);
    expect((await call("POST", "/v1/queues/end-a/redrive", { destination_queue_id: "theirs" })).status).toBe(403);
    expect((await call("POST", "/v1/queues/end-a/redrive", { destination_queue_id: "end-a" })).status).not.toBe(403);
  });

  test("gives away no right that it does not have", async () => {
    const call = as(await keyFor(["manage"]));
    const make = async (actions: string[]) =>
      (await call("POST", "/v1/keys", { name: "x", scopes: [{ actions }] })).status;
    expect(await make(["manage"])).toBe(201);
    expect(await make(["*"])).toBe(403);
    expect(await make(["manage", "consume"])).toBe(403);
  });

  test("that is revoked works nowhere any more within a second", async () => {
    const other_keys = createKeys(() => owner);
    const end = await owner.broker.listenToKeys(other_keys.forget, () => other_keys.forgetAll()).catch(() => undefined);
    const key = await keyFor(["peek"]);
    expect((await as(key)("GET", "/v1/queues/mine")).status).toBe(200);
    if (end === undefined || service.url === "") {
      await asRoot("DELETE", `/v1/keys/${key.split("_")[1]}`);
    } else {
      await until(async () => (await other_keys.identify(`Bearer ${key}`)).may("peek"));
      await asRoot("DELETE", `/v1/keys/${key.split("_")[1]}`);
      const isGone = async () => {
        try {
          await other_keys.identify(`Bearer ${key}`);
          return false;
        } catch {
          return true;
        }
      };
      await until(isGone, 1000);
      await end();
    }
    expect((await as(key)("GET", "/v1/queues/mine")).status).toBe(401);
  });

  test("has its rate over all servers together, and is told when to come back", async () => {
    const rate_limit = { count: 10, per_seconds: 1, burst: 20 };
    const key = await makeKey({ scopes: [{ actions: ["peek"] }], rate_limit });
    const other = createKeys(() => owner);
    const started_ms = performance.now();
    let allowed = 0;
    let refused = 0;
    while (performance.now() - started_ms < 2000) {
      for (const server of [keys, other]) {
        try {
          await server.identify(`Bearer ${key}`);
          allowed += 1;
        } catch (error) {
          expect(error).toMatchObject({ error: "too_many_requests", retry_after_seconds: 1 });
          refused += 1;
        }
      }
      await Bun.sleep(5);
    }
    const expected = 20 + (10 * (performance.now() - started_ms)) / 1000;
    expect(allowed).toBeWithin(Math.floor(expected * 0.9) - 1, Math.ceil(expected * 1.1) + 1);
    expect(refused).toBeGreaterThan(10);
    const answer = await as(key)("GET", "/v1/queues/mine");
    if (answer.status === 429) expect(answer.headers.get("retry-after")).toBe("1");
  });

  test("is noted when it is used, to the minute", async () => {
    const key = await keyFor(["peek"]);
    await as(key)("GET", "/v1/queues/mine");
    await owner.broker.touchKeys(keys.takeUsed());
    const { body } = await asRoot("GET", "/v1/keys?limit=1000");
    const found = body.data.find(({ id }: { id: string }) => id === key.split("_")[1]);
    expect(found.last_used_at).toMatch(/:00\.000000Z$/);
  });

  test("is refused with what is wrong with it", async () => {
    const make = async (given: unknown) => (await asRoot("POST", "/v1/keys", given)).body.details;
    expect(await make({ name: "x" })).toBe("scopes: cannot be blank.");
    expect(await make({ name: "x", scopes: [{ actions: ["fly"] }] })).toContain("scopes[0].actions[0]: must be one of");
    const odd = { actions: ["peek"], queues: ["a b"] };
    expect(await make({ name: "x", scopes: [odd] })).toBe("scopes[0].queues[0]: must be in a valid format.");
    expect((await asRoot("DELETE", "/v1/keys/unknown")).body.code).toBe(25);
  });
});

test("what is changed and what is refused is told, with whose key it was", async () => {
  audits.length = 0;
  const queue = uniqueId();
  await asRoot("POST", "/v1/queues", { id: queue, ...settings });
  const key = await keyFor(["peek"]);
  await as(key)("GET", `/v1/queues/${queue}`);
  await as(key)("PUT", `/v1/queues/${queue}/purge`);
  await asRoot("PUT", `/v1/queues/${queue}/purge`);
  const seen = audits.map(({ key_id, action, target, status }) => ({ key_id, action, target, status }));
  expect(seen.slice(2)).toEqual([
    { key_id: key.split("_")[1] ?? "", action: "manage", target: `PUT /v1/queues/${queue}/purge`, status: 403 },
    { key_id: "root", action: "manage", target: `PUT /v1/queues/${queue}/purge`, status: 204 },
  ]);
  expect(JSON.stringify(audits)).not.toContain(key);
});

test("a check of a key that was seen costs microseconds", async () => {
  const key = await keyFor(["publish"], { queues: ["orders*"] });
  await keys.identify(`Bearer ${key}`);
  const authorization = `Bearer ${key}`;
  const rounds = 200_000;
  const used = process.cpuUsage();
  for (let i = 0; i < rounds; i++) {
    const identity = keys.identify(authorization);
    if (identity instanceof Promise || !identity.may("publish", "queue", "orders-1")) throw new Error("not at once");
  }
  const { user, system } = process.cpuUsage(used);
  expect((user + system) / rounds).toBeLessThan(4);
});

describe.each(["forget", "forgetAll"] as const)("a revocation, told by %s", (way) => {
  test("counts also for what was read before it and arrives after it", async () => {
    const id = "a".repeat(12);
    const secret = "b".repeat(43);
    const rights = { id, scopes: [{ actions: ["*"] }], namespace: null, rate_limit: null };
    const key = { ...rights, secret_hash: hashSecret(secret), is_expired: false, expires_in_ms: null };
    let stored: (typeof key & { secret: string }) | undefined;
    let arrival = Promise.withResolvers<void>();
    const find = async () => {
      const read = stored;
      await arrival.promise;
      return read;
    };
    const late = createAuth({ find, findSigning: find, hash: hashSecret, claim: async () => 1, root_key });
    const identify = async () => await late.identify(`Bearer pq_${id}_${secret}`);
    // Who was let in while it was revoked is no fault; who comes later is.
    for (const ask of [identify, () => late.findSigner(id)]) {
      stored = { ...key, secret };
      arrival = Promise.withResolvers();
      const during = ask();
      stored = undefined;
      if (way === "forget") late.forget(id);
      else late.forgetAll();
      arrival.resolve();
      await during;
      expect(await ask().catch((error) => error.error)).toBeOneOf([undefined, "unauthorized"]);
    }
  });
});
