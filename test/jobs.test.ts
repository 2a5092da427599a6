import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { jobsOf } from "../src/background/jobs.ts";
import { startLeadership } from "../src/background/leadership.ts";
import { type Job, startLoop } from "../src/background/loop.ts";
import { addObserver, type Observation } from "../src/observe.ts";
import { createQueue, is_embedded, serviceForFile, until } from "./harness.ts";
import { verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile();
const { broker, elapse, sql } = service;
const { put } = verbsOf(service);

/** What was observed of jobs while `work` ran. */
async function observing(work: (seen: Observation[]) => Promise<void>): Promise<void> {
  const seen: Observation[] = [];
  const stop = addObserver((observation) => {
    if (observation.kind === "job") seen.push(observation);
  });
  try {
    await work(seen);
  } finally {
    stop();
  }
}

describe("a loop", () => {
  test("runs a job again after a failure, and holds up no other", async () => {
    let failures = 0;
    let runs = 0;
    const failing: Job = {
      name: "failing",
      is_shared: false,
      run() {
        failures += 1;
        return Promise.reject(new Error("no"));
      },
    };
    const working: Job = { name: "working", is_shared: true, run: () => Promise.resolve(++runs && 1) };
    await observing(async (seen) => {
      const stops = [failing, working].map((job) => startLoop(job, () => true));
      await until(() => failures >= 2 && runs >= 50);
      await Promise.all(stops.map((stop) => stop()));
      expect(seen.filter((own) => own.kind === "job" && own.job === "failing" && own.error).length).toBe(failures);
    });
    // Each waits for longer than the one before.
    expect(failures).toBeLessThan(6);
  });

  test("runs a shared job on the leader only", async () => {
    let leads = false;
    let shared = 0;
    let own = 0;
    const stops = [
      startLoop({ name: "shared", is_shared: true, run: () => Promise.resolve(++shared && 1) }, () => leads),
      startLoop({ name: "own", is_shared: false, run: () => Promise.resolve(++own && 1) }, () => leads),
    ];
    await until(() => own >= 20);
    expect(shared).toBe(0);
    leads = true;
    await until(() => shared > 0);
    await Promise.all(stops.map((stop) => stop()));
  });

  test("runs a job that is woken at once, and once more when it is woken during a run", async () => {
    let wake = () => {};
    let runs = 0;
    let end = Promise.withResolvers<void>();
    const stop = startLoop(
      {
        name: "woken",
        is_shared: false,
        async run() {
          runs += 1;
          await end.promise;
          return 3_600_000;
        },
        onStart(own) {
          wake = own;
        },
      },
      () => true,
      3_600_000,
    );
    await Bun.sleep(20);
    expect(runs).toBe(0);
    for (const expected of [1, 2]) {
      wake();
      wake();
      await until(() => runs === expected);
      // Those that came with the first are its own.
      const { resolve } = end;
      end = Promise.withResolvers();
      resolve();
      await Bun.sleep(20);
      expect(runs).toBe(expected);
    }
    wake();
    await until(() => runs === 3);
    wake();
    end.resolve();
    await until(() => runs === 4);
    await stop();
    wake();
    await Bun.sleep(20);
    expect(runs).toBe(4);
  });
});

describe("the leadership", () => {
  test("is one server's, however long its jobs take, and another's at once when that one stops", async () => {
    const [one, two] = [startLeadership(broker, "one"), startLeadership(broker, "two")];
    await until(() => one.isLeader() || two.isLeader());
    const [leader, other] = one.isLeader() ? [one, two] : [two, one];
    expect(other.isLeader()).toBe(false);
    await leader.stop();
    expect(leader.isLeader()).toBe(false);
    await until(() => other.isLeader());
    await other.stop();
  });

  test("passes from a server that fell silent", async () => {
    expect(await broker.lead("jobs", "killed")).toBe(true);
    const next = startLeadership(broker, "next");
    await until(async () => (await sql`select from psqlqueue.leaders where holder = 'killed'`).length === 1);
    expect(next.isLeader()).toBe(false);
    await sql`update psqlqueue.leaders set until = now() where holder = 'killed'`;
    await until(() => next.isLeader());
    await next.stop();
  });

  test("what servers that were killed left behind is removed", async () => {
    await sql`insert into psqlqueue.leaders (job, holder, until) values
      ('server:dead', 'dead', now() - interval '11 minutes'), ('server:alive', 'alive', now())`;
    expect(await broker.sweepLeaders()).toBe(1);
    expect([...(await sql`delete from psqlqueue.leaders where job like 'server:%' returning holder`)]).toEqual([
      { holder: "alive" },
    ]);
  });
});

test.if(!is_embedded)("while somebody reads the archive for long, messages expire all the same", async () => {
  const queue = await createQueue(service);
  for (let i = 0; i < 40; i++) await put(queue, { body: "x", ttl_seconds: 1 });
  await elapse(2);
  const day = new Date(Date.now() + 2 * 86_400_000).toISOString().slice(0, 10).replaceAll("-", "");
  await sql.unsafe(`drop table psqlqueue.archived_messages_${day}`);
  await observing(async (seen) => {
    // As pg_dump does.
    await sql.begin(async (dump) => {
      await dump`lock table psqlqueue.archived_messages in access share mode`;
      const stops = jobsOf(broker).map((job) => startLoop(job, () => true));
      await until(async () => {
        const [row] = await dump`select count(*)::int as count from psqlqueue.messages as message
          join psqlqueue.queues as queue on queue.no = message.queue_no where queue.id = ${queue}`;
        return row?.["count"] === 0;
      });
      await until(() => seen.some((own) => own.kind === "job" && own.job === "archive" && own.error !== undefined));
      await Promise.all(stops.map((stop) => stop()));
    });
  });
  await broker.keepArchive();
  expect(await sql`select to_regclass(${`psqlqueue.archived_messages_${day}`}) is not null as is_there`).toMatchObject([
    { is_there: true },
  ]);
});
