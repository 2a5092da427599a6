// Which browsers a server answers that asks for no keys: pages of its own, by whatever name, and no others. What a page
// of another site cannot do is in input.test.ts too.

import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { closeBrowser, has_browser, openPage } from "./browser.ts";
import { openService, uniqueId } from "./harness.ts";
import { bearer, openSecured, root_key, settings } from "./secured.ts";
import { exchange, request } from "./wire.ts";

setDefaultTimeout(90_000);
afterAll(closeBrowser);

const { server, ask } = await openSecured({
  PSQLQUEUE_AUTH: "off",
  PSQLQUEUE_METRICS_AUTH: "off",
  PSQLQUEUE_CORS_ORIGINS: "http://queue.example.com:8000",
  PSQLQUEUE_SQS_PORT: "0",
  PSQLQUEUE_SQS_PUBLIC_URL: "http://sqs.example.com",
});
const queue = uniqueId();
await ask("POST", "/v1/queues", { id: queue, ...settings }, {});
const path = `/v1/queues/${queue}/messages`;

const send = (host: string, headers: string[] = [], method = "GET", target = path, port = server.port) =>
  exchange(
    port,
    request(method, target, {
      headers: [`Host: ${host}`, ...headers],
      ...(method === "POST" && { body: '{"body":"forged"}' }),
    }),
  );
const statusOf = async (...given: Parameters<typeof send>) => (await send(...given)).status;
const statsOf = async () => (await ask("GET", `/v1/queues/${queue}/stats`, undefined, {})).body;

/** What browsers send without TLS, to another host than localhost, besides Host, Origin and Referer. */
const plain = ["Accept: */*", "Accept-Language: en-US,en;q=0.9", "Accept-Encoding: gzip, deflate"];
const evil = "evil.example:8000";

test("by a public name that nobody allowed, without TLS, is refused whatever it asks, and told what to do", async () => {
  const before = await statsOf();
  expect(before).toMatchObject({ num_undelivered_messages: 0 });
  for (const headers of [
    [`Origin: http://${evil}`],
    [`Origin: http://${evil}`, "Sec-Fetch-Site: same-origin"],
    [`Origin: http://${evil}`, ...plain],
    [...plain, `Referer: http://${evil}/`],
    plain,
    ["Accept-Language: "],
  ]) {
    for (const method of ["GET", "POST", "DELETE"]) {
      const target = method === "DELETE" ? `/v1/queues/${queue}` : path;
      const { status, body } = await send(evil, headers, method, target);
      const details = expect.stringContaining("PSQLQUEUE_CORS_ORIGINS=http://name:port");
      expect([headers, method, status, body]).toEqual([headers, method, 403, { ...body, code: 16, details }]);
    }
  }
  for (const host of ["127.0.0.1.evil.example", "localhost.evil.example.", "local.example", "EVIL.EXAMPLE"]) {
    expect([host, await statusOf(host, plain)]).toEqual([host, 403]);
  }
  expect(await statsOf()).toEqual(before);
});

test("by an address, a name of its own network, its own name or one that is allowed passes, to read and to write", async () => {
  const hosts = ["127.0.0.1:8000", "192.168.1.5", "[::1]:8000", "localhost:8000", "app.localhost", "builder:8000"];
  const names = ["nas.local", "queue.internal", "queue.home.arpa", "queue.example.com:8000", "sqs.example.com."];
  for (const host of [...hosts, ...names]) {
    const origin = [`Origin: http://${host}`, ...plain];
    expect([host, await statusOf(host, origin, "POST")]).toEqual([host, 204]);
    expect([host, await statusOf(host, origin)]).toEqual([host, 200]);
    expect([host, await statusOf(host, plain, "GET", `/v1/queues/${queue}/stats`)]).toEqual([host, 200]);
  }
});

