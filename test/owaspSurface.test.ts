// The OWASP API Security Top 10 (2023), as in owasp.test.ts: the risks of how the server is run, and of what it trusts.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createServer } from "node:net";
import { startServer } from "../src/commands/server.ts";
import { readConfig } from "../src/config.ts";
import { emptyDirectory } from "./child.ts";
import { uniqueId } from "./harness.ts";
import { bearer, openSecured, root_key } from "./secured.ts";
import { callSqs } from "./sqs.ts";
import { exchange, request } from "./wire.ts";

setDefaultTimeout(90_000);

const { server, origin, url, sql, logged, ask, queueOf, keyOf, put, receive } = await openSecured();
const auth = ["Host: x", `Authorization: Bearer ${root_key}`];

describe("API7: server side request forgery", () => {
  test("there are no webhooks, and nothing that a client sends makes the server open a connection", async () => {
    let connections = 0;
    const trap = createServer((socket) => {
      connections += 1;
      socket.destroy();
    });
    await new Promise<void>((resolve) => trap.listen(0, "127.0.0.1", resolve));
    const { port } = trap.address() as { port: number };
    const there = `http://127.0.0.1:${port}/latest/meta-data`;
    const host = `127.0.0.1:${port}`;
    const headers = {
      ...bearer(root_key),
      "x-forwarded-host": host,
      "x-forwarded-proto": "http",
      "x-forwarded-for": host,
      forwarded: `host=${host};for=${host}`,
      referer: there,
      "x-original-url": there,
      "x-request-id": there,
    };
    const queue = await queueOf();
    const message = { body: there, label: host, attributes: { url: there, callback: there } };
    await ask("POST", `/v1/queues/${queue}/messages`, { ...message, push: { url: there }, webhook: there }, headers);
    const topic = uniqueId("t");
    await ask("POST", "/v1/topics", { id: topic, endpoint: there }, headers);
    const own = { topic_id: topic, queue_id: queue, message_filters: { url: [there] }, push: { url: there } };
    await ask("POST", "/v1/subscriptions", { id: topic, ...own }, headers);
    await ask("POST", `/v1/topics/${topic}/messages`, message, headers);
    const key = await keyOf(["*"], {}, { name: there });
    expect(key).toStartWith("pq_");
    const QueueUrl = `${there}/000000000000/${queue}`;
    const arn = `arn:aws:sqs:us-east-1:000000000000:${host}`;
    for (const [action, input] of [
      ["SendMessage", { QueueUrl, MessageBody: there }],
      ["ReceiveMessage", { QueueUrl }],
      ["SetQueueAttributes", { QueueUrl, Attributes: { RedrivePolicy: JSON.stringify({ deadLetterTargetArn: arn }) } }],
      ["StartMessageMoveTask", { SourceArn: arn, DestinationArn: there }],
      ["AddPermission", { QueueUrl, Label: "x", AWSAccountIds: [host], Actions: ["*"] }],
    ] as const) {
      for (const protocol of ["json", "query"] as const) await callSqs(origin, protocol, action, input, headers);
    }
    const absolute = request("GET", there, { headers: [`Host: ${host}`, `Authorization: Bearer ${root_key}`] });
    await exchange(server.port, absolute);
    await exchange(server.port, request("CONNECT", host, { headers: [`Host: ${host}`] }));
    expect((await receive(queue)).map((one: { body: string }) => one.body)).toContain(there);
    expect(connections).toBe(0);
    await new Promise((resolve) => trap.close(resolve));
  });
});

describe("API8: security misconfiguration", () => {
  // TLS from 1.2 on, and client certificates: tls.test.ts. What is checked of PostgreSQL's: connectionStrings.test.ts.
  test("a server that asks for no key says so at its start, where others can reach it", async () => {
    const told: string[] = [];
    for (const host of ["0.0.0.0", "127.0.0.1"]) {
      const open = await startServer(
        readConfig({
          PSQLQUEUE_DATABASE_URL: url,
          PSQLQUEUE_DATA_DIR: emptyDirectory(),
          PSQLQUEUE_SERVER_HOST: host,
          PSQLQUEUE_SERVER_PORT: "0",
          PSQLQUEUE_METRICS_PORT: "0",
          PSQLQUEUE_METRICS_HOST: "127.0.0.1",
        }),
        (level, message) => level === "warn" && told.push(`${host} ${message}`),
      );
      await open.stop();
    }
    expect(told).toEqual(["0.0.0.0 no key is asked for: whoever reaches this address may do everything"]);
  });

  test("nothing is open beside what was meant to be: metrics, other origins, files, methods", async () => {
    const metrics = `http://127.0.0.1:${server.metrics_port}/metrics`;
    expect((await fetch(metrics)).status).toBe(401);
    expect((await fetch(metrics, { headers: bearer(root_key) })).status).toBe(200);
    const preflight = { origin: "https://evil.example", "access-control-request-method": "POST" };
    const answer = await ask("OPTIONS", "/v1/queues", undefined, preflight);
    expect([answer.status, answer.headers.get("access-control-allow-origin")]).toEqual([405, null]);
    for (const path of [
      "/.env",
      "/.git/config",
      "/package.json",
      "/ui/../.env",
      "/ui/%2e%2e/.env",
      "/v1/swagger/x.js",
    ]) {
      const found = await exchange(server.port, request("GET", path, { headers: auth }));
      expect([path, found.status, found.body.code]).toEqual([path, 404, 23]);
    }
    expect((await exchange(server.port, request("TRACE", "/v1/queues", { headers: auth }))).status).toBe(405);
  });

  test("pages may run nothing of others and be framed by nobody; no answer says what it was made with", async () => {
    for (const path of ["/ui", "/v1/swagger/index.html"]) {
      const { status, headers } = await ask("GET", path);
      expect([path, status, headers.get("x-content-type-options")]).toEqual([path, 200, "nosniff"]);
      const policy = headers.get("content-security-policy") ?? "";
      expect(policy).toContain("default-src 'none'");
      expect(policy).toContain("frame-ancestors 'none'");
      expect(policy).not.toContain("unsafe-eval");
      expect([headers.get("server"), headers.get("x-powered-by")]).toEqual([null, null]);
    }
  });

  test("an error of ours tells neither the client nor the log what was sent", async () => {
    const secret = uniqueId("secret-");
    const queue = await queueOf();
    await sql`alter table psqlqueue.publish_batches rename to away`;
    const answer = await ask("POST", `/v1/queues/${queue}/messages`, { body: secret, attributes: { a: secret } });
    await sql`alter table psqlqueue.away rename to publish_batches`;
    expect([answer.status, answer.body]).toEqual([500, { code: 1, message: "internal server error" }]);
    expect(logged.some((line) => line.includes("42P01"))).toBe(true);
    expect(logged.join("\n")).not.toContain(secret);
  });
});

