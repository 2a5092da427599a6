import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import postgres from "postgres";
import { readMigrationTimes } from "../src/db/folder.ts";
import { createMigratedDatabase, openService } from "./harness.ts";

setDefaultTimeout(90_000);

// Run with PSQLQUEUE_TEST_WRITE_SCHEMA=1 after a new migration, and read the difference before it is committed.
const file = path.join(import.meta.dir, "schema.txt");
const root = path.resolve(import.meta.dir, "..");

const url = await createMigratedDatabase();
const sql = postgres(url, { max: 1, onnotice() {} });
afterAll(() => sql.end({ timeout: 1 }));

// The archive's days come and go.
const is_day = `~ '^archived_messages_[0-9]{8}'`;

const parts: [title: string, query: string][] = [
  [
    "tables",
    `select format('%s %s%s%s', class.relname,
       case class.relkind when 'p' then 'partitioned by ' || pg_get_partkeydef(class.oid) else 'table' end,
       coalesce(' ' || pg_get_expr(class.relpartbound, class.oid), ''),
       coalesce(' with (' || array_to_string(class.reloptions, ', ') || ')', '')
         || coalesce(' toast (' || array_to_string(toast.reloptions, ', ') || ')', ''))
     from pg_class as class left join pg_class as toast on toast.oid = class.reltoastrelid
     where class.relnamespace = 'psqlqueue'::regnamespace and class.relkind in ('r', 'p') and class.relname !${is_day}
     order by class.relname collate "C"`,
  ],
  [
    "columns, in the order of their place",
    `select format('%s.%s %s%s%s%s%s', class.relname, attribute.attname, format_type(attribute.atttypid, attribute.atttypmod),
       case when attribute.attcollation not in (0, type.typcollation) then ' collate ' || collation_.collname else '' end,
       case when attribute.attnotnull then ' not null' else '' end,
       coalesce(' default ' || pg_get_expr(given.adbin, given.adrelid), ''),
       case attribute.attidentity when 'a' then ' generated always as identity' when 'd' then ' by default as identity'
         else '' end)
     from pg_attribute as attribute
     join pg_class as class on class.oid = attribute.attrelid
     join pg_type as type on type.oid = attribute.atttypid
     left join pg_collation as collation_ on collation_.oid = attribute.attcollation
     left join pg_attrdef as given on given.adrelid = class.oid and given.adnum = attribute.attnum
     where class.relnamespace = 'psqlqueue'::regnamespace and class.relkind in ('r', 'p') and attribute.attnum > 0
       and not attribute.attisdropped and class.relname !${is_day}
     order by class.relname collate "C", attribute.attnum`,
  ],
  [
    "indexes",
    `select pg_get_indexdef(index.indexrelid) || case when index.indisvalid then '' else ' invalid' end
     from pg_index as index
     join pg_class as class on class.oid = index.indrelid
     join pg_class as own on own.oid = index.indexrelid
     where class.relnamespace = 'psqlqueue'::regnamespace and class.relkind in ('r', 'p') and class.relname !${is_day}
     order by own.relname collate "C"`,
  ],
  [
    "constraints",
    // From PostgreSQL 18 on "not null" is a constraint too; it stands with the columns.
    `select format('%s.%s %s', class.relname, rule.conname, pg_get_constraintdef(rule.oid))
     from pg_constraint as rule join pg_class as class on class.oid = rule.conrelid
     where rule.connamespace = 'psqlqueue'::regnamespace and rule.contype <> 'n' and class.relname !${is_day}
     order by class.relname collate "C", rule.conname collate "C"`,
  ],
  [
    "sequences",
    `select format('%s %s from %s by %s, %s to %s%s', sequencename, data_type, start_value, increment_by, min_value, max_value,
       case when cycle then ' cycle' else '' end)
     from pg_sequences where schemaname = 'psqlqueue' order by sequencename collate "C"`,
  ],
  [
    "functions",
    `select pg_get_functiondef(oid) from pg_proc where pronamespace = 'psqlqueue'::regnamespace
     order by proname collate "C", pg_get_function_identity_arguments(oid) collate "C"`,
  ],
  [
    "types, views, triggers, policies",
    `select kind || ' ' || name from (
       select 'type' as kind, typname::text as name from pg_type
       where typnamespace = 'psqlqueue'::regnamespace and typtype in ('e', 'd') union all
       select 'view', relname from pg_class where relnamespace = 'psqlqueue'::regnamespace and relkind in ('v', 'm') union all
       select 'trigger', class.relname || '.' || tgname from pg_trigger join pg_class as class on class.oid = tgrelid
       where class.relnamespace = 'psqlqueue'::regnamespace and not tgisinternal and class.relname !${is_day} union all
       select 'policy', tablename || '.' || policyname from pg_policies where schemaname = 'psqlqueue'
     ) as item order by 1`,
  ],
];