test("over TLS, of a proxy too, passes by every name, and so does every program", async () => {
  const host = "queue.example.org";
  const over_tls = ["Accept-Language: en", "Accept-Encoding: gzip, deflate, br"];
  for (const headers of [
    [],
    ["Accept: */*", "User-Agent: curl/8"],
    // Node.js and Deno.
    ["Accept-Language: *", "Sec-Fetch-Mode: cors", "Accept-Encoding: gzip, deflate"],
    ["Accept-Language: *", "Accept-Encoding: gzip,br"],
    [...over_tls, "Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors"],
    [...over_tls, "Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate"],
    [...over_tls, `Origin: https://${host}`],
  ]) {
    expect([headers, await statusOf(host, headers, "POST")]).toEqual([headers, 204]);
    expect([headers, await statusOf(host, headers)]).toEqual([headers, 200]);
  }
});

test("as an image on a page of a neighbour takes no messages", async () => {
  const neighbour = ["Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: no-cors"];
  const target = `/v1/queues/${queue}`;
  for (const own of [path, `${path}/peek`, `${path}/count`]) {
    expect([own, await statusOf("localhost:8000", neighbour, "GET", own)]).toEqual([own, 403]);
  }
  expect(await statusOf("localhost:8000", neighbour, "POST")).toBe(403);
  expect(await statusOf("localhost:8000", neighbour, "GET", target)).toBe(200);
  // Without TLS a browser does not say whose image it fetches; and there are programs that send what browsers send.
  expect(await statusOf("192.168.1.5:8000", plain)).toBe(200);
});

test("finds the port of SQS clients and that of the metrics closed in the same way", async () => {
  const { sqs_port = 0, metrics_port } = server;
  const list = "/?Action=ListQueues";
  for (const [port, target] of [
    [server.port, list],
    [sqs_port, list],
    [metrics_port, "/metrics"],
  ] as const) {
    const own = await send(evil, plain, "GET", target, port);
    expect([target, own.status, own.text]).toEqual([target, 403, expect.stringContaining("PSQLQUEUE_CORS_ORIGINS")]);
    expect([target, await statusOf(evil, [], "GET", target, port)]).toEqual([target, 200]);
  }
  expect(await statusOf("192.168.1.5:9090", plain, "GET", "/metrics", metrics_port)).toBe(200);
});

test("is asked for a key instead, where keys are asked for", async () => {
  const secured = await openSecured();
  const own = await secured.queueOf();
  const headers = [`Authorization: ${bearer(root_key).authorization}`, ...plain];
  const target = `/v1/queues/${own}/messages`;
  expect(await statusOf(evil, headers, "GET", target, secured.server.port)).toBe(200);
  expect(await statusOf(evil, plain, "GET", target, secured.server.port)).toBe(401);
});

test("a service without settings knows the names of every network", async () => {
  const service = await openService();
  const statusBy = async (host: string) =>
    (await service.call("GET", "/v1/queues", undefined, { host, origin: `http://${host}` })).status;
  expect([await statusBy("localhost"), await statusBy("queue.example.com")]).toEqual([200, 403]);
  await service.close();
});

test.if(has_browser)(
  "is refused as chromium asks it, and the pages of the server work by a name of its network",
  async () => {
    const fetchFrom = async (host: string) => {
      const { page } = await openPage(`http://${host}:${server.port}`);
      await page.goto("/v1/swagger/index.html");
      const statuses = await page.evaluate(async (target: string) => {
        const got = await fetch(target, { headers: { "accept-language": "", accept: "application/json" } });
        const posted = await fetch(target, { method: "POST", body: '{"body":"x"}' });
        return [got.status, posted.status];
      }, path);
      await page.context().close();
      return statuses;
    };
    expect(await fetchFrom("evil.example")).toEqual([403, 403]);
    expect(await fetchFrom("builder")).toEqual([200, 204]);
    expect(await fetchFrom("localhost")).toEqual([200, 204]);
  },
  60_000,
);
