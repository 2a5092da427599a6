// The embedded database: starting, durability, ownership of the directory, versions, death. The wire is in
// embeddedWire.test.ts.
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres from "postgres";
import { type Embedded, type EmbeddedEvent, openEmbedded } from "../src/db/embedded/embedded.ts";
import { pglite_version } from "../src/db/embedded/layout.ts";

setDefaultTimeout(90_000);

const root = mkdtempSync(join(tmpdir(), "psqlqueue-embedded-"));
const created = join(root, "created");
const repository = join(import.meta.dir, "..");
let directories = 0;

/** A data directory of its own, already created: copying one is quicker than creating one. */
function copy(): string {
  const data_dir = join(root, `copy-${directories++}`);
  cpSync(created, data_dir, { recursive: true });
  return data_dir;
}

const connect = (embedded: Embedded) => postgres({ ...embedded.connection, max: 1, onnotice() {} });

async function withDatabase<T>(
  data_dir: string,
  run: (sql: postgres.Sql, embedded: Embedded) => Promise<T>,
): Promise<T> {
  const embedded = await openEmbedded({ data_dir, fsync: true });
  const sql = connect(embedded);
  try {
    return await run(sql, embedded);
  } finally {
    await sql.end({ timeout: 1 });
    await embedded.close();
  }
}

const refusal = (data_dir: string) =>
  openEmbedded({ data_dir, fsync: true }).then(
    () => "opened",
    (error: Error) => error.message,
  );

/** Runs a script in a process of its own. `data_dir`, `openEmbedded` and `postgres` are there. */
function spawn(data_dir: string, script: string, cwd = repository) {
  const source = `
    import { writeSync } from "node:fs";
    import postgres from ${JSON.stringify(join(repository, "node_modules/postgres/src/index.js"))};
    import { openEmbedded } from ${JSON.stringify(join(repository, "src/db/embedded/embedded.ts"))};
    const data_dir = process.argv.at(-1);
    ${script}`;
  const path = join(root, `script-${directories++}.ts`);
  writeFileSync(path, source);
  const child = Bun.spawn([process.execPath, path, data_dir], { cwd, stdout: "pipe", stderr: "inherit" });
  const decoder = new TextDecoder();
  let text = "";
  let notice = Promise.withResolvers<void>();
  const ended = (async () => {
    for await (const chunk of child.stdout) {
      text += decoder.decode(chunk, { stream: true });
      notice.resolve();
      notice = Promise.withResolvers();
    }
    notice.resolve();
    await child.exited;
  })();
  return {
    /** Waits until `enough` says so of all that was printed. */
    async printed(enough: (text: string) => boolean): Promise<void> {
      while (!enough(text)) {
        await Promise.race([notice.promise, ended]);
        if (child.exitCode !== null && !enough(text)) throw new Error(`the process ended early: ${text}`);
      }
    },
    /** Waits for the end. Returns all that was printed. */
    async output(): Promise<string> {
      await ended;
      return text;
    },
    /** Kills without a warning. Returns all that was printed. */
    async kill(): Promise<string> {
      child.kill("SIGKILL");
      await ended;
      return text;
    },
  };
}

const print_refusal = `
  const started = performance.now();
  try { await openEmbedded({ data_dir, fsync: true }); console.log("opened"); }
  catch (error) { console.log(error.message); }
  console.log(performance.now() - started);
  process.exit(0);`;

beforeAll(async () => {
  const started = performance.now();
  const embedded = await openEmbedded({ data_dir: created, fsync: true });
  const created_ms = performance.now() - started;
  expect(embedded.is_new).toBe(true);
  Bun.gc(true);
  console.log(`first start ${created_ms.toFixed(0)} ms, ${(process.memoryUsage.rss() / 1e6).toFixed(0)} MB resident`);
  await embedded.close();
}, 120_000);

afterAll(() => rmSync(root, { recursive: true, force: true }));

