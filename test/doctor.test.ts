import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import net from "node:net";
import path from "node:path";
import { healthFindings } from "../src/commands/findings.ts";
import { killChildren, runChild } from "./child.ts";
import { createMigratedDatabase, is_embedded, listen, openService, serviceForFile } from "./harness.ts";
import { freePort, sharedCluster } from "./postgres.ts";

setDefaultTimeout(90_000);

afterAll(killChildren);
const service = await serviceForFile();
const listener = await listen(service.app);
afterAll(() => listener.stop(true));
const url = `http://127.0.0.1:${listener.port}`;

type Finding = { check: string; state: string; what: string; remedy?: string };

async function doctor(env: Record<string, string> = {}) {
  const [port, metrics_port] = [await freePort(), await freePort()];
  const ports = { PSQLQUEUE_SERVER_PORT: String(port), PSQLQUEUE_METRICS_PORT: String(metrics_port) };
  const all = { PSQLQUEUE_URL: url, PSQLQUEUE_SERVER_HOST: "127.0.0.1", ...ports, ...env };
  const { code, stdout, stderr } = await runChild(["doctor", "--json"], { env: all });
  expect(stderr).toBe("");
  const findings: Finding[] = stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  return { code, findings, of: (check: string) => findings.filter((own) => own.check === check) };
}

test("without anything set looks at the embedded database's directory, the ports, and the server", async () => {
  const { code, findings } = await doctor();
  expect(code).toBe(0);
  expect(findings.map(({ check }) => check)).toEqual([
    "settings",
    "ports",
    "database",
    "server",
    "server clock",
    "snapshots",
    "bloat",
  ]);
  expect(findings[2]?.what).toMatch(/^embedded, in .*psqlqueue-data, which a server would make; \d+ MB are free$/);
  // The service of this test is of another version.
  expect(findings[3]).toMatchObject({ state: "warning", remedy: "bring both to one version" });
});

test("names what cannot work, with what to do, and ends with 1", async () => {
  const taken = net.createServer().listen(0, "127.0.0.1");
  const { port } = taken.address() as net.AddressInfo;
  const none = `http://127.0.0.1:${await freePort()}`;
  const settings = await doctor({ PSQLQUEUE_LOG_LEVEL: "loud", PSQLQUEUE_PROT: "1" });
  expect(settings.code).toBe(1);
  expect(settings.of("settings")).toEqual([
    {
      check: "settings",
      state: "problem",
      what: 'PSQLQUEUE_LOG_LEVEL="loud" cannot be used; allowed: one of debug, info, warn, error',
      remedy: "change it in the environment, then look again",
    },
    { check: "settings", state: "warning", what: "PSQLQUEUE_PROT is no setting", remedy: expect.any(String) },
  ]);
  const ports = await doctor({ PSQLQUEUE_SERVER_PORT: String(port), PSQLQUEUE_URL: none });
  expect(ports.code).toBe(1);
  expect(ports.of("ports")).toEqual([
    {
      check: "ports",
      state: "problem",
      what: `PSQLQUEUE_SERVER_PORT=${port} is in use on PSQLQUEUE_SERVER_HOST=127.0.0.1 already`,
      remedy: "set PSQLQUEUE_SERVER_PORT to another port, or stop what listens there",
    },
  ]);
  expect(ports.of("server")).toMatchObject([{ state: "problem", remedy: expect.stringContaining("psqlqueue server") }]);
  taken.close();
  const served = await doctor({ PSQLQUEUE_SERVER_PORT: String(listener.port) });
  expect(served.of("ports")).toMatchObject([
    { state: "ok", what: `a server of these settings answers on ${listener.port}` },
  ]);
}, 60_000);

test("knows a server with TLS again, and says what is wrong with certificates", async () => {
  const fileOf = (name: string) => path.join(import.meta.dir, "certificates", name);
  const [cert, key] = [fileOf("client.pem"), fileOf("client-key.pem")];
  const read = (name: string) => readFileSync(name, "utf8");
  const client_ca = read(fileOf("authority.pem"));
  const secured = await listen(service.app, { certificates: { cert: read(cert), key: read(key), client_ca } });
  const settings = { PSQLQUEUE_TLS_CERT: cert, PSQLQUEUE_TLS_KEY: key };
  const own = await doctor({ ...settings, PSQLQUEUE_SERVER_PORT: String(secured.port) });
  expect(own.of("ports")).toEqual([
    { check: "ports", state: "ok", what: `a server of these settings answers on ${secured.port}` },
  ]);
  await secured.stop(true);
  const without = await doctor({ ...settings, PSQLQUEUE_TLS_CERT: "/nowhere.pem" });
  expect(without.of("certificates")).toEqual([
    {
      check: "certificates",
      state: "problem",
      what: expect.stringContaining('PSQLQUEUE_TLS_CERT="/nowhere.pem" cannot be read'),
      remedy: "correct it, then look again",
    },
  ]);
}, 60_000);

