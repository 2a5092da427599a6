// A server as one would run it where others can reach it: keys asked for, small limits. Spoken to over HTTP only.

import { afterAll, expect } from "bun:test";
import postgres from "postgres";
import { startServer } from "../src/commands/server.ts";
import { readConfig } from "../src/config.ts";
import { type Log, logObserver } from "../src/log.ts";
import { addObserver } from "../src/observe.ts";
import { emptyDirectory } from "./child.ts";
import { createMigratedDatabase, uniqueId } from "./harness.ts";

export const root_key = "root-key-of-the-tests";
export const bearer = (key: string) => ({ authorization: `Bearer ${key}` });
export const settings = { ack_deadline_seconds: 30, message_retention_seconds: 3600 };

/** Starts one for a test file, with a database of its own; `given` is of the environment. */
export async function openSecured(given: Record<string, string> = {}) {
  const url = await createMigratedDatabase();
  /** What it has logged. */
  const logged: string[] = [];
  const log: Log = (level, message, details) => logged.push(JSON.stringify({ level, message, ...details }));
  afterAll(addObserver(logObserver(log, "debug")));
  const server = await startServer(
    readConfig({
      PSQLQUEUE_DATABASE_URL: url,
      PSQLQUEUE_DATA_DIR: emptyDirectory(),
      PSQLQUEUE_SERVER_HOST: "127.0.0.1",
      PSQLQUEUE_SERVER_PORT: "0",
      PSQLQUEUE_METRICS_HOST: "127.0.0.1",
      PSQLQUEUE_METRICS_PORT: "0",
      PSQLQUEUE_AUTH: "on",
      PSQLQUEUE_ROOT_KEY: root_key,
      PSQLQUEUE_METRICS_AUTH: "on",
      ...given,
    }),
    log,
  );
  const sql = postgres(url, { max: 2, onnotice() {} });
  afterAll(async () => {
    await sql.end({ timeout: 1 });
    await server.stop();
  });
  const origin = `http://127.0.0.1:${server.port}`;

  async function ask(method: string, path: string, body?: unknown, headers: Record<string, string> = bearer(root_key)) {
    const init: RequestInit = { method, headers };
    if (body !== undefined) init.body = typeof body === "string" ? body : JSON.stringify(body);
    const response = await fetch(origin + path, init);
    const text = await response.text();
    const is_json = response.headers.get("content-type")?.startsWith("application/json") && text !== "";
    return { status: response.status, headers: response.headers, text, body: is_json ? JSON.parse(text) : undefined };
  }

  return {
    server,
    origin,
    url,
    sql,
    logged,
    /** A request with the root key, or with other headers. */
    ask,
    async queueOf(own: Record<string, unknown> = {}): Promise<string> {
      const id = uniqueId();
      expect((await ask("POST", "/v1/queues", { id, ...settings, ...own })).status).toBe(201);
      return id;
    },
    /** A key with these rights: its whole text. */
    async keyOf(actions: string[], only: Record<string, unknown> = {}, more: object = {}): Promise<string> {
      return (await ask("POST", "/v1/keys", { name: "test", scopes: [{ actions, ...only }], ...more })).body.key;
    },
    /** Publishes, and answers the id. */
    async put(queue: string, body: unknown = { body: "x" }): Promise<string> {
      return (await ask("POST", `/v1/queues/${queue}/messages`, body)).headers.get("x-message-id") ?? "";
    },
    receive: async (queue: string) => (await ask("GET", `/v1/queues/${queue}/messages`)).body.data,
  };
}