describe("starting", () => {
  test("a second start finds what the first one wrote, and says so", async () => {
    const data_dir = copy();
    await withDatabase(data_dir, (sql) => sql`create table kept as select 7 as n`);
    const events: EmbeddedEvent[] = [];
    const started = performance.now();
    const embedded = await openEmbedded({ data_dir, fsync: true, observe: (event) => events.push(event) });
    console.log(`later start ${(performance.now() - started).toFixed(0)} ms`);
    const sql = connect(embedded);
    expect(embedded.is_new).toBe(false);
    expect([...(await sql`select n from kept`)]).toEqual([{ n: 7 }]);
    await sql.end();
    await Promise.all([embedded.close(), embedded.close()]);
    await embedded.close();
    expect(events).toEqual([
      { name: "embedded_opened", data_dir, duration_ms: expect.any(Number), is_recovered: false },
      { name: "embedded_closed", data_dir, duration_ms: expect.any(Number) },
    ]);
    expect(readdirSync(data_dir).sort()).toEqual(["format.json", "lock", "postgresql"]);
    expect(statSync(join(data_dir, "postgresql")).mode & 0o777).toBe(0o700);
  });

  test("the settings that speed and safety rest on are in force", async () => {
    const settings = {
      TimeZone: "UTC",
      data_checksums: "on",
      enable_bitmapscan: "off",
      enable_seqscan: "off",
      fsync: "on",
      full_page_writes: "on",
      jit: "off",
      plan_cache_mode: "force_generic_plan",
      shared_buffers: "16MB",
      synchronous_commit: "on",
      wal_sync_method: "fsync",
    };
    await withDatabase(copy(), async (sql) => {
      const rows = await sql`select name, current_setting(name) as value from pg_settings
        where name = any(${Object.keys(settings)}::text[]) order by name collate "C"`;
      expect(Object.fromEntries(rows.map((row) => [row["name"], row["value"]]))).toEqual(settings);
    });
  });

  test("the version in the format file is the version that is installed", () => {
    const installed = join(repository, "node_modules/@electric-sql/pglite/package.json");
    expect(pglite_version).toBe(JSON.parse(readFileSync(installed, "utf8")).version);
  });

  test("a path too long for a socket, with spaces and other scripts, works", async () => {
    const data_dir = join(root, "a directory", "長い".repeat(20), "x".repeat(100));
    mkdirSync(join(data_dir, ".."), { recursive: true });
    cpSync(created, data_dir, { recursive: true });
    await withDatabase(data_dir, async (sql) => expect((await sql`select 1 as one`)[0]).toEqual({ one: 1 }));
  });

  test("a first start that was killed half-way does not stand in the way of the next", async () => {
    const data_dir = join(root, "interrupted");
    for (const ms of [400, 1200]) {
      const child = spawn(data_dir, `await openEmbedded({ data_dir, fsync: true }); console.log("up");`);
      const until = performance.now() + ms;
      while (performance.now() < until && !existsSync(join(data_dir, "postgresql"))) await Bun.sleep(10);
      await child.kill();
    }
    await withDatabase(data_dir, async (sql) => expect((await sql`select 1 as one`)[0]).toEqual({ one: 1 }));
    expect(existsSync(join(data_dir, "initializing"))).toBe(false);
  });
});

