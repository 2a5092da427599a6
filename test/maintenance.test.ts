import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createSnapshotWatch } from "../src/background/snapshots.ts";
import { addObserver, type Observation } from "../src/observe.ts";
import { createQueue, is_embedded, serviceForFile } from "./harness.ts";
import { verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile();
const { call, broker, sql } = service;
const { put, take, ack } = verbsOf(service);

const maintenance = async () => (await call("GET", "/v1/maintenance")).body;

/** What the watch logs while `work` runs. */
async function notices(work: () => Promise<void>) {
  const seen: Extract<Observation, { kind: "notice" }>[] = [];
  const stop = addObserver((observation) => {
    if (observation.kind === "notice") seen.push(observation);
  });
  await work();
  stop();
  return seen;
}

test("the tables' sizes and dead rows are told, the archive's days as one table", async () => {
  const queue = await createQueue(service);
  for (let i = 0; i < 10; i++) await put(queue);
  await ack(queue, (await take(queue)).id);
  await sql`select pg_stat_force_next_flush()`.catch(() => {});
  const { tables } = await maintenance();
  const names = tables.map(({ name }: { name: string }) => name);
  expect(names).toContain("messages");
  expect(names.filter((name: string) => name.startsWith("archived_messages"))).toEqual(["archived_messages"]);
  const own = tables.find(({ name }: { name: string }) => name === "messages");
  expect(own.table_bytes).toBeGreaterThan(8000);
  expect(own.index_bytes).toBeGreaterThan(8000);
  await sql`vacuum psqlqueue.messages`;
  const after = (await maintenance()).tables.find(({ name }: { name: string }) => name === "messages");
  expect(after).toMatchObject({ dead_rows: 0, last_vacuum: expect.stringMatching(/^\d{4}-.*Z$/) });
});

test("without a transaction of somebody there is no old snapshot, and nothing is logged", async () => {
  expect((await maintenance()).oldest_snapshot).toBeNull();
  expect(await notices(createSnapshotWatch(broker, 0))).toEqual([]);
});

describe.if(!is_embedded)("a transaction that stays open", () => {
  test("is named with its process, and the log says what it does and how to end it, once", async () => {
    const session = await sql.reserve();
    await session`set application_name = 'a forgotten report'`;
    await session`begin isolation level repeatable read`;
    await session`select count(*) from psqlqueue.queues`;
    const [own] = await session`select pg_backend_pid() as pid`;
    const pid = own?.["pid"];
    const { oldest_snapshot } = await maintenance();
    expect(oldest_snapshot).toMatchObject({
      pid,
      application_name: "a forgotten report",
      state: "idle in transaction",
    });
    expect(oldest_snapshot.age_seconds).toBeWithin(0, 60);
    expect(await notices(createSnapshotWatch(broker))).toEqual([]);
    const watch = createSnapshotWatch(broker, 0);
    const logged = await notices(async () => {
      await watch();
      await watch();
    });
    expect(logged).toMatchObject([
      {
        level: "WARN",
        message: "a transaction holds an old snapshot",
        details: { pid, application_name: "a forgotten report", remedy: `select pg_terminate_backend(${pid})` },
      },
    ]);
    await session`rollback`;
    session.release();
    expect((await maintenance()).oldest_snapshot).toBeNull();
  });
});
