// Inputs that broke or bent the parts this service is made of, each by itself: over HTTP, on a server as it runs. What
// every route answers to them: input.test.ts, fuzz.test.ts.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { connect } from "node:net";
import { openSecured, root_key } from "./secured.ts";
import { chunked, exchange, request } from "./wire.ts";

setDefaultTimeout(90_000);

const { server, sql, logged, ask, queueOf, put, receive } = await openSecured({ PSQLQUEUE_MAX_BODY_BYTES: "4000000" });
const auth = ["Host: x", `Authorization: Bearer ${root_key}`];
const queue = await queueOf();
const target = `/v1/queues/${queue}/messages`;
const send = (body: string | Buffer, headers: string[] = auth) =>
  exchange(server.port, request("POST", target, { headers, body }));
const sendJson = (body: unknown) => send(JSON.stringify(body));

describe("text", () => {
  test.each([
    ["NUL in a body", { body: "a\u0000b" }],
    ["NUL in a label", { body: "x", label: "\u0000" }],
    ["NUL in an attribute", { body: "x", attributes: { a: "\u0000" } }],
    ["NUL in the name of one", { body: "x", attributes: { "\u0000": "a" } }],
    ["NUL in a key", { body: "x", ordering_key: "\u0000" }],
    ["a label of 3000 characters", { body: "x", label: "ab".repeat(1500) }],
  ])("%s is refused before it meets others", async (_, body) => {
    expect(await sendJson(body)).toMatchObject({ status: 400, body: { code: 3 } });
  });

  test("half a surrogate and bytes that are no UTF-8 are refused, and not mended in silence", async () => {
    for (const text of [
      '{"body":"\\ud800"}',
      '{"body":"x","attributes":{"a":"\\udc00"}}',
      '{"body":"x","label":"\\ud800x"}',
    ]) {
      expect([text, (await send(text)).status]).toEqual([text, 400]);
    }
    for (const bytes of [[0xff], [0xc3, 0x28], [0xed, 0xa0, 0x80], [0xf0, 0x9f, 0x98]]) {
      const body = Buffer.concat([Buffer.from('{"body":"'), Buffer.from(bytes), Buffer.from('"}')]);
      expect(await send(body)).toMatchObject({ status: 400, body: { code: 2 } });
    }
  });

  test("attributes named like parts of an object are attributes, and change nothing else", async () => {
    const names = '{"__proto__":"a","constructor":"b","toString":"c","hasOwnProperty":"d"}';
    expect((await send(`{"body":"x","attributes":${names}}`)).status).toBe(204);
    const { text } = await ask("GET", target);
    for (const member of ['"__proto__": "a"', '"constructor": "b"', '"toString": "c"']) expect(text).toContain(member);
    expect(({} as { a?: string }).a).toBeUndefined();
  });
});

describe("shapes", () => {
  test("nesting without end is refused, and the server lives", async () => {
    for (const depth of [30_000, 1_000_000]) {
      for (const [open, close] of [
        ["[", "]"],
        ['{"a":', "}"],
      ] as const) {
        const deep = open.repeat(depth) + (open === "[" ? "" : "1") + close.repeat(depth);
        const answer = await send(`{"body":"x","attributes":${deep.slice(0, 3_000_000)}}`);
        expect(answer.status).toBe(400);
      }
    }
    expect((await ask("GET", "/v1/healthz")).status).toBe(200);
  });

  test("numbers that a column or the clock cannot hold are refused, each by name", async () => {
    const settings = { id: "numbers", message_retention_seconds: 60 };
    for (const value of ["4294967295", "1e13", "1.5", "-1", "1e400", "null", '"30"', "true", "[30]"]) {
      const body = JSON.stringify({ ...settings, ack_deadline_seconds: 0 }).replace(":0}", `:${value}}`);
      const answer = await ask("POST", "/v1/queues", body);
      expect([value, answer.status, [2, 3].includes(answer.body.code)]).toEqual([value, 400, true]);
      // What is no whole number is no member at all, as in 0.4.1; what is one and too large is named.
      if (answer.body.code === 3) expect(answer.body.details).toStartWith("ack_deadline_seconds: ");
    }
    for (const query of ["limit=1e2", "limit=0x10", "limit=-1", "limit=1.0", "limit=NaN"]) {
      expect([query, (await ask("GET", `${target}?${query}`)).status]).toEqual([query, 400]);
    }
    // Of repeated names the first counts.
    expect((await ask("GET", `${target}?limit=1&limit=2`)).body.limit).toBe(1);
  });

  test("a value of another type is refused by every member, and the next statement works", async () => {
    const members = [
      "body",
      "label",
      "attributes",
      "delay_seconds",
      "ttl_seconds",
      "dedup_id",
      "ordering_key",
      "priority",
    ];
    for (const member of members) {
      for (const value of [true, 1.5, [["x"]], [1, "x"], { a: { b: 1 } }]) {
        const answer = await sendJson({ body: "x", [member]: value });
        expect([member, value, answer.status]).toEqual([member, value, 400]);
      }
    }
    const mixed = [{ body: "x" }, { body: 7 }, { body: "x", attributes: { a: 1 } }];
    expect((await ask("POST", `${target}/batch`, { messages: mixed })).status).toBe(400);
    await put(queue, { body: "after all of them" });
    const seen = (await receive(queue)).map((one: { body: string }) => one.body);
    expect(seen).toEqual(["after all of them"]);
  });
});

