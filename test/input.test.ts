// What is legal on the wire (v1 contract, sections 1 and 2), asked of the server as it is started, over real sockets.

import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import postgres from "postgres";
import { startServer } from "../src/commands/server.ts";
import { readConfig } from "../src/config.ts";
import { catalogue } from "../src/errors.ts";
import { createMigratedDatabase, openService, read, uniqueId } from "./harness.ts";
import { chunked, exchange, type RawAnswer, request } from "./wire.ts";

setDefaultTimeout(90_000);

const body_bytes_max = 4_194_304;
const int32_max = 2_147_483_647;
const url = await createMigratedDatabase();
const server = await startServer(
  readConfig({
    PSQLQUEUE_DATABASE_URL: url,
    PSQLQUEUE_SERVER_HOST: "127.0.0.1",
    PSQLQUEUE_SERVER_PORT: "0",
    PSQLQUEUE_METRICS_HOST: "127.0.0.1",
    PSQLQUEUE_METRICS_PORT: "0",
    PSQLQUEUE_MAX_BODY_BYTES: String(body_bytes_max),
  }),
  () => {},
);
const sql = postgres(url, { max: 1, onnotice() {} });
afterAll(async () => {
  await server.stop();
  await sql.end({ timeout: 1 });
});

const raw = (bytes: Buffer) => exchange(server.port, bytes);
const send = (method: string, target: string, body?: string | Buffer, headers: string[] = []) =>
  raw(request(method, target, { headers: ["Host: localhost", ...headers], ...(body !== undefined && { body }) }));
const sendJson = (method: string, target: string, body: unknown) => send(method, target, JSON.stringify(body));

const settings = { ack_deadline_seconds: 30, message_retention_seconds: 3600 };

async function createQueue(id = uniqueId()): Promise<string> {
  expect((await sendJson("POST", "/v1/queues", { id, ...settings })).status).toBe(201);
  return id;
}
async function createTopic(id = uniqueId("t")): Promise<string> {
  expect((await sendJson("POST", "/v1/topics", { id })).status).toBe(201);
  return id;
}
const receive = async (queue: string, query = "") =>
  (await send("GET", `/v1/queues/${queue}/messages${query}`)).body.data;

/** Everything stored that a client can see the effect of. */
async function contents(): Promise<string> {
  const tables = ["queues", "messages", "archived_messages", "topics", "subscriptions", "deleted_queues"];
  const parts = tables.map(
    (name) => `select '${name}' as name, to_jsonb(item)::text as row from psqlqueue.${name} as item`,
  );
  return JSON.stringify(await sql.unsafe(`${parts.join(" union all ")} order by 1, 2`));
}

type Refusal = { code: number; details?: string };
type Case = [what: string, ask: () => Promise<RawAnswer>, refusal: Refusal];

function expectRefusal(what: string, answer: RawAnswer, { code, details }: Refusal): void {
  const entry = Object.values(catalogue).find((one) => one.code === code);
  const expected = { code, message: entry?.message, ...(details !== undefined && { details }) };
  const given =
    code > 10 && details === undefined ? { code: answer.body?.code, message: answer.body?.message } : answer.body;
  expect({ what, status: answer.status, body: given }).toEqual({ what, status: entry?.status ?? 0, body: expected });
  expect(answer.headers.get("content-type")).toBe("application/json; charset=utf-8");
}

/** Each request is refused as said, and all of them together have changed nothing. */
async function expectRefusals(cases: Case[]): Promise<void> {
  const before = await contents();
  for (const [what, ask, refusal] of cases) expectRefusal(what, await ask(), refusal);
  expect(await contents()).toBe(before);
}

const invalid = (name: string, text: string): Refusal => ({ code: 3, details: `${name}: ${text}.` });
const blank = "cannot be blank";
const format = "must be in a valid format";
const too_great = `must be no greater than ${int32_max}`;

