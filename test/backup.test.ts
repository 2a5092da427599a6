import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import path from "node:path";
import { emptyDirectory, killChildren, runChild, type ServerChild, startServerChild } from "./child.ts";

setDefaultTimeout(90_000);

afterAll(killChildren);

const startEmbedded = (data_dir: string): Promise<ServerChild> =>
  startServerChild("", { PSQLQUEUE_DATA_DIR: data_dir, PSQLQUEUE_EMBEDDED_FSYNC: "off" });

const ask = async (server: ServerChild, method: string, where: string, body?: unknown) =>
  await fetch(`${server.url}/v1${where}`, { method, ...(body !== undefined && { body: JSON.stringify(body) }) });

async function stop(server: ServerChild): Promise<void> {
  server.signal("SIGTERM");
  expect(await server.exited).toBe(0);
}

/** Publishes and acks without pause until it is ended; what was answered, with when. */
function load(server: ServerChild) {
  const published = new Map<string, number>();
  const acked = new Map<string, number>();
  let is_ended = false;
  const publishing = async () => {
    while (!is_ended) {
      const answer = await ask(server, "POST", "/queues/q/messages", { body: "x".repeat(500) });
      expect(answer.status).toBe(204);
      published.set(answer.headers.get("x-message-id") ?? "", performance.now());
    }
  };
  const acking = async () => {
    while (!is_ended) {
      const { data } = (await (await ask(server, "GET", "/queues/q/messages?limit=1&wait_seconds=1")).json()) as {
        data: { id: string }[];
      };
      for (const { id } of data) {
        expect((await ask(server, "PUT", `/queues/q/messages/${id}/ack`)).status).toBe(204);
        acked.set(id, performance.now());
      }
    }
  };
  const all = [publishing(), publishing(), publishing(), acking()];
  return {
    published,
    acked,
    async end() {
      is_ended = true;
      await Promise.all(all);
    },
  };
}

test("a backup of a server under load holds what was answered before it, and is a database", async () => {
  const directory = emptyDirectory();
  const data_dir = path.join(directory, "data");
  const server = await startEmbedded(data_dir);
  const settings = { id: "q", ack_deadline_seconds: 600, message_retention_seconds: 3600 };
  expect((await ask(server, "POST", "/queues", settings)).status).toBe(201);
  const running = load(server);
  await Bun.sleep(700);
  const env = { PSQLQUEUE_DATA_DIR: data_dir };
  const file = path.join(directory, "one.tar.gz");
  const started = performance.now();
  const backup = await runChild(["backup", file], { env });
  const ended = performance.now();
  expect([backup.code, backup.stdout]).toEqual([0, ""]);
  expect(backup.stderr).toMatch(/^backed up .*one\.tar\.gz: \d+\.\d MB; statements waited for \d+ ms\n$/);
  await Bun.sleep(200);
  await running.end();
  expect(existsSync(path.join(data_dir, "backup"))).toBe(false);
  await stop(server);

  const restored_dir = path.join(directory, "restored");
  const restored = await runChild(["restore", file], { env: { PSQLQUEUE_DATA_DIR: restored_dir } });
  expect([restored.code, restored.stderr]).toEqual([
    0,
    `restored ${file} to ${restored_dir}; start the server with the same settings\n`,
  ]);
  const copy = await startEmbedded(restored_dir);
  const stateOf = async (id: string) => {
    const answer = await ask(copy, "GET", `/queues/q/messages/${id}`);
    return answer.status === 404 ? "unknown" : ((await answer.json()) as { state: string }).state;
  };
  const before = <Value>(all: Map<Value, number>) => [...all].filter(([, at]) => at < started).map(([id]) => id);
  const after = <Value>(all: Map<Value, number>) => [...all].filter(([, at]) => at > ended).map(([id]) => id);
  expect(before(running.published).length).toBeGreaterThan(20);
  const states = await Promise.all(before(running.published).map(stateOf));
  expect(states).not.toContain("unknown");
  expect(new Set(await Promise.all(before(running.acked).map(stateOf)))).toEqual(new Set(["acked"]));
  // What came after the moment of the backup is not in it.
  expect(await stateOf(after(running.published).at(-1) ?? "")).toBe("unknown");
  expect((await ask(copy, "POST", "/queues/q/messages", { body: "goes on" })).status).toBe(204);
  await stop(copy);
}, 120_000);

test("without a server too, and refusals say what to do and change nothing", async () => {
  const directory = emptyDirectory();
  const data_dir = path.join(directory, "data");
  const env = { PSQLQUEUE_DATA_DIR: data_dir };
  const none = await runChild(["backup", "x.tar.gz"], { env });
  expect([none.code, none.stderr]).toEqual([
    1,
    `psqlqueue: ${data_dir} holds no database; name its data directory with PSQLQUEUE_DATA_DIR\n`,
  ]);
  await stop(await startEmbedded(data_dir));
  const file = path.join(directory, "two.tar.gz");
  const offline = await runChild(["backup", file], { env });
  expect([offline.code, offline.stderr]).toEqual([
    0,
    expect.stringMatching(/^backed up .* to .*two\.tar\.gz: [\d.]+ MB\n$/),
  ]);
  const again = await runChild(["backup", file], { env });
  expect([again.code, again.stderr]).toEqual([
    1,
    `psqlqueue: ${file} exists already; move it away, or give another name\n`,
  ]);
  const occupied = await runChild(["restore", file], { env });
  expect([occupied.code, occupied.stderr]).toEqual([
    1,
    `psqlqueue: ${data_dir} holds a database, which is not overwritten: move it away (mv ${data_dir} ${data_dir}.old), or ` +
      "name another directory with PSQLQUEUE_DATA_DIR\n",
  ]);
  const target = path.join(directory, "target");
  const into = { env: { PSQLQUEUE_DATA_DIR: target } };
  const cut = path.join(directory, "cut.tar.gz");
  writeFileSync(cut, readFileSync(file));
  truncateSync(cut, readFileSync(file).length - 1000);
  for (const [name, bytes] of [
    ["cut.tar.gz", undefined],
    ["text.tar.gz", "no backup"],
    ["empty.tar.gz", ""],
  ] as const) {
    const bad = path.join(directory, name);
    if (bytes !== undefined) writeFileSync(bad, bytes);
    const refused = await runChild(["restore", bad], into);
    expect([name, refused.code, refused.stderr]).toEqual([
      name,
      1,
      expect.stringMatching(/^psqlqueue: .* is no .*backup.*, and nothing was restored/),
    ]);
    expect(readdirSync(target).filter((entry) => entry !== "lock")).toEqual([]);
  }
  const elsewhere = await runChild(["backup", "x"], { env: { PSQLQUEUE_DATABASE_URL: "postgres://nowhere/x" } });
  expect([elsewhere.code, elsewhere.stderr]).toEqual([1, expect.stringContaining("pg_dump")]);
  mkdirSync(target, { recursive: true });
  expect((await runChild(["restore", file], into)).code).toBe(0);
  await stop(await startEmbedded(target));
}, 120_000);
