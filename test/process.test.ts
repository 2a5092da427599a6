import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import http from "node:http";
import { createServer } from "node:net";
import path from "node:path";
import postgres from "postgres";
import manifest from "../package.json";
import { settings } from "../src/config.ts";
import { maskConnection } from "../src/connection/mask.ts";
import { readMigrationTimes } from "../src/db/folder.ts";
import {
  type Child,
  emptyDirectory,
  killChildren,
  type LogLine,
  runChild,
  type ServerChild,
  startChild,
  startServerChild,
} from "./child.ts";
import { createMigratedDatabase, read, until } from "./harness.ts";
import { freePort, sharedCluster } from "./postgres.ts";

setDefaultTimeout(90_000);

afterAll(killChildren);

const rfc3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/;
const time: string = expect.stringMatching(rfc3339);
const text: string = expect.any(String);
const count: number = expect.any(Number);

/** Every log line begins with time, level and msg, in this order. */
function expectLog(lines: LogLine[]): void {
  for (const line of lines) {
    expect(Object.keys(line).slice(0, 3)).toEqual(["time", "level", "msg"]);
    expect(line).toMatchObject({ time, level: expect.stringMatching(/^(DEBUG|INFO|WARN|ERROR)$/) });
  }
}

/** Runs `work` for every item, four at a time: a process needs a core for a quarter of a second. */
async function forEachOf<T>(items: T[], work: (item: T) => Promise<void>): Promise<void> {
  const left = [...items];
  const worker = async () => {
    for (let item = left.shift(); item !== undefined; item = left.shift()) await work(item);
  };
  await Promise.all([worker(), worker(), worker(), worker()]);
}

async function withSql<T>(url: string, work: (sql: postgres.Sql) => Promise<T>): Promise<T> {
  const sql = postgres(url, { max: 2, onnotice() {} });
  try {
    return await work(sql);
  } finally {
    await sql.end({ timeout: 1 });
  }
}

async function publish(server: ServerChild, queue: string, body: string): Promise<Response> {
  return await fetch(`${server.url}/v1/queues/${queue}/messages`, { method: "POST", body: JSON.stringify({ body }) });
}

async function createQueue(server: ServerChild, id: string): Promise<void> {
  const body = JSON.stringify({ id, ack_deadline_seconds: 30, message_retention_seconds: 3600 });
  const answer = await fetch(`${server.url}/v1/queues`, { method: "POST", body });
  expect(answer.status).toBe(201);
}

