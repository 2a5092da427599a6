import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { version } from "../package.json";
import { buildBinary } from "./binary.ts";
import { until } from "./harness.ts";
import { freePort, sharedCluster } from "./postgres.ts";

setDefaultTimeout(90_000);

// The file that people download: in an empty environment, in a directory that is not ours.
let binary = "";
const directory = mkdtempSync(path.join(tmpdir(), "psqlqueue-binary-"));
const running = new Set<ReturnType<typeof Bun.spawn>>();

beforeAll(async () => {
  binary = await buildBinary();
}, 120_000);

afterAll(async () => {
  for (const child of running) child.kill("SIGKILL");
  await Promise.all([...running].map((child) => child.exited));
  rmSync(directory, { recursive: true, force: true });
});

async function run(args: string[], env: Record<string, string> = {}) {
  const child = Bun.spawn([binary, ...args], { cwd: directory, env, stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  return { exit_code: await child.exited, stdout, stderr };
}

async function serve(env: Record<string, string>) {
  const port = await freePort();
  const metrics_port = await freePort();
  const settings = {
    PSQLQUEUE_SERVER_HOST: "127.0.0.1",
    PSQLQUEUE_SERVER_PORT: String(port),
    PSQLQUEUE_METRICS_PORT: String(metrics_port),
  };
  const child = Bun.spawn([binary, "server"], { cwd: directory, env: { ...settings, ...env }, stdout: "pipe" });
  running.add(child);
  const url = `http://127.0.0.1:${port}`;
  const isWell = () =>
    fetch(`${url}/v1/healthz`).then(
      (response) => response.ok,
      () => false,
    );
  while (!(await isWell())) {
    if (child.exitCode !== null) throw new Error(await new Response(child.stdout).text());
    await Bun.sleep(20);
  }
  const stop = async () => {
    child.kill("SIGTERM");
    const exit_code = await child.exited;
    running.delete(child);
    return exit_code;
  };
  return { url, metrics_port, stop };
}

async function replay(url: string) {
  const folder = path.join(import.meta.dir, "golden");
  const child = Bun.spawn([process.execPath, path.join(folder, "replay.mjs"), url, path.join(folder, "v1.json")], {
    stdout: "pipe",
  });
  return (await new Response(child.stdout).text()).trim().split("\n").at(-1);
}

test("it says its version and commit", async () => {
  const { exit_code, stdout } = await run(["--version"]);
  expect(exit_code).toBe(0);
  expect(stdout).toMatch(new RegExp(`^psqlqueue ${version.replaceAll(".", "\\.")} \\([0-9a-z]+\\)\n$`));
});

// On a PostgreSQL server: golden.test.ts, from source.
test("the recorded requests are answered as recorded on the embedded database, with nothing configured", async () => {
  const server = await serve({});
  expect(await replay(server.url)).toMatch(/^\d+ passed, 0 failed$/);
  expect(await server.stop()).toBe(0);
}, 120_000);

test("it serves with two processes, and stops both", async () => {
  const env = { PSQLQUEUE_DATABASE_URL: await (await sharedCluster()).createDatabase(), PSQLQUEUE_WORKERS: "2" };
  expect((await run(["migrate"], env)).exit_code).toBe(0);
  const server = await serve(env);
  const scrape = async () => await (await fetch(`http://127.0.0.1:${server.metrics_port}`)).text();
  // The first one serves before the second is there.
  await until(async () => (await scrape()).includes("\npsqlqueue_workers 2\n"));
  expect(await server.stop()).toBe(0);
});

test("everything it serves is inside: the dashboard, the docs page, their scripts and styles, the migrations", async () => {
  const server = await serve({ PSQLQUEUE_DATA_DIR: "inside" });
  for (const name of ["index.html", "swagger-ui.css", "swagger-ui-bundle.js", "start.js", "doc.json"]) {
    const response = await fetch(`${server.url}/v1/swagger/${name}`);
    expect(response.status).toBe(200);
    expect((await response.text()).length).toBeGreaterThan(50);
  }
  const page = await (await fetch(`${server.url}/ui/queues/x`)).text();
  const files = [...page.matchAll(/(?:src|href)="\.\.\/(assets\/[^"]*)"/g)].map(([, name]) => `/ui/${name}`);
  expect(files).toHaveLength(3);
  for (const file of files) {
    const response = await fetch(server.url + file);
    expect([file, response.status, (await response.text()).length > 50]).toEqual([file, 200, true]);
  }
  expect(await server.stop()).toBe(0);
});

test("an embedded data directory moves to a server", async () => {
  const env = { PSQLQUEUE_DATA_DIR: "moving" };
  const before = await serve(env);
  const send = (url: string, method: string, target: string, body?: unknown) =>
    fetch(`${url}/v1/queues${target}`, { method, ...(body !== undefined && { body: JSON.stringify(body) }) });
  await send(before.url, "POST", "", { id: "q", ack_deadline_seconds: 60, message_retention_seconds: 3600 });
  for (const body of ["a", "b", "c"])
    expect((await send(before.url, "POST", "/q/messages", { body })).status).toBe(204);
  const target = { PSQLQUEUE_DATABASE_URL: await (await sharedCluster()).createDatabase() };
  const busy = await run(["migrate", "--from", "moving"], target);
  expect(busy.exit_code).toBe(1);
  expect(busy.stdout).toContain("is in use by process");
  expect(await before.stop()).toBe(0);

  const moved = await run(["migrate", "--from", "moving"], target);
  expect(moved.stdout).toContain('"messages":3');
  expect(moved.exit_code).toBe(0);
  const after = await serve(target);
  const { data } = (await (await send(after.url, "GET", "/q/messages")).json()) as { data: { body: string }[] };
  expect(data.map((message) => message.body)).toEqual(["a", "b", "c"]);
  expect(await after.stop()).toBe(0);

  const again = await run(["migrate", "--from", "moving"], target);
  expect(again.exit_code).toBe(1);
  expect(again.stdout).toContain("holds 1 queues and 0 topics already");
}, 120_000);
