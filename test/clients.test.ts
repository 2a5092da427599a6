// What clients do on a connection besides one request after the other, over real sockets.

import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import net from "node:net";
import { addObserver, type Observation } from "../src/observe.ts";
import { createQueue, listen, serviceForFile, until } from "./harness.ts";
import { exchange, request } from "./wire.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile();
const listener = await listen(service.app, {
  idle_seconds_max: 2,
  header_seconds_max: 2,
  body_rate_min: 240,
  rate_window_ms: 1500,
  handler_seconds_max: 1,
});
afterAll(() => listener.stop(true));

const seen: Observation[] = [];
afterAll(addObserver((observation) => seen.push(observation)));
const errors = () => seen.filter(({ kind }) => kind === "internal_error");
const statuses = (route: string) =>
  seen.flatMap((one) => (one.kind === "request" && one.route.endsWith(route) ? [one.status] : []));

/** A connection whose bytes a test writes itself. */
function open() {
  const socket = net.connect({ port: listener.port, host: "127.0.0.1", allowHalfOpen: true });
  let got = "";
  let is_closed = false;
  let has_ended = false;
  socket.on("data", (chunk) => {
    got += chunk.toString("latin1");
  });
  socket.on("error", () => {});
  socket.on("end", () => {
    has_ended = true;
  });
  socket.on("close", () => {
    is_closed = true;
  });
  return {
    socket,
    got: () => got,
    answers: () => [...got.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => Number(status)),
    isOver: () => is_closed || has_ended,
  };
}

const publish = (queue: string, body: string, path = "") => {
  const text = JSON.stringify({ body });
  const length = Buffer.byteLength(text);
  return `POST /v1/queues/${queue}/messages${path} HTTP/1.1\r\nHost: x\r\nContent-Length: ${length}\r\n\r\n${text}`;
};
const receive = (queue: string, query = "") => `GET /v1/queues/${queue}/messages${query} HTTP/1.1\r\nHost: x\r\n\r\n`;

async function bodies(queue: string): Promise<string[]> {
  const rows = await service.sql`
    select message.body from psqlqueue.messages as message
    join psqlqueue.queues as queue on queue.no = message.queue_no
    where queue.id = ${queue} order by message.id`;
  return rows.map((row) => row["body"]);
}
async function leased(queue: string): Promise<number> {
  return (await service.call("GET", `/v1/queues/${queue}/stats`)).body.leased;
}

describe("pipelining", () => {
  test("requests in one write are all answered, in order", async () => {
    const queue = await createQueue(service);
    const connection = open();
    connection.socket.write(publish(queue, "a") + publish(queue, "b") + publish(queue, "c") + receive(queue));
    await until(() => connection.answers().length === 4);
    expect(connection.answers()).toEqual([204, 204, 204, 200]);
    connection.socket.destroy();
    expect(await bodies(queue)).toEqual(["a", "b", "c"]);
  });

  test("a request behind one that still waits is answered after it", async () => {
    const queue = await createQueue(service);
    const connection = open();
    connection.socket.write(receive(queue, "?wait_seconds=10"));
    await until(() => service.broker.wakeups.size() === 1);
    connection.socket.write(publish(queue, "late"));
    await until(() => connection.answers().length === 2);
    expect(connection.answers()).toEqual([200, 204]);
    expect(connection.got()).toContain('"late"');
    connection.socket.destroy();
  });

  test("a request that is no HTTP is refused after those before it are answered", async () => {
    const queue = await createQueue(service);
    const connection = open();
    connection.socket.write(`${receive(queue, "?wait_seconds=1")}${publish(queue, "a")}nonsense\r\n\r\n`);
    await until(() => connection.isOver());
    expect(connection.answers()).toEqual([200, 204, 400]);
    connection.socket.destroy();
  });

  test("more requests than are handled at once wait on the connection, and are answered all", async () => {
    const queue = await createQueue(service);
    const connection = open();
    const count = 2000;
    connection.socket.write(publish(queue, "a").repeat(count));
    await until(() => connection.answers().length === count, 20_000);
    expect(new Set(connection.answers())).toEqual(new Set([204]));
    connection.socket.destroy();
    expect(await bodies(queue)).toHaveLength(count);
  });
});

