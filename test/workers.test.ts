import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import http from "node:http";
import postgres from "postgres";
import { shareOf } from "../src/commands/share.ts";
import { ConfigError, readConfig } from "../src/config.ts";
import { killChildren, type LogLine, runChild, type ServerChild, startServerChild } from "./child.ts";
import { createMigratedDatabase, until } from "./harness.ts";
import { sharedCluster } from "./postgres.ts";
import { isAlive } from "./processes.ts";

setDefaultTimeout(90_000);

// One server of several processes. Which of them serves a connection is the system's choice, and the log says it.

afterAll(killChildren);

type Reply = { status: number; text: string };
type Headers = Record<string, string>;
type Connection = {
  worker: number;
  ask(method: string, path: string, body?: unknown, headers?: Headers): Promise<Reply>;
  close(): void;
};

const start = (url: string, env: Record<string, string> = {}) =>
  startServerChild(url, { PSQLQUEUE_WORKERS: "2", PSQLQUEUE_LOG_LEVEL: "debug", ...env });

const pidsOf = (server: ServerChild) =>
  server.lines().find(({ msg }) => msg === "workers started")?.["pids"] as number[];

let asked = 0;

/** A connection that is kept, and the worker that has it. */
async function connect(server: ServerChild, headers: Headers = {}): Promise<Connection> {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const ask = (method: string, path: string, body?: unknown, own: Headers = {}) =>
    new Promise<Reply>((resolve, reject) => {
      const request = http.request(server.url + path, { agent, method, headers: { ...headers, ...own } }, (answer) => {
        let text = "";
        answer.setEncoding("utf8").on("data", (part) => {
          text += part;
        });
        answer.on("end", () => resolve({ status: answer.statusCode ?? 0, text })).on("error", reject);
      });
      request.on("error", reject).end(body === undefined ? undefined : JSON.stringify(body));
    });
  const id = `connection-${++asked}`;
  await ask("GET", "/v1/healthz", undefined, { "x-request-id": id });
  const findLine = () =>
    server
      .stdout()
      .split("\n")
      .slice(0, -1)
      .find((line) => line.includes(`"${id}"`));
  await until(() => findLine() !== undefined);
  return {
    worker: (JSON.parse(findLine() ?? "") as LogLine)["worker"] as number,
    ask,
    close: () => agent.destroy(),
  };
}

/** A connection to each of two workers, in the order of their numbers. */
async function connectToBoth(server: ServerChild, headers?: Headers): Promise<[Connection, Connection]> {
  const found: Connection[] = [];
  while (found[1] === undefined || found[2] === undefined) {
    const one = await connect(server, headers);
    if (found[one.worker] === undefined) found[one.worker] = one;
    else one.close();
  }
  return [found[1], found[2]];
}

async function samplesOf(server: ServerChild): Promise<Map<string, number>> {
  const page = await (await fetch(server.metrics_url)).text();
  const lines = page.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(lines.map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.split(" ").at(-1))]));
}

const queue = { ack_deadline_seconds: 30, message_retention_seconds: 3600 };
const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.POSITIVE_INFINITY;

/** Milliseconds from a publish here to its receive there, which waits for it; the middle of some. */
async function wakeMs(here: Connection, there: Connection, server: ServerChild, rounds = 5): Promise<number> {
  const times: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const waits = there.ask("GET", "/v1/queues/woken/messages?wait_seconds=10");
    await until(async () => (await samplesOf(server)).get("psqlqueue_waiters") === 1);
    const since_ms = performance.now();
    await here.ask("POST", "/v1/queues/woken/messages", { body: "x" });
    expect(JSON.parse((await waits).text).data).toHaveLength(1);
    times.push(performance.now() - since_ms);
  }
  return median(times);
}