describe("API9: improper inventory management", () => {
  test("what is served is in the document, and nothing else is: no other version, no other method", async () => {
    const { body } = await ask("GET", "/v1/swagger/doc.json");
    const paths = Object.entries(body.paths as Record<string, object>);
    for (const [path, own] of paths) {
      const target = path.replace(/\{\w+\}/g, "01ARZ3NDEKTSV4RRFFQ69G5FAV");
      const allowed = Object.keys(own).map((method) => method.toUpperCase());
      const answer = await ask("PATCH", target, {});
      const told = (answer.headers.get("allow") ?? "").split(", ").filter((method) => method !== "HEAD");
      expect([path, answer.status, told.sort()]).toEqual([path, 405, allowed.sort()]);
      for (const version of ["/v0", "/v2", "/V1", "/api", ""]) {
        const other = await ask("GET", target.replace("/v1", version));
        expect([version, other.status === 404 || other.status === 405]).toEqual([version, true]);
      }
    }
    for (const path of [
      "/metrics",
      "/debug/pprof",
      "/admin",
      "/v1/internal",
      "/v1/debug",
      "/health",
      "/v1/keys/x/secret",
    ]) {
      expect([path, (await ask("GET", path)).status]).toEqual([path, 404]);
    }
    expect((await ask("GET", "/v1/info")).body).toMatchObject({ name: "psqlqueue", version: body.info.version });
  });
});

describe("API10: unsafe consumption of APIs", () => {
  test("what PostgreSQL notifies of is a hint and nothing else, whatever somebody else sends there", async () => {
    const queue = await queueOf();
    const payloads = [
      "",
      "\n",
      "{",
      '{"__proto__":{"x":1}}',
      "null",
      "x".repeat(7999),
      `${queue}\n`.repeat(99),
      "\u0001".repeat(99),
    ];
    for (const channel of ["psqlqueue", "psqlqueue_keys", "psqlqueue_outbox"]) {
      for (const payload of payloads) await sql`select pg_notify(${channel}, ${payload})`;
    }
    const waiting = ask("GET", `/v1/queues/${queue}/messages?wait_seconds=5`);
    const id = await put(queue);
    expect((await waiting).body.data).toMatchObject([{ id }]);
    expect(({} as { x?: number }).x).toBeUndefined();
    const key = await keyOf(["peek"]);
    expect((await ask("GET", "/v1/queues", undefined, bearer(key))).status).toBe(200);
    expect(logged.filter((line) => line.includes('"level":"error"') && !line.includes("42P01"))).toEqual([]);
  });

  test("filters are words that are compared, and bounded: no pattern is run for a client", async () => {
    const topic = uniqueId("t");
    await ask("POST", "/v1/topics", { id: topic });
    const queue = await queueOf();
    const subscribe = (id: string, message_filters: unknown) =>
      ask("POST", "/v1/subscriptions", { id, topic_id: topic, queue_id: queue, message_filters });
    expect((await subscribe(uniqueId("s"), { a: ["(x+x+)+y", ".*", "%", "' or 1=1 --"] })).status).toBe(201);
    const send = (a: string) => ask("POST", `/v1/topics/${topic}/messages`, { body: a, attributes: { a } });
    for (const a of ["x".repeat(50), "anything", "%", ".*", "' or 1=1 --"]) await send(a);
    const bodies = (await receive(queue)).map((one: { body: string }) => one.body);
    expect(bodies).toEqual(["%", ".*", "' or 1=1 --"]);
    for (const wrong of [{ a: "x" }, { a: [1] }, [], { a: [["x"]] }]) {
      expect((await subscribe(uniqueId("s"), wrong)).status).toBe(400);
    }
  });
});