describe("a client that ends its side after the request", () => {
  test("is answered: a publish, a receive, and one that waits", async () => {
    const queue = await createQueue(service);
    for (const bytes of [publish(queue, "a"), receive(queue), receive(queue, "?wait_seconds=1")]) {
      const connection = open();
      connection.socket.end(bytes);
      await until(() => connection.isOver());
      expect(connection.answers()).toEqual([bytes.startsWith("POST") ? 204 : 200]);
      connection.socket.destroy();
    }
    expect(await leased(queue)).toBe(1);
  });

  test("gets what was found for it, and is heard no more of", async () => {
    const queue = await createQueue(service);
    await service.call("POST", `/v1/queues/${queue}/messages`, { body: "x" });
    const connection = open();
    connection.socket.end(receive(queue));
    await until(() => connection.isOver());
    expect(connection.got()).toContain('"body":"x"');
    expect(await leased(queue)).toBe(1);
    connection.socket.destroy();
  });

  test("and is gone, gives back what was found for it, uncounted", async () => {
    const queue = await createQueue(service);
    await service.call("POST", `/v1/queues/${queue}/messages`, { body: "x" });
    for (let i = 0; i < 5; i++) {
      const connection = open();
      await until(() => !connection.socket.connecting);
      connection.socket.write(receive(queue));
      connection.socket.destroy();
      await until(async () => (await leased(queue)) === 0);
    }
    await until(async () => (await service.call("GET", `/v1/queues/${queue}/messages`)).body.data.length === 1);
    const [row] = await service.sql`
      select max(delivery_attempts) as attempts from psqlqueue.messages as message
      join psqlqueue.queues as queue on queue.no = message.queue_no where queue.id = ${queue}`;
    expect(Number(row?.["attempts"])).toBe(1);
  });
});

test("a slow reader gets all of an answer after which the connection ends", async () => {
  const patient = await listen(service.app, { idle_seconds_max: 60 });
  const queue = await createQueue(service);
  await service.call("POST", `/v1/queues/${queue}/messages`, { body: "x".repeat(300_000) });
  const socket = net.connect({ port: patient.port, host: "127.0.0.1" });
  let got = 0;
  socket.on("data", (chunk) => {
    got += chunk.length;
  });
  socket.pause();
  socket.write(`GET /v1/queues/${queue}/messages HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
  await Bun.sleep(3500);
  socket.resume();
  await new Promise((resolve) => socket.once("close", resolve));
  expect(got).toBeGreaterThan(300_000);
  await patient.stop(true);
}, 60_000);

describe("a client that leaves", () => {
  test("right after it has sent a publish has published", async () => {
    const queue = await createQueue(service);
    for (let i = 0; i < 20; i++) {
      const connection = open();
      await until(() => !connection.socket.connecting);
      connection.socket.write(publish(queue, "x"), () => connection.socket.destroy());
    }
    await until(async () => (await bodies(queue)).length === 20);
  });

  test("in a long poll, in an upload, or with a broken body is counted as 499 or 400 and is no error of ours", async () => {
    const queue = await createQueue(service);
    const before = seen.length;
    const poll = open();
    poll.socket.write(receive(queue, "?wait_seconds=10"));
    await until(() => service.broker.wakeups.size() === 1);
    poll.socket.resetAndDestroy();
    await until(() => service.broker.wakeups.size() === 0);
    const upload = open();
    upload.socket.write(
      `POST /v1/queues/${queue}/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{"body":"`,
    );
    await until(() => seen.slice(before).filter(({ kind }) => kind === "request_started").length === 2);
    upload.socket.resetAndDestroy();
    const chunked = open();
    chunked.socket.write(
      `POST /v1/queues/${queue}/messages HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc`,
    );
    await until(() => chunked.isOver());
    expect(chunked.answers()).toEqual([400]);
    const cut = open();
    cut.socket.end(`POST /v1/queues/${queue}/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{"b`);
    await until(() => cut.isOver());
    expect(cut.answers()).toEqual([400]);
    await until(() => seen.slice(before).filter(({ kind }) => kind === "request").length === 4);
    const counted = seen.slice(before).flatMap((one) => (one.kind === "request" ? [one.status] : []));
    expect(counted).toEqual([499, 499, 499, 499]);
    expect(errors()).toEqual([]);
    expect(await bodies(queue)).toEqual([]);
  });
});