describe("paths", () => {
  test("are split first and decoded once, byte for byte as they were sent", async () => {
    const queue = await createQueue("path.q");
    const found = [queue, "path%2Eq", "%70ath.q", "path%2eq/", "path.q/?x=1"];
    for (const id of found) expect((await send("GET", `/v1/queues/${id}`)).body).toMatchObject({ id: queue });
    const strange = [
      "path.q%00",
      "%00",
      "%ff",
      "%ed%a0%80",
      "%zz",
      "%",
      "path.q%20",
      "%20",
      "a%2Fb",
      "%2F",
      "%5c",
      "%C3%A9",
    ];
    const more = [
      "..%2f..%2fetc",
      "path.q%0d%0aX: y".replace(" ", ""),
      "PATH.Q",
      "path.q;x=y",
      "%2e%2e%2f",
      "x".repeat(8000),
    ];
    const ids = [...strange, ...more];
    await expectRefusals([
      ...ids.map((id): Case => [id, () => send("GET", `/v1/queues/${id}`), { code: 5 }]),
      ...ids.map((id): Case => [id, () => send("GET", `/v1/topics/${id}`), { code: 8 }]),
      ...ids.map((id): Case => [id, () => send("DELETE", `/v1/subscriptions/${id}`), { code: 10 }]),
      ...ids.map((id): Case => [id, () => send("PUT", `/v1/queues/path.q/messages/${id}/ack`), { code: 6 }]),
      ...ids.map((id): Case => [id, () => send("PUT", `/v1/queues/${id}/purge`), { code: 5 }]),
    ]);
  });

  test("that are unknown are 404: other case, empty segments, too short, too long", async () => {
    await createQueue("known");
    const paths = [
      "/",
      "/v1",
      "/v1/",
      "/V1/queues",
      "/v1/Queues",
      "//v1/queues",
      "/v1//queues",
      "/v1/queues//",
      "/v2/queues",
    ];
    const more = [
      "/v1/queues/known//stats",
      "/v1/queues/known/stats//",
      "/v1/queues/known/other",
      "/v1/queues%2Fknown",
      "/x",
    ];
    const cases = [...paths, ...more].flatMap((path): Case[] =>
      ["GET", "POST", "DELETE", "OPTIONS"].map((method) => [path, () => send(method, path), { code: 23 }]),
    );
    await expectRefusals(cases);
  });

  test("lose one trailing slash, for every method, and keep the query", async () => {
    const queue = uniqueId();
    expect((await sendJson("POST", "/v1/queues/", { id: queue, ...settings })).status).toBe(201);
    expect((await sendJson("PUT", `/v1/queues/${queue}/`, settings)).status).toBe(200);
    expect((await sendJson("POST", `/v1/queues/${queue}/messages/`, { body: "x" })).status).toBe(204);
    const { data, limit } = (await send("GET", `/v1/queues/${queue}/messages/?limit=3`)).body;
    expect([data.length, limit]).toEqual([1, 3]);
    expect((await send("PUT", `/v1/queues/${queue}/messages/${data[0].id}/ack/`)).status).toBe(204);
    expect((await send("GET", "/v1/healthz/")).body).toEqual({ success: true });
    expect((await send("DELETE", `/v1/queues/${queue}/`)).status).toBe(204);
  });

  test("with dot segments reach nothing", async () => {
    const cases = ["/v1/queues/..", "/v1/queues/%2e%2e", "/v1/queues/%2E./stats", "/v1/queues/../../etc/passwd"];
    await expectRefusals(cases.map((path) => [path, () => send("DELETE", path), { code: 23 }]));
  });

  const methods: [string, string[]][] = [
    ["/v1/queues", ["POST", "GET"]],
    ["/v1/queues/x", ["GET", "PUT", "DELETE"]],
    ["/v1/queues/x/stats", ["GET"]],
    ["/v1/queues/x/purge", ["PUT"]],
    ["/v1/queues/x/cleanup", ["PUT"]],
    ["/v1/queues/x/messages", ["POST", "GET"]],
    ["/v1/queues/x/messages/y/ack", ["PUT"]],
    ["/v1/queues/x/messages/y/nack", ["PUT"]],
    ["/v1/topics", ["POST", "GET"]],
    ["/v1/topics/x", ["GET", "DELETE"]],
    ["/v1/topics/x/messages", ["POST"]],
    ["/v1/subscriptions", ["POST", "GET"]],
    ["/v1/subscriptions/x", ["GET", "DELETE"]],
    ["/v1/healthz", ["GET"]],
    ["/v1/swagger/index.html", ["GET"]],
    ["/ui", ["GET"]],
    ["/ui/queues/x", ["GET"]],
  ];

  test("answer other methods, OPTIONS too, with 405 and what is allowed: HEAD where a GET changes nothing", async () => {
    const before = await contents();
    for (const [path, given] of methods) {
      const is_head_too = given.includes("GET") && path !== "/v1/queues/x/messages";
      const allowed = is_head_too ? [...given, "HEAD"] : given;
      for (const method of ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE"]) {
        if (allowed.includes(method)) continue;
        const answer = await send(method, path);
        expect([path, method, answer.status]).toEqual([path, method, 405]);
        expect(answer.headers.get("allow")?.split(", ").sort()).toEqual([...allowed].sort());
        if (method !== "HEAD") expect(answer.body).toEqual({ code: 24, message: "method not allowed" });
        else expect(answer.text).toBe("");
      }
    }
    expect(await contents()).toBe(before);
  });

  test("a HEAD answers what a GET would, without its body", async () => {
    const queue = await createQueue();
    const paths = [
      `/v1/queues/${queue}`,
      "/v1/queues?limit=2",
      "/v1/queues?limit=x",
      "/v1/queues/unknown",
      "/v1/healthz",
      "/v1/swagger/index.html",
      "/v1/swagger/doc.json",
      "/ui/queues/x",
      "/v1/nowhere",
    ];
    for (const path of paths) {
      const [get, head] = [await send("GET", path), await send("HEAD", path)];
      expect([path, head.status, head.text]).toEqual([path, get.status, ""]);
      expect(head.headers.get("content-length")).toBe(String(Buffer.byteLength(get.text)));
      expect(head.headers.get("content-type")).toBe(get.headers.get("content-type"));
    }
  });

  test("the start is a page for a browser, and says where things are to who asks for JSON", async () => {
    const ask = (path: string, accept: string) => send("GET", path, undefined, [`Accept: ${accept}`]);
    const start = {
      name: "psqlqueue",
      version: expect.any(String),
      ui: "/ui",
      docs: "/v1/swagger/index.html",
      openapi: "/v1/swagger/doc.json",
      health: "/v1/healthz",
      metrics_port: expect.any(Number),
    };
    for (const path of ["/", "/v1", "/docs", "/healthz"]) {
      const browser = await ask(path, "text/html,application/xhtml+xml,*/*;q=0.8");
      const target = { "/": "/ui", "/healthz": "/v1/healthz" }[path] ?? "/v1/swagger/index.html";
      expect([path, browser.status, browser.headers.get("location")]).toEqual([path, 302, target]);
      const { status, body } = await ask(path, "application/json");
      expect({ status, body }).toEqual({ status: 200, body: start });
      expect((await ask(path, "*/*")).body).toEqual({ code: 23, message: "route not found" });
      expect((await send("POST", path)).status).toBe(404);
    }
  });

  test("a HEAD never leases", async () => {
    const queue = await createQueue();
    await sendJson("POST", `/v1/queues/${queue}/messages`, { body: "x" });
    expect((await send("HEAD", `/v1/queues/${queue}/messages`)).status).toBe(405);
    expect((await receive(queue))[0]).toMatchObject({ body: "x", delivery_attempts: 1 });
  });
});

