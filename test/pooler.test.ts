// A connection pooler before the database, as PgBouncer is: it knows few startup parameters. Those it does not know it
// refuses, or drops when it is told to.

import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { connect, createServer, type Socket } from "node:net";
import postgres from "postgres";
import { openPostgres } from "../src/db/db.ts";
import { fatalError } from "../src/db/embedded/wire.ts";
import { sessionSettings } from "../src/db/session.ts";
import { killChildren, type LogLine, runChild, startServerChild } from "./child.ts";
import { createMigratedDatabase } from "./harness.ts";
import { startTransactionPooler } from "./transactionPooler.ts";

setDefaultTimeout(90_000);

const known = new Set(["user", "database", "application_name", "TimeZone", "client_encoding"]);
const sockets = new Set<Socket>();
let drops = false;

/** The startup message with the parameters that a pooler passes on, and the name of the first that it does not know. */
function readStartup(message: Buffer): { passed: Buffer; unknown: string | undefined } {
  const texts = message.toString("utf8", 8, message.readUInt32BE(0) - 2).split("\0");
  const pairs = Array.from({ length: texts.length / 2 }, (_, i) => texts.slice(2 * i, 2 * i + 2));
  const kept = pairs.filter(([name = ""]) => known.has(name));
  const body = Buffer.from(`${kept.flat().join("\0")}\0\0`);
  const head = Buffer.alloc(8);
  head.writeUInt32BE(8 + body.length, 0);
  head.writeUInt32BE(message.readUInt32BE(4), 4);
  return {
    passed: Buffer.concat([head, body]),
    unknown: pairs.map(([name]) => name).find((name) => !known.has(name ?? "")),
  };
}

const url = await createMigratedDatabase();
const { hostname, port } = new URL(url);
const pooler = createServer((client) => {
  sockets.add(client);
  client.on("error", () => {});
  client.once("data", (startup: Buffer) => {
    const { passed, unknown } = readStartup(startup);
    if (unknown !== undefined && !drops) {
      return client.end(fatalError("08P01", `unsupported startup parameter: ${unknown}`));
    }
    const server = connect(Number(port), hostname);
    sockets.add(server);
    server.on("error", () => client.destroy());
    server.write(passed);
    client.pipe(server).pipe(client);
  });
});
await new Promise<void>((resolve) => pooler.listen(0, "127.0.0.1", resolve));
afterAll(() => {
  for (const socket of sockets) socket.destroy();
  pooler.close();
  return killChildren();
});

test("a server is told what to do about a pooler that keeps its settings from the database, and then works", async () => {
  const pooled = new URL(url);
  pooled.port = String((pooler.address() as { port: number }).port);
  for (const does of ["refuses", "drops"]) {
    drops = does === "drops";
    const { code, lines } = await runChild(["server"], { env: { PSQLQUEUE_DATABASE_URL: pooled.href } });
    expect(code).toBe(1);
    const { msg, error } = lines.at(-1) as LogLine & { error: string };
    expect(msg).toBe("cli app failed");
    expect(error).toStartWith(`a connection pooler stands before the database and ${does} the settings`);
    // Whoever does what it says has told the pooler of every parameter that it does not know.
    const ignored = /ignore_startup_parameters = (\S+)\)/.exec(error)?.[1]?.split(",");
    expect(ignored?.toSorted()).toEqual(
      Object.keys(sessionSettings(0))
        .filter((name) => !known.has(name))
        .toSorted(),
    );
    const remedy = /have the database set them \((.*)\), and/.exec(error)?.[1] ?? "";
    if (!drops) continue;
    const direct = postgres(url, { max: 1 });
    // For the database instead of the role, which other tests have too.
    await direct.unsafe(remedy.replaceAll("role ROLE", `database ${pooled.pathname.slice(1)}`));
    await direct.end();
  }
  const server = await startServerChild(pooled.href);
  const body = JSON.stringify({ id: "pooled", ack_deadline_seconds: 30, message_retention_seconds: 60 });
  expect((await fetch(`${server.url}/v1/queues`, { method: "POST", body })).status).toBe(201);
  server.signal("SIGTERM");
  expect(await server.exited).toBe(0);
});

/** A database that sets what a pooler passes over. */
async function createPreparedDatabase(): Promise<string> {
  const own_url = await createMigratedDatabase();
  const direct = postgres(own_url, { max: 1 });
  const { application_name: _, ...settings } = sessionSettings(5000);
  for (const [name, value] of Object.entries(settings)) {
    await direct.unsafe(`alter database ${new URL(own_url).pathname.slice(1)} set ${name} = '${value}'`);
  }
  await direct.end();
  return own_url;
}

test("statements without names that follow each other on a connection keep their session, each for itself", async () => {
  const between = await startTransactionPooler(await createPreparedDatabase());
  const server = `${between.url}?prepare=false`;
  const options = { server, connections_max: 1, statement_timeout_ms: 5000, onAvailability() {} };
  const both = [openPostgres(options), openPostgres(options)];
  const ask = async ({ client }: (typeof both)[number], n: number) => {
    const [plain, row] = await Promise.all([
      client`select 1 as one`,
      client`select ${n}::int as n, ${`${n}`}::text as t`,
    ]);
    return [...plain, ...row];
  };
  const answers = await Promise.all(both.flatMap((db) => Array.from({ length: 100 }, (_, n) => ask(db, n))));
  const expected = Array.from({ length: 100 }, (_, n) => [{ one: 1 }, { n, t: `${n}` }]);
  expect(answers).toEqual([...expected, ...expected]);
  await Promise.all(both.map((db) => db.close(1)));
  between.close();
});

test("a pooler that gives each transaction another session, without what is prepared, is refused, and may be told", async () => {
  const between = await startTransactionPooler(await createPreparedDatabase());
  const { code, lines } = await runChild(["server"], { env: { PSQLQUEUE_DATABASE_URL: between.url } });
  expect({ code, error: lines.at(-1)?.["error"] }).toEqual({
    code: 1,
    error: expect.stringMatching(/^a connection pooler stands .* does not know the statements .* add \?prepare=false/),
  });
  const server = await startServerChild(`${between.url}?prepare=false`);
  const body = JSON.stringify({ id: "pooled", ack_deadline_seconds: 30, message_retention_seconds: 60 });
  expect((await fetch(`${server.url}/v1/queues`, { method: "POST", body })).status).toBe(201);
  const publish = () => fetch(`${server.url}/v1/queues/pooled/messages`, { method: "POST", body: '{"body":"x"}' });
  const answers = await Promise.all(Array.from({ length: 20 }, publish));
  expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([204]));
  server.signal("SIGTERM");
  expect(await server.exited).toBe(0);
  between.close();
});
