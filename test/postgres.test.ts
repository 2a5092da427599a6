// The promises of the two tools the other tests stand on: the private PostgreSQL and the fault proxy.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync } from "node:fs";
import { type AddressInfo, connect, createServer } from "node:net";
import path from "node:path";
import postgres from "postgres";
import { type FaultProxy, startFaultProxy } from "./faultProxy.ts";
import { type Cluster, startCluster } from "./postgres.ts";

setDefaultTimeout(90_000);

const cluster_ms_max = 20_000;

const clusters = [
  ["an installed server or, without one, the npm package's", false],
  ["the npm package's server", true],
] as const;

describe.each(clusters)("a cluster of our own, %s", (_name, is_embedded) => {
  let cluster: Cluster;

  beforeAll(async () => {
    cluster = await startCluster({ settings: { work_mem: "5MB" }, is_embedded });
  }, cluster_ms_max);
  afterAll(() => cluster.remove());

  test("runs with our settings, and fsync", async () => {
    const rows = await query(cluster.url, "select name, setting from pg_settings where name in ('fsync', 'work_mem')");
    expect(rows).toEqual([
      { name: "fsync", setting: "on" },
      { name: "work_mem", setting: "5120" },
    ]);
  });

  test("a created database is empty, one made from a template has its rows", async () => {
    const template = await cluster.createDatabase("template_of_ours");
    await query(template, "create table note as select 1 as id");
    const [empty, copy] = await Promise.all([
      cluster.createDatabase(),
      cluster.createDatabase(undefined, "template_of_ours"),
    ]);
    expect(await query(copy, "select id from note")).toEqual([{ id: 1 }]);
    await expect(query(empty, "select id from note")).rejects.toThrow('"note" does not exist');
  });

  test("a dropped database is gone, whoever is connected, and may be dropped again", async () => {
    const url = await cluster.createDatabase();
    const sql = postgres(url, { max: 1 });
    await sql`select 1`;
    await cluster.dropDatabase(url);
    await cluster.dropDatabase(url);
    await expect(query(url, "select 1")).rejects.toThrow("does not exist");
    await sql.end();
  });

  test("what was committed is there after kill, stop and start, at the same url", async () => {
    const url = await cluster.createDatabase();
    await query(url, "create table note (id int)");
    const ends = [() => cluster.kill(), () => cluster.stop("immediate"), () => cluster.stop("fast")];
    for (const [id, end] of ends.entries()) {
      await query(url, `insert into note values (${id})`);
      await end();
      await end();
      await expect(query(url, "select 1")).rejects.toThrow("ECONNREFUSED");
      await cluster.start();
      await cluster.start();
    }
    expect(await query(url, "select id from note order by id")).toEqual([{ id: 0 }, { id: 1 }, { id: 2 }]);
  });

  test("terminateBackends ends the sessions that match, and no others", async () => {
    const url = await cluster.createDatabase();
    const sessions = ["kept", "ended"].map((name) => postgres(url, { max: 1, connection: { application_name: name } }));
    for (const session of sessions) await session`select 1`;
    expect(await cluster.terminateBackends("application_name = 'ended'")).toBe(1);
    const statement =
      "select application_name as name from pg_stat_activity where application_name in ('kept', 'ended')";
    await until(async () => (await query(url, statement)).length === 1);
    expect(await query(url, statement)).toEqual([{ name: "kept" }]);
    await Promise.all(sessions.map((session) => session.end({ timeout: 0 })));
  });
});

describe("a run that ends by kill -9", () => {
  test(
    "leaves no server and no directory",
    async () => {
      const script = `const { data_directory, port } = await startCluster(); print({ data_directory, port });`;
      const { data_directory, port } = await runAndKill<{ data_directory: string; port: number }>(script);
      await until(() => !existsSync(path.dirname(data_directory)));
      await expect(query(`postgres://postgres@127.0.0.1:${port}/postgres`, "select 1")).rejects.toThrow("ECONNREFUSED");
    },
    cluster_ms_max,
  );

  test(
    "leaves no database on a server that is not ours",
    async () => {
      const { url, remove } = await startCluster();
      const script = `print(await (await sharedCluster()).createDatabase("left"));`;
      expect(await runAndKill<string>(script, { PSQLQUEUE_TEST_DATABASE_URL: url })).toBe(url.replace(/\w+$/, "left"));
      await until(async () => (await query(url, "select 1 from pg_database where datname = 'left'")).length === 0);
      await remove();
    },
    cluster_ms_max,
  );

  async function runAndKill<T>(script: string, env: Record<string, string> = {}): Promise<T> {
    const imports = `import { sharedCluster, startCluster } from ${JSON.stringify(path.join(import.meta.dir, "postgres.ts"))};
      const print = (value) => console.log(JSON.stringify(value));`;
    const run = Bun.spawn(
      [process.execPath, "-e", `${imports} ${script} await new Promise(() => setInterval(() => {}, 1e6));`],
      {
        env: { ...process.env, ...env },
        stdout: "pipe",
      },
    );
    const { value } = await run.stdout.getReader().read();
    run.kill("SIGKILL");
    await run.exited;
    return JSON.parse(new TextDecoder().decode(value));
  }
});