describe("a server of two processes", () => {
  let url: string;
  let server: ServerChild;
  let both: [Connection, Connection];

  beforeAll(async () => {
    url = await createMigratedDatabase();
    server = await start(url, { PSQLQUEUE_SQS_PURGE_LIMIT: "on" });
    both = await connectToBoth(server);
    await both[0].ask("POST", "/v1/queues", { id: "woken", ...queue });
    await both[0].ask("POST", "/v1/queues", { id: "kept", ...queue });
  });

  test("shares one port, says once that it started, and each line of a worker names it", async () => {
    expect(both.map(({ worker }) => worker)).toEqual([1, 2]);
    const pids = pidsOf(server);
    expect(new Set([...pids, server.pid]).size).toBe(3);
    const own = server.lines().filter((line) => line["worker"] === undefined);
    expect(own.map(({ msg }) => msg)).toEqual(["workers started", "metrics server starting", "http server starting"]);
    const named = server.lines().filter(({ msg }) => msg === "Incoming request");
    expect(new Set(named.map((line) => line["worker"]))).toEqual(new Set([1, 2]));
  });

  test("wakes a receive that waits at the other process, without the database and without a poll", async () => {
    const [one, two] = both;
    const wake_ms = [await wakeMs(one, two, server), await wakeMs(two, one, server)];
    console.log(`publish to receive at the other process: p50 ${wake_ms.map((ms) => ms.toFixed(1)).join(" and ")} ms`);
    // A poll would be half a second in the middle. It is some milliseconds where the machine is not busy.
    expect(Math.min(...wake_ms)).toBeLessThan(200);
  });

  test("adds up what its processes count, and tells once what the database holds", async () => {
    const before = await samplesOf(server);
    for (const { ask } of both)
      for (let i = 0; i < 5; i++) await ask("POST", "/v1/queues/kept/messages", { body: "x" });
    for (let scrape = 0; scrape < 4; scrape++) {
      const samples = await samplesOf(server);
      expect(samples.get('psqlqueue_messages_published_total{queue="kept"}')).toBe(10);
      expect(samples.get("psqlqueue_workers")).toBe(2);
      expect(samples.get("psqlqueue_db_up")).toBe(1);
      const name = "http_request_duration_seconds_count";
      const posts = 'service="",handler="/v1/queues/:queue_id/messages",method="POST",code="204"';
      expect((samples.get(`${name}{${posts}}`) ?? 0) - (before.get(`${name}{${posts}}`) ?? 0)).toBe(10);
      expect([...samples.keys()].filter((key) => key.startsWith("psqlqueue_oldest_snapshot_age"))).toHaveLength(1);
    }
  });

  test("minds at each process what Amazon minds for a minute", async () => {
    const headers = { "content-type": "application/x-amz-json-1.0", "x-amz-target": "AmazonSQS.PurgeQueue" };
    const purge = (own: Connection) => own.ask("POST", "/", { QueueUrl: "/000000000000/woken" }, headers);
    expect((await purge(both[0])).status).toBe(200);
    await until(async () => (await purge(both[1])).text.includes("PurgeQueueInProgress"), 1000);
  });

  test("goes on when a process is killed, loses nothing that was answered, and starts it again", async () => {
    const counted = (await samplesOf(server)).get('psqlqueue_messages_published_total{queue="kept"}') ?? 0;
    const [first = 0] = pidsOf(server);
    let answered = 0;
    let refused_since_ms: number | undefined;
    let refused_ms = 0;
    let is_over = false;
    const clients = Array.from({ length: 8 }, async () => {
      while (!is_over) {
        const headers = { connection: "close" };
        const init = { method: "POST", body: '{"body":"x"}', headers, keepalive: false };
        try {
          const { status } = await fetch(`${server.url}/v1/queues/kept/messages`, init);
          refused_since_ms = undefined;
          if (status === 204) answered += 1;
        } catch {
          refused_since_ms ??= performance.now();
          refused_ms = Math.max(refused_ms, performance.now() - refused_since_ms);
        }
      }
    });
    await until(() => answered > 50);
    process.kill(first, "SIGKILL");
    expect(await server.waitFor("worker ended")).toMatchObject({ level: "ERROR", worker: 1, signal: "SIGKILL" });
    const then = answered;
    await until(() => answered > then + 50);
    const again = await server.waitFor("worker started again");
    expect(again).toMatchObject({ level: "INFO", worker: 1 });
    is_over = true;
    await Promise.all(clients);
    expect(refused_ms).toBeLessThan(1000);
    const sql = postgres(url, { max: 1, onnotice() {} });
    const [row] = await sql`select count(*)::int as count from psqlqueue.messages`;
    expect(row?.["count"]).toBeGreaterThanOrEqual(10 + answered);
    await sql.end();
    // What the killed one had counted at the last scrape is in the sum still.
    const samples = await samplesOf(server);
    expect(samples.get("psqlqueue_workers")).toBe(2);
    expect(samples.get('psqlqueue_messages_published_total{queue="kept"}')).toBeGreaterThan(counted);
    for (const connection of both) connection.close();
    both = await connectToBoth(server);
    expect(await wakeMs(both[0], both[1], server, 1)).toBeLessThan(1000);
  });

  test("tells other servers, and is told by them, also after the process that did it has gone", async () => {
    const other = await startServerChild(url, { PSQLQUEUE_LOG_LEVEL: "debug" });
    const away = await connect(other);
    const [one, two] = both;
    let times: number[] = [];
    for (let tries = 0; tries < 5 && !(median(times) < 200); tries++) {
      times = [
        await wakeMs(two, away, other, 3),
        await wakeMs(away, two, server, 3),
        await wakeMs(one, away, other, 3),
      ];
    }
    expect(median(times)).toBeLessThan(200);
    away.close();
    other.signal("SIGTERM");
    expect(await other.exited).toBe(0);
  });

  test("stops with all of its processes at SIGTERM, and answers who waits", async () => {
    const waits = both.map(({ ask }) => ask("GET", "/v1/queues/woken/messages?wait_seconds=20"));
    await until(async () => (await samplesOf(server)).get("psqlqueue_waiters") === 2);
    const pids = [...pidsOf(server).slice(1), (await server.waitFor("worker started again"))["pid"] as number];
    server.signal("SIGTERM");
    expect((await Promise.all(waits)).map(({ status }) => status)).toEqual([200, 200]);
    expect(await server.exited).toBe(0);
    expect(pids.filter(isAlive)).toEqual([]);
    const ends = ["server shutting down gracefully, press Ctrl+C again to force", "server exiting"];
    expect(server.lines().flatMap(({ msg }) => (ends.includes(msg) ? [msg] : []))).toEqual(ends);
    expect(server.stderr()).toBe("");
  });
});