describe("durability", () => {
  test("every commit is flushed once, reading and rolling back never", async () => {
    await withDatabase(copy(), async (sql, { fsyncs }) => {
      const flushed = async (run: () => Promise<unknown>) => {
        const before = await fsyncs();
        await run();
        return (await fsyncs()) - before;
      };
      await sql`create table rows (n int)`;
      await sql`select n from rows`;
      const commits = await flushed(async () => {
        for (let n = 0; n < 50; n++) await sql`insert into rows values (${n})`;
      });
      expect(commits).toBeWithin(50, 55);
      expect(await flushed(() => sql`select n from rows`)).toBe(0);
      const rollback = () =>
        sql.begin(async (inner) => [await inner`insert into rows values (99)`, await inner`selec`]);
      expect(await flushed(() => rollback().catch(() => {}))).toBe(0);
      expect(await flushed(() => sql`checkpoint`)).toBeGreaterThan(10);
    });
  });

  test("nothing is flushed when that was asked for", async () => {
    const embedded = await openEmbedded({ data_dir: copy(), fsync: false });
    const sql = connect(embedded);
    await sql`create table rows (n int)`;
    await sql`checkpoint`;
    expect(await embedded.fsyncs()).toBe(0);
    await sql.end();
    await embedded.close();
  });

  test("twelve kills in the middle of writing lose no answered commit", async () => {
    const data_dir = copy();
    await withDatabase(data_dir, (sql) => sql`create table rows (id text primary key)`);
    const answered: string[] = [];
    for (let round = 0; round < 12; round++) {
      const child = spawn(
        data_dir,
        `const { connection } = await openEmbedded({ data_dir, fsync: true });
         const sql = postgres({ ...connection, max: 1, onnotice() {} });
         writeSync(1, "rows " + (await sql\`select count(*)::int as n from rows\`)[0].n + "\\n");
         let next = 0;
         const write = async () => { for (;;) {
           const id = "${round}-" + next++;
           await sql\`insert into rows values (\${id})\`;
           writeSync(1, id + "\\n");
         } };
         await Promise.all([write(), write(), write(), write()]);`,
      );
      const wanted = 20 + Math.floor(Math.random() * 200);
      await child.printed((seen) => seen.split("\n").length > wanted);
      const text = await child.kill();
      const lines = text.split("\n").slice(0, -1);
      expect(Number(lines[0]?.split(" ")[1])).toBeGreaterThanOrEqual(answered.length);
      answered.push(...lines.slice(1));
    }
    await withDatabase(data_dir, async (sql) => {
      const found = new Set((await sql`select id from rows`).map((row) => row["id"]));
      expect(answered.filter((id) => !found.has(id))).toEqual([]);
      expect(answered.length).toBeGreaterThan(400);
    });
  }, 120_000);
});

describe("one owner", () => {
  test("a second one is refused at once, in this process and in another, by whatever path", async () => {
    const data_dir = copy();
    symlinkSync(data_dir, join(root, "link"));
    await withDatabase(data_dir, async () => {
      const expected = `The data directory ${data_dir} is in use by process ${process.pid}.`;
      expect(await refusal(data_dir)).toStartWith(expected);
      for (const path of [join(root, "link"), join("..", data_dir.slice(root.length + 1))]) {
        const cwd = join(root, "created");
        const [message, ms] = (await spawn(path, print_refusal, cwd).output()).split("\n");
        expect(message).toStartWith(expected);
        expect(Number(ms)).toBeLessThan(200);
      }
    });
  });

  test("what a killed owner left behind is in nobody's way, not even when its process id lives on", async () => {
    const data_dir = copy();
    const child = spawn(data_dir, `await openEmbedded({ data_dir, fsync: true }); console.log("up");`);
    await child.printed((text) => text.includes("up"));
    const files = readdirSync(data_dir).sort();
    await child.kill();
    expect(files).toEqual(["format.json", "lock", "owner", "postgresql", "socket"]);
    expect(readdirSync(join(data_dir, "socket"))).toEqual([".s.PGSQL.5432"]);
    writeFileSync(join(data_dir, "owner"), JSON.stringify({ pid: process.ppid, host: "" }));
    await withDatabase(data_dir, async (sql) => expect((await sql`select 1 as one`)[0]).toEqual({ one: 1 }));
  });
});

test("a lock file of PostgreSQL that a crash left empty keeps nobody out", async () => {
  const data_dir = copy();
  writeFileSync(join(data_dir, "postgresql/postmaster.pid"), "");
  await withDatabase(data_dir, async (sql) => expect((await sql`select 1 as one`)[0]).toEqual({ one: 1 }));
});

