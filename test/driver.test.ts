// What our patch mends in postgres.js.

import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import path from "node:path";
import postgres from "postgres";
import { until } from "./harness.ts";
import { sharedCluster } from "./postgres.ts";

setDefaultTimeout(90_000);

const cluster = await sharedCluster();
const url = await cluster.createDatabase();
const admin = postgres(url, { max: 1, onnotice() {} });
const application_name = "driver under test";
// One connection, so that the next query meets what the last one left behind.
const sql = postgres(url, { max: 1, backoff: () => 0, connection: { application_name } });
afterAll(() => Promise.all([sql.end({ timeout: 1 }), admin.end({ timeout: 1 })]));

const codeOf = (query: PromiseLike<unknown>) =>
  Promise.resolve(query).then(
    () => "no error",
    (error: { code: string }) => error.code,
  );

/** Three rows have left when the statement stops at the fourth. */
const stuck = () => sql`select n, case when n > 3 then pg_sleep(60) end from generate_series(1, 10) as n`;

async function whileStuck(act: (pid: number) => Promise<unknown>): Promise<string> {
  const code = codeOf(stuck());
  let pid: number | undefined;
  await until(async () => {
    const rows = await admin`
      select pid from pg_stat_activity
      where application_name = ${application_name} and state = 'active' and wait_event = 'PgSleep'`;
    pid = rows[0]?.["pid"];
    return pid !== undefined;
  });
  await act(pid as number);
  return await code;
}

// As published it gives what was left of a broken answer to the next query.
describe("the query after one that", () => {
  test.each([
    ["failed half-way", () => codeOf(sql`select 1 / (4 - n) as x from generate_series(1, 10) as n`), ["22012"]],
    ["was cancelled half-way", () => whileStuck((pid) => admin`select pg_cancel_backend(${pid})`), ["57014"]],
    [
      "was killed half-way",
      () => whileStuck((pid) => admin`select pg_terminate_backend(${pid})`),
      ["57P01", "CONNECTION_CLOSED"],
    ],
  ])("%s is answered, with its own rows", async (_, spoil, codes) => {
    for (let i = 0; i < 3; i++) {
      expect(await spoil()).toBeOneOf(codes);
      expect([...(await sql`select ${i}::int as i`)]).toEqual([{ i }]);
      expect([...(await sql`select 1 as one`)]).toEqual([{ one: 1 }]);
    }
  });
});

// postgres.js as published crashes, hangs, or runs a dead transaction's statements outside of it.
describe("a backend that dies", () => {
  const pidOf = async (sql: postgres.ISql) => (await sql`select pg_backend_pid() as pid`)[0]?.["pid"] as number;
  const kill = async (pid: number) => {
    await admin`select pg_terminate_backend(${pid})`;
    await until(async () => (await admin`select from pg_stat_activity where pid = ${pid}`).length === 0);
  };

  test("inside begin ends the transaction, and nothing of it runs outside", async () => {
    await admin`create table if not exists public.traces (trace text)`;
    for (const pool of [1, 2, 4]) {
      // The driver's own backoff grows to 20 s; ours does not.
      const sql = postgres(url, { max: pool, onnotice() {}, backoff: () => 0.05 } as object);
      let is_done = false;
      // A busy pool: the connection is given to somebody else as soon as it is back.
      const busy = Array.from({ length: pool }, async () => {
        while (!is_done) await sql`select pg_sleep(0.001)`.catch(() => {});
      });
      const later: unknown[] = [];
      const transaction = sql.begin(async (own) => {
        await own`insert into public.traces values ('before')`;
        await kill(await pidOf(own));
        for (let i = 0; i < 3; i++) {
          later.push(
            await own`insert into public.traces values ('after')`.then(
              () => "ran",
              (error) => error.code,
            ),
          );
        }
      });
      expect(
        await transaction.then(
          () => "committed",
          (error) => error.code,
        ),
      ).toMatch(/^(CONNECTION_CLOSED|57P01)$/);
      await until(() => later.length === 3);
      expect(later).not.toContain("ran");
      is_done = true;
      await Promise.all(busy);
      expect((await sql`select 1 as one`)[0]).toEqual({ one: 1 });
      await sql.end({ timeout: 1 });
      expect([...(await admin`select trace from public.traces`)]).toEqual([]);
    }
  });

  test("while it is reserved fails what is asked of it, and the pool lives on", async () => {
    const sql = postgres(url, { max: 1, onnotice() {} });
    const reserved = await sql.reserve();
    await kill(await pidOf(reserved));
    const codes: string[] = [];
    for (const query of [() => reserved`select 1`, () => reserved`select ${1}::int`, () => reserved`select 1`]) {
      codes.push(
        await query().then(
          () => "ran",
          (error) => error.code,
        ),
      );
    }
    expect(codes).not.toContain("ran");
    // Not released: the driver would take the dead connection for a living one. The first query may still meet it.
    const works = () =>
      sql`select 1`.then(
        () => true,
        () => false,
      );
    await until(works, 5000);
    await sql.end({ timeout: 1 });
  }, 15_000);
});

