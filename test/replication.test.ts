// A primary with a synchronous standby: what is answered 2xx is on both.

import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import postgres from "postgres";
import { migrateDatabase } from "../src/db/migrate.ts";
import { createQueue, openService, type Service, uniqueId, until } from "./harness.ts";
import { type Cluster, startCluster, startStandby } from "./postgres.ts";

setDefaultTimeout(90_000);

const statement_timeout_ms = 1000;

let primary: Cluster;
let standby: Cluster;
let admin: postgres.Sql;
let service: Service;
let changes: boolean[] = [];

const waiting = "application_name = 'psqlqueue' and wait_event = 'SyncRep'";
const waitingCount = async () => (await admin.unsafe(`select from pg_stat_activity where ${waiting}`)).length;

async function isPublished(queue: string): Promise<boolean> {
  return (await service.call("POST", `/v1/queues/${queue}/messages`, { body: "x" })).status === 204;
}

/** Everything that writes, on messages that were received before the standby left. */
async function prepareWrites(): Promise<() => Promise<string>[]> {
  const queue = await createQueue(service);
  const topic = uniqueId("t");
  await service.call("POST", "/v1/topics", { id: topic });
  const subscription = { id: uniqueId("s"), topic_id: topic, queue_id: queue };
  expect((await service.call("POST", "/v1/subscriptions", subscription)).status).toBe(201);
  for (let i = 0; i < 4; i++) await service.call("POST", `/v1/queues/${queue}/messages`, { body: String(i) });
  const { data } = (await service.call("GET", `/v1/queues/${queue}/messages?limit=4`)).body;
  const [a, b, c] = (data as { id: string }[]).map(({ id }) => `/v1/queues/${queue}/messages/${id}`);
  const { lease_token } = data[2];
  const writes: [string, string, unknown?][] = [
    ["POST", `/v1/queues/${queue}/messages`, { body: "plain" }],
    ["POST", `/v1/queues/${queue}/messages`, { body: "delayed", delay_seconds: 5 }],
    ["POST", `/v1/topics/${topic}/messages`, { body: "copies" }],
    ["PUT", `${a}/ack`],
    ["PUT", `${b}/nack`, { visibility_timeout_seconds: 9 }],
    ["PUT", `${c}/extend`, { ack_deadline_seconds: 60, lease_token }],
    ["POST", "/v1/queues", { id: uniqueId(), ack_deadline_seconds: 30, message_retention_seconds: 60 }],
    ["PUT", `/v1/queues/${queue}/pause`],
  ];
  return () =>
    writes.map(async ([method, path, body]) => {
      const { status, body: answer } = await service.call(method, path, body);
      return `${path.split("/").at(-1)} ${status} ${answer?.message ?? ""}`.replace(/^q-\S+/, "");
    });
}

/** Sends all writes, twice, while the standby is away, and does `act` to the backends that wait; those not 503. */
async function honestly(act: string): Promise<{ others: string[]; acted: number }> {
  const send = await prepareWrites();
  await standby.stop("immediate");
  let acted = 0;
  const others: string[] = [];
  // What the first time has done is there the second time, and yet on no standby.
  for (let round = 0; round < 2; round++) {
    let is_settled = false;
    const answers = Promise.all(send()).finally(() => {
      is_settled = true;
    });
    await until(async () => {
      acted += (await admin.unsafe(`select ${act}(pid) from pg_stat_activity where ${waiting}`)).length;
      return is_settled;
    });
    others.push(...(await answers).filter((answer) => !answer.endsWith("503 service unavailable")));
  }
  // A queue that was made locally is refused for what it is: it exists.
  return { others: others.filter((answer) => !answer.includes("queue already exists")), acted };
}

async function comeBack(): Promise<void> {
  await standby.start();
  const queue = await until204();
  expect(await isPublished(queue)).toBe(true);
}

async function until204(): Promise<string> {
  let queue = "";
  await until(async () => {
    queue = await createQueue(service).catch(() => "");
    return queue !== "";
  }, 15_000);
  await until(() => isPublished(queue), 15_000);
  return queue;
}

async function setUp(): Promise<void> {
  primary = await startCluster();
  const url = await primary.createDatabase();
  await migrateDatabase(url);
  standby = await startStandby(primary, "copy");
  admin = postgres(url, { max: 1, onnotice() {}, connection: { synchronous_commit: "local" } });
  await admin`alter system set synchronous_standby_names = 'copy'`;
  await admin`select pg_reload_conf()`;
  await until(async () => (await admin`select from pg_stat_replication where sync_state = 'sync'`).length === 1);
  service = await openService({ url, statement_timeout_ms, onAvailability: (is_up) => changes.push(is_up) });
}

async function tearDown(): Promise<void> {
  await service.close();
  await admin.end({ timeout: 1 });
  await standby.remove();
  await primary.remove();
}

function promises(): void {
  beforeAll(setUp, 60_000);
  afterAll(tearDown);
  afterEach(() => standby.start());

  test("a wait for the standby that is cancelled is 503, whatever was written", async () => {
    const { others, acted } = await honestly("pg_cancel_backend");
    expect(others).toEqual([]);
    expect(acted).toBeGreaterThan(2);
    await comeBack();
  }, 40_000);

  test("a backend that is ended while it waits is 503, and the second try waits, too", async () => {
    const { others, acted } = await honestly("pg_terminate_backend");
    expect(others).toEqual([]);
    expect(acted).toBeGreaterThan(2);
    await comeBack();
  }, 40_000);

  test("a wait that outlasts the deadline is 503, and the backends left behind are at most twice the pool", async () => {
    const queue = await createQueue(service);
    await until(() => changes.at(-1) !== false);
    changes = [];
    await standby.stop("immediate");
    let is_over = false;
    const statuses = new Set<number>();
    const clients = Array.from({ length: 12 }, async (_, i) => {
      while (!is_over) {
        const path = i % 2 === 0 ? `/v1/queues/${queue}/messages` : "/v1/topics";
        const body = i % 2 === 0 ? { body: "x" } : { id: uniqueId("t") };
        statuses.add((await service.call("POST", path, body)).status);
      }
    });
    const counts: number[] = [];
    const refused = async () => {
      counts.push((await admin`select from pg_stat_activity where application_name = 'psqlqueue'`).length);
      const { text } = await service.call("POST", "/v1/topics", { id: uniqueId("t") });
      return text.includes("BACKENDS_ABANDONED");
    };
    await until(refused, 40_000);
    const began_ms = performance.now();
    for (let i = 0; i < 20; i++) await refused();
    expect(performance.now() - began_ms).toBeLessThan(20_000);
    expect((await service.call("GET", "/v1/healthz")).status).toBe(503);
    is_over = true;
    await Promise.all(clients);
    expect([...statuses]).toEqual([503]);
    expect(Math.max(...counts)).toBeGreaterThan(10);
    expect(Math.max(...counts)).toBeLessThanOrEqual(20);
    await comeBack();
    await until(async () => (await waitingCount()) === 0);
    // Reads went on succeeding; the state is told once.
    await until(() => changes.length === 2);
    expect(changes).toEqual([false, true]);
    expect((await service.call("GET", "/v1/healthz")).status).toBe(200);
  }, 90_000);
}

describe("with a synchronous standby", promises);
