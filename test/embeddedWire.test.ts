// The private socket of the embedded database: the protocol as PostgreSQL speaks it, strangers, sessions, sizes.
import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { connect as connectSocket, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import postgres from "postgres";
import { type Embedded, openEmbedded } from "../src/db/embedded/embedded.ts";
import { strangers_max } from "../src/db/embedded/server.ts";

setDefaultTimeout(90_000);

const root = mkdtempSync(join(tmpdir(), "psqlqueue-wire-"));
const refusals: string[] = [];
let embedded: Embedded;

beforeAll(async () => {
  embedded = await openEmbedded({
    data_dir: root,
    fsync: false,
    observe: (event) => event.name === "embedded_connection_refused" && refusals.push(event.reason),
  });
}, 120_000);

afterAll(async () => {
  await embedded.close();
  rmSync(root, { recursive: true, force: true });
});

const connect = () => postgres({ ...embedded.connection, max: 1, onnotice() {} });

async function withSql(run: (sql: postgres.Sql) => Promise<unknown>): Promise<void> {
  const sql = connect();
  try {
    await run(sql);
  } finally {
    await sql.end({ timeout: 1 });
  }
}

const int32 = (n: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(n);
  return bytes;
};
const packet = (code: number, rest = "") => Buffer.concat([int32(8 + rest.length), int32(code), Buffer.from(rest)]);
const message = (type: string, body: string | Buffer = "") => {
  const bytes = typeof body === "string" ? Buffer.from(body) : body;
  return Buffer.concat([Buffer.from(type), int32(4 + bytes.length), bytes]);
};
const query = (text: string) => message("Q", `${text}\0`);
const parse = (text: string) => message("P", `\0${text}\0\0\0`);
const bind = message("B", Buffer.alloc(8));
const execute = message("E", Buffer.alloc(5));
const sync = message("S");
const startup = packet(196_608, "user\0postgres\0database\0postgres\0\0");

const sockets = new Set<Socket>();
const closeSockets = () => Promise.all([...sockets].map(closeSocket));
function closeSocket(socket: Socket): Promise<void> {
  sockets.delete(socket);
  if (socket.closed) return Promise.resolve();
  return new Promise((resolve) => socket.destroy().once("close", () => resolve()));
}

/** A client that says exactly what a test wants. */
async function rawClient() {
  const socket: Socket = connectSocket(embedded.connection.path);
  sockets.add(socket);
  let received: Buffer = Buffer.alloc(0);
  let is_closed = false;
  let notice = Promise.withResolvers<void>();
  const wake = () => {
    notice.resolve();
    notice = Promise.withResolvers();
  };
  socket.on("data", (chunk: Buffer) => {
    received = Buffer.concat([received, chunk]);
    wake();
  });
  socket.on("error", () => {});
  socket.on("close", () => {
    is_closed = true;
    wake();
  });
  await new Promise((resolve) => socket.once("connect", resolve).once("close", resolve));
  const client = {
    socket,
    send: (...messages: Uint8Array[]) => socket.write(Buffer.concat(messages)),
    /** The types of all messages received and not yet taken, up to the given one. */
    async types(last: string): Promise<string> {
      for (;;) {
        let types = "";
        for (let at = 0; at + 5 <= received.length; ) {
          const end = at + 1 + received.readInt32BE(at + 1);
          if (end > received.length) break;
          types += String.fromCharCode(received[at]!);
          if (types.endsWith(last)) {
            client.last = received.subarray(0, end).toString("latin1");
            received = received.subarray(end);
            return types;
          }
          at = end;
        }
        if (is_closed) return `${types}, closed`;
        await notice.promise;
      }
    },
    /** Everything received as text, once the server has closed. */
    async farewell(): Promise<string> {
      while (!is_closed) await notice.promise;
      return received.toString("latin1");
    },
    async bytes(count: number): Promise<string> {
      while (received.length < count && !is_closed) await notice.promise;
      const text = received.subarray(0, count).toString("latin1");
      received = received.subarray(count);
      return text;
    },
    last: "",
    async login() {
      client.send(startup);
      expect(await client.types("R")).toBe("R");
      client.send(message("p", `${embedded.connection.password}\0`));
      return client.types("Z");
    },
    close: () => closeSocket(socket),
  };
  return client;
}

describe("strangers", () => {
  test("the socket lies in a directory that is closed to others", () => {
    expect(statSync(dirname(embedded.connection.path)).mode & 0o777).toBe(0o700);
  });

  const openings: [string, Uint8Array[], string, string][] = [
    ["says nothing", [], "", "timeout"],
    ["sends half a message", [startup.subarray(0, 6)], "", "timeout"],
    ["announces a huge startup", [int32(2 ** 31 - 1)], "", "malformed"],
    ["announces a negative length", [int32(-1), int32(0)], "", "malformed"],
    ["sends garbage", [Buffer.from("GET / HTTP/1.1\r\n\r\n")], "", "malformed"],
    ["sends megabytes of garbage", [Buffer.alloc(4_000_000, 7)], "", "malformed"],
    ["asks to cancel", [packet(80_877_102, "12345678")], "", "cancel"],
    ["speaks another version", [packet(131_072)], "C0A000", "malformed"],
    ["gives a wrong password", [startup, message("p", "x".repeat(43) + "\0")], "C28P01", "password"],
    ["gives no password", [startup, message("p", "\0")], "C28P01", "password"],
    ["announces a huge password", [startup, Buffer.from("p"), int32(1e9)], "", "malformed"],
    ["queries without a password", [startup, query("select 1")], "", "malformed"],
    ["asks for encryption for ever", Array.from({ length: 9 }, () => packet(80_877_103)), "N", "malformed"],
  ];
  test.concurrent.each(openings)("one that %s is turned away", async (_name, bytes, farewell, refusal) => {
    const client = await rawClient();
    client.send(...bytes);
    expect(await client.farewell()).toContain(farewell);
    expect(refusals).toContain(refusal);
  });

  test("a wish for encryption is declined, and the client may go on", async () => {
    const client = await rawClient();
    client.send(packet(80_877_103));
    expect(await client.bytes(1)).toBe("N");
    client.send(packet(80_877_104));
    expect(await client.bytes(1)).toBe("N");
    expect(await client.login()).toEndWith("Z");
    await client.close();
  });

  test("a crowd of them is bounded, gone soon, and unnoticed by the client and its successor", async () => {
    const openFiles = () => (existsSync("/proc/self/fd") ? readdirSync("/proc/self/fd").length : 0);
    const before = openFiles();
    await withSql(async (sql) => {
      await sql`select 1`;
      const crowd = await Promise.all(Array.from({ length: 5 * strangers_max }, rawClient));
      for (const stranger of crowd) stranger.socket.on("end", () => {}).write("x");
      for (let n = 0; n < 1000; n++) expect((await sql`select ${n}::int as n`)[0]).toEqual({ n });
      expect((await Promise.all(crowd.map((stranger) => stranger.farewell()))).join("")).toBe("");
    });
    await withSql((sql) => sql`select 1`);
    expect(openFiles()).toBeLessThan(before + 5);
  });

  test("the second client is told that there is one already; after the first it gets in", async () => {
    const first = await rawClient();
    await first.login();
    const second = await rawClient();
    second.send(startup, message("p", `${embedded.connection.password}\0`));
    expect(await second.farewell()).toContain("C53300");
    const third = await rawClient();
    const waiting = third.login();
    await first.close();
    expect(await waiting).toEndWith("Z");
    await third.close();
  });
});

describe("the protocol", () => {
  afterEach(closeSockets);

  const exchanges: [string, Uint8Array[], string][] = [
    ["a simple query", [query("select 1")], "TDCZ"],
    ["two statements in one", [query("select 1; select 2")], "TDCTDCZ"],
    ["an error in the second statement", [query("select 1; selec; select 2")], "EZ"],
    [
      "an error while running the second",
      [query("select 1; select 1/n from generate_series(0, 0) as n; select 2")],
      "TDCTEZ",
    ],
    ["nothing", [query("")], "IZ"],
    ["an extended query", [parse("select 1"), bind, execute, sync], "12DCZ"],
    ["a syntax error, skipped to the sync", [parse("selec"), bind, execute, parse("select 1"), sync], "EZ"],
    ["an error at bind", [parse("select 1"), message("B", Buffer.from("\0nope\0\0\0\0\0\0\0")), execute, sync], "1EZ"],
    [
      "an error while running",
      [parse("select 1/n from generate_series(0, 0) as n"), bind, execute, execute, sync],
      "12EZ",
    ],
    ["an error, then the next batch", [parse("selec"), sync, parse("select 1"), bind, execute, sync], "EZ12DCZ"],
    ["a malformed bind", [parse("select 1"), message("B", "\0"), sync], "1EZ"],
    ["copy from the client", [query("copy pg_temp.t from stdin"), message("d", "1\n"), message("c")], "EZ"],
  ];
  test.each(exchanges)("%s is answered as by a server", async (_name, messages, expected) => {
    const client = await rawClient();
    await client.login();
    client.send(...messages);
    let types = "";
    while (types.length < expected.length && !types.includes("closed")) types += await client.types("Z");
    expect(types).toBe(expected);
    client.send(query("select 'still here'"));
    expect(await client.types("Z")).toBe("TDCZ");
    expect(client.last).toContain("still here");
    await client.close();
  });

  test("copying from the client fails at once instead of waiting for what cannot come", async () => {
    const client = await rawClient();
    await client.login();
    client.send(query("create temp table t (n int)"));
    await client.types("Z");
    client.send(query("copy t from stdin"));
    expect(await client.types("Z")).toBe("GEZ");
    client.send(message("d", "1\n"), message("c"), query("select 1"));
    expect(await client.types("Z")).toBe("TDCZ");
    await client.close();
  });

  test("a flush is answered before the sync", async () => {
    const client = await rawClient();
    await client.login();
    client.send(parse("select 1"), message("H"));
    expect(await client.types("1")).toBe("1");
    client.send(bind, execute, sync);
    expect(await client.types("Z")).toBe("2DCZ");
    await client.close();
  });

  test("messages may arrive byte by byte", async () => {
    const client = await rawClient();
    await client.login();
    for (const byte of Buffer.concat([parse("select 1"), bind, execute, sync])) client.send(Buffer.from([byte]));
    expect(await client.types("Z")).toBe("12DCZ");
    await client.close();
  });

  test("an authenticated client that loses the thread is cut off", async () => {
    for (const bytes of [
      message("~"),
      Buffer.concat([Buffer.from("Q"), int32(2 ** 31 - 1)]),
      Buffer.from("Q\0\0\0\0"),
    ]) {
      const client = await rawClient();
      await client.login();
      client.send(bytes);
      expect(await client.farewell()).toContain("C08P01");
    }
    await withSql((sql) => sql`select 1`);
  });
});

describe("slow readers", () => {
  afterEach(closeSockets);

  test("a client that does not read stops the queries, not the server, and may leave at any time", async () => {
    const client = await rawClient();
    await client.login();
    client.socket.pause();
    for (let n = 0; n < 50; n++) client.send(query(`select ${n}, repeat('x', 4000000)`));
    const stranger = await rawClient();
    stranger.send(Buffer.alloc(100, 9));
    await stranger.farewell();
    client.socket.resume();
    for (let n = 0; n < 50; n++) expect(await client.types("Z")).toBe("TDCZ");
    client.socket.pause();
    for (let n = 0; n < 50; n++) client.send(query(`select repeat('x', 4000000)`));
    await client.close();
    await withSql((sql) => sql`select 1`);
  });
});

describe("sessions", () => {
  const leftovers: [string, Uint8Array[], string][] = [
    ["a transaction", [query("begin; insert into kept values (1)")], "Z"],
    ["a failed transaction", [query("begin; insert into kept values (1); selec")], "Z"],
    ["a query without its sync", [parse("insert into kept values (1)"), bind, execute, message("H")], "C"],
    ["a failed query without its sync", [parse("selec"), message("H")], "E"],
    ["settings", [query("set enable_seqscan = on; set timezone = 'Asia/Tokyo'; set role pg_monitor")], "Z"],
    ["prepared statements", [query("prepare p as select 1")], "Z"],
    ["temporary tables", [query("create temp table leftover (n int)")], "Z"],
    ["locks", [query("select pg_advisory_lock(1)")], "Z"],
    ["half a message", [query("select 1"), Buffer.from("Q\0\0")], "Z"],
  ];
  test("a new one finds nothing of the one before, however that ended", async () => {
    await withSql((sql) => sql`create table kept (n int)`);
    for (const [, messages, last] of leftovers) {
      const client = await rawClient();
      await client.login();
      client.send(...messages);
      expect(await client.types(last)).toEndWith(last);
      await client.close();
      await withSql(async (sql) => {
        const [found] = await sql`
          select (select count(*)::int from kept) as kept, current_setting('enable_seqscan') as seqscan,
            current_setting('timezone') as timezone, current_user as role,
            (select count(*)::int from pg_prepared_statements where name = 'p') as prepared,
            to_regclass('pg_temp.leftover')::text as temporary,
            (select count(*)::int from pg_locks where locktype = 'advisory') as locks`;
        expect(found).toEqual({
          kept: 0,
          seqscan: "off",
          timezone: "UTC",
          role: "postgres",
          prepared: 0,
          temporary: null,
          locks: 0,
        });
      });
    }
  });
});