describe("the command line", () => {
  test("help is given on standard output, with exit 0, for every way of asking", async () => {
    const [none, ...others] = await Promise.all([[], ["help"], ["--help"], ["-h"]].map((args) => runChild(args)));
    expect(none).toMatchObject({ code: 0, stderr: "" });
    for (const command of ["server", "migrate", "healthcheck"]) expect(none?.stdout).toContain(command);
    for (const other of others) expect(other).toEqual(none!);
  });

  test("the server's help lists every setting, its default and what is allowed", async () => {
    const { code, stdout } = await runChild(["server", "--help"]);
    expect(code).toBe(0);
    for (const [name, setting] of Object.entries(settings)) {
      expect(stdout).toContain(`  ${name}\n      ${setting.meaning}\n      default: ${setting.default || "empty"}`);
      expect(stdout).toContain(setting.allowed);
    }
  });

  test("--version tells version and commit", async () => {
    const answer = await runChild(["--version"]);
    expect(answer).toMatchObject({ code: 0, stderr: "", stdout: `psqlqueue ${manifest.version} (source)\n` });
  });

  test("what is not understood is named with the nearest that there is, and the usage, on standard error, exit 2", async () => {
    const names =
      "server, migrate, healthcheck, queue, publish, receive, ack, nack, extend, peek, topic, subscription, " +
      "redrive, task, key, top, doctor, apply, export, import, backup, restore, completions, schema, help";
    const cases: [args: string[], sentence: string][] = [
      [["serve"], 'unknown command "serve"; did you mean server?'],
      [["frobnicate"], `unknown command "frobnicate"; there are ${names}`],
      [["__proto__"], `unknown command "__proto__"; there are ${names}`],
      [["constructor"], `unknown command "constructor"; there are ${names}`],
      [["--server"], 'unknown option "--server"; did you mean server?'],
      [["server", "--frob"], 'unknown option "--frob"; there are --help, --version'],
      [["server", "-x"], 'unknown option "-x"; there are --help, --version'],
      [["-v"], 'unknown option "-v"; did you mean --version?'],
      [
        ["server", "--port", "1"],
        'unknown option "--port"; set PSQLQUEUE_SERVER_PORT in the environment or in a file .env',
      ],
      [["server", "--help=1"], "--help takes no value"],
      [["migrate", "--form=x"], 'unknown option "--form"; did you mean --from?'],
      [["migrate", "--from"], "--from needs the directory of an embedded database: migrate --from ./psqlqueue-data"],
      [
        ["migrate", "--from", "--help"],
        "--from needs the directory of an embedded database: migrate --from ./psqlqueue-data",
      ],
      [["server", "--from", "x"], "server has no option --from; migrate has"],
      [["--from", "x"], "--from belongs to a command: migrate --from ./psqlqueue-data"],
      [["server", "migrate"], "one command at a time: there are server and migrate; start each by itself"],
      [["server", "x"], 'server takes nothing else: there is "x" after it'],
    ];
    await forEachOf(cases, async ([args, sentence]) => {
      const { code, stdout, stderr } = await runChild(args);
      expect({ args, code, stdout, said: stderr.split("\n")[0] }).toEqual({
        args,
        code: 2,
        stdout: "",
        said: `psqlqueue: ${sentence}`,
      });
      expect(stderr).toMatch(/^.+\n\npsqlqueue .*\n\nusage: /);
    });
  }, 15_000);
});

/** Values that a setting must not take, and never replace silently by its default. */
function badValues(name: string): string[] {
  const setting = Object.entries(settings).find(([own]) => own === name)?.[1];
  const candidates = ["", " ", "x y", "-1", "-0", "1.5", "1e3", "0x10", "999999999999", "yes", "mysql://localhost/x"];
  return candidates.filter((value) => setting?.read(value) === undefined).slice(0, 2);
}

const more_bad_values: [name: keyof typeof settings, value: string][] = [
  ["PSQLQUEUE_DATABASE_URL", "localhost:5432"],
  ["PSQLQUEUE_DATA_DIR", '"/data"'],
  ["PSQLQUEUE_ROOT_KEY", '"root-key-in-quotes"'],
  ["PSQLQUEUE_SQS_ACCESS_KEYS", "'AKIDEXAMPLE:secret-in-quotes'"],
  ["PSQLQUEUE_DATABASE_MIN_CONNS", "11"],
  ["PSQLQUEUE_DATABASE_MAX_CONNS", "0"],
  ["PSQLQUEUE_DATABASE_STATEMENT_TIMEOUT_MS", "5s"],
  ["PSQLQUEUE_SERVER_PORT", "65536"],
  ["PSQLQUEUE_SERVER_PORT", "8_000"],
  ["PSQLQUEUE_SERVER_PORT", "+8000"],
  ["PSQLQUEUE_SERVER_PORT", "8e3"],
  ["PSQLQUEUE_SERVER_PORT", "tcp://10.0.0.1:8000"],
  ["PSQLQUEUE_SERVER_HOST", "127.0.0.1:8000"],
  ["PSQLQUEUE_METRICS_HOST", "[127.0.0.1]"],
  ["PSQLQUEUE_QUEUE_MAX_NUMBER_OF_MESSAGES", "1001"],
  ["PSQLQUEUE_MAX_BODY_BYTES", "16MB"],
  ["PSQLQUEUE_CORS_ORIGINS", "https://app.example.com/path"],
];

