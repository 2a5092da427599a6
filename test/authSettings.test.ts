// What the settings about keys do at the start of a server.

import { expect, setDefaultTimeout, test } from "bun:test";
import { startServer } from "../src/commands/server.ts";
import { readConfig } from "../src/config.ts";
import { type Log, logObserver } from "../src/log.ts";
import { addObserver } from "../src/observe.ts";
import { emptyDirectory } from "./child.ts";
import { createMigratedDatabase, is_embedded } from "./harness.ts";
import { bearer, root_key } from "./secured.ts";

setDefaultTimeout(60_000);

/** Starts a server, and answers what `look` sees of it and the warnings it began with. */
async function startWith<Seen>(given: Record<string, string>, look: (of: { api: string; metrics: string }) => Seen) {
  const warnings: string[] = [];
  const log: Log = (level, message) => void (level === "warn" && warnings.push(message));
  const removeObserver = addObserver(logObserver(log, "warn"));
  const config = readConfig({
    PSQLQUEUE_SERVER_HOST: "127.0.0.1",
    PSQLQUEUE_SERVER_PORT: "0",
    PSQLQUEUE_METRICS_HOST: "127.0.0.1",
    PSQLQUEUE_METRICS_PORT: "0",
    ...given,
  });
  const server = await startServer(config, log);
  try {
    const at = (port: number | undefined) => `http://127.0.0.1:${port}`;
    return { seen: await look({ api: at(server.port), metrics: at(server.metrics_port) }), warnings };
  } finally {
    await server.stop();
    removeObserver();
  }
}

test("a server that asks for keys, and has none, says that nobody can get in; with one of either kind it does not", async () => {
  const place = {
    PSQLQUEUE_DATABASE_URL: is_embedded ? "" : await createMigratedDatabase(),
    PSQLQUEUE_DATA_DIR: emptyDirectory(),
    PSQLQUEUE_AUTH: "on",
  };
  const statusOf = async ({ api }: { api: string }) =>
    (await fetch(`${api}/v1/queues`, { headers: bearer(root_key) })).status;
  const nobody = "keys are asked for, and there are none: nobody can get in";
  expect(await startWith(place, statusOf)).toEqual({ seen: 401, warnings: [nobody] });
  const make = async ({ api }: { api: string }) => {
    const body = JSON.stringify({ name: "one", scopes: [{ actions: ["peek"] }] });
    return (await fetch(`${api}/v1/keys`, { method: "POST", headers: bearer(root_key), body })).status;
  };
  expect(await startWith({ ...place, PSQLQUEUE_ROOT_KEY: root_key }, make)).toEqual({ seen: 201, warnings: [] });
  expect(await startWith(place, statusOf)).toEqual({ seen: 401, warnings: [] });
});

test("PSQLQUEUE_AUTH_OPEN opens the metrics also where PSQLQUEUE_METRICS_AUTH asks for keys", async () => {
  const place = {
    PSQLQUEUE_DATABASE_URL: is_embedded ? "" : await createMigratedDatabase(),
    PSQLQUEUE_DATA_DIR: emptyDirectory(),
    PSQLQUEUE_AUTH: "on",
    PSQLQUEUE_ROOT_KEY: root_key,
    PSQLQUEUE_METRICS_AUTH: "on",
  };
  const statusOf = async ({ metrics }: { metrics: string }) => (await fetch(metrics)).status;
  expect((await startWith(place, statusOf)).seen).toBe(401);
  expect((await startWith({ ...place, PSQLQUEUE_AUTH_OPEN: "healthz,metrics" }, statusOf)).seen).toBe(200);
});
