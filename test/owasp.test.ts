// The OWASP API Security Top 10 (2023), a part for each risk: what the server does about it, seen over HTTP. The first
// six are here, the others in owaspSurface.test.ts; docs/security.md says how each control is switched on. Where one of
// the other files proves the same in full, a comment names it.

import { beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { bearer, openSecured, root_key, settings } from "./secured.ts";
import { callSqs } from "./sqs.ts";
import { chunked, exchange, request } from "./wire.ts";

setDefaultTimeout(90_000);

const body_bytes_max = 65_536;
const { server, origin, sql, logged, ask, queueOf, keyOf, put, receive } = await openSecured({
  PSQLQUEUE_MAX_BODY_BYTES: String(body_bytes_max),
  PSQLQUEUE_MAX_WAITERS: "2",
  PSQLQUEUE_SERVER_READ_HEADER_TIMEOUT_SECONDS: "1",
});

/** Every operation of the document: what a client can find. */
let operations: { method: string; path: string }[] = [];
beforeAll(async () => {
  const { body } = await ask("GET", "/v1/swagger/doc.json");
  operations = Object.entries(body.paths as Record<string, object>).flatMap(([path, own]) =>
    Object.keys(own).map((method) => ({
      method: method.toUpperCase(),
      path: path.startsWith("/v1") ? path : `/v1${path}`,
    })),
  );
  expect(operations.length).toBeGreaterThan(40);
});
const some_id = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
const pathOf = (path: string, id: string) =>
  path.replace(/\{(queue|topic|subscription)_id\}/, id).replace(/\{\w+\}/, some_id);

describe("API1: broken object level authorization", () => {
  // The whole matrix, route by key: auth.test.ts.
  test("a key reaches nothing of another tenant, and cannot tell whether it exists", async () => {
    const theirs = await queueOf();
    await ask("POST", "/v1/topics", { id: theirs });
    const id = await put(theirs);
    const mine = await keyOf(["publish", "consume", "peek", "manage"], { queues: ["acme*"], topics: ["acme*"] });
    for (const { method, path } of operations.filter((own) => /\{(queue|topic)_id\}/.test(own.path))) {
      const answers = [theirs, "nothing-there"].map(async (own) => {
        const { status, body } = await ask(method, pathOf(path, own), method === "GET" ? undefined : {}, bearer(mine));
        return { status, code: body.code };
      });
      for (const answer of await Promise.all(answers))
        expect([method, path, answer]).toEqual([method, path, { status: 403, code: 16 }]);
    }
    expect(await receive(theirs)).toMatchObject([{ id, delivery_attempts: 1 }]);
  });

  test("a message is reached through its own queue only, whatever id is named", async () => {
    const [one, other] = [await queueOf(), await queueOf()];
    const id = await put(one);
    const [{ lease_token }] = await receive(one);
    for (const [method, verb] of [
      ["PUT", "/ack"],
      ["PUT", "/nack"],
      ["PUT", "/extend"],
      ["PUT", ""],
      ["DELETE", ""],
      ["GET", ""],
    ] as const) {
      const body = method === "PUT" ? { lease_token, ack_deadline_seconds: 9, label: "x" } : undefined;
      const answer = await ask(method, `/v1/queues/${other}/messages/${id}${verb}`, body);
      expect([method, verb, answer.status]).toEqual([method, verb, 404]);
    }
    const batch = await ask("POST", `/v1/queues/${other}/ack`, { items: [{ id, lease_token }] });
    expect(batch.body.results).toEqual([{ id, status: "not_found" }]);
    expect((await ask("PUT", `/v1/queues/${one}/messages/${id}/ack`, { lease_token })).status).toBe(204);
  });
});

describe("API2: broken authentication", () => {
  // Expired and revoked keys over two servers: auth.test.ts. Signatures: sqsSignature.test.ts, sqsKeys.test.ts.
  test("whoever is not known gets one answer, on every route, and a key in the address is none", async () => {
    const details = "a valid key is needed: Authorization: Bearer pq_…";
    const unauthorized = { code: 15, message: "unauthorized", details };
    const right = await keyOf(["*"]);
    const [, key_id = ""] = right.split("_");
    expect((await ask("DELETE", `/v1/keys/${key_id}`)).status).toBe(204);
    const headers = [{}, bearer("nonsense"), bearer(`${root_key}x`), bearer(right), { authorization: root_key }];
    for (const { method, path } of operations.filter((own) => own.path !== "/v1/healthz")) {
      for (const own of headers) {
        const target = `${pathOf(path, "any")}?key=${root_key}&access_token=${root_key}`;
        const answer = await ask(method, target, undefined, own as Record<string, string>);
        expect([method, path, answer.status, answer.body]).toEqual([method, path, 401, unauthorized]);
        expect(answer.headers.get("www-authenticate")).toBe("Bearer");
      }
    }
    for (const action of ["ListQueues", "SendMessage"]) {
      expect((await callSqs(origin, "json", action, { QueueUrl: `${origin}/1/x` })).status).toBe(403);
    }
  });

  test("a key is shown once, kept as a hash, and is in no list and no log", async () => {
    const key = await keyOf(["peek"]);
    const [, id = "", secret = ""] = key.split("_");
    await ask("PUT", `/v1/queues/any/purge`, {}, bearer(key));
    const [row] = await sql`select to_jsonb(own)::text as text from psqlqueue.api_keys as own where id = ${id}`;
    expect(row?.["text"]).not.toContain(secret);
    expect((await ask("GET", "/v1/keys?limit=1000")).text).not.toContain(secret);
    // Also where it stands in an address, and so does a lease token.
    await ask("GET", `/v1/queues/${key}?lease_token=7777777&limit=2`, undefined, { referer: `http://x/?token=${key}` });
    expect(logged.some((line) => line.includes("lease_token=***&limit=2") && line.includes(`pq_${id}_***`))).toBe(true);
    for (const text of [secret, root_key, "7777777"]) expect(logged.join("\n")).not.toContain(text);
  });
});

describe("API3: broken object property level authorization", () => {
  test("what only the server may set is ignored in what is sent", async () => {
    const forged = {
      no: 7,
      publish_paused: true,
      has_priorities: true,
      created_at: "2001-01-01T00:00:00Z",
      extras: {},
    };
    const queue = await queueOf(forged);
    const shown = (await ask("GET", `/v1/queues/${queue}`)).body;
    expect(
      Object.keys(shown).filter((name) => ["no", "publish_paused", "has_priorities", "extras"].includes(name)),
    ).toEqual([]);
    expect(shown.created_at).not.toStartWith("2001");
    const of_message = {
      id: some_id,
      queue_id: "other",
      delivery_attempts: 99,
      lease_token: "1",
      dead: { attempts: 9 },
    };
    const id = await put(queue, { body: "x", ...of_message, created_at: "2001-01-01T00:00:00Z", visible_at: "2099" });
    expect(id).not.toBe(some_id);
    const [message] = await receive(queue);
    expect(message).toMatchObject({ id, queue_id: queue, body: "x", delivery_attempts: 1 });
    expect("dead" in message).toBe(false);
    const put_back = { body: "y", delivery_attempts: 0, last_error: "z" };
    await ask("PUT", `/v1/queues/${queue}/messages/${id}/nack`, {});
    expect((await ask("PUT", `/v1/queues/${queue}/messages/${id}`, { label: "l", ...put_back })).body).toMatchObject({
      body: "x",
      label: "l",
      delivery_attempts: 1,
    });
  });

  test("who may look sees no lease token, and a key no hash", async () => {
    const queue = await queueOf();
    const id = await put(queue);
    const [{ lease_token }] = await receive(queue);
    for (const path of [`messages/${id}`, "messages/peek?state=all", "messages/peek?state=leased", "stats"]) {
      const { status, text } = await ask("GET", `/v1/queues/${queue}/${path}`);
      expect([path, status, text.includes(lease_token)]).toEqual([path, 200, false]);
    }
    await keyOf(["peek"]);
    for (const key of (await ask("GET", "/v1/keys")).body.data)
      expect(Object.keys(key).join()).not.toMatch(/hash|secret/);
  });
});

describe("API4: unrestricted resource consumption", () => {
  // Bytes of answers and of bodies that wait: limits.test.ts. Over several servers: quotas.test.ts. Slow clients:
  // clients.test.ts.
  test("what is too large is 413 before it is read, announced or not", async () => {
    const queue = await queueOf();
    const target = `/v1/queues/${queue}/messages`;
    const large = JSON.stringify({ body: "x".repeat(body_bytes_max) });
    const headers = [`Host: x`, `Authorization: Bearer ${root_key}`];
    expect(await exchange(server.port, request("POST", target, { headers, body: large }))).toMatchObject({
      status: 413,
    });
    const bytes = chunked("POST", target, Array(20).fill("x".repeat(10_000)));
    const framed = Buffer.from(bytes.toString("latin1").replace("Host: localhost", headers.join("\r\n")), "latin1");
    expect(await exchange(server.port, framed)).toMatchObject({ status: 413, body: { code: 13 } });
    const many = Array.from({ length: 1001 }, () => ({ body: "x" }));
    expect((await ask("POST", `${target}/batch`, { messages: many })).status).toBe(400);
    expect((await ask("GET", `${target}?limit=100000`)).body.limit).toBe(10);
    expect(await receive(queue)).toEqual([]);
  });

  test("what comes too often, waits in too large a number, or fills a queue is 429 and told when to come back", async () => {
    const rate_limit = { count: 1, per_seconds: 3600, burst: 2 };
    const key = await keyOf(["peek"], {}, { rate_limit });
    const statuses: number[] = [];
    for (let i = 0; i < 3; i++) statuses.push((await ask("GET", "/v1/queues", undefined, bearer(key))).status);
    expect(statuses).toEqual([200, 200, 429]);

    const queue = await queueOf({ max_depth: 1 });
    await put(queue);
    const full = await ask("POST", `/v1/queues/${queue}/messages`, { body: "x" });
    expect([full.status, full.body.code, full.headers.get("retry-after")]).toEqual([429, 18, "1"]);

    const empty = await queueOf();
    const wait = () => ask("GET", `/v1/queues/${empty}/messages?limit=1&wait_seconds=20`);
    // Of three the one that comes last.
    const waiting = [wait(), wait(), wait()];
    const refused = await Promise.race(waiting);
    expect([refused.status, refused.body.code]).toEqual([429, 14]);
    expect(refused.headers.get("retry-after")).not.toBeNull();
    for (let i = 0; i < 2; i++) await put(empty);
    const found = (await Promise.all(waiting)).map(({ body }) => body.data?.length);
    expect(found.sort()).toEqual([1, 1, undefined]);
  });

  test("a client that does not send its headers is 408 in time", async () => {
    const answer = await exchange(server.port, Buffer.from("GET /v1/healthz HTTP/1.1\r\nHost: x\r\nX: "));
    expect([answer.status, answer.body.code]).toEqual([408, 28]);
  });
});

describe("API5: broken function level authorization", () => {
  // Each action against each route: auth.test.ts.
  const functions: Record<string, [string, string, unknown?][]> = {
    publish: [["POST", "messages", { body: "x" }]],
    consume: [["GET", "messages"]],
    peek: [
      ["GET", "messages/peek"],
      ["GET", "stats"],
    ],
    manage: [
      ["PUT", "purge"],
      ["PUT", "pause", {}],
      ["POST", "repair"],
      ["PUT", "", settings],
    ],
  };

  test("a key does what its actions name, and no key does more than whoever made it", async () => {
    const queue = await queueOf();
    for (const action of Object.keys(functions)) {
      const key = await keyOf([action], { queues: [queue] });
      for (const [own, asked] of Object.entries(functions)) {
        for (const [method, path, body] of asked) {
          const { status } = await ask(method, `/v1/queues/${queue}/${path}`.replace(/\/$/, ""), body, bearer(key));
          expect([action, path, status === 403]).toEqual([action, path, own !== action]);
        }
      }
      expect((await ask("GET", "/v1/keys", undefined, bearer(key))).status).toBe(403);
    }
    const manager = await keyOf(["manage"]);
    const make = async (actions: string[]) =>
      (await ask("POST", "/v1/keys", { name: "x", scopes: [{ actions }] }, bearer(manager))).status;
    expect([await make(["manage"]), await make(["*"]), await make(["consume"])]).toEqual([201, 403, 403]);
  });
});

describe("API6: unrestricted access to sensitive business flows", () => {
  // A receive is a GET that takes messages: what browsers ask by themselves must not do it. In full: input.test.ts.
  test("neither a HEAD, nor an image or a form on a page of somebody else, takes or sends messages", async () => {
    const queue = await queueOf();
    await put(queue);
    const path = `/v1/queues/${queue}/messages`;
    const key = bearer(root_key);
    const head = await ask("HEAD", path);
    expect(head.status).toBe(405);
    for (const foreign of [
      { "sec-fetch-site": "cross-site" },
      { origin: "https://evil.example" },
      { origin: "null" },
    ]) {
      const headers = { ...key, ...foreign } as Record<string, string>;
      expect((await ask("GET", path, undefined, headers)).status).toBe(403);
      const form = { ...headers, "content-type": "text/plain" };
      expect((await ask("POST", path, '{"body":"forged"}', form)).status).toBe(403);
    }
    const received = await ask("GET", path);
    expect(received.body.data).toMatchObject([{ body: "x", delivery_attempts: 1 }]);
    expect(received.headers.get("cache-control")).toBe("no-store");
    expect(received.headers.get("access-control-allow-origin")).toBeNull();
  });
});