describe("settings", () => {
  test("a value that cannot be used stops the start, with one line that names it and what is allowed", async () => {
    const cases = Object.keys(settings).flatMap((name) => badValues(name).map((value) => ({ name, value })));
    expect(new Set(cases.map(({ name }) => name)).size).toBe(Object.keys(settings).length);
    for (const [name, value] of more_bad_values) cases.push({ name, value });
    await forEachOf(cases, async ({ name, value }) => {
      const answer = await runChild(["server"], { env: { [name]: value } });
      expect(answer.stderr).toMatch(/^psqlqueue: [^\n]+\n$/);
      const shown = (settings as Record<string, { is_secret?: true }>)[name]?.is_secret
        ? "***"
        : name.endsWith("DATABASE_URL")
          ? maskConnection(value)
          : value;
      expect(answer.stderr).toStartWith(`psqlqueue: ${name}=${JSON.stringify(shown)} cannot be used`);
      expect(answer.stderr).toMatch(/; allowed: .+/);
      expect(answer.code).toBe(1);
      expectLog(answer.lines);
      const error: string = expect.stringContaining(name);
      expect(answer.lines).toEqual([{ time, level: "ERROR", msg: "cli app failed", error }]);
    });
  }, 120_000);

  test("blanks around a value and zeros before a number mean nothing", async () => {
    const env = {
      PSQLQUEUE_SERVER_PORT: " 00001 ",
      PSQLQUEUE_SERVER_HOST: "127.0.0.1\t",
      PSQLQUEUE_LOG_LEVEL: " Info",
    };
    const { lines, stderr } = await runChild(["healthcheck"], { env });
    expect(lines).toEqual([]);
    expect(stderr).toStartWith("http://127.0.0.1:1/v1/healthz did not answer");
  });

  test("PSQLQUEUE_TESTING needs a test database, and uses it", async () => {
    const without = await runChild(["migrate"], { env: { PSQLQUEUE_TESTING: "1" } });
    expect(without.stderr).toStartWith('psqlqueue: PSQLQUEUE_TEST_DATABASE_URL="" cannot be used');
    const url = await (await sharedCluster()).createDatabase();
    const env = { PSQLQUEUE_TESTING: "T", PSQLQUEUE_TEST_DATABASE_URL: url };
    expect((await runChild(["m"], { env })).code).toBe(0);
    const rows = await withSql(url, (sql) => sql`select count(*)::int as count from psqlqueue.queues`);
    expect([...rows]).toEqual([{ count: 0 }]);
  }, 15_000);

  test("no password is ever printed, whatever is wrong with the URL", async () => {
    const port = await freePort();
    const urls = [
      `postgres://user:s3cret@127.0.0.1:${port}/x`,
      "postgres://user:s3cret@no-such-host.invalid/x",
      "mysql://user:s3cret@localhost/x",
      "POSTGRES://user:s3cret@localhost/x",
      "user:s3cret@localhost/x",
      '"postgres://user:s3cret@localhost/x"',
      "postgres://user:s3cret/s3cret@localhost:port/x",
      "postgres://user:s3cret@s3cret@localhost:port/x",
      "postgres://user:s3cret:s3cret@localhost:port/x",
      "postgres://:s3cret@localhost:port/x",
      "postgres://localhost:port/x?user=user&password=s3cret",
      "host=localhost user=user password=s3cret",
    ];
    await forEachOf(urls, async (url) => {
      const { code, stdout, stderr } = await runChild(["migrate"], { env: { PSQLQUEUE_DATABASE_URL: url } });
      expect(code).toBe(1);
      expect(stdout).toContain('"msg":"cli app failed"');
      expect(`${url}\n${stdout}${stderr}`.slice(url.length)).not.toContain("s3cret");
    });
  }, 120_000);

  test("a `.env` is found from the working directory upwards, said so, and loses to the environment", async () => {
    const outer = emptyDirectory();
    const inner = path.join(outer, "deep", "er");
    mkdirSync(inner, { recursive: true });
    const file = path.join(outer, ".env");
    const content = ["# comment", "export PSQLQUEUE_LOG_LEVEL='DEBUG'", 'PSQLQUEUE_SERVER_PORT="no" # comment', ""];
    writeFileSync(file, content.join("\n"));
    const lost = await runChild(["healthcheck"], { cwd: inner });
    expect(lost.stderr).toStartWith('psqlqueue: PSQLQUEUE_SERVER_PORT="no" cannot be used');
    const port = String(await freePort());
    const won = await runChild(["healthcheck"], { cwd: inner, env: { PSQLQUEUE_SERVER_PORT: port } });
    expect(won.lines).toEqual([{ time, level: "INFO", msg: "Found .env", file }]);
    expect(won.stderr).toContain(`127.0.0.1:${port}/v1/healthz did not answer`);
  }, 15_000);
});