test.if(!is_embedded)(
  "asks PostgreSQL for its version, settings, clock, LISTEN, snapshots and bloat",
  async () => {
    const database = await createMigratedDatabase();
    const { code, findings, of } = await doctor({ PSQLQUEUE_DATABASE_URL: database });
    expect(findings.filter(({ state }) => state === "problem")).toEqual(of("fsync"));
    expect(code).toBe(of("fsync").length > 0 ? 1 : 0);
    expect(of("database")).toMatchObject([{ state: "ok", what: expect.stringContaining("is reached, and migrated") }]);
    expect(of("postgresql version")).toHaveLength(1);
    expect(of("listen")).toMatchObject([{ state: "ok" }]);
    expect(of("sessions")).toMatchObject([{ state: "ok" }]);
    expect(of("postgresql clock")).toMatchObject([{ state: "ok" }]);
    expect(of("snapshots")).toMatchObject([{ state: "ok" }]);
    expect(of("bloat")).toMatchObject([{ state: "ok", what: expect.stringContaining("none") }]);
    for (const own of findings.filter(({ state }) => state !== "ok")) expect(own.remedy?.length).toBeGreaterThan(5);
  },
  20_000,
);

test.if(!is_embedded)(
  "names API keys that sign requests and that the master keys of the settings do not decrypt",
  async () => {
    const database = await createMigratedDatabase();
    const own = await openService({ url: database, master_keys: new Map([["2025", Buffer.alloc(32, 1)]]) });
    const rest = { scopes: [{ actions: ["*"] }], namespace: null, expires_at: null, rate_limit: null };
    const { id } = await own.broker.createKey({ name: "signs", sigv4: true, ...rest });
    await own.broker.createKey({ name: "plain", sigv4: false, ...rest });
    await own.broker.createKey({ name: "over", sigv4: true, ...rest, expires_at: "2001-01-01T00:00:00Z" });
    await own.close();
    const [before, now] = [1, 2].map((byte) => Buffer.alloc(32, byte).toString("base64"));
    const check = async (PSQLQUEUE_MASTER_KEY: string) =>
      (await doctor({ PSQLQUEUE_DATABASE_URL: database, PSQLQUEUE_MASTER_KEY })).of("signing keys");
    expect(await check(`2026:${now}`)).toEqual([
      {
        check: "signing keys",
        state: "warning",
        what: `PSQLQUEUE_MASTER_KEY does not decrypt the secrets of ${id}: what they sign is refused`,
        remedy: expect.stringContaining("add the master key"),
      },
    ]);
    const well = { check: "signing keys", state: "ok", what: "none is without its master key" };
    expect(await check(`2026:${now},2025:${before}`)).toEqual([well]);
  },
  20_000,
);

test.if(!is_embedded)(
  "says what to run for a database that is not migrated, and why one is not reached",
  async () => {
    const empty = await doctor({ PSQLQUEUE_DATABASE_URL: await (await sharedCluster()).createDatabase() });
    expect(empty.code).toBe(1);
    expect(empty.of("database")[0]).toMatchObject({
      state: "problem",
      what: "the database is not migrated",
      remedy: "run `psqlqueue migrate` with the same settings first",
    });
    const port = await freePort();
    const away = await doctor({ PSQLQUEUE_DATABASE_URL: `postgres://user:s3cret@127.0.0.1:${port}/x` });
    expect(away.code).toBe(1);
    expect(away.of("database")[0]?.what).toContain("nobody listens there: check host and port");
    expect(JSON.stringify(away.findings)).not.toContain("s3cret");
  },
  20_000,
);

test("a forgotten transaction and dead rows are warnings that name what to do", () => {
  const table = { table_bytes: 1, index_bytes: 1, last_vacuum: null };
  const findings = healthFindings({
    oldest_snapshot: {
      age_seconds: 3600,
      pid: 17,
      application_name: "psql",
      user: "joe",
      state: "idle in transaction",
    },
    tables: [{ ...table, name: "messages", live_rows: 10, dead_rows: 1_000_000 }],
  });
  expect(findings).toEqual([
    {
      check: "snapshots",
      state: "warning",
      what: "psql of joe (idle in transaction) holds one for 3600 s: vacuum cannot remove dead rows",
      remedy: "select pg_terminate_backend(17)",
    },
    {
      check: "bloat",
      state: "warning",
      what: "messages: 1000000 dead rows beside 10 live ones",
      remedy: "vacuum (analyze) psqlqueue.messages, once no old snapshot is held",
    },
  ]);
});