describe("requests as bytes", () => {
  test("the Host does not matter as long as it is one: one letter, empty, odd, or none in HTTP/1.0", async () => {
    const hosts = ["a", "ab", "", "[::1]:80", "x:99999", "under_score.example:8000"];
    for (const host of hosts) {
      const answer = await raw(request("GET", "/v1/healthz?x=1", { headers: [`Host: ${host}`] }));
      expect([host, answer.body]).toEqual([host, { success: true }]);
      const nowhere = await raw(request("GET", "/v1/nowhere", { headers: [`Host: ${host}`] }));
      expect([host, nowhere.body]).toEqual([host, { code: 23, message: "route not found" }]);
    }
    expect((await raw(Buffer.from("GET /v1/healthz HTTP/1.0\r\n\r\n"))).body).toEqual({ success: true });
    expect((await raw(request("GET", "/v1/healthz", { headers: [] }))).status).toBe(400);
    const absolute = await raw(request("GET", "http://elsewhere/v1/healthz"));
    expect(absolute.body).toEqual({ success: true });
  });

  test("headers of 17 KB, 300 headers and a path of 17 KB are 431", async () => {
    const long = "y".repeat(17 * 1024);
    const many = Array.from({ length: 300 }, (_, i) => `X-${i}: y`);
    expect((await send("GET", "/v1/healthz", undefined, [`X-Long: ${long}`])).status).toBe(431);
    expect((await send("GET", "/v1/healthz", undefined, many)).status).toBe(431);
    expect((await send("GET", `/v1/queues/${long}`)).status).toBe(431);
    expect((await send("GET", "/v1/healthz")).status).toBe(200);
  });

  test("ambiguous framing is refused before anything is read into it", async () => {
    const queue = await createQueue();
    const body = '{"body":"x"}';
    const start = `POST /v1/queues/${queue}/messages HTTP/1.1\r\nHost: localhost\r\n`;
    const framings = [
      `Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${start}Content-Length: 12\r\n\r\n${body}`,
      `Content-Length: 5\r\nContent-Length: 12\r\n\r\n${body}`,
      `Content-Length: -1\r\n\r\n${body}`,
      `Content-Length: 0x0c\r\n\r\n${body}`,
      `Transfer-Encoding: chunked\r\n\r\nzz\r\n${body}\r\n0\r\n\r\n`,
      `X-Request-Id: a\0b\r\nContent-Length: 12\r\n\r\n${body}`,
    ];
    for (const framing of framings) {
      const { status } = await raw(Buffer.from(start + framing, "latin1"));
      expect([framing, status === 0 || status === 400]).toEqual([framing, true]);
    }
    expect(await receive(queue)).toEqual([]);
  });

  test("a body in chunks, and one announced with Expect, are read like any other", async () => {
    const queue = await createQueue();
    const path = `/v1/queues/${queue}/messages`;
    expect((await raw(chunked("POST", path, ['{"bo', 'dy":"ch', 'unks"}']))).status).toBe(204);
    expect((await send("POST", path, '{"body":"expected"}', ["Expect: 100-continue"])).status).toBe(204);
    const bodies = (await receive(queue)).map((message: { body: string }) => message.body);
    expect(bodies).toEqual(["chunks", "expected"]);
  });

  test("X-Request-Id is echoed, else made, on every answer", async () => {
    for (const path of ["/v1/healthz", "/v1/nowhere", "/v1/queues/nobody", "/v1/queues/%ff"]) {
      const echoed = await send("GET", path, undefined, ["X-Request-Id: my id/1"]);
      expect(echoed.headers.get("x-request-id")).toBe("my id/1");
      const made = [await send("GET", path), await send("GET", path, undefined, ["X-Request-Id:"])].map((answer) =>
        answer.headers.get("x-request-id"),
      );
      for (const id of made) expect(id).toMatch(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
      expect(made[0]).not.toBe(made[1]);
    }
  });

  test("answers carry their type and no cache keeps them; 204 has neither body nor type", async () => {
    const queue = await createQueue();
    const got = await send("GET", `/v1/queues/${queue}`);
    expect(got.headers.get("content-type")).toBe("application/json; charset=utf-8");
    expect(got.headers.get("cache-control")).toBe("no-store");
    const done = await send("PUT", `/v1/queues/${queue}/purge`);
    expect([done.status, done.text, done.headers.get("content-type")]).toEqual([204, "", null]);
  });
});

describe("sizes", () => {
  const of = (bytes: number) => `{"body":"${"x".repeat(bytes - 11)}"}`;
  const details = `at most ${body_bytes_max} bytes`;

  test("a body of exactly the maximum is stored, announced or in chunks", async () => {
    const queue = await createQueue();
    const path = `/v1/queues/${queue}/messages`;
    expect((await send("POST", path, of(body_bytes_max))).status).toBe(204);
    expect((await raw(chunked("POST", path, [of(body_bytes_max)]))).status).toBe(204);
    expect((await receive(queue)).map((message: { body: string }) => message.body.length)).toEqual([
      body_bytes_max - 11,
      body_bytes_max - 11,
    ]);
    expect((await send("DELETE", `/v1/queues/${queue}`)).status).toBe(204);
  });

  test("a larger one is 413 with code 13, announced or in chunks, by one byte or by far", async () => {
    const queue = await createQueue();
    const path = `/v1/queues/${queue}/messages`;
    const announce = (bytes: number) =>
      raw(Buffer.from(`POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${bytes}\r\n\r\n`));
    const chunks = (bytes: number) => {
      const text = of(bytes);
      return Array.from({ length: Math.ceil(bytes / 65_536) }, (_, i) => text.slice(i * 65_536, (i + 1) * 65_536));
    };
    await expectRefusals([
      ["announced, one more", () => announce(body_bytes_max + 1), { code: 13, details }],
      ["announced, far more", () => announce(99_999_999_999), { code: 13, details }],
      ["announced and sent", () => send("POST", path, of(body_bytes_max + 1)), { code: 13, details }],
      ["in chunks, one more", () => raw(chunked("POST", path, chunks(body_bytes_max + 1))), { code: 13, details }],
      ["in chunks, far more", () => raw(chunked("POST", path, chunks(4 * body_bytes_max))), { code: 13, details }],
    ]);
    expect((await send("GET", "/v1/healthz")).status).toBe(200);
  });
});

describe("bodies", () => {
  const malformed = [
    "",
    " ",
    "nul",
    "[]",
    "[{}]",
    '"x"',
    "1",
    "true",
    "{",
    '{"id":"x"',
    '{"id":"x"} x',
    '{"id":"x"}{}',
    "{'id':'x'}",
    "{id:1}",
    '\ufeff{"id":"x"}',
    '{"id":"x",}',
    '{"id":"a\nb"}',
    '{"id":"\0"}',
    '{"id":01}',
    '{"id":NaN}',
    "undefined",
    "[".repeat(1e6),
    `${"[".repeat(1e6)}${"]".repeat(1e6)}`,
  ];
  const bytes = [
    Buffer.from('{"id":"\xff"}', "latin1"),
    Buffer.from('{"\xed\xa0\x80":1}', "latin1"),
    Buffer.from('{"id":"x"}\x80', "latin1"),
    Buffer.from('{"id":"x"}', "utf16le"),
    Buffer.from('{"id":"\xc0\x80"}', "latin1"),
  ];

  test("that are no JSON object in UTF-8 are malformed, wherever one is needed", async () => {
    const queue = await createQueue();
    const topic = await createTopic();
    const targets: [string, string][] = [
      ["POST", "/v1/queues"],
      ["PUT", `/v1/queues/${queue}`],
      ["POST", `/v1/queues/${queue}/messages`],
      ["POST", "/v1/topics"],
      ["POST", `/v1/topics/${topic}/messages`],
      ["POST", "/v1/subscriptions"],
    ];
    for (const [method, path] of targets) {
      const cases = [...malformed, ...bytes].map(
        (body): Case => [
          `${method} ${path} ${body.toString().slice(0, 40)}`,
          () => send(method, path, body),
          { code: 2 },
        ],
      );
      await expectRefusals([...cases, [`${method} ${path} without one`, () => send(method, path), { code: 2 }]]);
    }
  }, 60_000);

  test("of ack and nack may be missing, empty or null, and must be an object when there is one", async () => {
    const queue = await createQueue();
    await sendJson("POST", `/v1/queues/${queue}/messages`, { body: "x" });
    const [{ id }] = await receive(queue);
    for (const verb of ["ack", "nack"]) {
      const path = `/v1/queues/${queue}/messages/${id}/${verb}`;
      const bad = [...malformed.filter((body) => body !== ""), ...bytes];
      await expectRefusals(
        bad.map((body) => [`${verb} ${body.toString().slice(0, 40)}`, () => send("PUT", path, body), { code: 2 }]),
      );
    }
    for (const verb of ["nack", "ack"]) {
      const path = `/v1/queues/${queue}/messages/${id}/${verb}`;
      const bodies = [undefined, "", "{}", " { } ", "null", '{"other":[1]}', '{"visibility_timeout_seconds":null}'];
      for (const body of bodies) expect([body, (await send("PUT", path, body)).status]).toEqual([body, 204]);
      expect((await raw(chunked("PUT", path, []))).status).toBe(204);
    }
  }, 60_000);

  test("of other requests are not looked at", async () => {
    const queue = await createQueue();
    for (const body of ["[", "\xff", ""]) {
      expect((await send("GET", `/v1/queues/${queue}`, body)).status).toBe(200);
      expect((await send("PUT", `/v1/queues/${queue}/purge`, body)).status).toBe(204);
    }
    expect((await send("DELETE", `/v1/queues/${queue}`, "[")).status).toBe(204);
  });

  test("are JSON whatever the content type says", async () => {
    const queue = await createQueue();
    const types = [
      "text/plain",
      "application/x-www-form-urlencoded",
      "multipart/form-data; boundary=x",
      "image/png",
      "",
      "???",
    ];
    for (const type of types) {
      const answer = await send("POST", `/v1/queues/${queue}/messages`, '{"body":"x"}', [`Content-Type: ${type}`]);
      expect([type, answer.status]).toEqual([type, 204]);
    }
    expect(await receive(queue)).toHaveLength(types.length);
  });

  test("nested deeper than anybody needs neither break the server nor are stored", async () => {
    const queue = await createQueue();
    const deep = (open: string, close: string) => `${open.repeat(500_000)}1${close.repeat(500_000)}`;
    const path = `/v1/queues/${queue}/messages`;
    await expectRefusals([
      ["lists", () => send("POST", path, `{"body":${deep("[", "]")}}`), { code: 2 }],
      ["objects", () => send("POST", path, `{"body":"x","attributes":${deep('{"":', "}")}}`), { code: 2 }],
      ["attribute", () => send("POST", path, `{"body":"x","attributes":{"a":${deep("[", "]")}}}`), { code: 2 }],
    ]);
    const ignored = await send("POST", path, `{"body":"x","other":${deep("[", "]")}}`);
    expect([204, 400]).toContain(ignored.status);
    expect((await send("GET", "/v1/healthz")).status).toBe(200);
  }, 60_000);

  test("null is the empty object, unknown members are ignored, names have a case, the last repeated one wins", async () => {
    await expectRefusals([
      ["null", () => send("POST", "/v1/topics", "null"), invalid("id", blank)],
      ["case", () => send("POST", "/v1/topics", '{"ID":"x","Id":"y"}'), invalid("id", blank)],
      ["last is bad", () => send("POST", "/v1/topics", '{"id":"x","id":1}'), { code: 2 }],
      ["last is null", () => send("POST", "/v1/topics", '{"id":"x","id":null}'), invalid("id", blank)],
      ["prototype", () => send("POST", "/v1/topics", '{"__proto__":{"id":"x"}}'), invalid("id", blank)],
    ]);
    const [first, last] = [uniqueId("t"), uniqueId("t")];
    const body = `\r\n\t {"id":1,"id":"${first}","x":{"id":2},"id":"${last}","constructor":3,"__proto__":4} \n`;
    expect((await send("POST", "/v1/topics", body)).body).toEqual({ id: last, created_at: expect.any(String) });
  });
});

describe("members", () => {
  const queueWith = (member: string, id = uniqueId()) =>
    send("POST", "/v1/queues", `{"id":"${id}","ack_deadline_seconds":30,"message_retention_seconds":3600,${member}}`);

  test("integers: what a JSON number can say, bounds, and nothing else", async () => {
    for (const name of ["ack_deadline_seconds", "message_retention_seconds"]) {
      for (const [text, value] of Object.entries({
        "30": 30,
        "30.0": 30,
        "3e1": 30,
        "1": 1,
        "2147483647": int32_max,
        "0.3e2": 30,
      })) {
        expect((await queueWith(`"${name}":${text}`)).body).toMatchObject({ [name]: value });
      }
      await expectRefusals([
        ...["-1", "1.5", '"30"', "true", "{}", "[]", "[30]", "-1e400", '""'].map(
          (text): Case => [text, () => queueWith(`"${name}":${text}`), { code: 2 }],
        ),
        ...["0", "-0", "0.0", "null", "0e5"].map(
          (text): Case => [text, () => queueWith(`"${name}":${text}`), invalid(name, blank)],
        ),
        ...["2147483648", "4294967296", "1e13", "1e400", "99999999999999999999999", "9007199254740993"].map(
          (text): Case => [text, () => queueWith(`"${name}":${text}`), invalid(name, too_great)],
        ),
      ]);
    }
    const delay = "delivery_delay_seconds";
    for (const [text, value] of Object.entries({
      "0": 0,
      "-0": 0,
      "0.0": 0,
      null: 0,
      "5": 5,
      "2147483647": int32_max,
    })) {
      expect((await queueWith(`"${delay}":${text}`)).body).toMatchObject({ [delay]: value });
    }
    await expectRefusals([
      ["too great", () => queueWith(`"${delay}":2147483648`), invalid(delay, too_great)],
      ["infinite", () => queueWith(`"${delay}":1e400`), invalid(delay, too_great)],
      ["text", () => queueWith(`"${delay}":"0"`), { code: 2 }],
      ["below", () => queueWith(`"${delay}":-1`), { code: 2 }],
      ["fraction", () => queueWith(`"${delay}":0.5`), { code: 2 }],
    ]);
  });

  const bad_ids: [unknown, Refusal][] = [
    [undefined, invalid("id", blank)],
    [null, invalid("id", blank)],
    ["", invalid("id", blank)],
    [1, { code: 2 }],
    [["x"], { code: 2 }],
    ...["a b", "a/b", "é", "x\n", "\nx", "x\u0000", "\ud800", "a%20b", " ", "😀", "a,b"].map(
      (id): [string, Refusal] => [id, invalid("id", format)],
    ),
    ["x".repeat(256), invalid("id", "the length must be no more than 255")],
    [` ${"x".repeat(300)}`, invalid("id", format)],
  ];

  test("ids: their characters, on the whole text, and their length; in all three resources", async () => {
    const others: [string, Record<string, unknown>][] = [
      ["queues", settings],
      ["topics", {}],
      ["subscriptions", { topic_id: "t", queue_id: "q" }],
    ];
    for (const [name, other] of others) {
      await expectRefusals(
        bad_ids.map(([id, refusal]) => [
          `${name} ${JSON.stringify(id)}`,
          () => sendJson("POST", `/v1/${name}`, { ...other, id }),
          refusal,
        ]),
      );
    }
    const topic_id = await createTopic(`-._Az09${"x".repeat(248)}`);
    expect((await send("GET", `/v1/topics/${topic_id}`)).body.id).toBe(topic_id);
    for (const member of ["topic_id", "queue_id"]) {
      const given = { id: "s", topic_id: "t", queue_id: "q" };
      await expectRefusals(
        bad_ids.map(([id, { code, details }]) => [
          `${member} ${JSON.stringify(id)}`,
          () => sendJson("POST", "/v1/subscriptions", { ...given, [member]: id }),
          { code, ...(details && { details: details.replace("id", member) }) },
        ]),
      );
    }
  });

  test("the id in the path of an update is the one that counts, and the one that is checked", async () => {
    const queue = await createQueue();
    const updated = await sendJson("PUT", `/v1/queues/${queue}`, { ...settings, id: "other", ack_deadline_seconds: 7 });
    expect(updated.body).toMatchObject({ id: queue, ack_deadline_seconds: 7, delivery_delay_seconds: 0 });
    const put = (id: string, body: unknown = settings) => sendJson("PUT", `/v1/queues/${id}`, body);
    await expectRefusals([
      ["format", () => put("a%20b"), invalid("id", format)],
      ["NUL", () => put("a%00"), invalid("id", format)],
      ["slash", () => put("a%2Fb"), invalid("id", format)],
      ["bytes", () => put("%ff"), invalid("id", format)],
      ["length", () => put("x".repeat(256)), invalid("id", "the length must be no more than 255")],
      ["wrong type", () => put(queue, { ...settings, id: 1 }), { code: 2 }],
      [
        "all",
        () => put("%C3%A9", {}),
        { code: 3, details: `ack_deadline_seconds: ${blank}; id: ${format}; message_retention_seconds: ${blank}.` },
      ],
      ["unknown", () => put("nobody"), { code: 5 }],
    ]);
  });

  test("a message's body, label and attributes", async () => {
    const queue = await createQueue();
    const topic = await createTopic();
    const long = "the length must be no more than 255";
    const cases: [unknown, Refusal][] = [
      [{}, invalid("body", blank)],
      [{ body: null }, invalid("body", blank)],
      [{ body: "" }, invalid("body", blank)],
      [{ body: 1 }, { code: 2 }],
      [{ body: {} }, { code: 2 }],
      [{ body: "a\0" }, invalid("body", format)],
      [{ body: "\ud800" }, invalid("body", format)],
      [{ body: "\udc00\ud800" }, invalid("body", format)],
      [{ body: "x", label: 1 }, { code: 2 }],
      [{ body: "x", label: ["y"] }, { code: 2 }],
      [{ body: "x", label: "\0" }, invalid("label", format)],
      [{ body: "x", label: "\udfff" }, invalid("label", format)],
      [{ body: "x", label: "y".repeat(256) }, invalid("label", long)],
      [{ body: "x", label: "é".repeat(128) }, invalid("label", long)],
      [{ body: "x", label: "😀".repeat(64) }, invalid("label", long)],
      [{ body: "x", label: `\0${"y".repeat(300)}` }, invalid("label", format)],
      [{ body: "x", attributes: [] }, { code: 2 }],
      [{ body: "x", attributes: "a" }, { code: 2 }],
      [{ body: "x", attributes: { a: 1 } }, { code: 2 }],
      [{ body: "x", attributes: { a: {} } }, { code: 2 }],
      [{ body: "x", attributes: { a: ["b"] } }, { code: 2 }],
      [{ body: "x", attributes: { a: false } }, { code: 2 }],
      [{ body: "x", attributes: { a: "\0" } }, invalid("attributes", format)],
      [{ body: "x", attributes: { "\0": "a" } }, invalid("attributes", format)],
      [{ body: "x", attributes: { a: "\ud83d" } }, invalid("attributes", format)],
      [{ body: "x", attributes: { "\ud83d": "a" } }, invalid("attributes", format)],
      [{ body: "x", attributes: { "\0": 1 } }, { code: 2 }],
      [
        { label: "y".repeat(256), attributes: { a: "\0" } },
        { code: 3, details: `attributes: ${format}; body: ${blank}; label: ${long}.` },
      ],
    ];
    for (const path of [`/v1/queues/${queue}/messages`, `/v1/topics/${topic}/messages`, "/v1/queues/nobody/messages"]) {
      await expectRefusals(
        cases.map(([body, refusal]) => [JSON.stringify(body), () => sendJson("POST", path, body), refusal]),
      );
    }
    for (const text of [
      " ",
      "\n",
      "\u0001\u007f",
      "\ufeff",
      "\uffff",
      "😀",
      "\u202e",
      "</script>",
      "\u2028",
      "a".repeat(100_000),
    ]) {
      expect((await sendJson("POST", `/v1/queues/${queue}/messages`, { body: text })).status).toBe(204);
      expect((await receive(queue))[0].body).toBe(text);
    }
    for (const label of ["", " ", "y".repeat(255), "é".repeat(127), "€".repeat(85), "\u0001"]) {
      expect((await sendJson("POST", `/v1/queues/${queue}/messages`, { body: "x", label })).status).toBe(204);
      expect((await receive(queue, `?label=${encodeURIComponent(label)}`))[0].label).toBe(label);
    }
  });

  test("attributes are data, whatever their names, and come back byte for byte", async () => {
    const queue = await createQueue();
    const attributes =
      '{"":"empty","2":"two","10":"ten","__proto__":"p","constructor":"c","hasOwnProperty":"h","toString":"t",' +
      '"\\u0001\\"\\\\\\n":"\\u2028😀\\/","attributes":"a","é":"e\\u0301","long":"' +
      "x".repeat(5000) +
      '"}';
    const path = `/v1/queues/${queue}/messages`;
    const asked: [string, string][] = [
      [attributes, attributes],
      ["{}", "{}"],
      ["null", "null"],
      ['{"a":null,"__proto__":null}', '{"a":"","__proto__":""}'],
      ['{"a":"1","a":"2","__proto__":"1","__proto__":"2"}', '{"a":"2","__proto__":"2"}'],
    ];
    for (const [given, expected] of asked) {
      expect((await send("POST", path, `{"body":"x","attributes":${given}}`)).status).toBe(204);
      const entries = (value: object | null) => value && Object.entries(value).sort();
      const [message] = await receive(queue);
      expect(entries(message.attributes)).toEqual(entries(JSON.parse(expected)));
    }
    expect(Object.hasOwn({}, "p")).toBe(false);
  });

  test("filters are lists of strings by name, and come back byte for byte", async () => {
    const [topic_id, queue_id] = [await createTopic(), await createQueue()];
    const given = { topic_id, queue_id };
    const cases: [string, Refusal][] = [
      ["[]", { code: 2 }],
      ['"a"', { code: 2 }],
      ['{"a":"b"}', { code: 2 }],
      ['{"a":{}}', { code: 2 }],
      ['{"a":[1]}', { code: 2 }],
      ['{"a":[["b"]]}', { code: 2 }],
      ['{"a":[true]}', { code: 2 }],
      ['{"a":["\\u0000"]}', invalid("message_filters", format)],
      ['{"\\u0000":[]}', invalid("message_filters", format)],
      ['{"a":["\\ud800"]}', invalid("message_filters", format)],
      ['{"\\udc00":null}', invalid("message_filters", format)],
    ];
    const subscribe = (filters: string, id = "s") =>
      send(
        "POST",
        "/v1/subscriptions",
        JSON.stringify({ id, ...given }).replace("}", `,"message_filters":${filters}}`),
      );
    await expectRefusals(cases.map(([filters, refusal]) => [filters, () => subscribe(filters), refusal]));
    const stored: [string, string][] = [
      ["null", "null"],
      ["{}", "{}"],
      [
        '{"":[],"a":null,"__proto__":["x",null,""],"constructor":["😀","\\u2028"],"2":["b","a"]}',
        '{"":[],"a":null,"__proto__":["x","",""],"constructor":["😀","\\u2028"],"2":["b","a"]}',
      ],
    ];
    for (const [filters, expected] of stored) {
      const id = uniqueId("s");
      const created = await subscribe(filters, id);
      expect(created.status).toBe(201);
      const got = await send("GET", `/v1/subscriptions/${id}`);
      expect(got.body.created_at).toBe(created.body.created_at);
      for (const { body } of [created, got]) {
        const entries = (value: object | null) => value && Object.entries(value).sort();
        expect(entries(body.message_filters)).toEqual(entries(JSON.parse(expected)));
      }
      await send("DELETE", `/v1/subscriptions/${id}`);
    }
  });

  test("read-only members are typed and then ignored", async () => {
    const queue = await createQueue();
    const path = `/v1/queues/${queue}/messages`;
    const times = ["2026-01-31T23:59:59.012300Z", "2024-02-29T00:00:00+14:00", "1999-12-31T23:59:59-00:30"];
    for (const time of times) {
      const ids = { id: uniqueId("t") };
      expect((await sendJson("POST", "/v1/topics", { ...ids, created_at: time })).body.created_at).not.toBe(time);
      const read_only = { id: "\0", queue_id: "other", delivery_attempts: 1e300, created_at: time };
      expect((await sendJson("POST", path, { body: "x", ...read_only })).status).toBe(204);
      const [message] = await receive(queue);
      expect(message).toMatchObject({ queue_id: queue, delivery_attempts: 1 });
      const settings_with = { ...settings, created_at: time, updated_at: null };
      expect((await sendJson("PUT", `/v1/queues/${queue}`, settings_with)).status).toBe(200);
    }
    const not_times = [
      "",
      "now",
      "2026-01-31",
      "2026-02-30T00:00:00Z",
      "2026-01-31T24:00:00Z",
      "2026-01-31 00:00:00Z",
      1,
      {},
      true,
    ];
    const bad = [
      ...not_times.map((created_at) => ({ created_at })),
      ...[1, {}, false].map((id) => ({ id })),
      ...[1, []].map((queue_id) => ({ queue_id })),
      ...["1", -1, 1.5, {}].map((delivery_attempts) => ({ delivery_attempts })),
    ];
    await expectRefusals([
      ...bad.map(
        (extra): Case => [JSON.stringify(extra), () => sendJson("POST", path, { body: "x", ...extra }), { code: 2 }],
      ),
      ...not_times.flatMap((time): Case[] => [
        [`topic ${time}`, () => sendJson("POST", "/v1/topics", { id: "t", created_at: time }), { code: 2 }],
        [
          `queue ${time}`,
          () => sendJson("POST", "/v1/queues", { id: "q", ...settings, updated_at: time }),
          { code: 2 },
        ],
      ]),
    ]);
  });

  test("all that is wrong is told at once, sorted by name, each name once", async () => {
    const queue = await createQueue();
    await sendJson("POST", `/v1/queues/${queue}/messages`, { body: "x" });
    const [{ id }] = await receive(queue);
    const nack = `/v1/queues/${queue}/messages/${id}/nack`;
    const seconds = "visibility_timeout_seconds";
    const above = invalid(seconds, "must be no greater than 43200");
    await expectRefusals([
      [
        "queue",
        () => send("POST", "/v1/queues", "{}"),
        { code: 3, details: `ack_deadline_seconds: ${blank}; id: ${blank}; message_retention_seconds: ${blank}.` },
      ],
      [
        "subscription",
        () => sendJson("POST", "/v1/subscriptions", { queue_id: "a b", topic_id: "x".repeat(256) }),
        { code: 3, details: `id: ${blank}; queue_id: ${format}; topic_id: the length must be no more than 255.` },
      ],
      ["wrong type first", () => sendJson("POST", "/v1/queues", { id: "a b", ack_deadline_seconds: "1" }), { code: 2 }],
      [
        "query",
        () => send("GET", "/v1/queues?offset=x&limit=y"),
        { code: 3, details: `limit: ${format}; offset: ${format}.` },
      ],
      ["nack body", () => sendJson("PUT", nack, { [seconds]: 43_201 }), above],
      ["nack query", () => send("PUT", `${nack}?${seconds}=43201`), above],
      ["nack both", () => send("PUT", `${nack}?${seconds}=x`, `{"${seconds}":1e400}`), above],
      [
        "nack query, body fine",
        () => send("PUT", `${nack}?${seconds}=-1`, `{"${seconds}":1}`),
        invalid(seconds, format),
      ],
      ["nack type", () => sendJson("PUT", nack, { [seconds]: "1" }), { code: 2 }],
      ["nack negative", () => sendJson("PUT", nack, { [seconds]: -1 }), { code: 2 }],
      ["nack type and query", () => send("PUT", `${nack}?${seconds}=x`, `{"${seconds}":[]}`), { code: 2 }],
    ]);
    for (const [query, body] of [
      ["?visibility_timeout_seconds=43200"],
      ["", "43200"],
      ["?visibility_timeout_seconds=9", "0"],
    ]) {
      const given = body === undefined ? undefined : `{"${seconds}":${body}}`;
      expect((await send("PUT", `${nack}${query}`, given)).status).toBe(204);
    }
    // The body's 0 won over the query's 9: visible at once.
    expect((await receive(queue))[0]).toMatchObject({ id, delivery_attempts: 2 });
    expect((await send("PUT", `${nack}?${seconds}=`, `{"${seconds}":null}`)).status).toBe(204);
    expect((await receive(queue))[0]).toMatchObject({ id, delivery_attempts: 3 });
  });
});

describe("query parameters", () => {
  test("numbers are digits only; a limit too large is lowered and echoed; the first of repeated names counts", async () => {
    const limits: [string, number][] = [
      ["", 10],
      ["limit=7", 7],
      ["limit=0007", 7],
      ["limit=", 0],
      ["limit", 0],
      ["limit=%37", 7],
      ["limit=1000", 1000],
      ["limit=1001", 1000],
      [`limit=${"9".repeat(400)}`, 1000],
      ["limit=3&limit=4", 3],
      ["limit=3&limit=x", 3],
      ["LIMIT=x", 10],
      ["other=%ff&limit=3", 3],
      ["&&limit=3&", 3],
      ["%6cimit=3", 3],
      ["limit=3#limit=4", 3],
      ["__proto__=1&constructor=x&limit=3", 3],
    ];
    for (const [query, limit] of limits) {
      for (const name of ["queues", "topics", "subscriptions"]) {
        const { body } = await send("GET", `/v1/${name}?${query}`);
        expect([query, body]).toEqual([query, { data: expect.any(Array), limit }]);
      }
    }
    const page = (await send("GET", "/v1/queues?offset=2147483647&limit=1")).body;
    expect(page).toEqual({ data: [], offset: int32_max, limit: 1 });
    expect(Object.keys(page)).toEqual(["data", "offset", "limit"]);
    const queue = await createQueue();
    const received = (query: string) => send("GET", `/v1/queues/${queue}/messages?${query}`);
    expect((await received("limit=999")).body).toEqual({ data: [], limit: 10 });
    expect((await received("limit=0")).body).toEqual({ data: [], limit: 0 });
    const bad = [
      "x",
      "-1",
      "+1",
      "%2B1",
      "1.0",
      "1e2",
      "0x1",
      " 1",
      "1%20",
      "%D9%A3",
      "%00",
      "%ff",
      "1,2",
      "%EF%BC%91",
    ];
    await expectRefusals(
      bad
        .flatMap((text): Case[] => [
          [text, () => send("GET", `/v1/queues?limit=${text}&limit=1`), invalid("limit", format)],
          [text, () => send("GET", `/v1/topics?offset=${text}`), invalid("offset", format)],
          [text, () => received(`limit=${text}`), invalid("limit", format)],
          [text, () => send("GET", `/v1/queues/nobody/messages?limit=${text}`), invalid("limit", format)],
        ])
        .filter(([text]) => text !== " 1"),
    );
    await expectRefusals(
      ["2147483648", "9".repeat(400)].map((text) => [
        text,
        () => send("GET", `/v1/queues?offset=${text}`),
        invalid("offset", too_great),
      ]),
    );
  });

  test("text is decoded as a form: + and %XX, valid UTF-8 without NUL", async () => {
    const queue = await createQueue();
    const path = `/v1/queues/${queue}/messages`;
    const labels: [string, string][] = [
      ["a b", "a+b"],
      ["a+b", "a%2Bb"],
      ["é", "%C3%A9"],
      ["😀", "%F0%9F%98%80"],
      ["", ""],
      ["a=b&c", "a=b%26c"],
      ["%", "%25"],
      ["A", "A"],
      ["a", "a&label=b"],
      ["%41", "%2541"],
    ];
    for (const [label, query] of labels) {
      await sendJson("POST", path, { body: "x", label });
      expect([
        query,
        (await receive(queue, `?label=${query}`)).map((message: { label: string }) => message.label),
      ]).toEqual([query, [label]]);
    }
    await sendJson("POST", path, { body: "x" });
    expect(await receive(queue, `?label=${"y".repeat(3000)}`)).toEqual([]);
    await expectRefusals(
      ["%ff", "%00", "%ed%a0%80", "a%", "%zz", "%C3", "a%00b"].map((text) => [
        text,
        () => send("GET", `${path}?label=${text}`),
        invalid("label", format),
      ]),
    );
    expect(await receive(queue)).toHaveLength(1);
  });
});

describe("browsers", () => {
  const foreign = [
    ["Sec-Fetch-Site: cross-site"],
    ["Origin: https://evil.example"],
    ["Origin: null"],
    ["Origin: http://localhost:81"],
    ["Origin: http://localhost.evil.example"],
    ["Origin: http://localhost", "Sec-Fetch-Site: cross-site"],
    ["Origin: nonsense"],
  ];

  test("of another site are refused, whatever they ask, and change nothing", async () => {
    const queue = await createQueue();
    await sendJson("POST", `/v1/queues/${queue}/messages`, { body: "x" });
    const asks: [string, string, string?][] = [
      ["GET", `/v1/queues/${queue}/messages`],
      ["POST", `/v1/queues/${queue}/messages`, '{"body":"y"}'],
      ["DELETE", `/v1/queues/${queue}`],
      ["PUT", `/v1/queues/${queue}/purge`],
      ["GET", "/v1/healthz"],
    ];
    await expectRefusals(
      asks.flatMap(([method, path, body]) =>
        foreign.map(
          (headers): Case => [`${method} ${path} ${headers}`, () => send(method, path, body, headers), { code: 16 }],
        ),
      ),
    );
  });

  test("of our own site, and clients that are no browsers, pass", async () => {
    const own = [
      [],
      ["Origin: http://localhost"],
      ["Origin: http://localhost:80"],
      ["Origin: http://LOCALHOST"],
      ["Sec-Fetch-Site: same-origin"],
      ["Sec-Fetch-Site: same-site"],
      ["Sec-Fetch-Site: none"],
    ];
    for (const headers of own) {
      const answer = await send("GET", "/v1/healthz", undefined, headers);
      expect([headers, answer.status]).toEqual([headers, 200]);
      expect(answer.headers.get("access-control-allow-origin")).toBeNull();
    }
    const port = await raw(request("GET", "/v1/healthz", { headers: ["Host: h:8000", "Origin: http://h:8000"] }));
    expect(port.status).toBe(200);
  });

  test("of an allowed origin pass, with a preflight; others still do not", async () => {
    const origin = "https://app.example.com";
    const cors = await openService({ url, body_bytes_max, cors_origins: [origin, "http://other:8080"] });
    const call = (method: string, path: string, headers: Record<string, string>) =>
      cors.call(method, path, undefined, headers);
    const asked = {
      origin,
      "access-control-request-method": "PUT",
      "access-control-request-headers": "content-type, x-a",
    };
    const preflight = await call("OPTIONS", "/v1/queues/x", asked);
    expect([preflight.status, preflight.text]).toEqual([204, ""]);
    expect(Object.fromEntries(preflight.headers)).toMatchObject({
      "access-control-allow-origin": origin,
      "access-control-allow-methods": "GET, HEAD, PUT, DELETE",
      "access-control-allow-headers": "content-type, x-a",
      "access-control-max-age": "600",
      vary: "origin",
    });
    const site = { "sec-fetch-site": "cross-site" };
    for (const path of ["/v1/healthz", "/v1/queues/nobody"]) {
      const answer = await call("GET", path, { origin, ...site });
      expect(answer.status).toBe(path === "/v1/healthz" ? 200 : 404);
      expect(answer.headers.get("access-control-allow-origin")).toBe(origin);
    }
    const statuses = async (headers: Record<string, string>) => [
      (await call("GET", "/v1/healthz", headers)).status,
      (await call("OPTIONS", "/v1/healthz", { ...headers, "access-control-request-method": "GET" })).status,
    ];
    expect(await statuses({ origin: "http://other:8080" })).toEqual([200, 204]);
    expect(await statuses({ origin: "https://evil.example" })).toEqual([403, 405]);
    expect(await statuses({ origin: "https://app.example.com.evil" })).toEqual([403, 405]);
    expect(await statuses(site)).toEqual([403, 405]);
    expect((await call("OPTIONS", "/v1/nowhere", asked)).status).toBe(404);
    expect((await call("OPTIONS", "/v1/healthz", { origin })).status).toBe(405);
    await cors.close();
    const open = await openService({ url, body_bytes_max, cors_origins: ["*"] });
    const any = await open.call("GET", "/v1/healthz", undefined, { origin: "https://any.example", ...site });
    expect([any.status, any.headers.get("access-control-allow-origin")]).toEqual([200, "https://any.example"]);
    await open.close();
  });
});

describe("the order of checks", () => {
  test("path, method, origin, size, body, members, taken, existence", async () => {
    const queue = await createQueue();
    const [topic, subscription] = [await createTopic(), uniqueId("s")];
    const mine = { id: subscription, topic_id: topic, queue_id: queue };
    expect((await sendJson("POST", "/v1/subscriptions", mine)).status).toBe(201);
    const evil = ["Origin: https://evil.example"];
    const announce = (method: string, path: string, headers: string[]) =>
      raw(request(method, path, { headers: ["Host: localhost", "Content-Length: 99999999", ...headers] }));
    const subscribe = (body: object) => sendJson("POST", "/v1/subscriptions", body);
    await expectRefusals([
      ["path before all", () => announce("PATCH", "/v1/nowhere", evil), { code: 23 }],
      ["method before origin", () => announce("PATCH", "/v1/queues", evil), { code: 24 }],
      ["origin before size", () => announce("POST", "/v1/queues", evil), { code: 16 }],
      ["size before body", () => announce("POST", "/v1/queues", []), { code: 13 }],
      ["body before members", () => send("POST", "/v1/queues", '{"id":"a b"'), { code: 2 }],
      ["type before values", () => send("POST", "/v1/queues", '{"id":"a b","ack_deadline_seconds":"x"}'), { code: 2 }],
      [
        "members before taken",
        () => sendJson("POST", "/v1/queues", { id: queue }),
        { code: 3, details: `ack_deadline_seconds: ${blank}; message_retention_seconds: ${blank}.` },
      ],
      ["members before existence", () => sendJson("POST", "/v1/topics/nobody/messages", {}), invalid("body", blank)],
      ["query before existence", () => send("GET", "/v1/queues/nobody/messages?limit=x"), invalid("limit", format)],
      ["body before existence", () => send("PUT", "/v1/queues/nobody/messages/x/ack", "["), { code: 2 }],
      ["queue before message", () => send("PUT", "/v1/queues/nobody/messages/x/ack"), { code: 5 }],
      ["queue is taken", () => sendJson("POST", "/v1/queues", { id: queue, ...settings }), { code: 4 }],
      ["topic is taken", () => sendJson("POST", "/v1/topics", { id: topic }), { code: 7 }],
      ["id taken before topic", () => subscribe({ ...mine, topic_id: "nobody", queue_id: "nobody" }), { code: 9 }],
      ["pair taken", () => subscribe({ ...mine, id: uniqueId("s") }), { code: 9 }],
      [
        "topic before queue",
        () => subscribe({ ...mine, id: "new", topic_id: "nobody", queue_id: "nobody" }),
        { code: 8 },
      ],
      ["queue last", () => subscribe({ ...mine, id: "new", queue_id: "nobody" }), { code: 5 }],
      ["publish", () => sendJson("POST", "/v1/queues/nobody/messages", { body: "x" }), { code: 5 }],
      ["publish to a topic", () => sendJson("POST", "/v1/topics/nobody/messages", { body: "x" }), { code: 8 }],
    ]);
  });

  test("fetch, which most clients are built on, sees the same", async () => {
    const answer = await read(await fetch(`http://127.0.0.1:${server.port}/v1/queues/nobody`));
    expect([answer.status, answer.body]).toEqual([404, { code: 5, message: "queue not found" }]);
  });
});