describe("migrate", () => {
  test("says that it started and finished, and finds nothing to do the second time", async () => {
    const env = { PSQLQUEUE_DATABASE_URL: await (await sharedCluster()).createDatabase() };
    const started = { time, level: "INFO", msg: "migration process started" };
    const finished = { time, level: "INFO", msg: "migration process finished" };
    for (const applied of [readMigrationTimes().length, 0]) {
      const { code, lines, stderr } = await runChild(["migrate"], { env });
      expect({ code, lines, stderr }).toEqual({ code: 0, lines: [started, { ...finished, applied }], stderr: "" });
      expectLog(lines);
    }
  }, 15_000);

  test("ten at once all succeed, and each migration is applied once", async () => {
    const url = await (await sharedCluster()).createDatabase();
    const env = { PSQLQUEUE_DATABASE_URL: url };
    const answers = await Promise.all(Array.from({ length: 10 }, () => runChild(["migrate"], { env })));
    expect(answers.map(({ code }) => code)).toEqual(new Array(10).fill(0));
    const applied = answers.map(({ lines }) => lines.at(-1)?.["applied"] as number);
    expect(applied.reduce((sum, one) => sum + one, 0)).toBe(readMigrationTimes().length);
    const rows = await withSql(
      url,
      (sql) => sql`select created_at::text as time from psqlqueue.migrations order by created_at`,
    );
    expect(rows.map((row) => Number(row["time"]))).toEqual(readMigrationTimes());
  });
});

describe("the server", () => {
  test("refuses a database that is not migrated, behind, or newer, and says what to run", async () => {
    const empty = await (await sharedCluster()).createDatabase();
    const behind = await createMigratedDatabase();
    const newer = await createMigratedDatabase();
    const newest = readMigrationTimes().at(-1) ?? 0;
    await withSql(behind, (sql) => sql`delete from psqlqueue.migrations where created_at = ${newest}`);
    await withSql(
      newer,
      (sql) => sql`with later as (
          insert into psqlqueue.migrations (hash, created_at) values ('later', ${newest + 1}) returning created_at
        )
        insert into psqlqueue.breaking_migrations (created_at) select created_at from later`,
    );
    const migrate = "run `psqlqueue migrate` with the same settings first";
    const cases: [string, string[], string][] = [
      [empty, ["server"], `the database is not migrated: ${migrate}`],
      [behind, ["s"], `the database is behind this program: ${migrate}`],
      [
        newer,
        ["server"],
        "the database was migrated by a newer psqlqueue than this one, in a way that this one cannot",
      ],
      [
        newer,
        ["migrate"],
        "the database was migrated by a newer psqlqueue than this one, in a way that this one cannot",
      ],
    ];
    for (const [url, args, sentence] of cases) {
      const { code, lines } = await runChild(args, { env: { PSQLQUEUE_DATABASE_URL: url } });
      expect(code).toBe(1);
      const error: string = expect.stringContaining(sentence);
      expect(lines.at(-1)).toEqual({ time, level: "ERROR", msg: "cli app failed", error });
    }
    const schemas = await withSql(empty, (sql) => sql`select from pg_namespace where nspname = 'psqlqueue'`);
    expect(schemas).toHaveLength(0);
  });

  test("serves a database that a newer version has migrated without breaking with this one, and says so", async () => {
    const url = await createMigratedDatabase();
    const later = (readMigrationTimes().at(-1) ?? 0) + 1;
    await withSql(url, (sql) => sql`insert into psqlqueue.migrations (hash, created_at) values ('later', ${later})`);
    expect((await runChild(["migrate"], { env: { PSQLQUEUE_DATABASE_URL: url } })).code).toBe(0);
    const server = await startServerChild(url);
    expect(await server.waitFor("the database was migrated by a newer psqlqueue")).toMatchObject({ level: "WARN" });
    await createQueue(server, "q");
    expect((await publish(server, "q", "x")).status).toBe(204);
    server.signal("SIGTERM");
    expect(await server.exited).toBe(0);
  });

  test("a port that is taken is named in the log, and the process ends with exit 1", async () => {
    const url = await createMigratedDatabase();
    const port = await freePort();
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(port, "127.0.0.1", resolve));
    const free = { PSQLQUEUE_SERVER_PORT: "0", PSQLQUEUE_METRICS_PORT: "0" };
    const host = { PSQLQUEUE_SERVER_HOST: "127.0.0.1", PSQLQUEUE_METRICS_HOST: "127.0.0.1" };
    for (const listener of ["http", "metrics"]) {
      const name = listener === "http" ? "PSQLQUEUE_SERVER_PORT" : "PSQLQUEUE_METRICS_PORT";
      const env = { PSQLQUEUE_DATABASE_URL: url, ...host, ...free, [name]: String(port) };
      const { code, lines } = await runChild(["server"], { env });
      expect(code).toBe(1);
      const error: string = expect.stringContaining(String(port));
      expect(lines.at(-1)).toEqual({ time, level: "ERROR", msg: `${listener} server listen error`, error });
    }
    await new Promise((resolve) => taken.close(resolve));
  }, 60_000);

  test("two servers never share a port", async () => {
    const url = await createMigratedDatabase();
    const server = await startServerChild(url);
    const env = { PSQLQUEUE_SERVER_PORT: new URL(server.url).port };
    await expect(startServerChild(url, env)).rejects.toThrow("http server listen error");
    server.signal("SIGTERM");
    expect(await server.exited).toBe(0);
  }, 60_000);
});