test("a key that one process revokes is refused by the other at once; no process outlives a killed server", async () => {
  const root = "a-root-key-of-the-tests";
  const server = await start(await createMigratedDatabase(), { PSQLQUEUE_AUTH: "on", PSQLQUEUE_ROOT_KEY: root });
  const owners = await connectToBoth(server, { authorization: `Bearer ${root}` });
  const made = await owners[0].ask("POST", "/v1/keys", { name: "a key", scopes: [{ actions: ["*"] }] });
  const { id, key } = JSON.parse(made.text);
  const users = await connectToBoth(server, { authorization: `Bearer ${key}` });
  const statuses = () => Promise.all(users.map(async ({ ask }) => (await ask("GET", "/v1/queues")).status));
  expect(await statuses()).toEqual([200, 200]);
  expect((await owners[1].ask("DELETE", `/v1/keys/${id}`)).status).toBe(204);
  await until(async () => (await statuses()).every((status) => status === 401), 1000);
  server.signal("SIGKILL");
  await server.exited;
  await until(() => !pidsOf(server).some(isAlive));
});

describe("a server of two processes that cannot start", () => {
  const free = {
    PSQLQUEUE_WORKERS: "2",
    PSQLQUEUE_SERVER_HOST: "127.0.0.1",
    PSQLQUEUE_SERVER_PORT: "0",
    PSQLQUEUE_METRICS_HOST: "127.0.0.1",
    PSQLQUEUE_METRICS_PORT: "0",
  };

  test("says why, once, as one of a single process does, and ends with exit 1", async () => {
    const url = await (await sharedCluster()).createDatabase();
    const { code, lines, stderr } = await runChild(["server"], { env: { ...free, PSQLQUEUE_DATABASE_URL: url } });
    const time: string = expect.any(String);
    const error = "the database is not migrated: run `psqlqueue migrate` with the same settings first";
    expect({ code, lines, stderr }).toEqual({
      code: 1,
      lines: [{ time, level: "ERROR", msg: "cli app failed", error: expect.stringContaining(error) }],
      stderr: "",
    });
  }, 60_000);

  test("shares its port with no other server", async () => {
    const taken = Bun.serve({ hostname: "127.0.0.1", port: 0, reusePort: true, fetch: () => new Response() });
    const env = { ...free, PSQLQUEUE_DATABASE_URL: "postgres://127.0.0.1:1/x", PSQLQUEUE_SERVER_PORT: `${taken.port}` };
    const { code, lines } = await runChild(["server"], { env });
    expect([code, lines.map(({ msg }) => msg)]).toEqual([1, ["http server listen error"]]);
    await taken.stop(true);
  }, 60_000);
});

