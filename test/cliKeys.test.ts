import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { killChildren, runChild, startServerChild } from "./child.ts";
import { createMigratedDatabase, uniqueId, until } from "./harness.ts";

setDefaultTimeout(90_000);

afterAll(killChildren);
const root_key = "a root key of this test";
const server = await startServerChild(await createMigratedDatabase(), {
  PSQLQUEUE_AUTH: "on",
  PSQLQUEUE_ROOT_KEY: root_key.replaceAll(" ", "-"),
});

const cli = (args: string[], key?: string) =>
  runChild(args, { env: { PSQLQUEUE_URL: server.url, ...(key !== undefined && { PSQLQUEUE_KEY: key }) } });
const asRoot = (args: string[]) => cli(args, root_key.replaceAll(" ", "-"));

test("a key that was made on the command line may do what it was made for, until it is revoked", async () => {
  const queue = uniqueId();
  expect((await asRoot(["queue", "create", queue])).code).toBe(0);
  const none = await cli(["publish", queue, "x"]);
  expect(none).toMatchObject({ code: 1, stdout: "" });
  expect(none.stderr).toContain("unauthorized");
  expect(none.stderr).toContain("set PSQLQUEUE_KEY, or `key` of the profile, to a key of this server");

  const made = await asRoot(["key", "create", "publisher", "--allow", "publish", "--queues", `${queue},other-*`]);
  expect(made.code).toBe(0);
  const key = made.stdout.trim();
  expect(key).toMatch(/^pq_/);
  const id = /^key (\S+) created; its text is shown this once\n$/.exec(made.stderr)?.[1] ?? "";
  expect((await cli(["publish", queue, "x"], key)).code).toBe(0);
  const refused = await cli(["queue", "purge", queue, "--yes"], key);
  expect(refused.code).toBe(1);
  expect(refused.stderr).toContain("forbidden");

  const listed = JSON.parse((await asRoot(["key", "list", "--json"])).stdout);
  expect(listed).toMatchObject([
    { id, name: "publisher", scopes: [{ actions: ["publish"], queues: [queue, "other-*"] }] },
  ]);
  expect((await asRoot(["key", "list"])).stdout).toContain(`publish on ${queue}, other-*`);
  expect(await asRoot(["key", "delete", id, "--yes"])).toMatchObject({ code: 0, stdout: `key ${id} revoked\n` });
  await until(async () => (await cli(["publish", queue, "x"], key)).code === 1);
  expect((await asRoot(["key", "delete", id, "--yes"])).stderr).toContain(
    "`psqlqueue key list` shows the keys there are",
  );
});

test("rights that do not exist are refused with those that do", async () => {
  for (const [args, sentence] of [
    [[], "key create needs --allow: give some of publish, consume, peek, manage, *, with commas"],
    [["--allow", "publish,read"], '--allow "read" is no right: give some of publish, consume,'],
  ] as const) {
    const { code, stderr } = await asRoot(["key", "create", "a", ...args]);
    expect({ code, stderr }).toEqual({ code: 2, stderr: expect.stringContaining(sentence) });
  }
});

test("ordering keys are listed and mended", async () => {
  const queue = uniqueId();
  await asRoot(["queue", "create", queue]);
  await asRoot(["publish", queue, "x", "--ordering-key", "k"]);
  const { stdout } = await asRoot(["queue", "keys", queue, "--json"]);
  expect(JSON.parse(stdout)).toMatchObject([{ ordering_key: "k", state: "ready", pending: 1 }]);
  expect((await asRoot(["queue", "keys", queue, "--state", "blocked"])).stdout).toBe("");
  expect((await asRoot(["queue", "repair", queue])).stdout).toMatch(/^\d+ keys looked at, 0 repaired\n$/);
});