// As published it leaves the transaction open between description and execution: what is now, and so how long a lease
// lasts, was then decided before the wait.
describe("the first use of a statement on a connection", () => {
  const block = (ms: number) => {
    for (const until_ms = performance.now() + ms; performance.now() < until_ms; );
  };

  test("begins its transaction when it is executed, however long the client was busy", async () => {
    for (let i = 0; i < 3; i++) {
      const query = sql`select extract(epoch from clock_timestamp() - now())::float8 as late, ${i}::int as i`;
      // The same text would be known.
      const text = `select extract(epoch from clock_timestamp() - now())::float8 as late, $1::int as i -- ${i}`;
      const own = sql.unsafe(text, [i], { prepare: true });
      const answers = Promise.all([own, query]);
      // The first is sent in a turn of its own; its description waits in the socket meanwhile.
      await Bun.sleep(0);
      await Bun.sleep(0);
      block(300);
      for (const [row] of await answers) {
        expect(row).toMatchObject({ i });
        expect(row?.["late"]).toBeLessThan(0.15);
      }
    }
  });

  const unsendable = {
    toString() {
      throw Object.assign(new Error("cannot be sent"), { code: "UNSENT" });
    },
  };

  test("fails alone: with a text that does not parse, and with a value that cannot be sent", async () => {
    for (let i = 0; i < 3; i++) {
      const wrong = codeOf(sql`selekt ${i}::int`);
      const unsent = codeOf(sql`select ${unsendable as never}::text as x`);
      const next = sql`select ${i}::int as i`;
      expect([await wrong, await unsent, [...(await next)]]).toEqual(["42601", "UNSENT", [{ i }]]);
    }
  });

  test("is the same in a transaction, in a pipeline, and without prepared statements", async () => {
    const rows = await sql.begin(async (own) => {
      const all = Array.from({ length: 5 }, (_, n) => own.unsafe(`select $1::int + ${n} as x`, [n], { prepare: true }));
      return await Promise.all(all);
    });
    expect(rows.map(([row]) => row?.["x"])).toEqual([0, 2, 4, 6, 8]);
    const unprepared = postgres(url, { max: 1, prepare: false, onnotice() {} });
    const texts = Array.from(
      { length: 5 },
      (_, n) => unprepared`select ${n}::int as n, ${[String(n)]}::text[] as texts`,
    );
    expect((await Promise.all(texts)).map(([row]) => row)).toEqual(
      Array.from({ length: 5 }, (_, n) => ({ n, texts: [String(n)] })),
    );
    await unprepared.end({ timeout: 1 });
  });
});

// As published the pool's lists of connections grow with every statement as long as one connection of them is free, and
// each statement looks through them: 25 µs more after 150,000 statements, and so on.
test("a pool keeps nothing of the statements that it has run", async () => {
  const file = path.resolve(import.meta.dir, "../node_modules/postgres/src/queue.js");
  type Connection = { n: number };
  const { default: Queue } = (await import(file)) as {
    default(): {
      length: number;
      push(x: Connection): void;
      pop(): Connection;
      shift(): Connection;
      remove(x: Connection): unknown;
    };
  };
  const queue = Queue();
  const connections = [{ n: 1 }, { n: 2 }, { n: 3 }];
  for (const connection of connections) queue.push(connection);
  const shifted = Array.from({ length: 1_000_000 }, (_, i) => {
    const connection = queue.shift();
    queue.push(connection);
    return connection === connections[i % 3];
  });
  expect(shifted.every(Boolean)).toBe(true);
  const started_ms = performance.now();
  for (let i = 0; i < 10_000; i++) queue.remove({ n: 4 });
  // 10 µs for each would be a list of tens of thousands; as published it takes a millisecond.
  expect(performance.now() - started_ms).toBeLessThan(1000);
  expect(queue.remove(connections[2] as Connection)).toBe(connections[2]);
  expect([queue.shift(), queue.pop(), queue.length]).toEqual([{ n: 2 }, { n: 1 }, 0]);
  queue.push(connections[0] as Connection);
  expect([queue.pop(), queue.length]).toEqual([{ n: 1 }, 0]);
});

// As published they go round all sessions, each of which has lost its memory from the processor's caches by then.
test("statements one after the other are run by one session", async () => {
  const pool = postgres(url, { max: 4, onnotice() {} });
  const sessionsOf = async (rows: Promise<postgres.Row[]>[]) =>
    new Set((await Promise.all(rows)).map(([row]) => row?.["pid"] as number));
  const asked = Array.from({ length: 4 }, () => pool`select pg_backend_pid() as pid, pg_sleep(0.1)`);
  expect((await sessionsOf(asked)).size).toBe(4);
  const sessions = new Set<number>();
  for (let i = 0; i < 20; i++)
    for (const pid of await sessionsOf([pool`select pg_backend_pid() as pid`])) sessions.add(pid);
  expect(sessions.size).toBe(1);
  await pool.end({ timeout: 1 });
});