describe("PSQLQUEUE_WORKERS", () => {
  const database = { PSQLQUEUE_DATABASE_URL: "postgres://127.0.0.1/x" };
  const workersOf = (env: Record<string, string>) => readConfig(env).workers;
  const refusal = (env: Record<string, string>) => {
    try {
      readConfig(env);
    } catch (error) {
      if (error instanceof ConfigError) return error.message;
      throw error;
    }
    return undefined;
  };

  test("is one process unless more are asked for; auto is one where there can be no more", () => {
    expect(workersOf({})).toBe(1);
    expect(workersOf(database)).toBe(1);
    expect(workersOf({ PSQLQUEUE_WORKERS: "auto" })).toBe(1);
    expect(workersOf({ ...database, PSQLQUEUE_WORKERS: "3" })).toBe(3);
    const cores = Math.min(64, navigator.hardwareConcurrency);
    expect(workersOf({ ...database, PSQLQUEUE_WORKERS: "auto" })).toBe(process.platform === "linux" ? cores : 1);
    expect(workersOf({ ...database, PSQLQUEUE_WORKERS: "auto", PSQLQUEUE_DATABASE_MAX_CONNS: "1" })).toBe(1);
  });

  test("is refused with the embedded database, beyond its bound, and with less than a connection each", () => {
    expect(refusal({ PSQLQUEUE_WORKERS: "2" })).toBe(
      'PSQLQUEUE_WORKERS="2" cannot be used with the embedded database: it commits one statement at a time, and more ' +
        "processes would give it smaller ones; allowed: 1 or auto, or a PostgreSQL server in PSQLQUEUE_DATABASE_URL",
    );
    for (const text of ["0", "65", "two"]) {
      expect(refusal({ ...database, PSQLQUEUE_WORKERS: text })).toBe(
        `PSQLQUEUE_WORKERS="${text}" cannot be used; allowed: auto, or a whole number from 1 to 64`,
      );
    }
    expect(refusal({ ...database, PSQLQUEUE_WORKERS: "4", PSQLQUEUE_DATABASE_MAX_CONNS: "3" })).toBe(
      'PSQLQUEUE_WORKERS="4" cannot be used with 3 connections to the database; ' +
        "allowed: at most PSQLQUEUE_DATABASE_MAX_CONNS: one for each worker",
    );
  });

  test("shares what is for the whole server among the processes", () => {
    const share = (workers: string, env: Record<string, string> = {}) => {
      const own = shareOf(readConfig({ ...database, PSQLQUEUE_WORKERS: workers, ...env }));
      return [own.PSQLQUEUE_DATABASE_MAX_CONNS, own.PSQLQUEUE_BATCH_LANES, own.PSQLQUEUE_MAX_WAITERS];
    };
    expect(share("1")).toEqual([10, 2, 10_000]);
    expect(share("2")).toEqual([5, 1, 5000]);
    expect(share("16")).toEqual([4, 1, 625]);
    expect(share("4", { PSQLQUEUE_DATABASE_MAX_CONNS: "10" })).toEqual([2, 1, 2500]);
    expect(share("4", { PSQLQUEUE_DATABASE_URL: "postgres://127.0.0.1/x?pool_max_conns=20" })[0]).toBe(5);
  });
});
