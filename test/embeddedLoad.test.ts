// The embedded database under load: large values, deep pipelines, failing statements, and the upkeep it needs.
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres from "postgres";
import { type Embedded, openEmbedded } from "../src/db/embedded/embedded.ts";
import { embeddedUpkeep, type UpkeepStep } from "../src/db/embedded/upkeep.ts";

setDefaultTimeout(90_000);

const root = mkdtempSync(join(tmpdir(), "psqlqueue-load-"));
const large = 16 * 1024 * 1024;
let embedded: Embedded;

beforeAll(async () => {
  embedded = await openEmbedded({ data_dir: root, fsync: true });
}, 120_000);

afterAll(async () => {
  await embedded.close();
  rmSync(root, { recursive: true, force: true });
});

async function withSql(run: (sql: postgres.Sql) => Promise<unknown>): Promise<void> {
  const sql = postgres({ ...embedded.connection, max: 1, onnotice() {} });
  try {
    await run(sql);
  } finally {
    await sql.end({ timeout: 1 });
  }
}

test("results and parameters of 16 MB pass", async () => {
  await withSql(async (sql) => {
    const [row] = await sql`select repeat('x', ${large}) as text`;
    expect(row?.["text"].length).toBe(large);
    expect((await sql`select length(${"y".repeat(large)}) as n`)[0]).toEqual({ n: large });
    const rows = await sql`select n, repeat('z', 1000) as text from generate_series(1, 16000) as n`;
    expect(rows.length).toBe(16_000);
  });
});

test("deep pipelines come back complete and in order", async () => {
  await withSql(async (sql) => {
    const rows = await Promise.all(Array.from({ length: 20_000 }, (_, n) => sql`select ${n}::int as n`));
    expect(rows.every((row, n) => row[0]?.["n"] === n)).toBe(true);
  });
});

const kinds: [string, (sql: postgres.Sql) => Promise<unknown>][] = [
  ["23505", (sql) => sql`insert into pairs values (1)`],
  ["22P02", (sql) => sql`select ${"x"}::text::int`],
  ["42601", (sql) => sql`selec`],
  ["22012", (sql) => sql`select 1 / ${0}::int`],
  ["22021", (sql) => sql`select ${"a\0b"}::text`],
];

test("ten thousand of each kind neither hang nor grow the process", async () => {
  await withSql(async (sql) => {
    await sql`create table pairs (n int primary key)`;
    await sql`insert into pairs values (1)`;
    const fail = async (count: number) => {
      for (const [code, run] of kinds) {
        const codes = await Promise.all(Array.from({ length: count }, () => run(sql).catch((error) => error.code)));
        expect(new Set(codes)).toEqual(new Set([code]));
      }
    };
    const contexts = async () => {
      const [row] = await sql<{ mb: number }[]>`
        select sum(total_bytes)::float8 / 1e6 as mb from pg_backend_memory_contexts`;
      return row?.mb ?? Number.NaN;
    };
    for (let round = 0; round < 3; round++) await fail(1000);
    Bun.gc(true);
    const before_mb = await contexts();
    const before = process.memoryUsage.rss();
    for (let round = 0; round < 10; round++) await fail(1000);
    Bun.gc(true);
    expect((process.memoryUsage.rss() - before) / 1e6).toBeLessThan(150);
    expect((await contexts()) - before_mb).toBeLessThan(0.5);
    expect((await sql`select count(*)::int as n from pairs`)[0]).toEqual({ n: 1 });
  });
}, 120_000);

const megabytes = async (sql: postgres.Sql) =>
  (await sql<{ n: number }[]>`select pg_total_relation_size('rows')::float8 / 1e6 as n`)[0]?.n;

test("upkeep keeps tables and write-ahead log small under churn, and gives a drained backlog's disk back", async () => {
  await withSql(async (sql) => {
    await sql`create table rows (id int primary key, state int, body text)`;
    await sql`create index rows_state on rows (state)`;
    const steps: UpkeepStep[] = [];
    const upkeep = embeddedUpkeep(sql, { observe: (step) => steps.push(step) });
    await sql`insert into rows select n, 0, repeat('x', 700) from generate_series(1, 100000) as n`;
    expect(await megabytes(sql)).toBeGreaterThan(70);
    await sql`delete from rows where id > 500`;
    for (let round = 0; round < 100; round++) {
      await sql`update rows set state = ${round}`;
      await upkeep.run();
    }
    let delay_ms = 0;
    for (let round = 0; round < 20; round++) delay_ms = await upkeep.run();
    expect(delay_ms).toBe(5_000);
    expect(await megabytes(sql)).toBeLessThan(15);
    expect(new Set(steps.map((step) => step.name))).toEqual(
      new Set(["upkeep_checkpointed", "upkeep_vacuumed", "upkeep_shrunk"]),
    );
    const [wal] = await sql<{ bytes: number }[]>`select sum(size)::float8 as bytes from pg_ls_waldir()`;
    expect(wal?.bytes).toBeLessThan(110e6);
  });
}, 120_000);

test("rows that nobody changes any more are frozen before transaction numbers run out", async () => {
  await withSql(async (sql) => {
    const steps: UpkeepStep[] = [];
    const upkeep = embeddedUpkeep(sql, { transaction_age_max: 100, observe: (step) => steps.push(step) });
    await sql`create table old (n int)`;
    for (let n = 0; n < 120; n++) await sql`insert into old values (${n})`;
    const age = async () =>
      (await sql<{ age: number }[]>`select max(age(datfrozenxid)) as age from pg_database`)[0]?.age;
    expect(await age()).toBeGreaterThanOrEqual(100);
    for (let seen = -1; seen < steps.length && seen < 200; ) {
      seen = steps.length;
      await upkeep.run();
    }
    expect(new Set(steps.map((step) => step.name))).toEqual(new Set(["upkeep_frozen"]));
    expect(await age()).toBeLessThan(100);
  });
});