describe("HTTP", () => {
  test("paths that lead elsewhere lead nowhere", async () => {
    for (const path of [
      "/v1/queues/..%2f..%2fetc%2fpasswd",
      "/v1/queues/%00",
      "/v1/queues/%ff",
      "/v1/queues/a%0d%0aX-Injected:%201",
      "/v1/queues/../keys",
      "/v1/queues/%2e%2e/keys",
      "/v1//queues",
      "/v1\\queues",
    ]) {
      const answer = await exchange(server.port, request("GET", path, { headers: auth }));
      expect([path, answer.status, answer.headers.get("x-injected")]).toEqual([path, 404, null]);
    }
  });

  test("headers beyond all measure are 431, and a body beyond the limit 413 in the form of the API", async () => {
    const wide = request("GET", target, { headers: [...auth, `X: ${"x".repeat(17_000)}`] });
    const many = request("GET", target, { headers: [...auth, ...Array.from({ length: 300 }, (_, i) => `X-${i}: x`)] });
    for (const bytes of [wide, many]) expect((await exchange(server.port, bytes)).status).toBe(431);
    const large = "x".repeat(4_000_001);
    expect(await send(large)).toMatchObject({ status: 413, body: { code: 13 } });
    const bytes = chunked("POST", target, [large]).toString("latin1").replace("Host: localhost", auth.join("\r\n"));
    expect(await exchange(server.port, Buffer.from(bytes, "latin1"))).toMatchObject({
      status: 413,
      body: { code: 13 },
    });
  });

  test("two lengths in one request smuggle no second one", async () => {
    const smuggled = `POST ${target} HTTP/1.1\r\n${auth.join("\r\n")}\r\nContent-Length: 17\r\n\r\n{"body":"hidden"}`;
    for (const framing of [
      "Content-Length: 5\r\nTransfer-Encoding: chunked",
      "Transfer-Encoding: chunked\r\nContent-Length: 5",
      "Content-Length: 5\r\nContent-Length: 6",
      "Transfer-Encoding: xchunked",
      "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    ]) {
      const head = `POST ${target} HTTP/1.1\r\n${auth.join("\r\n")}\r\n${framing}\r\n\r\n0\r\n\r\n`;
      const answer = await exchange(server.port, Buffer.from(head + smuggled, "latin1"));
      expect([framing, answer.status]).toEqual([framing, 400]);
    }
    expect(await receive(queue)).toEqual([]);
  });

  test("a body under a transfer coding that is not understood is refused, and not taken for what was sent", async () => {
    for (const coding of ["gzip, chunked", "identity, chunked"]) {
      const head = `POST ${target} HTTP/1.1\r\n${auth.join("\r\n")}\r\nTransfer-Encoding: ${coding}\r\n\r\n`;
      const body = '{"body":"compressed"}';
      const answer = await exchange(
        server.port,
        Buffer.from(`${head}${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`),
      );
      expect([coding, answer.status, answer.body.details]).toEqual([coding, 400, expect.stringContaining("chunked")]);
    }
    expect(await receive(queue)).toEqual([]);
  });

  test("the pieces of a request may come one by one, and those of another are not mixed in", async () => {
    const bytes = request("POST", target, { headers: auth, body: '{"body":"slowly"}' }).toString("latin1");
    const socket = connect({ port: server.port, host: "127.0.0.1" });
    let got = "";
    socket.on("data", (chunk) => {
      got += chunk;
    });
    const ended = new Promise((resolve) => socket.on("close", resolve));
    for (let at = 0; at < bytes.length; at += 40) {
      socket.write(bytes.slice(at, at + 40));
      await ask("GET", "/v1/healthz");
    }
    await ended;
    expect(got).toStartWith("HTTP/1.1 204");
    expect((await receive(queue)).map((one: { body: string }) => one.body)).toEqual(["slowly"]);
  });
});

test("none of it reached the database or the log: no error of ours, and no value of a request", async () => {
  expect(logged.filter((line) => line.includes('"level":"error"'))).toEqual([]);
  expect(logged.join("\n")).not.toMatch(/hidden|slowly|after all of them/);
  const [row] = await sql`select count(*)::int as count from psqlqueue.messages`;
  expect(row?.["count"]).toBe(3);
});
