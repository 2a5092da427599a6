// Another server becomes the primary, or the same one takes no writes for a while: by itself it works again, soon.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import postgres from "postgres";
import { readConfig } from "../src/config.ts";
import { readConnection } from "../src/connection/connection.ts";
import { checkMigrated, migrateDatabase } from "../src/db/migrate.ts";
import { addObserver, type Observation } from "../src/observe.ts";
import { type FaultProxy, startFaultProxy } from "./faultProxy.ts";
import { createMigratedDatabase, createQueue, is_embedded, openService, type Service, until } from "./harness.ts";
import { type Cluster, startCluster, startStandby } from "./postgres.ts";

setDefaultTimeout(90_000);

const statement_timeout_ms = 1000;
const recovery_ms_max = 5000;

const publish = async (service: Service, queue: string) =>
  (await service.call("POST", `/v1/queues/${queue}/messages`, { body: "x" })).status;
const health = async (service: Service) => (await service.call("GET", "/v1/healthz")).status;

/** Publishes, reads and asks for the health for a while: the statuses that came, of each. */
async function statusesOf(service: Service, queue: string): Promise<{ publish: number[]; health: number[] }> {
  const statuses = { publish: new Set<number>(), health: new Set<number>() };
  const end_ms = performance.now() + 1000;
  await until(async () => {
    statuses.publish.add(await publish(service, queue));
    statuses.health.add(await health(service));
    await service.call("GET", `/v1/queues/${queue}/stats`);
    return performance.now() > end_ms;
  });
  return { publish: [...statuses.publish], health: [...statuses.health] };
}

async function recovers(service: Service, queue: string): Promise<void> {
  await until(async () => (await publish(service, queue)) === 204, recovery_ms_max);
  await until(async () => (await health(service)) === 200, recovery_ms_max);
}

test("a database URL may name several hosts, and which of them will do", () => {
  const hosts = [
    { host: "a", port: 1 },
    { host: "::1", port: 2 },
    { host: "c", port: 5432 },
  ];
  const url = "postgres://u:p%40@a:1,[::1]:2,c/db";
  expect(readConnection(url)).toMatchObject({ addresses: hosts, password: "p@", target: "read-write" });
  for (const target of ["primary", "any", "read-write"] as const) {
    const asked = `${url}?sslmode=require&target_session_attrs=${target}`;
    expect(readConnection(asked)).toMatchObject({ addresses: hosts, target, tls: { mode: "require" } });
    expect(readConfig({ PSQLQUEUE_DATABASE_URL: asked }).database_url).toBe(asked);
  }
  for (const wrong of ["postgres://a:1,b:x/db", "postgres://a,/db", "postgres://a/db?target_session_attrs=standby"]) {
    expect(() => readConfig({ PSQLQUEUE_DATABASE_URL: wrong })).toThrow("cannot be used");
  }
});

function onOneServer(): void {
  test("sessions that are read-only for a while are 503, also for the health check, and one change of state", async () => {
    const url = await createMigratedDatabase();
    const admin = postgres(url, { max: 1, onnotice() {} });
    const changes: boolean[] = [];
    const onAvailability = (is_up: boolean) => changes.push(is_up);
    const service = await openService({ url, statement_timeout_ms, onAvailability });
    const queue = await createQueue(service);
    const set = async (value: string) => {
      await admin.unsafe(`set default_transaction_read_only = off;
        alter database "${new URL(url).pathname.slice(1)}" set default_transaction_read_only = ${value}`);
      await admin`select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and application_name = 'psqlqueue'`;
    };
    await set("on");
    // What was open until then may be found dead first.
    await until(async () => (await health(service)) === 503);
    expect(await statusesOf(service, queue)).toEqual({ publish: [503], health: [503] });
    await set("off");
    await recovers(service, queue);
    await until(() => changes.length === 2);
    expect(changes).toEqual([false, true]);
    await service.close();
    await admin.end({ timeout: 1 });
  });

  test("connections that have become read-only are dropped, without anybody noticing", async () => {
    const url = await createMigratedDatabase();
    const service = await openService({ url, connections_max: 4 });
    const queue = await createQueue(service);
    const turn = () =>
      service.db.client`select set_config('default_transaction_read_only', 'on', false), pg_sleep(0.1)`;
    await Promise.all(Array.from({ length: 4 }, turn));
    expect(await publish(service, queue)).toBe(204);
    await service.close();
  });
}

let primary: Cluster;
let standby: Cluster;
let proxy: FaultProxy;
const target = { host: "127.0.0.1", port: 0 };
let database = "";

async function setUp(): Promise<void> {
  primary = await startCluster();
  const url = await primary.createDatabase();
  database = new URL(url).pathname;
  await migrateDatabase(url);
  standby = await startStandby(primary, "copy");
  target.port = primary.port;
  proxy = await startFaultProxy(target);
}

async function tearDown(): Promise<void> {
  await proxy.close();
  await standby.remove();
  await primary.remove();
}

const urlOf = (...ports: number[]) =>
  `postgres://postgres@${ports.map((port) => `127.0.0.1:${port}`).join()}${database}`;

function onTwoServers(): void {
  beforeAll(setUp, 60_000);
  afterAll(tearDown);

  test("an address that leads to a standby for a while is 503 meanwhile, and recovers", async () => {
    const changes: boolean[] = [];
    const onAvailability = (is_up: boolean) => changes.push(is_up);
    const service = await openService({ url: urlOf(proxy.port), statement_timeout_ms, onAvailability });
    const queue = await createQueue(service);
    target.port = standby.port;
    await proxy.setMode("reset");
    await proxy.setMode("pass");
    await until(async () => (await health(service)) === 503);
    expect(await statusesOf(service, queue)).toEqual({ publish: [503], health: [503] });
    target.port = primary.port;
    await recovers(service, queue);
    await until(() => changes.length === 2);
    expect(changes).toEqual([false, true]);
    await service.close();
  });

  test("a host that does not answer is passed over, and the log says so", async () => {
    const notices: unknown[] = [];
    const note = (observation: Observation) => {
      if (observation.kind === "notice") notices.push(observation);
    };
    const removeObserver = addObserver(note);
    await proxy.setMode("silent");
    const service = await openService({ url: urlOf(proxy.port, primary.port) });
    // In one request: the connection gets two seconds.
    await createQueue(service);
    removeObserver();
    const details = { host: `127.0.0.1:${proxy.port}`, reason: "it cannot be reached" };
    expect(notices).toEqual([{ kind: "notice", level: "WARN", message: "database host passed over", details }]);
    await service.close();
    await proxy.heal();
  }, 15_000);

  test("the standby is found when it has become the primary", async () => {
    const url = urlOf(primary.port, standby.port);
    const service = await openService({ url, statement_timeout_ms });
    const queue = await createQueue(service);
    const admin = postgres(urlOf(standby.port), { max: 1, onnotice() {} });
    await until(async () => (await admin`select from psqlqueue.queues where id = ${queue}`).length === 1);
    await primary.kill();
    expect(await publish(service, queue)).toBe(503);
    await admin`select pg_promote()`;
    await recovers(service, queue);
    // And by a server that starts only now.
    await checkMigrated(url);
    await admin.end({ timeout: 1 });
    await service.close();
  });
}

if (!is_embedded) describe("a database that takes no writes", onOneServer);
describe("a primary and a standby", onTwoServers);