describe("the fault proxy", () => {
  // Whatever is sent to it comes back.
  const echo = createServer((socket) => socket.pipe(socket));
  let proxy: FaultProxy;

  beforeAll(async () => {
    await new Promise<void>((resolve) => echo.listen(0, "127.0.0.1", resolve));
    proxy = await startFaultProxy({ host: "127.0.0.1", port: (echo.address() as AddressInfo).port });
  });
  afterAll(async () => {
    await proxy.close();
    await proxy.close();
    echo.close();
  });

  test("passes much data in both directions whole, and then the end", async () => {
    const sent = Buffer.alloc(5_000_000, "0123456789abcdef-");
    const client = dial();
    client.socket.end(sent);
    expect(await client.outcome).toBe("end");
    expect(client.received().equals(sent)).toBe(true);
  });

  test("latency delays each way, and keeps the order", async () => {
    await proxy.setMode({ latency_ms: 50 });
    const client = dial();
    const started_at = performance.now();
    for (const word of ["one ", "two ", "three"]) client.socket.write(word);
    await until(() => client.text() === "one two three");
    expect(performance.now() - started_at).toBeGreaterThanOrEqual(99);
    client.socket.destroy();
    await proxy.heal();
  });

  test("reset breaks open connections and new ones, until healed", async () => {
    const open = await dialed();
    await proxy.setMode("reset");
    expect(await open.outcome).toBe("ECONNRESET");
    expect(await dial().outcome).toBe("ECONNRESET");
    await proxy.heal();
    (await dialed()).socket.destroy();
  });

  test("silent answers nothing and ends nothing; healing resets what went silent", async () => {
    const open = await dialed();
    await proxy.setMode("silent");
    const opened_in_silence = dial();
    for (const client of [open, opened_in_silence]) client.socket.write("anybody?");
    // Long enough for an answer: the proxy has handled a whole connection of ours in less.
    expect(await Promise.race([open.outcome, opened_in_silence.outcome, Bun.sleep(50)])).toBeUndefined();
    expect([open.text(), opened_in_silence.text()]).toEqual(["hello", ""]);
    await proxy.heal();
    expect(await Promise.all([open.outcome, opened_in_silence.outcome])).toEqual(["ECONNRESET", "ECONNRESET"]);
    (await dialed()).socket.destroy();
  });

  test("refuse breaks open connections and refuses new ones, until healed", async () => {
    const open = await dialed();
    await proxy.setMode("refuse");
    expect(await open.outcome).toBe("ECONNRESET");
    expect(await dial().outcome).toBe("ECONNREFUSED");
    await proxy.heal();
    (await dialed()).socket.destroy();
  });

  test(
    "a cut request has been done, though its sender sees the connection fail",
    async () => {
      const cluster = await startCluster();
      const url = await cluster.createDatabase();
      await query(url, "create table note (id int)");
      const before_database = await startFaultProxy({ host: "127.0.0.1", port: cluster.port });
      const proxy_url = url.replace(String(cluster.port), String(before_database.port));
      before_database.cutAfterRequest(1, (chunk) => chunk.includes("insert"));
      await expect(query(proxy_url, "insert into note values (7)")).rejects.toThrow("ECONNRESET");
      expect(before_database.cutCount()).toBe(1);
      await query(proxy_url, "insert into note values (8)");
      expect(await query(url, "select id from note order by id")).toEqual([{ id: 7 }, { id: 8 }]);
      await before_database.close();
      await cluster.remove();
    },
    cluster_ms_max,
  );

  function dial() {
    const socket = connect(proxy.port, "127.0.0.1");
    const chunks: Buffer[] = [];
    const received = () => Buffer.concat(chunks);
    socket.on("data", (chunk) => chunks.push(chunk as Buffer));
    const outcome = new Promise<string>((resolve) => {
      socket.once("end", () => resolve("end"));
      socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    });
    return { socket, received, text: () => received().toString(), outcome };
  }

  // A connection known to reach the echo.
  async function dialed() {
    const client = dial();
    client.socket.write("hello");
    await until(() => client.text() === "hello");
    return client;
  }
});

async function query(url: string, statement: string): Promise<unknown[]> {
  const sql = postgres(url, { max: 1, onnotice: () => {} });
  try {
    return [...(await sql.unsafe(statement).simple())];
  } finally {
    await sql.end({ timeout: 0 });
  }
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await Bun.sleep(10);
}
