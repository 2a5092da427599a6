// Export and import, as commands on a database and not through a server.

import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";
import { emptyDirectory, killChildren, runChild } from "./child.ts";
import { createMigratedDatabase, openService, type Service } from "./harness.ts";
import { verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const source_url = await createMigratedDatabase();
const target_url = await createMigratedDatabase();
const source = await openService({ url: source_url, receive_limit_max: 100 });
const target = await openService({ url: target_url, receive_limit_max: 100 });
afterAll(async () => {
  killChildren();
  await source.close();
  await target.close();
});
const directory = emptyDirectory();
const file = (name: string) => path.join(directory, name);

const run = async (url: string, args: string[], stdin?: string) => {
  const env = url === "" ? { PSQLQUEUE_DATA_DIR: file("data") } : { PSQLQUEUE_DATABASE_URL: url };
  const { code, stdout, stderr } = await runChild(args, { env, cwd: directory, ...(stdin !== undefined && { stdin }) });
  return { code, stdout, stderr };
};

type Line = Record<string, unknown>;
const parse = (text: string): Line[] =>
  text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));

/** What must be the same on the other side: all but when it was written, and until when what is ready has been it. */
const lasting = (lines: Line[]) =>
  lines
    .filter(({ kind }) => kind !== "export")
    .map(({ visible_at, due_at, state, ...rest }) => ({ ...rest, ...(state !== "ready" && { visible_at }) }))
    .map((line) => JSON.stringify(line))
    .sort();

async function make(service: Service, kind: string, body: Line) {
  const answer = await service.call("POST", `/v1/${kind}`, body);
  if (answer.status !== 201) throw new Error(answer.text);
}

async function fill({ put, take, receive, nack }: ReturnType<typeof verbsOf>) {
  const times = { ack_deadline_seconds: 600, message_retention_seconds: 3600 };
  await make(source, "queues", { id: "z-dead", ...times });
  const dead = { dead_queue_id: "z-dead", message_max_deliveries: 2 };
  await make(source, "queues", { id: "orders", ...times, ...dead, retry_policy: { min_seconds: 0 }, max_depth: 99 });
  await make(source, "queues", { id: "mails", ...times, priority_enabled: true, max_in_flight: 5 });
  await make(source, "topics", { id: "events" });
  const message_filters = { status: ["paid", "sent"] };
  await make(source, "subscriptions", { id: "s", topic_id: "events", queue_id: "orders", message_filters });
  await source.call("PUT", "/v1/queues/mails/pause", { publish: true, consume: false });
  await source.call("PUT", "/v1/queues/mails/resume", {});
  // Whatever may be in a body stays on its line.
  await put("orders", { body: 'a\u2028b\nc\r\u0085"\\', label: "l", attributes: { k: "v", é: "😀" } });
  await put("orders", { body: "later", delay_seconds: 3000, ttl_seconds: 3300 });
  const failed = await put("orders", { body: "failed" });
  await receive("orders", "?limit=2");
  await nack("orders", failed, { error: "boom", visibility_timeout_seconds: 900 });
  const rejected = await put("orders", { body: "rejected" });
  await nack("orders", rejected, { dead_letter: true, error: "no" });
  for (const body of ["k1", "k2", "k3"]) await put("orders", { body, ordering_key: "k" });
  await put("orders", { body: "other", ordering_key: "j" });
  await take("orders", "?limit=1");
  for (const priority of [0, 9, -3]) await put("mails", { body: `p${priority}`, priority });
}
const verbs = { source: verbsOf(source), target: verbsOf(target) };
await fill(verbs.source);

