// LISTEN behind a pooler that takes it and delivers nothing, or fails it.

import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { connect, createServer, type Socket } from "node:net";
import { peersJob } from "../src/background/peers.ts";
import { openPostgres } from "../src/db/db.ts";
import { addObserver, type Observation } from "../src/observe.ts";
import { createMigratedDatabase, openService, until } from "./harness.ts";

setDefaultTimeout(90_000);

const recovery_ms_max = 20_000;
const sockets = new Set<Socket>();
const url = await createMigratedDatabase();
const { hostname, port } = new URL(url);
let swallows = false;
/** LISTEN to this channel is a syntax error. */
let failing = "-";

const notification = "A".charCodeAt(0);

/** Takes the notifications out of what the server says. */
function createFilter(): (chunk: Buffer) => Buffer {
  let rest = Buffer.alloc(0);
  return (chunk) => {
    rest = Buffer.concat([rest, chunk]);
    const passed: Buffer[] = [];
    while (rest.length >= 5 && rest.length >= 1 + rest.readUInt32BE(1)) {
      const message = rest.subarray(0, 1 + rest.readUInt32BE(1));
      if (!(swallows && message[0] === notification)) passed.push(message);
      rest = rest.subarray(message.length);
    }
    return Buffer.concat(passed);
  };
}

const pooler = createServer((client) => {
  const server = connect(Number(port), hostname);
  const filter = createFilter();
  for (const [one, other] of [
    [client, server],
    [server, client],
  ] as const) {
    sockets.add(one);
    one.on("error", () => other.destroy());
    one.on("close", () => other.destroy());
  }
  client.on("data", (chunk: Buffer) => {
    const text = chunk.toString("latin1").replace(`listen "${failing}"`, `listen 1${failing}1`);
    server.write(Buffer.from(text, "latin1"));
  });
  server.on("data", (chunk: Buffer) => client.write(filter(chunk)));
});
await new Promise<void>((resolve) => pooler.listen(0, "127.0.0.1", resolve));
afterAll(() => {
  for (const socket of sockets) socket.destroy();
  pooler.close();
});

const pooled = new URL(url);
pooled.port = String((pooler.address() as { port: number }).port);

/** Listens to a channel: what came, and what was said of the state. */
async function follow(db: ReturnType<typeof openPostgres>, channel: string) {
  const seen = { payloads: [] as string[], states: [] as string[] };
  await db.listen(
    channel,
    (payload) => seen.payloads.push(payload),
    (is_listening, error) => seen.states.push(is_listening ? "listening" : (error?.code ?? "")),
  );
  return seen;
}

test("a notification that does not arrive, and a LISTEN that fails, are noticed and tried again", async () => {
  const db = openPostgres({ server: pooled.href, connections_max: 2, statement_timeout_ms: 1000 });
  const notify = (channel: string) => db.client`select pg_notify(${channel}, ${`to ${channel}`})`;
  failing = "second";
  const first = await follow(db, "first");
  const second = await follow(db, "second");
  expect([first.states, second.states]).toEqual([["listening"], ["42601"]]);
  swallows = true;
  const third = await follow(db, "third");
  expect(third.states).toEqual(["NO_NOTIFICATION"]);
  failing = "-";
  swallows = false;
  const all = [first, second, third];
  await until(() => all.every(({ states }) => states.at(-1) === "listening"), recovery_ms_max);
  await Promise.all(["first", "second", "third"].map(notify));
  await until(() => all.every(({ payloads }) => payloads.length > 0));
  expect(all.map(({ payloads }) => payloads)).toEqual([["to first"], ["to second"], ["to third"]]);

  for (const socket of sockets) socket.destroy();
  const counts = all.map(({ states }) => states.length);
  await until(() => all.every(({ states }, i) => states.length > (counts[i] ?? 0) && states.at(-1) === "listening"));
  await db.close(0);
}, 40_000);

test("a server that hears nothing polls instead, and says so once, and once that it hears again", async () => {
  const notices: Observation[] = [];
  const removeObserver = addObserver((seen) => {
    if (seen.kind === "notice") notices.push(seen);
  });
  swallows = true;
  const service = await openService({ url: pooled.href });
  await peersJob(service.broker).run();
  const error = "DatabaseError: listen: failed (NO_NOTIFICATION)";
  const details = { effect: "waiting receives poll every 250 ms instead", error };
  const deaf = { kind: "notice", level: "WARN", message: "LISTEN is not available", details } as const;
  expect(notices).toEqual([deaf]);
  swallows = false;
  await until(() => notices.length > 1, recovery_ms_max);
  expect(notices).toEqual([deaf, { kind: "notice", level: "INFO", message: "LISTEN is available again" }]);
  removeObserver();
  await service.close();
}, 40_000);