describe("a running server", () => {
  let server: ServerChild;
  let url: string;

  test("says where it listens, in lines of the contract's shape", async () => {
    url = await createMigratedDatabase();
    server = await startServerChild(url, { PSQLQUEUE_LOG_LEVEL: "Debug" });
    const lines = server.lines().slice(0, 2);
    expectLog(lines);
    expect(lines).toEqual([
      { time, level: "INFO", msg: "metrics server starting", host: "127.0.0.1", port: count },
      {
        time,
        level: "INFO",
        msg: "http server starting",
        host: "127.0.0.1",
        port: count,
        url: server.url,
        ui: `${server.url}/ui`,
        docs: `${server.url}/v1/swagger/index.html`,
      },
    ]);
  }, 15_000);

  test("is well for its healthcheck; where nobody listens the healthcheck fails", async () => {
    const env = { PSQLQUEUE_SERVER_PORT: new URL(server.url).port };
    expect(await runChild(["healthcheck"], { env })).toMatchObject({ code: 0, stderr: "" });
    const nobody = { PSQLQUEUE_SERVER_PORT: String(await freePort()) };
    expect(await runChild(["healthcheck"], { env: nobody })).toMatchObject({ code: 1 });
    const sick = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response("no", { status: 503 }) });
    const port = String(sick.port);
    const ill = await runChild(["healthcheck"], { env: { PSQLQUEUE_SERVER_PORT: port } });
    expect(ill).toMatchObject({ code: 1, stderr: `http://127.0.0.1:${port}/v1/healthz answered 503: no\n` });
    await sick.stop(true);
  }, 15_000);

  test("logs each request with the contract's members in order, and never a message", async () => {
    await createQueue(server, "logged");
    const secret = "never-in-a-log";
    await publish(server, "logged", secret);
    const message = JSON.stringify({ body: secret, label: secret, attributes: { [secret]: secret } });
    await fetch(`${server.url}/v1/queues/logged/messages`, { method: "POST", body: message });
    const broken = await fetch(`${server.url}/v1/queues/logged/messages`, {
      method: "POST",
      body: `{"body":"${secret}`,
    });
    expect(broken.status).toBe(400);
    const wrong = { method: "POST", body: JSON.stringify({ body: secret, label: 1 }) };
    expect((await fetch(`${server.url}/v1/queues/logged/messages`, wrong)).status).toBe(400);
    const headers = { "x-request-id": "my-request", referer: "http://127.0.0.1/from" };
    await fetch(`${server.url}/v1/queues/logged/messages?limit=2&x=%20y`, { headers });
    await until(() => server.stdout().includes("my-request"));
    const isMine = (line: LogLine) => line.msg === "Incoming request" && line["id"] === "my-request";
    const line = server.lines().find(isMine);
    const expected = {
      time,
      level: "DEBUG",
      msg: "Incoming request",
      request: {
        time,
        method: "GET",
        host: new URL(server.url).host,
        path: "/v1/queues/logged/messages",
        query: "limit=2&x=%20y",
        params: { queue_id: "logged" },
        route: "/v1/queues/:queue_id/messages",
        ip: "127.0.0.1",
        referer: "http://127.0.0.1/from",
        length: 0,
      },
      response: { time, latency: count, status: 200, length: count },
      id: "my-request",
    };
    expect(line).toEqual(expected);
    const members = (value: unknown) => Object.keys(value as object);
    expect(members(line)).toEqual(members(expected));
    expect(members(line?.["request"])).toEqual(members(expected.request));
    expect(members(line?.["response"])).toEqual(members(expected.response));
    const { latency, length } = (line?.["response"] ?? {}) as typeof expected.response;
    expect(Number.isInteger(latency) && latency > 1000 && latency < 10e9).toBe(true);
    expect(length).toBeGreaterThan(100);
    await until(() => server.lines().filter((one) => one.msg === "malformed request").length === 2);
    expect(server.lines().filter((one) => one.msg === "malformed request")).toEqual([
      { time, level: "DEBUG", msg: "malformed request", error: "not JSON", id: text },
      { time, level: "DEBUG", msg: "malformed request", error: "a member of the wrong type", id: text },
    ]);
    expectLog(server.lines());
    expect(server.stdout() + server.stderr()).not.toContain(secret);
  });

  test("tells its metrics on every path of the metrics port", async () => {
    await publish(server, "logged", "ready");
    await publish(server, "logged", "leased");
    const taken = await read(await fetch(`${server.url}/v1/queues/logged/messages?limit=1`));
    const ack = await fetch(`${server.url}/v1/queues/logged/messages/${taken.body.data[0].id}/ack`, { method: "PUT" });
    expect(ack.status).toBe(204);
    await fetch(`${server.url}/v1/nowhere`);
    await fetch(`${server.url}/v1/queues`, { method: "HEAD" });

    const answers = await Promise.all(["", "/metrics", "/any/other?x=1"].map((at) => fetch(server.metrics_url + at)));
    for (const answer of answers) {
      expect(answer.status).toBe(200);
      expect(answer.headers.get("content-type")).toStartWith("text/plain; version=0.0.4");
    }
    const page = (await answers[0]?.text()) ?? "";
    const series = new Map(
      page
        .split("\n")
        .filter((line) => line !== "" && !line.startsWith("#"))
        .map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.slice(line.lastIndexOf(" ") + 1))]),
    );
    const labels = (handler: string, method: string, code: number) =>
      `service="",handler="${handler}",method="${method}",code="${code}"`;
    const message_route = "/v1/queues/:queue_id/messages";
    expect(series.get(`http_request_duration_seconds_count{${labels(message_route, "POST", 204)}}`)).toBe(4);
    expect(series.get(`http_request_duration_seconds_count{${labels(message_route, "POST", 400)}}`)).toBe(2);
    const ack_labels = labels(`${message_route}/:message_id/ack`, "PUT", 204);
    expect(series.get(`http_request_duration_seconds_count{${ack_labels}}`)).toBe(1);
    expect(series.get(`http_response_size_bytes_sum{${ack_labels}}`)).toBe(0);
    expect(series.get(`http_request_duration_seconds_count{${labels("", "GET", 404)}}`)).toBe(1);
    expect(series.get(`http_request_duration_seconds_count{${labels("/v1/queues", "HEAD", 200)}}`)).toBe(1);
    expect(series.get('http_requests_inflight{service="",handler="/v1/queues"}')).toBe(0);
    const buckets = (name: string) =>
      [...series.keys()].flatMap((key) =>
        key.startsWith(`${name}_bucket{`) && key.includes(ack_labels) ? [/le="([^"]+)"/.exec(key)?.[1] ?? ""] : [],
      );
    expect(buckets("http_request_duration_seconds")).toEqual(
      "0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10 +Inf".split(" "),
    );
    expect(buckets("http_response_size_bytes").map(Number).slice(0, -1)).toEqual([
      1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9,
    ]);
    expect([...series.keys()].filter((key) => key.startsWith("go_"))).toEqual([]);
    expect(series.get("process_resident_memory_bytes")).toBeGreaterThan(1e7);
    expect(series.get('psqlqueue_messages_published_total{queue="logged"}')).toBe(4);
    expect(series.get('psqlqueue_messages_acked_total{queue="logged"}')).toBe(1);
    // Two are leased since the test before, one of the two published here was taken and acked.
    expect(series.get('psqlqueue_queue_messages{queue="logged",state="ready"}')).toBe(1);
    expect(series.get('psqlqueue_queue_messages{queue="logged",state="leased"}')).toBe(2);
    expect(series.get('psqlqueue_queue_messages{queue="logged",state="delayed"}')).toBe(0);
    expect(series.get('psqlqueue_queue_oldest_ready_age_seconds{queue="logged"}')).toBeGreaterThanOrEqual(0);
    expect(series.get("psqlqueue_db_up")).toBe(1);
  });

  test("resets no connection that it keeps open when it stops: each is told first", async () => {
    for (let stop = 0; stop < 3; stop++) {
      const own = await startServerChild(url);
      const agent = new http.Agent({ keepAlive: true, maxSockets: 16 });
      const failures = new Map<string, number>();
      let answered = 0;
      /** Resolves to false when the server asks for no more. */
      const ask = () =>
        new Promise<boolean>((resolve) => {
          const fail = (error: Error) => {
            const { code = error.message } = error as { code?: string };
            failures.set(code, (failures.get(code) ?? 0) + 1);
            resolve(false);
          };
          http
            .get(`${own.url}/v1/queues`, { agent }, (answer) => {
              answer.resume();
              answer.on("error", fail);
              answer.on("end", () => {
                answered += 1;
                resolve(answer.headers.connection !== "close");
              });
            })
            .on("error", fail);
        });
      const clients = Array.from({ length: 16 }, async () => {
        while (await ask());
      });
      await until(() => answered > 200);
      own.signal("SIGTERM");
      await Promise.all([...clients, own.exited]);
      agent.destroy();
      expect({ stop, failures: [...failures] }).toEqual({ stop, failures: [] });
    }
  });

  test("ends with exit 0 and its last line at SIGTERM", async () => {
    server.signal("SIGTERM");
    expect(await server.exited).toBe(0);
    expect(server.stderr()).toBe("");
    const goodbye = "server shutting down gracefully, press Ctrl+C again to force";
    expect(server.lines().find((line) => line.msg === goodbye)).toEqual({ time, level: "INFO", msg: goodbye });
    expect(server.lines().at(-1)).toEqual({ time, level: "INFO", msg: "server exiting" });
    await withSql(url, (sql) =>
      until(async () => {
        const left = await sql`select from pg_stat_activity
          where application_name = 'psqlqueue' and datname = current_database()`;
        return left.length === 0;
      }),
    );
  });
});