test("what is exported is imported as it was, and exported again the same", async () => {
  const out = file("all.ndjson.gz");
  const exported = await run(source_url, ["export", "--messages", "--file", out]);
  expect(exported).toEqual({
    code: 0,
    stdout: "",
    stderr: "exported 3 queues, 1 topic, 1 subscription, 11 messages\n",
  });
  const imported = await run(target_url, ["import", "--file", out, "--json"]);
  const counts = { queue: 3, topic: 1, subscription: 1, message: 11 };
  expect(imported).toMatchObject({ code: 0, stderr: "" });
  expect(JSON.parse(imported.stdout)).toMatchObject({ imported: counts, skipped: { message: 0 } });
  const again = await run(target_url, ["export", "--messages"]);
  expect(lasting(parse(again.stdout))).toEqual(lasting(parse(gunzipSync(readFileSync(out)).toString())));
  for (const id of ["orders", "mails", "z-dead"]) {
    const [before, after] = [source, target].map((service) => service.call("GET", `/v1/queues/${id}`));
    expect((await after)?.body).toEqual((await before)?.body);
  }
  const { body } = await target.call("GET", "/v1/subscriptions/s");
  expect(body.message_filters).toEqual({ status: ["paid", "sent"] });
});

test("servers go on with what was imported: order, priorities, attempts, the past", async () => {
  const { receive, ack, look } = verbs.target;
  expect((await receive("mails", "?limit=10")).map(({ body }) => body)).toEqual(["p9", "p0", "p-3"]);
  // The first two are under a lease of the other database until it ends; so is the head of a key.
  const first = await receive("orders", "?limit=10");
  expect(first.map(({ body }) => body)).toEqual(["other"]);
  await target.elapse(601);
  const later = await receive("orders", "?limit=10");
  expect(later.map(({ body, delivery_attempts }) => [body, delivery_attempts]).sort()).toEqual([
    ['a\u2028b\nc\r\u0085"\\', 2],
    ["k1", 2],
    ["other", 2],
  ]);
  for (const body of ["k1", "k2", "k3"]) {
    const held = body === "k1" ? later : await receive("orders", "?limit=10");
    const own = held.find((message) => message.body === body);
    expect(own?.ordering_key).toBe("k");
    await ack("orders", own?.id ?? "");
  }
  const [dead] = await receive("z-dead", "?limit=10");
  expect(dead).toMatchObject({ body: "rejected", last_error: "no", dead: { source_queue_id: "orders" } });
  expect((await look("z-dead", dead?.id ?? "")).body.events).toMatchObject([{ event: "dead_lettered" }]);
});

test("what is there already is never overwritten: refused, or left as it is", async () => {
  const url = await createMigratedDatabase();
  const { stdout: lines } = await run(source_url, ["export", "--messages"]);
  const part = lines.split("\n").filter((line) => !line.includes('"k3"'));
  const text = part.join("\n").replace(/"kind":"end".*/, '"kind":"end"}');
  expect(await run(url, ["import"], text)).toMatchObject({ code: 0 });
  const refused = await run(url, ["import"], lines);
  expect(refused).toMatchObject({ code: 1, stdout: "" });
  expect(refused.stderr).toMatch(
    /^psqlqueue: standard input, line \d+: queue \S+ has message \S+ already; --on-conflict/,
  );
  const skipped = await run(url, ["import", "--on-conflict", "skip"], lines);
  const left = "left as they are: 3 queues, 1 topic, 1 subscription, 10 messages";
  expect(skipped).toMatchObject({ code: 0, stdout: `imported 1 message; ${left}\n` });
  const changed = lines.replace('"max_depth": 99', '"max_depth": 98');
  const other = await run(url, ["import"], changed);
  expect(other.stderr).toContain("queue orders exists already, with another max_depth; --on-conflict skip leaves it");
  expect(await run(url, ["import", "--on-conflict", "skip"], changed)).toMatchObject({ code: 0 });
  expect((await run(url, ["export"])).stdout).toContain('"max_depth": 99');
});

test("only some queues, and what subscribes them", async () => {
  const { stdout } = await run(source_url, ["export", "--messages", "--queue", "mails"]);
  expect(parse(stdout).map(({ kind, id }) => [kind, id ?? null].slice(0, kind === "message" ? 1 : 2))).toEqual([
    ["export", null],
    ["queue", "mails"],
    ["message"],
    ["message"],
    ["message"],
    ["end", null],
  ]);
  const { code, stderr } = await run(source_url, ["export", "--queue", "mails,nope", "--file", file("nope.ndjson")]);
  expect([code, stderr]).toEqual([1, "psqlqueue: there is no queue nope\n"]);
  expect([existsSync(file("nope.ndjson")), existsSync(file("nope.ndjson.partial"))]).toEqual([false, false]);
  const orphan = await run(
    await createMigratedDatabase(),
    ["import"],
    (await run(source_url, ["export", "--queue", "orders"])).stdout,
  );
  expect(orphan.stderr).toContain("queue orders needs queue z-dead, which does not exist");
});

