// What one connection may cost, and in which order things leave on it: many requests behind one another, answers that
// nobody reads, bodies in crumbs, clients that never finish a handshake. Over real sockets.

import { heapStats } from "bun:jsc";
import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import net from "node:net";
import path from "node:path";
import { BrokerError } from "../src/errors.ts";
import { refusal } from "../src/http/output.ts";
import { Gathered } from "../src/web/gathered.ts";
import { startListener } from "../src/web/listener.ts";
import { type IncomingRequest, mayWait } from "../src/web/request.ts";
import { textResponse } from "../src/web/textResponse.ts";
import { until } from "./harness.ts";

setDefaultTimeout(90_000);

const handler_seconds_max = 1;
const plain = { "content-type": "text/plain" };

/** A listener of its own for a test, and a connection to it that is read only when the test says so. */
async function serve(fetch: (request: Request) => Promise<Response>, certificates?: { cert: string; key: string }) {
  const listener = await startListener({
    hostname: "127.0.0.1",
    port: 0,
    fetch,
    refusal,
    idle_seconds_max: 60,
    header_seconds_max: 1,
    body_rate_min: 0,
    rate_window_ms: 60_000,
    handler_seconds_max,
    certificates,
  });
  afterAll(() => listener.stop(true));
  const socket = net.connect({ port: listener.port, host: "127.0.0.1" });
  socket.on("error", () => {});
  afterAll(() => socket.destroy());
  let got = "";
  return {
    socket,
    listen: () => void socket.on("data", (chunk) => (got += chunk.toString("latin1"))),
    got: () => got,
    statuses: () => [...got.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => Number(status)),
  };
}

const get = (target: string) => `GET ${target} HTTP/1.1\r\nHost: x\r\n\r\n`;

test("a client that sends request after request and reads no answer is read no further until it does", async () => {
  const asked = 5000;
  const text = "x".repeat(16_384);
  let handled = 0;
  const { socket } = await serve(async () => {
    handled += 1;
    return textResponse(200, text, plain);
  });
  socket.write(get("/").repeat(asked));
  await until(() => handled > 0);
  for (let before = 0; before !== handled; await Bun.sleep(200)) before = handled;
  // What the system keeps for both sides is some megabytes, and ours one.
  expect(handled).toBeLessThan(asked / 3);
  let bytes = 0;
  socket.on("data", (chunk) => (bytes += chunk.length));
  await until(() => handled === asked && bytes > asked * text.length);
});

test("an answer that is there in time and waits for its turn is not too late", async () => {
  const { socket, listen, got, statuses } = await serve(async (request) => {
    if (request.url.endsWith("/slow")) {
      mayWait(request, 5000);
      await Bun.sleep(handler_seconds_max * 1000 + 2500);
    }
    return textResponse(200, request.url, plain);
  });
  listen();
  socket.write(get("/slow") + get("/quick"));
  await until(() => statuses().length === 2);
  expect(statuses()).toEqual([200, 200]);
  expect(got().indexOf("/slow")).toBeLessThan(got().indexOf("/quick"));
});

test("a client is asked for a body in the turn of its request, and not within the answer to another", async () => {
  let end = () => {};
  const { socket, listen, got } = await serve(async (request) => {
    if (request.method === "GET") await new Promise<void>((resolve) => (end = resolve));
    else await (request as unknown as IncomingRequest).read(100);
    return textResponse(200, `answer to ${request.method}`, plain);
  });
  listen();
  socket.write(`${get("/")}POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n`);
  await Bun.sleep(200);
  expect(got()).toBe("");
  end();
  await until(() => got().includes("100 Continue"));
  socket.write("ab");
  await until(() => got().includes("answer to POST"));
  expect(got().indexOf("answer to GET")).toBeLessThan(got().indexOf("100 Continue"));
});

test("a body that comes byte by byte is kept in few pieces", () => {
  const gathered = new Gathered();
  const before = heapStats().objectTypeCounts["Uint8Array"] ?? 0;
  const expected = Buffer.alloc(300_000);
  for (let i = 0; i < expected.length; i++) {
    expected[i] = i % 251;
    gathered.push(expected.subarray(i, i + 1));
  }
  Bun.gc(true);
  expect((heapStats().objectTypeCounts["Uint8Array"] ?? 0) - before).toBeLessThan(100);
  expect(Buffer.compare(gathered.take(), expected)).toBe(0);
  for (const size of [1, 5000, 70_000, 600_000, 3]) gathered.push(Buffer.alloc(size, size % 256));
  expect(gathered.length).toBe(675_004);
  expect(
    Buffer.compare(gathered.take(), Buffer.concat([1, 5000, 70_000, 600_000, 3].map((n) => Buffer.alloc(n, n % 256)))),
  ).toBe(0);
  expect(gathered.take().length).toBe(0);
});

const folder = path.join(import.meta.dir, "certificates");
const certificates = {
  cert: readFileSync(path.join(folder, "server.pem"), "utf8"),
  key: readFileSync(path.join(folder, "server-key.pem"), "utf8"),
};

test.each([
  ["says nothing", ""],
  ["begins a handshake and does not go on", "160301"],
])("over TLS a client that %s is let go after the time for headers", async (_name, sent) => {
  const { socket } = await serve(async () => new Response(), certificates);
  socket.write(Buffer.from(sent, "hex"));
  socket.resume();
  await until(() => socket.closed);
});

test("a request that is refused while others wait before it is refused after them", async () => {
  const { socket, listen, statuses } = await serve(async () => {
    await Bun.sleep(100);
    throw new BrokerError("internal");
  });
  listen();
  socket.write(`${get("/")}GET / HTTP/1.1\r\nHost: x\r\nno header\r\n\r\n`);
  await until(() => statuses().length === 2);
  expect(statuses()).toEqual([500, 400]);
});
