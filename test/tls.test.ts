// TLS on the main port: the server as a process, and its certificates replaced while it serves.

import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { copyFileSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import tls from "node:tls";
import { runChild, startChild } from "./child.ts";
import { createMigratedDatabase, createQueue, is_embedded, listen, serviceForFile, until } from "./harness.ts";
import { freePort } from "./postgres.ts";

setDefaultTimeout(90_000);

const folder = path.join(import.meta.dir, "certificates");
const read = (name: string) => readFileSync(path.join(folder, name), "utf8");
const certificates = { cert: read("server.pem"), key: read("server-key.pem") };
const others = { cert: read("client.pem"), key: read("client-key.pem") };
const service = await serviceForFile();

/** A request over TLS, as bytes: the status, and whose certificate the server has. */
async function ask(port: number, options: tls.ConnectionOptions = {}, requests = 1) {
  return await new Promise<{ statuses: number[]; subject: string; error?: string }>((resolve) => {
    let got = "";
    let subject = "";
    const statuses = () => [...got.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => Number(status));
    const socket = tls.connect({ port, host: "127.0.0.1", rejectUnauthorized: false, ...options }, () => {
      subject = String(socket.getPeerCertificate().subject?.CN ?? "");
      socket.write("GET /v1/healthz HTTP/1.1\r\nHost: x\r\n\r\n".repeat(requests));
    });
    socket.on("data", (chunk) => {
      got += chunk;
      if (statuses().length < requests) return;
      resolve({ statuses: statuses(), subject });
      socket.destroy();
    });
    socket.on("error", (error: Error & { code?: string }) =>
      resolve({ statuses: statuses(), subject, error: String(error.code) }),
    );
    socket.on("close", () => resolve({ statuses: statuses(), subject, error: "closed" }));
  });
}

test("serves over TLS what it serves without, from TLS 1.2 on, pipelined requests too", async () => {
  const listener = await listen(service.app, { certificates });
  afterAll(() => listener.stop(true));
  for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
    const answer = await ask(listener.port, { minVersion: version, maxVersion: version }, 3);
    expect(answer.statuses).toEqual([200, 200, 200]);
  }
  expect((await ask(listener.port, { minVersion: "TLSv1", maxVersion: "TLSv1.1" })).statuses).toEqual([]);
  const queue = await createQueue(service);
  const origin = `https://127.0.0.1:${listener.port}`;
  const big = JSON.stringify({ body: "x".repeat(2_000_000) });
  const published = await fetch(`${origin}/v1/queues/${queue}/messages`, {
    method: "POST",
    body: big,
    tls: { rejectUnauthorized: false },
  });
  expect(published.status).toBe(204);
  const received = await fetch(`${origin}/v1/queues/${queue}/messages`, { tls: { rejectUnauthorized: false } });
  expect(((await received.json()) as { data: { body: string }[] }).data[0]?.body).toHaveLength(2_000_000);
});

test("goes on with new certificates; requests under way are answered; those that cannot be used change nothing", async () => {
  const listener = await listen(service.app, { certificates });
  const before = await ask(listener.port);
  const queue = await createQueue(service);
  const poll = fetch(`https://127.0.0.1:${listener.port}/v1/queues/${queue}/messages?wait_seconds=20`, {
    tls: { rejectUnauthorized: false },
  });
  await until(() => service.broker.wakeups.size() === 1);
  const kept = tls.connect({ port: listener.port, host: "127.0.0.1", rejectUnauthorized: false });
  let got = "";
  kept.on("data", (chunk) => {
    got += chunk;
  });
  const healthz = "GET /v1/healthz HTTP/1.1\r\nHost: x\r\n\r\n";
  kept.write(healthz);
  await until(() => got.includes(" 200 "));
  await listener.reload(others);
  // A connection that is open stays open.
  got = "";
  kept.write(healthz);
  await until(() => got.includes(" 200 "));
  kept.destroy();
  const after = await ask(listener.port);
  expect(after.statuses).toEqual([200]);
  expect(after.subject).not.toBe(before.subject);
  await service.call("POST", `/v1/queues/${queue}/messages`, { body: "x" });
  expect(((await (await poll).json()) as { data: unknown[] }).data).toHaveLength(1);
  expect(listener.reload({ cert: "nonsense", key: "nonsense" })).rejects.toThrow();
  expect(await ask(listener.port)).toEqual(after);
  await listener.stop(true);
});

test("lets in only clients with a certificate of the authority, where one is asked for", async () => {
  const listener = await listen(service.app, { certificates: { ...certificates, client_ca: read("authority.pem") } });
  expect((await ask(listener.port, others)).statuses).toEqual([200]);
  expect((await ask(listener.port)).statuses).toEqual([]);
  await listener.stop(true);
});