async function dump(): Promise<string> {
  const texts: string[] = [];
  for (const [title, query] of parts) {
    const rows = await sql.unsafe(query).values();
    texts.push([`## ${title}`, ...rows.map(([row]) => String(row).trimEnd()), ""].join("\n"));
  }
  return texts.join("\n");
}

describe("the schema", () => {
  test("after all migrations is the one in schema.txt", async () => {
    const found = await dump();
    if (process.env["PSQLQUEUE_TEST_WRITE_SCHEMA"] === "1") writeFileSync(file, found);
    expect(found).toBe(readFileSync(file, "utf8"));
    expect(found).toContain("CREATE INDEX messages_ready");
  });

  test("lies in a schema of its own: nothing of ours is in public, and nothing needs an extension", async () => {
    const rows = await sql`
      select relname as name from pg_class where relnamespace = 'public'::regnamespace
      union all
      select proname from pg_proc where pronamespace = 'public'::regnamespace
      union all
      select extname from pg_extension where extname <> 'plpgsql'
      union all
      select nspname from pg_namespace where nspname !~ '^pg_' and nspname not in ('public', 'information_schema', 'psqlqueue')`;
    expect([...rows]).toEqual([]);
  });

  // PostgreSQL searches the schema of temporary tables and types first where the path does not name it.
  test("lets no caller put something of theirs in the place of what a function means", async () => {
    const rows = await sql`
      select oid::regprocedure::text as name from pg_proc
      where pronamespace = 'psqlqueue'::regnamespace
        and (prosecdef or array_to_string(proconfig, ' ') like '%search_path%')
        and not coalesce('search_path=pg_catalog, pg_temp' = any (proconfig), false)`;
    expect([...rows]).toEqual([]);
  });

  test("is what the table definitions say: drizzle-kit finds nothing to generate", async () => {
    const copy = mkdtempSync(path.join(tmpdir(), "psqlqueue-drizzle-"));
    try {
      cpSync(path.join(root, "drizzle"), path.join(copy, "drizzle"), { recursive: true });
      for (const name of [
        "src/db/schema.ts",
        "src/db/dedupSchema.ts",
        "src/db/orderingSchema.ts",
        "src/db/outboxSchema.ts",
        "src/db/rightsSchema.ts",
        "src/db/historySchema.ts",
      ]) {
        cpSync(path.join(root, name), path.join(copy, name));
      }
      symlinkSync(path.join(root, "node_modules"), path.join(copy, "node_modules"));
      const list = () => readdirSync(path.join(copy, "drizzle"), { recursive: true }).sort();
      const before = list();
      const kit = path.join(root, "node_modules/drizzle-kit/bin.cjs");
      const run = Bun.spawn([process.execPath, kit, "generate", "--config", "drizzle/config.ts"], {
        cwd: copy,
        stdin: "ignore",
        stdout: "pipe",
        stderr: "pipe",
      });
      const [output, complaint] = await Promise.all([new Response(run.stdout).text(), new Response(run.stderr).text()]);
      // It can fail and still exit with 0.
      expect([await run.exited, `${output}${complaint}`]).toEqual([0, expect.not.stringMatching(/error/i)]);
      expect(output).toContain("No schema changes");
      expect(list()).toEqual(before);
    } finally {
      rmSync(copy, { recursive: true, force: true });
    }
  });
});

describe("the migrations", () => {
  test("are in the order of their times, and every file has its entry and its snapshot", () => {
    const times = readMigrationTimes();
    expect(times.length).toBeGreaterThan(1);
    expect(times).toEqual([...new Set(times)].sort((a, b) => a - b));
    const journal = JSON.parse(readFileSync(path.join(root, "drizzle/meta/_journal.json"), "utf8")) as {
      entries: { idx: number; tag: string }[];
    };
    expect(journal.entries.map(({ idx }) => idx)).toEqual(times.map((_, i) => i));
    const tags = journal.entries.map(({ tag }) => tag);
    const files = readdirSync(path.join(root, "drizzle")).filter((name) => name.endsWith(".sql"));
    expect(files.sort()).toEqual(tags.map((tag) => `${tag}.sql`).sort());
    const snapshots = readdirSync(path.join(root, "drizzle/meta")).filter((name) => name.endsWith("_snapshot.json"));
    expect(snapshots.sort()).toEqual(tags.map((tag) => `${tag.slice(0, 4)}_snapshot.json`).sort());
  });
});