describe("versions", () => {
  const cases: [string, (data_dir: string) => void, string][] = [
    [
      "another PostgreSQL",
      (data_dir) => writeFileSync(join(data_dir, "postgresql/PG_VERSION"), "17\n"),
      "was made by PostgreSQL 17",
    ],
    [
      "a newer release",
      (data_dir) => writeFileSync(join(data_dir, "format.json"), JSON.stringify({ format: 2 })),
      "has format 2, made by a newer release",
    ],
    ["an unknown release", (data_dir) => rmSync(join(data_dir, "format.json")), "is missing or unreadable"],
    [
      "a PostgreSQL server",
      (data_dir) => {
        renameSync(join(data_dir, "postgresql"), `${data_dir}.moved`);
        rmSync(data_dir, { recursive: true });
        renameSync(`${data_dir}.moved`, data_dir);
      },
      "is the data directory of a PostgreSQL server",
    ],
  ];
  test.each(cases)("a directory of %s is refused untouched", async (_name, prepare, sentence) => {
    const data_dir = copy();
    rmSync(join(data_dir, "lock"));
    prepare(data_dir);
    const before = readdirSync(data_dir, { recursive: true }).length;
    expect(await refusal(data_dir)).toContain(sentence);
    expect(readdirSync(data_dir, { recursive: true }).length).toBe(before);
  });
});

describe("failing", () => {
  test("a panic is reported, the client is told, and closing still frees the directory", async () => {
    const data_dir = copy();
    const embedded = await openEmbedded({ data_dir, fsync: true });
    const sql = connect(embedded);
    await sql`create table rows (n int)`;
    renameSync(join(data_dir, "postgresql/pg_wal"), join(data_dir, "pg_wal"));
    const writing = (async () => {
      for (;;) await sql`insert into rows select generate_series(1, 100000)`;
    })();
    await expect(writing).rejects.toThrow();
    expect((await embedded.failed).message).toContain("The embedded database failed");
    await sql.end({ timeout: 1 });
    await embedded.close();
    renameSync(join(data_dir, "pg_wal"), join(data_dir, "postgresql/pg_wal"));
    await withDatabase(data_dir, async (again) => expect((await again`select 1 as one`)[0]).toEqual({ one: 1 }));
  });

  test("silence is reported", async () => {
    const embedded = await openEmbedded({ data_dir: copy(), fsync: true, silence_ms_max: 2_000 });
    const sql = connect(embedded);
    const sleeping = sql`select pg_sleep(20)`.catch((error) => error);
    expect((await embedded.failed).message).toContain("has been silent for 2000 ms");
    await embedded.close();
    await sleeping;
    await sql.end({ timeout: 1 });
  }, 15_000);
});

test("the compiled binary carries everything: it starts in an empty directory with an empty environment", async () => {
  const binary = join(root, "binary");
  const main = join(root, "main.ts");
  writeFileSync(
    main,
    `import { openEmbedded } from ${JSON.stringify(join(repository, "src/db/embedded/embedded.ts"))};
     const embedded = await openEmbedded({ data_dir: "data", fsync: true });
     console.log(JSON.stringify([embedded.is_new, (await embedded.fsyncs()) > 0]));
     await embedded.close();`,
  );
  const build = ["build", "--compile", main, "src/db/embedded/worker.ts", "--outfile", binary];
  expect(await Bun.spawn([process.execPath, ...build], { cwd: repository, stdout: "ignore" }).exited).toBe(0);
  const cwd = join(root, "elsewhere");
  mkdirSync(cwd);
  for (const is_new of [true, false]) {
    const child = Bun.spawn([binary], { cwd, env: {}, stdout: "pipe" });
    expect(JSON.parse(await new Response(child.stdout).text())).toEqual([is_new, true]);
  }
});