test("the server reads its files again when they change and at SIGHUP, and its healthcheck speaks TLS", async () => {
  const directory = mkdtempSync(path.join(tmpdir(), "psqlqueue-tls-"));
  afterAll(() => rmSync(directory, { recursive: true, force: true }));
  const [cert, key] = [path.join(directory, "cert.pem"), path.join(directory, "key.pem")];
  const put = (name: string, of: string) => copyFileSync(path.join(folder, of), name);
  put(cert, "server.pem");
  put(key, "server-key.pem");
  const env = { PSQLQUEUE_TLS_CERT: cert, PSQLQUEUE_TLS_KEY: key, PSQLQUEUE_DATA_DIR: path.join(directory, "data") };
  const child = startChild(["server"], { env: { ...env, PSQLQUEUE_SERVER_PORT: "0", PSQLQUEUE_METRICS_PORT: "0" } });
  const line = await child.waitFor("http server starting");
  expect(line["url"]).toStartWith("https://");
  const port = Number(line["port"]);
  const before = await ask(port);
  expect(before.statuses).toEqual([200]);
  const health = await runChild(["healthcheck"], { env: { ...env, PSQLQUEUE_SERVER_PORT: String(port) } });
  expect(health.code).toBe(0);
  // What clients of SQS are told to use is what they used.
  const sqs = await fetch(`https://127.0.0.1:${port}/?Action=CreateQueue&QueueName=q`, {
    tls: { rejectUnauthorized: false },
  });
  expect(await sqs.text()).toContain(`<QueueUrl>https://127.0.0.1:${port}/000000000000/q<`);

  put(cert, "client.pem");
  put(key, "client-key.pem");
  child.signal("SIGHUP");
  await child.waitFor("certificates reloaded");
  const after = await ask(port);
  expect(after.subject).not.toBe(before.subject);

  writeFileSync(cert, "nonsense");
  const soon = new Date(Date.now() + 10_000);
  utimesSync(cert, soon, soon);
  await child.waitFor("certificates cannot be reloaded");
  expect(await ask(port)).toEqual(after);
  child.signal("SIGTERM");
  expect(await child.exited).toBe(0);
}, 40_000);

test("the port of SQS clients has the TLS of the main port, client certificates too; open metrics are told", async () => {
  const directory = mkdtempSync(path.join(tmpdir(), "psqlqueue-tls-"));
  afterAll(() => rmSync(directory, { recursive: true, force: true }));
  const [cert, key] = [path.join(directory, "cert.pem"), path.join(directory, "key.pem")];
  copyFileSync(path.join(folder, "server.pem"), cert);
  copyFileSync(path.join(folder, "server-key.pem"), key);
  const child = startChild(["server"], {
    env: {
      PSQLQUEUE_TLS_CERT: cert,
      PSQLQUEUE_TLS_KEY: key,
      PSQLQUEUE_TLS_CLIENT_CA: path.join(folder, "authority.pem"),
      PSQLQUEUE_DATA_DIR: path.join(directory, "data"),
      PSQLQUEUE_SERVER_PORT: "0",
      PSQLQUEUE_METRICS_PORT: "0",
      PSQLQUEUE_SQS_PORT: "0",
    },
  });
  const line = await child.waitFor("sqs server starting");
  const port = Number(line["port"]);
  expect(line["url"]).toBe(`https://localhost:${port}`);
  await child.waitFor(
    "the metrics port asks for no client certificate: whoever reaches this address may read the metrics",
  );

  // Neither without TLS nor without a certificate; with one, QueueUrls lead back to this port.
  expect(await fetch(`http://127.0.0.1:${port}/?Action=ListQueues`).catch(() => "refused")).toBe("refused");
  const before = await ask(port);
  expect(before.statuses).toEqual([]);
  const allowed = { tls: { ...others, rejectUnauthorized: false } };
  const made = await fetch(`https://127.0.0.1:${port}/?Action=CreateQueue&QueueName=q`, allowed);
  expect(await made.text()).toContain(`<QueueUrl>https://127.0.0.1:${port}/000000000000/q<`);

  const { subject } = await ask(port, others);
  copyFileSync(path.join(folder, "client.pem"), cert);
  copyFileSync(path.join(folder, "client-key.pem"), key);
  child.signal("SIGHUP");
  await child.waitFor("certificates reloaded");
  const after = await ask(port, others);
  expect(after.statuses).toEqual([404]);
  expect(after.subject).not.toBe(subject);
  expect((await ask(port)).statuses).toEqual([]);
  child.signal("SIGTERM");
  expect(await child.exited).toBe(0);
}, 40_000);