test("a line that cannot be read is named, and what was imported before it", async () => {
  const { stdout } = await run(source_url, ["export", "--messages", "--queue", "mails"]);
  const lines = stdout.trimEnd().split("\n");
  const change = (at: number, to: (line: string) => string) =>
    lines.map((line, i) => (i === at ? to(line) : line)).join("\n");
  const cases: [string, string][] = [
    ["", "standard input is empty"],
    [lines.slice(1).join("\n"), "line 1: an export begins with its one line about itself"],
    [lines.slice(0, -1).join("\n"), "is cut off after line 5"],
    [`${stdout}${lines[1]}`, "line 7: there is more after the end"],
    [change(0, (line) => line.replace('"format":1', '"format":2')), "format 2, and this program reads 1"],
    [change(2, (line) => line.slice(0, 40)), "line 3: no JSON"],
    [change(2, (line) => line.replace('"message"', '"massage"')), 'line 3: a line about "massage"; there are queue,'],
    [change(2, (line) => line.replace(/"id": "[^"]*", /, "")), "line 3: a message without an id"],
    [change(2, (line) => line.replace("{", '{"colour": "red", ')), '"colour", which this version does not know'],
    [change(2, (line) => line.replace('"mails"', '"males"')), "is of queue males, which does not exist"],
    [change(3, (line) => line.replace(/"expires_at": "[^"]*"/, '"expires_at": "soon"')), "line 4: message"],
  ];
  for (const [text, sentence] of cases) {
    const { code, stderr } = await run(await createMigratedDatabase(), ["import"], text);
    expect([sentence, code, stderr.includes(sentence), stderr]).toEqual([sentence, 1, true, stderr]);
  }
  const { stderr } = await run(await createMigratedDatabase(), ["import"], cases.at(-1)?.[0]);
  expect(stderr).toEndWith("Imported before that: 1 queue, 1 message; --on-conflict skip goes on from there\n");
});

test("files: none is overwritten, one that is not whole has another name, what is not packed is refused", async () => {
  writeFileSync(file("mine.ndjson"), "mine");
  const kept = await run(source_url, ["export", "--file", file("mine.ndjson")]);
  expect([kept.code, readFileSync(file("mine.ndjson"), "utf8")]).toEqual([1, "mine"]);
  expect(kept.stderr).toContain("exists already; move it away");
  const nowhere = await run(source_url, ["export", "--file", file("none/x.ndjson")]);
  const why = "cannot be written (ENOENT): name a file in a directory that is there and is yours";
  expect([nowhere.code, nowhere.stderr]).toEqual([1, `psqlqueue: ${file("none/x.ndjson")} ${why}\n`]);
  writeFileSync(file("plain.gz"), "no gzip");
  expect((await run(target_url, ["import", "--file", file("plain.gz")])).stderr).toContain("incorrect header check");
  writeFileSync(file("cut.gz"), gzipSync(Buffer.from("x".repeat(10_000))).subarray(0, 30));
  expect((await run(target_url, ["import", "--file", file("cut.gz")])).code).toBe(1);
  expect((await run(target_url, ["import", "--file", file("none.ndjson")])).stderr).toContain("does not exist");
});

test("the embedded database, in a directory that holds one or will", async () => {
  expect((await run("", ["export"])).stderr).toContain("there is no database: PSQLQUEUE_DATABASE_URL is not set");
  const { stdout } = await run(source_url, ["export", "--messages"]);
  expect(await run("", ["import"], stdout)).toMatchObject({ code: 0, stderr: "" });
  expect(lasting(parse((await run("", ["export", "--messages"])).stdout))).toEqual(lasting(parse(stdout)));
}, 120_000);
