// Databases and roles that are not as we would make them.

import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import postgres from "postgres";
import { checkMigrated, migrateDatabase } from "../src/db/migrate.ts";
import { sharedCluster } from "./postgres.ts";

setDefaultTimeout(90_000);

const cluster = await sharedCluster();
const admin_url = await cluster.createDatabase();
const admin = postgres(admin_url, { max: 1, onnotice() {} });
afterAll(() => admin.end());

const urlOf = (database: string, user?: string) => {
  const url = new URL(admin_url);
  url.pathname = `/${database}`;
  if (user !== undefined) {
    url.username = user;
    url.password = "x";
  }
  return url.href;
};
const messageOf = async (work: Promise<unknown>) =>
  await work.then(
    () => "nothing",
    (error: Error) => `${error.name}: ${error.message}`,
  );

describe("a database with another encoding than UTF-8", () => {
  const encodings = ["LATIN1", "EUC_JP", "SQL_ASCII", "WIN1252"];
  test.each(encodings)("%s is refused by migrate and server, which say how to make another", async (encoding) => {
    const name = `encoding_${encoding.toLowerCase()}`;
    await admin.unsafe(`create database ${name} encoding '${encoding}' locale 'C' template template0`);
    for (const work of [migrateDatabase, checkMigrated]) {
      const message = await messageOf(work(urlOf(name)));
      expect(message).toStartWith(`MigrationError: the database "${name}" has the encoding ${encoding}`);
      const remedy = /`(create database) psqlqueue (.*?)`/.exec(message);
      expect(remedy).not.toBeNull();
    }
    const target = postgres(urlOf(name), { max: 1, onnotice() {} });
    expect(await target`select 1 from pg_namespace where nspname = 'psqlqueue'`).toHaveLength(0);
    await target.end();
    await admin.unsafe(`drop database ${name}`);
  });
});

describe("a role that may not make schemas in its database", () => {
  const database = "of_somebody";
  const as_role = () => urlOf(database, "plain_role");
  const run = async (...statements: string[]) => {
    const own = postgres(urlOf(database), { max: 1, onnotice() {} });
    for (const statement of statements) await own.unsafe(statement);
    await own.end();
  };

  test("is told what to run; does it all in a schema made for it, and again; not in somebody else's", async () => {
    await admin.unsafe("create role plain_role login password 'x'");
    await admin.unsafe(`create database ${database}`);
    const refused = await messageOf(migrateDatabase(as_role()));
    expect(refused).toStartWith("MigrationError: the role plain_role may not make the schema psqlqueue");
    expect(refused).toContain(`grant create on database ${database} to plain_role`);

    await run("create schema psqlqueue");
    expect(await messageOf(migrateDatabase(as_role()))).toContain("alter schema psqlqueue owner to plain_role");
    await run("drop schema psqlqueue");

    const given = /`(create schema .*?)`/.exec(refused)?.[1] ?? "";
    await run(given);
    const { applied } = await migrateDatabase(as_role());
    expect(applied).toBeGreaterThan(5);
    expect(await migrateDatabase(as_role())).toEqual({ applied: 0 });
    expect(await checkMigrated(as_role())).toEqual({ is_newer: false });
    await admin.unsafe(`drop database ${database}`);
  });

  test("goes on after the right to make schemas was taken away", async () => {
    await admin.unsafe(`create database ${database}`);
    await admin.unsafe(`grant create on database ${database} to plain_role`);
    await migrateDatabase(as_role());
    await admin.unsafe(`revoke create on database ${database} from plain_role`);
    expect(await migrateDatabase(as_role())).toEqual({ applied: 0 });
    await admin.unsafe(`drop database ${database}`);
  });
});