describe("keep_archive", () => {
  const days = async () =>
    (
      await sql`select relname as name from pg_class where relnamespace = 'psqlqueue'::regnamespace and relkind = 'r'
        and relname ~ '^archived_messages_[0-9]{8}$' order by 1`
    ).map((row) => row["name"] as string);
  const dayOf = async (offset: number) =>
    (
      await sql`select 'archived_messages_' || to_char((now() at time zone 'utc')::date + ${offset}::int, 'YYYYMMDD') as name`
    )[0]?.["name"] as string;
  const keep = async (ahead: number) => (await sql`select psqlqueue.keep_archive(${ahead}) as dropped`)[0]?.["dropped"];
  /** An archived row of the day so far from today, kept until so many seconds from now. */
  const archive = (id: string, offset: number, kept_seconds: number) => sql`
    insert into psqlqueue.archived_messages
      (archived_at, expires_at, created_at, queue_no, delivery_attempts, priority, id, outcome, body)
    values (((now() at time zone 'utc')::date + ${offset}::int) at time zone 'utc' + interval '1 hour',
      now() + ${kept_seconds} * interval '1 second', now(), 1, 1, 0, ${id}, 'acked', 'x')`;
  const makeDay = async (offset: number) => {
    const name = await dayOf(offset);
    await sql.unsafe(`
      create table psqlqueue.${name} partition of psqlqueue.archived_messages
      for values from ('${name.slice(-8)} 00:00:00+00') to ('${(await dayOf(offset + 1)).slice(-8)} 00:00:00+00')`);
    return name;
  };
  const placeOf = async (id: string) =>
    (await sql`select tableoid::regclass::text as place from psqlqueue.archived_messages where id = ${id}`).map(
      (row) => row["place"] as string,
    );

  test("makes the days ahead, once, and the archive uses them", async () => {
    expect(await days()).toEqual([await dayOf(0), await dayOf(1), await dayOf(2)]);
    expect(await keep(4)).toBe(0);
    expect(await keep(4)).toBe(0);
    expect(await days()).toEqual(await Promise.all([0, 1, 2, 3, 4].map(dayOf)));
    await archive("today", 0, 10);
    await archive("ahead", 4, 10);
    expect([await placeOf("today"), await placeOf("ahead")]).toEqual([
      [`psqlqueue.${await dayOf(0)}`],
      [`psqlqueue.${await dayOf(4)}`],
    ]);
  });

  test("drops a past day when everything in it has expired, and not before; today stays", async () => {
    const [old, kept, empty] = [await makeDay(-3), await makeDay(-2), await makeDay(-1)];
    await archive("expired", -3, -1);
    await archive("expired beside", -2, -1);
    await archive("still kept", -2, 60);
    await archive("expired today", 0, -1);
    expect(await keep(0)).toBe(2);
    const left = await days();
    expect([left.includes(old), left.includes(kept), left.includes(empty), left.includes(await dayOf(0))]).toEqual([
      false,
      true,
      false,
      true,
    ]);
    expect(await placeOf("still kept")).toEqual([`psqlqueue.${kept}`]);
    await sql`update psqlqueue.archived_messages set expires_at = now() where id = 'still kept'`;
    expect(await keep(0)).toBe(1);
    expect(await placeOf("still kept")).toEqual([]);
  });

  test("moves rows that came too early for their day, so that nothing is lost and the day can be made", async () => {
    await archive("early", 6, 60);
    expect(await placeOf("early")).toEqual(["psqlqueue.archived_messages_default"]);
    expect(await keep(6)).toBe(0);
    expect(await placeOf("early")).toEqual([`psqlqueue.${await dayOf(6)}`]);
  });

  test("gives up soon while somebody reads the archive, and works when called again", async () => {
    const reader = postgres(url, { max: 1, onnotice() {} });
    const name = await makeDay(-1);
    await reader.begin(async (transaction) => {
      await transaction`select count(*) from psqlqueue.archived_messages`;
      await expect(keep(0).then(String)).rejects.toMatchObject({ code: "55P03" });
    });
    expect(await keep(0)).toBe(1);
    expect(await days()).not.toContain(name);
    await reader.end();
  });

  test("is what the broker's upkeep calls, which also empties the default partition of what has expired", async () => {
    const service = await openService({ url });
    await archive("early and expired", 60, -1);
    await archive("early", 61, 60);
    await makeDay(-1);
    expect(await service.broker.keepArchive()).toEqual({ days_dropped: 1, rows: 1 });
    expect(await placeOf("early and expired")).toEqual([]);
    await service.close();
  });
});
