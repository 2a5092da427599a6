import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import postgres from "postgres";
import { migrateDatabase } from "../src/db/migrate.ts";
import { findKnownBug, knownBug } from "../src/db/versions.ts";
import { killChildren, startServerChild } from "./child.ts";
import { createMigratedDatabase } from "./harness.ts";
import { startCluster } from "./postgres.ts";

setDefaultTimeout(90_000);

afterAll(killChildren);

test("minor versions of PostgreSQL that may change the wrong row are known, and what to update to", () => {
  const fixed = [130023, 140020, 150015, 160011, 170007, 180001];
  for (const number of fixed) {
    const [major, minor] = [Math.floor(number / 10_000), number % 10_000];
    expect([number, number + 1].map(knownBug)).toEqual([undefined, undefined]);
    expect(knownBug(number - 1)).toEqual({
      version: `${major}.${minor - 1}`,
      what: expect.stringContaining("concurrent update"),
      remedy: `update to PostgreSQL ${major}.${minor} or a later minor version`,
    });
  }
  expect(knownBug(190000)).toBeUndefined();
});

test("the server is asked for its version at start, and warns when it has the bug", async () => {
  const url = await createMigratedDatabase();
  const client = postgres(url, { max: 1 });
  const bug = await findKnownBug(client);
  const [row] = await client`select current_setting('server_version_num')::int as number`;
  await client.end();
  expect(bug).toEqual(knownBug(row?.["number"]));
  const server = await startServerChild(url);
  const warnings = server.lines().filter(({ msg }) => msg === "this PostgreSQL has a known bug");
  expect(warnings.map(({ level, version }) => [level, version])).toEqual(bug ? [["WARN", bug.version]] : []);
});

test("a server says at its start that PostgreSQL flushes nothing, and what to run", async () => {
  const cluster = await startCluster({ settings: { fsync: "off" } });
  const url = await cluster.createDatabase();
  await migrateDatabase(url);
  const server = await startServerChild(url);
  const isAboutPower = ({ msg }: { msg: string }) => msg.includes("when the power fails");
  expect(server.lines().filter(isAboutPower)).toEqual([
    {
      time: expect.any(String),
      level: "WARN",
      msg: "this PostgreSQL does not keep what it has committed when the power fails",
      setting: "fsync",
      remedy: "alter system set fsync = 'on'; select pg_reload_conf()",
    },
  ]);
  await killChildren();
  await cluster.remove();
});