test("the healthcheck knows a server that asks for certificates of an authority which is not that of its own", async () => {
  const directory = mkdtempSync(path.join(tmpdir(), "psqlqueue-tls-"));
  afterAll(() => rmSync(directory, { recursive: true, force: true }));
  const store: Record<string, string> = is_embedded
    ? { PSQLQUEUE_DATA_DIR: path.join(directory, "data") }
    : { PSQLQUEUE_DATABASE_URL: await createMigratedDatabase() };
  const env = {
    PSQLQUEUE_TLS_CERT: path.join(folder, "server.pem"),
    PSQLQUEUE_TLS_KEY: path.join(folder, "server-key.pem"),
    PSQLQUEUE_TLS_CLIENT_CA: path.join(folder, "other-authority.pem"),
    ...store,
    PSQLQUEUE_SERVER_PORT: String(await freePort()),
    PSQLQUEUE_METRICS_PORT: String(await freePort()),
    // Metrics are for keys only; that the server is well is for everybody.
    PSQLQUEUE_METRICS_AUTH: "on",
    PSQLQUEUE_ROOT_KEY: "root-key-of-this-test",
  };
  const child = startChild(["server"], { env });
  await child.waitFor("http server starting");
  expect((await ask(Number(env.PSQLQUEUE_SERVER_PORT))).statuses).toEqual([]);
  expect(await runChild(["healthcheck"], { env })).toMatchObject({ code: 0, stderr: "" });
  const doctor = await runChild(["doctor"], { env: { ...env, PSQLQUEUE_URL: "http://127.0.0.1:1" } });
  expect(doctor.stdout).toContain(`a server of these settings answers on ${env.PSQLQUEUE_SERVER_PORT}`);
  child.signal("SIGTERM");
  expect(await child.exited).toBe(0);
  const after = await runChild(["healthcheck"], { env });
  expect([after.code, after.stderr]).toEqual([1, expect.stringContaining(" did not answer: ")]);
}, 40_000);

test.if(!is_embedded)(
  "both ports have TLS at every one of several processes",
  async () => {
    const child = startChild(["server"], {
      env: {
        PSQLQUEUE_DATABASE_URL: await createMigratedDatabase(),
        PSQLQUEUE_WORKERS: "2",
        PSQLQUEUE_TLS_CERT: path.join(folder, "server.pem"),
        PSQLQUEUE_TLS_KEY: path.join(folder, "server-key.pem"),
        PSQLQUEUE_TLS_CLIENT_CA: path.join(folder, "authority.pem"),
        PSQLQUEUE_SERVER_PORT: "0",
        PSQLQUEUE_METRICS_PORT: "0",
        PSQLQUEUE_SQS_PORT: "0",
      },
    });
    const port = Number((await child.waitFor("http server starting"))["port"]);
    const sqs_port = Number((await child.waitFor("sqs server starting"))["port"]);
    // The system spreads connections over both.
    for (let i = 0; i < 10; i += 1) {
      expect([(await ask(port)).statuses, (await ask(sqs_port)).statuses]).toEqual([[], []]);
      expect([(await ask(port, others)).statuses, (await ask(sqs_port, others)).statuses]).toEqual([[200], [404]]);
    }
    expect(await fetch(`http://127.0.0.1:${sqs_port}/?Action=ListQueues`).catch(() => "refused")).toBe("refused");
    child.signal("SIGTERM");
    expect(await child.exited).toBe(0);
  },
  40_000,
);

test("a certificate without its key, of another key, or that is not there stops the start in words", async () => {
  const own = {
    PSQLQUEUE_TLS_CERT: path.join(folder, "server.pem"),
    PSQLQUEUE_TLS_KEY: path.join(folder, "server-key.pem"),
  };
  const cases: [Record<string, string>, string][] = [
    [{ PSQLQUEUE_TLS_CERT: path.join(folder, "server.pem") }, "PSQLQUEUE_TLS_KEY"],
    [{ PSQLQUEUE_TLS_KEY: path.join(folder, "server-key.pem") }, "PSQLQUEUE_TLS_CERT"],
    [
      { PSQLQUEUE_TLS_CERT: path.join(folder, "server.pem"), PSQLQUEUE_TLS_KEY: path.join(folder, "client-key.pem") },
      "PSQLQUEUE_TLS_CERT and PSQLQUEUE_TLS_KEY cannot be used",
    ],
    [
      { ...own, PSQLQUEUE_TLS_CLIENT_CA: path.join(import.meta.dir, "harness.ts") },
      "psqlqueue: PSQLQUEUE_TLS_CLIENT_CA cannot be used: ",
    ],
    [{ PSQLQUEUE_TLS_CERT: "/nowhere.pem", PSQLQUEUE_TLS_KEY: "/nowhere.pem" }, "cannot be read (ENOENT)"],
  ];
  for (const [env, words] of cases) {
    const ports = { PSQLQUEUE_SERVER_PORT: "0", PSQLQUEUE_METRICS_PORT: "0" };
    const answer = await runChild(["server"], { env: { ...env, ...ports } });
    expect([answer.code, answer.stderr]).toEqual([1, expect.stringContaining(words)]);
  }
});