describe("stopping", () => {
  /** A server with `requests` publishes in flight that wait until `release` is called. */
  async function busyServer(requests: number, env: Record<string, string> = {}) {
    const url = await createMigratedDatabase();
    const server = await startServerChild(url, env);
    await createQueue(server, "busy");
    const sql = postgres(url, { max: 2, onnotice() {} });
    const held = Promise.withResolvers<void>();
    const released = Promise.withResolvers<void>();
    const holding = sql.begin(async (transaction) => {
      await transaction`lock table psqlqueue.queues in access exclusive mode`;
      held.resolve();
      await released.promise;
    });
    await held.promise;
    const answers = Array.from({ length: requests }, (_, i) => publish(server, "busy", String(i)));
    const waiting = async () =>
      (await sql`select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`).length;
    await until(async () => (await waiting()) > 0);
    const release = async () => {
      released.resolve();
      await holding;
    };
    const close = async () => {
      await release();
      await sql.end({ timeout: 1 });
    };
    return { server, answers, sql, release, close };
  }
  const goodbye = "server shutting down gracefully, press Ctrl+C again to force";
  const isRefused = async (child: ServerChild) =>
    await fetch(`${child.url}/v1/healthz`, { keepalive: false, headers: { connection: "close" } }).then(
      () => false,
      () => true,
    );

  test("requests in flight at SIGTERM finish and are stored, nobody new is let in, exit 0", async () => {
    const { server, answers, sql, release, close } = await busyServer(20);
    server.signal("SIGTERM");
    await server.waitFor(goodbye);
    await until(() => isRefused(server));
    await release();
    const statuses = (await Promise.all(answers)).map((answer) => answer.status);
    expect(statuses).toEqual(new Array(20).fill(204));
    expect(await server.exited).toBe(0);
    expect(server.lines().at(-1)).toEqual({ time, level: "INFO", msg: "server exiting" });
    const [row] = await sql`select count(*)::int as count from psqlqueue.messages`;
    expect(row).toEqual({ count: 20 });
    await close();
  }, 60_000);

  test("a second signal ends the process at once, whatever is in flight", async () => {
    const { server, answers, close } = await busyServer(1);
    const gone = Promise.allSettled(answers);
    server.signal("SIGINT");
    await server.waitFor(goodbye);
    const since_ms = performance.now();
    server.signal("SIGTERM");
    expect(await server.exited).not.toBe(0);
    expect(performance.now() - since_ms).toBeLessThan(1000);
    expect(server.lines().filter((line) => line.msg === goodbye)).toHaveLength(1);
    expect(server.lines().filter((line) => line.msg === "server exiting")).toEqual([]);
    expect((await gone)[0]?.status).toBe("rejected");
    await close();
  }, 60_000);

  test("a request that never ends does not keep the server past its grace", async () => {
    const env = { PSQLQUEUE_SHUTDOWN_GRACE_SECONDS: "1", PSQLQUEUE_DATABASE_STATEMENT_TIMEOUT_MS: "60000" };
    const { server, answers, close } = await busyServer(1, env);
    const gone = Promise.allSettled(answers);
    const since_ms = performance.now();
    server.signal("SIGTERM");
    expect(await server.exited).toBe(0);
    // Its statement would take 60 s.
    expect(performance.now() - since_ms).toBeLessThan(20_000);
    expect(server.lines().at(-1)).toEqual({ time, level: "INFO", msg: "server exiting" });
    await gone;
    await close();
  }, 60_000);

  test("a signal before the server listens ends it too", async () => {
    const url = await createMigratedDatabase();
    const sql = postgres(url, { max: 2, onnotice() {} });
    await sql.begin(async (transaction) => {
      await transaction`lock table psqlqueue.migrations in access exclusive mode`;
      const child: Child = startChild(["server"], {
        env: { PSQLQUEUE_DATABASE_URL: url, PSQLQUEUE_SERVER_PORT: "0", PSQLQUEUE_METRICS_PORT: "0" },
      });
      const isWaiting = async () =>
        (await sql`select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`)
          .length > 0;
      await until(isWaiting);
      child.signal("SIGTERM");
      expect(await child.exited).toBe(0);
      expect(child.lines().map((line) => line.msg)).toEqual([goodbye, "server exiting"]);
    });
    await sql.end();
  }, 60_000);
});