describe("bodies and expectations", () => {
  const post = (queue: string, headers: string, rest: string) =>
    `POST /v1/queues/${queue}/messages HTTP/1.1\r\nHost: x\r\n${headers}\r\n\r\n${rest}`;

  test("Expect: 100-continue in any case is answered at once; over the limit it is 413 without a 100", async () => {
    const queue = await createQueue(service);
    for (const expectation of ["100-continue", "100-Continue"]) {
      const connection = open();
      connection.socket.write(post(queue, `Expect: ${expectation}\r\nContent-Length: 12`, ""));
      await until(() => connection.answers().length === 1);
      expect(connection.answers()).toEqual([100]);
      connection.socket.write('{"body":"x"}');
      await until(() => connection.answers().length === 2);
      expect(connection.answers()).toEqual([100, 204]);
      connection.socket.destroy();
    }
    const refused: [string, number][] = [
      ["Expect: 100-continue\r\nContent-Length: 99999999", 413],
      ["Expect: something\r\nContent-Length: 12", 417],
    ];
    for (const [headers, status] of refused) {
      const connection = open();
      connection.socket.write(post(queue, headers, ""));
      await until(() => connection.answers().length > 0);
      expect([headers, connection.answers()]).toEqual([headers, [status]]);
      connection.socket.destroy();
    }
  });

  test("trailers, a body on a GET, and a request right behind a chunked one are answered", async () => {
    const queue = await createQueue(service);
    const chunk = 'c\r\n{"body":"x"}\r\n0\r\n';
    const cases: [string, string, number[]][] = [
      ["trailers", post(queue, "Transfer-Encoding: chunked", `${chunk}X-Sum: 1\r\n\r\n`), [204]],
      ["a body on a GET", "GET /v1/healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nxx", [200]],
      [
        "behind a chunked one",
        post(queue, "Transfer-Encoding: chunked", `${chunk}\r\n`) + publish(queue, "y"),
        [204, 204],
      ],
      ["an upgrade", "GET /v1/healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", [200]],
    ];
    for (const [what, bytes, statuses_expected] of cases) {
      const connection = open();
      connection.socket.write(bytes);
      await until(() => connection.answers().length === statuses_expected.length);
      // The connection is in step: the next request is answered as well.
      connection.socket.write(publish(queue, "next"));
      await until(() => connection.answers().length === statuses_expected.length + 1);
      expect([what, connection.answers()]).toEqual([what, [...statuses_expected, 204]]);
      connection.socket.destroy();
    }
  });

  test("what is no HTTP, and hosts that are none, are answered in our form", async () => {
    const get = (headers: string) => `GET /v1/healthz HTTP/1.1\r\n${headers}\r\n\r\n`;
    const refused: [string, number, number][] = [
      ["FROB /v1/queues HTTP/1.1\r\nHost: x\r\n\r\n", 400, 27],
      ["GET\r\n\r\n", 400, 27],
      ["GET /v1/healthz HTTP/3.7\r\nHost: x\r\n\r\n", 400, 27],
      ["\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, 27],
      ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, 27],
      ["CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n", 405, 24],
      ["PROPFIND /v1/queues HTTP/1.1\r\nHost: x\r\n\r\n", 405, 24],
      ["TRACE /v1/queues HTTP/1.1\r\nHost: x\r\n\r\n", 405, 24],
      [get("Host: x\r\nHost: y"), 400, 27],
      [get("Host: x\r\nHost: x"), 400, 27],
      [get("Host: a b<>"), 400, 27],
      [get("Host: a/b"), 400, 27],
      [get("X-A: b"), 400, 27],
      [get(`Host: x\r\nX-A: ${"a".repeat(20_000)}`), 431, 29],
      ["POST /v1/queues HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400, 27],
      ["POST /v1/queues HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab", 400, 27],
      ["POST /v1/queues HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400, 27],
      [
        "POST /v1/queues HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        27,
      ],
    ];
    for (const [bytes, status, code] of refused) {
      const answer = await exchange(listener.port, Buffer.from(bytes, "latin1"));
      expect([bytes, answer.status, answer.body?.code]).toEqual([bytes, status, code]);
    }
    expect(errors()).toEqual([]);
  });
});

describe("paths as they were written", () => {
  test("a dot segment, a backslash or an empty segment reaches no route", async () => {
    const queue = await createQueue(service);
    await service.call("POST", `/v1/queues/${queue}/messages`, { body: "x" });
    const paths: [string, string][] = [
      ["DELETE", "messages/.."],
      ["DELETE", "messages/%2e%2e"],
      ["DELETE", "messages/.%2E"],
      ["DELETE", "."],
      ["DELETE", "%2e"],
      ["DELETE", "./"],
      ["DELETE", "messages/x/../.."],
      ["DELETE", "messages\\.."],
      ["DELETE", "messages//.."],
      ["DELETE", "/"],
      ["PUT", "messages/%2e%2e/purge"],
      ["PUT", "messages/../purge"],
      ["PUT", "./purge"],
      ["PUT", "\\purge"],
      ["PUT", "messages\\..\\purge"],
      ["PUT", "/purge"],
      ["PUT", "purge#"],
    ];
    for (const [method, path] of paths) {
      for (const target of [`/v1/queues/${queue}/${path}`, `http://x/v1/queues/${queue}/${path}`]) {
        const answer = await exchange(listener.port, request(method, target));
        expect([method, target, answer.status, answer.body?.code]).toEqual([method, target, 404, 23]);
      }
    }
    // A client that resolves the segments itself asks for the parent by its name.
    expect((await fetch(`http://127.0.0.1:${listener.port}/v1/queues/${queue}`)).status).toBe(200);
    expect(await bodies(queue)).toEqual(["x"]);
  });

  test("an id that is a step in a path cannot be given; one that is there is found", async () => {
    const invalid = { code: 3, message: "request validation failed", details: "id: must be in a valid format." };
    for (const id of [".", ".."]) {
      const queue = { id, ack_deadline_seconds: 30, message_retention_seconds: 60 };
      expect((await service.call("POST", "/v1/queues", queue)).body).toEqual(invalid);
      expect((await service.call("POST", "/v1/topics", { id })).body).toEqual(invalid);
      const subscription = { id, topic_id: "t", queue_id: "q" };
      expect((await service.call("POST", "/v1/subscriptions", subscription)).body).toEqual(invalid);
    }
    const topic = `t-${crypto.randomUUID()}`;
    await service.call("POST", "/v1/topics", { id: topic });
    await service.sql`update psqlqueue.topics set id = '..' where id = ${topic}`;
    expect(await service.broker.findUnreachable()).toEqual([{ kind: "topic", id: ".." }]);
    await service.sql`delete from psqlqueue.topics where id = '..'`;
  });

  test("dots inside an id are an id", async () => {
    for (const id of ["a..b", "...", "..a", "a.", "%2e%2e%2e"]) {
      const answer = await exchange(listener.port, request("GET", `/v1/queues/${id}`));
      expect([id, answer.body?.code]).toEqual([id, 5]);
    }
  });
});

describe("time", () => {
  test("headers that do not arrive are 408, an idle connection is closed, nothing else is", async () => {
    const started_ms = performance.now();
    const [silent, slow, idle] = [open(), open(), open()];
    slow.socket.write("GET /v1/healthz HTTP/1.1\r\nHos");
    idle.socket.write("GET /v1/healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    await until(() => silent.isOver() && slow.isOver() && idle.isOver());
    expect([silent.answers(), slow.answers(), idle.answers()]).toEqual([[408], [408], [200]]);
    expect(performance.now() - started_ms).toBeGreaterThan(1900);
    for (const { socket } of [silent, slow, idle]) socket.destroy();
  });

  test("an upload may take as long as it likes while bytes flow; one that is too slow is 408", async () => {
    const queue = await createQueue(service);
    const text = JSON.stringify({ body: "x".repeat(4000) });
    const head = `POST /v1/queues/${queue}/messages HTTP/1.1\r\nHost: x\r\nContent-Length: ${text.length}\r\n\r\n`;
    const upload = async (bytes_per_tick: number) => {
      const connection = open();
      connection.socket.write(head);
      for (let at = 0; at < text.length && connection.answers().length === 0; at += bytes_per_tick) {
        connection.socket.write(text.slice(at, at + bytes_per_tick));
        await Bun.sleep(100);
      }
      await until(() => connection.answers().length === 1);
      connection.socket.destroy();
      return connection.answers();
    };
    // 5 s, longer than the time for headers, handlers and idle connections.
    expect(await Promise.all([upload(80), upload(1)])).toEqual([[204], [408]]);
    expect(await bodies(queue)).toHaveLength(1);
  }, 60_000);

  test("a request that takes too long is 503; a receive may wait as it asked", async () => {
    const queue = await createQueue(service);
    const poll = open();
    poll.socket.write(receive(queue, "?wait_seconds=6"));
    const lock = await service.sql.reserve();
    if (lock !== undefined) {
      await lock`begin`;
      await lock`select from psqlqueue.queues where id = ${queue} for update`;
      const update = open();
      const body = JSON.stringify({ ack_deadline_seconds: 7, message_retention_seconds: 60 });
      update.socket.write(
        `PUT /v1/queues/${queue} HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
      );
      await until(() => update.answers().length === 1);
      expect(update.answers()).toEqual([503]);
      await until(() => update.got().includes("no answer within 1 s"));
      await lock`rollback`;
      lock.release();
      update.socket.destroy();
      await until(() => statuses("/:queue_id").includes(503));
    }
    await until(() => poll.answers().length === 1);
    expect(poll.answers()).toEqual([200]);
    poll.socket.destroy();
  }, 60_000);
});
