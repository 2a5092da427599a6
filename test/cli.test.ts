import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { catalogue } from "../src/commandLine/catalogue.ts";
import { readCommandLine } from "../src/commandLine/commandLine.ts";
import { client_commands } from "../src/commands/client.ts";
import { emptyDirectory, type Finished, killChildren, runChild, sourceProgram } from "./child.ts";
import { createQueue, listen, serviceForFile, uniqueId, until } from "./harness.ts";
import { freePort } from "./postgres.ts";
import { verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

afterAll(killChildren);
const service = await serviceForFile();
const listener = await listen(service.app);
afterAll(() => listener.stop(true));
const url = `http://127.0.0.1:${listener.port}`;
const { put, stats, look, take } = verbsOf(service);

type Options = { stdin?: string | Uint8Array<ArrayBuffer>; env?: Record<string, string> };
const cli = (args: string[], { env, ...options }: Options = {}): Promise<Finished> =>
  runChild(args, { env: { PSQLQUEUE_URL: url, ...env }, ...options });

/** What a command prints with --json. */
async function json(args: string[], options: Options = {}) {
  const { code, stdout, stderr } = await cli([...args, "--json"], options);
  if (code !== 0) throw new Error(`exit ${code}: ${stderr}`);
  return stdout
    .trim()
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line));
}

/** Words as a shell takes them apart, for lines without anything harder than quotes. */
const wordsOf = (line: string) =>
  [...line.replace(/ [<>|].*/, "").matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, bare]) => quoted ?? bare ?? "");

describe("the catalogue", () => {
  test("has every command that can be run, and nothing else", () => {
    const asking = catalogue.filter(({ effect }) => effect !== "serves").map(({ path }) => path);
    expect(asking.sort()).toEqual([...client_commands].sort());
  });

  test("gives examples that are understood as the command they stand with", () => {
    for (const { path: own, examples } of catalogue) {
      expect(examples.length).toBeGreaterThan(0);
      for (const example of examples) {
        const line = readCommandLine(wordsOf(example));
        expect([example, line.kind === "run" && line.command.path]).toEqual([example, own]);
      }
    }
  });

  test("is the help of every command: what it takes, and its examples", async () => {
    for (const { path: own, examples, options = [], arguments: given = [], about } of catalogue) {
      const line = readCommandLine([...own.split(" "), "--help"]);
      if (line.kind !== "help") throw new Error(`no help of ${own}`);
      const wanted = [about, ...options.map(({ name }) => `--${name}`), ...given.map(({ name }) => name), ...examples];
      const flat = line.text.replaceAll(/\s+/g, " ");
      expect([own, wanted.filter((text) => !flat.includes(text.replaceAll(/\s+/g, " ")))]).toEqual([own, []]);
      expect(readCommandLine(["help", ...own.split(" ")])).toEqual(line);
    }
  });
});

describe("what is not understood", () => {
  const cases: [line: string, sentence: string][] = [
    ["queue frob", 'unknown command "queue frob"; there are create, get, list,'],
    ["help nope", 'unknown command "nope"; did you mean top?'],
    ["nope --help", 'unknown command "nope"; did you mean top?'],
    ["queue frob --help", 'unknown command "queue frob"; there are create, get, list,'],
    ["queue update a --set x", '--set "x" is not understood: give a name, =, and a value, as max_depth=1000'],
    ["queue lst", 'unknown command "queue lst"; did you mean list?'],
    ["queue create", "queue create needs ID: psqlqueue queue create orders"],
    ["queue create a b", 'queue create takes nothing else: there is "b" after it'],
    ["queue create a --retenton 1d", 'unknown option "--retenton"; did you mean --retention?'],
    ["queue create a --retention", "--retention needs a value: --retention TIME"],
    [
      "queue create a --retention 1w",
      '--retention "1w" is not understood: give a time such as 90s, 15m, 12h or 14d, from 1 ',
    ],
    ["queue create a --retention 0", '--retention "0" is not understood: give a time'],
    ["queue list --limit many", '--limit "many" is not understood: give a whole number from 1 to'],
    ["queue list --ack", "queue list has no option --ack; receive has"],
    ["queue list --json=1", "--json takes no value"],
    ["peek a --state gone", '--state "gone" is not understood: give one of ready, delayed,'],
    ["publish a x --attribute b", '--attribute "b" is not understood: give a name, =, and a value, as country=DE'],
    ["--json queue list", "--json belongs to a command: queue get orders --json"],
  ];
  test.each(cases)("%s", (line, sentence) => {
    expect(() => readCommandLine(line.split(" "))).toThrow(sentence);
  });

  test("is exit 2, on standard error, with the usage of the command", async () => {
    const { code, stdout, stderr } = await cli(["queue", "create"]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toMatch(
      /^psqlqueue: queue create needs ID.*\n\npsqlqueue .*\n\nusage: psqlqueue queue create .*<ID>\n/,
    );
  });

  test("of what a command refuses by itself is exit 2, too", async () => {
    const queue = await createQueue(service);
    const own: [string[], string][] = [
      [["receive", queue, "--follow"], "--follow needs --ack or a command: "],
      [["receive", queue, "--concurrency", "2"], "--concurrency belongs to --follow"],
      [["receive", queue, "--ack", "--", "true"], "a command acks by itself"],
      [["receive", queue, "--", "no-such-program"], "no-such-program is no program that can be run"],
      [["publish", queue, "x", "--rate", "1"], "--rate belongs to a stream"],
      [["publish", queue, "--lines", "--ndjson"], "a line is either an object or a body"],
      [["queue", "update", queue, "--set", "__proto__=1"], "--set __proto__: this server has no such setting"],
      [["publish", queue, "x", "--lines"], "--ndjson and --lines read standard input"],
      [["ack", queue, "a", "b", "--token", "1"], "--token belongs to one delivery"],
      [["queue", "purge", queue], "this removes every message of queue "],
      [["queue", "update", queue, "--set", "max_dept=1"], "--set max_dept: this server has no such setting; it has "],
    ];
    for (const [args, sentence] of own) {
      const { code, stderr } = await cli(args);
      expect({ args, code, stderr }).toEqual({
        args,
        code: 2,
        stderr: expect.stringContaining(`psqlqueue: ${sentence}`),
      });
    }
  });
});

describe("a server that refuses or is away", () => {
  test("is named with why and what to do: exit 1, or 3 when nobody answers", async () => {
    const none = `http://127.0.0.1:${await freePort()}`;
    const cases: [string[], number, string][] = [
      [["queue", "get", "none"], 1, `${url} refused: queue not found; \`psqlqueue queue list\` shows`],
      [["publish", "none", "x"], 1, "queue not found"],
      [["task", "watch", "none"], 1, "task not found; `psqlqueue task list` shows"],
      [["queue", "create", "a b"], 1, "request validation failed: id: must be in a valid format"],
      [
        ["queue", "create", uniqueId(), "--set", "max_depth=many"],
        1,
        "malformed request body; a value has the wrong type",
      ],
      [["queue", "get", ".."], 1, '".." cannot be an id: in a URL it is a step between folders'],
      [["queue", "list", "--url", none], 3, `${none} did not answer: `],
      [["queue", "list", "--url", "localhost:8000"], 2, 'url "localhost:8000" is no address of a server'],
    ];
    for (const [args, code, text] of cases) {
      const answer = await cli(args);
      expect({ args, ...answer }).toMatchObject({ args, code, stdout: "", stderr: expect.stringContaining(text) });
      expect(answer.stderr).toMatch(/^psqlqueue: [^\n]+\n$/);
    }
  });

  test("is found by --url, --profile, PSQLQUEUE_URL, and the profile that is the usual one", async () => {
    const home = emptyDirectory();
    mkdirSync(path.join(home, ".config/psqlqueue"), { recursive: true });
    const file = path.join(home, ".config/psqlqueue/config.json");
    const asked: (string | null)[] = [];
    const server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch(request) {
        asked.push(request.headers.get("authorization"));
        return Response.json({ data: [], limit: 1000 });
      },
    });
    const own = `http://127.0.0.1:${server.port}`;
    writeFileSync(file, JSON.stringify({ profile: "usual", profiles: { usual: { url: own, key: "its" }, other: {} } }));
    const list = (args: string[], env: Record<string, string> = {}) =>
      runChild(["queue", "list", "--quiet", ...args], { env: { HOME: home, ...env } });
    expect(await list([])).toMatchObject({ code: 0, stdout: "" });
    await list(["--profile", "usual"], { PSQLQUEUE_URL: "http://127.0.0.1:1", PSQLQUEUE_KEY: "mine" });
    // A profile's key goes to no other server than its own.
    await list(["--url", own]);
    await list([], { PSQLQUEUE_URL: own });
    expect(asked).toEqual(["Bearer its", "Bearer mine", null, null]);
    const missing = await list(["--profile", "none"]);
    expect(missing).toMatchObject({
      code: 1,
      stderr: `psqlqueue: no profile "none" with a url in ${file}; there are usual, other\n`,
    });
    writeFileSync(file, '{"key": s3cret');
    const broken = await list([]);
    expect(broken.stderr).toContain(`${file} is no JSON object; write it as`);
    expect(broken.stderr).not.toContain("s3cret");
    await server.stop(true);
  });
});

describe("queues", () => {
  test("are made, shown, changed, paused and deleted", async () => {
    const id = uniqueId();
    const dead = uniqueId();
    await cli(["queue", "create", dead]);
    expect(await cli(["queue", "create", id, "--ack-deadline", "2m"])).toMatchObject({
      code: 0,
      stdout: `queue ${id} created\n`,
    });
    const settings = ["--dead-queue", dead, "--max-deliveries", "3", "--set", 'retry_policy={"min_seconds":1}'];
    const [changed] = await json(["queue", "update", id, "--retention", "1h", ...settings]);
    expect(changed).toMatchObject({
      id,
      ack_deadline_seconds: 120,
      message_retention_seconds: 3600,
      dead_queue_id: dead,
      message_max_deliveries: 3,
      retry_policy: { min_seconds: 1, max_seconds: 600, multiplier: 2, jitter: "equal" },
    });
    expect((await json(["queue", "get", id]))[0]).toEqual(changed);
    expect((await json(["queue", "list"]))[0]).toContainEqual(changed);
    expect((await json(["queue", "update", id, "--dead-queue", "none"]))[0]).toMatchObject({
      dead_queue_id: null,
      ack_deadline_seconds: 120,
    });
    expect((await json(["queue", "pause", id, "--publish"]))[0].paused).toEqual({ publish: true, consume: true });
    expect((await json(["queue", "resume", id]))[0].paused).toEqual({ publish: false, consume: false });
    await put(id);
    expect((await json(["queue", "stats", id]))[0]).toMatchObject({ ready: 1 });
    expect((await cli(["queue", "stats"])).stdout).toMatch(new RegExp(`^id +ready.*\\n(.*\\n)*${id} +1 `));
    expect(await cli(["queue", "purge", id, "--yes"])).toMatchObject({ code: 0, stdout: `queue ${id} purged\n` });
    expect((await json(["queue", "cleanup", id, "--async"]))[0]).toEqual({ task_id: expect.any(String) });
    expect(await cli(["queue", "delete", id, "-y", "--quiet"])).toMatchObject({ code: 0, stdout: "", stderr: "" });
    expect((await cli(["queue", "get", id])).code).toBe(1);
  });

  test("are not made when a setting is misspelt", async () => {
    const id = uniqueId();
    expect((await cli(["queue", "create", id, "--set", "max_dept=1"])).code).toBe(2);
    expect((await cli(["queue", "get", id])).code).toBe(1);
  });

  test("whose lease of 0 seconds this API cannot send are changed together with it, or not at all", async () => {
    const queue = await createQueue(service);
    await service.sql`update psqlqueue.queues set ack_deadline_seconds = 0 where id = ${queue}`;
    const refused = await cli(["queue", "update", queue, "--set", "max_depth=5"]);
    const sentence = `queue ${queue} has ack_deadline_seconds 0, as SQS clients set it with VisibilityTimeout; `;
    expect(refused).toMatchObject({ code: 2, stderr: expect.stringContaining(sentence) });
    const file = path.join(emptyDirectory(), "queues.yaml");
    writeFileSync(file, `queues: [{ id: ${queue}, max_depth: 5 }]`);
    const applied = await cli(["apply", "--file", file]);
    expect(applied).toMatchObject({ code: 2, stdout: "", stderr: expect.stringContaining(sentence) });
    const [changed] = await json(["queue", "update", queue, "--set", "max_depth=5", "--ack-deadline", "30s"]);
    expect(changed).toMatchObject({ max_depth: 5, ack_deadline_seconds: 30 });
  });

  test("are neither made nor deleted by a --set that is no setting", async () => {
    const precious = await createQueue(service);
    await put(precious);
    const other = uniqueId();
    for (const verb of ["create", "update"]) {
      for (const set of [["id=other"], [`id=${other}`, "typo=1"], ["paused=true"], ["created_at=null"]]) {
        const own = verb === "create" && set.length === 1 ? uniqueId() : precious;
        const { code, stderr } = await cli(["queue", verb, own, ...set.flatMap((text) => ["--set", text])]);
        expect([verb, set, code]).toEqual([verb, set, 2]);
        expect(stderr).toContain(`--set ${set[0]?.split("=")[0]} is no setting of queues: `);
        expect((await cli(["queue", "get", own])).code).toBe(own === precious ? 0 : 1);
      }
    }
    expect((await cli(["queue", "create", precious, "--set", "typo=1"])).code).not.toBe(0);
    expect(await stats(precious)).toMatchObject({ ready: 1 });
    expect((await cli(["queue", "get", other])).code).toBe(1);
  });
});

describe("publish", () => {
  test("takes the body as an argument or from standard input, and prints the id", async () => {
    const queue = await createQueue(service);
    const options = [
      "--label",
      "l",
      "--attribute",
      "a=1=2",
      "--attribute",
      "__proto__=x",
      "--delay",
      "5m",
      "--ttl",
      "1h",
    ];
    const first = await cli(["publish", queue, "an argument", ...options, "--dedup-id", "d"]);
    const id = first.stdout.trim();
    expect((await look(queue, id)).body).toMatchObject({ body: "an argument", label: "l", state: "delayed" });
    expect((await look(queue, id)).text).toContain('"attributes":{"a":"1=2","__proto__":"x"}');
    expect(await json(["publish", queue, "again", "--dedup-id", "d"])).toEqual([{ id, deduplicated: true }]);
    const second = await cli(["publish", queue], { stdin: "from\nstandard input\n" });
    expect((await look(queue, second.stdout.trim())).body.body).toBe("from\nstandard input\n");
  });

  test("takes an ordering key and a priority", async () => {
    const queue = await createQueue(service, { priority_enabled: true });
    const low = (await cli(["publish", queue, "low", "--priority", "-5"])).stdout.trim();
    const high = (await cli(["publish", queue, "high", "--priority", "5", "--ordering-key", "k"])).stdout.trim();
    const [first, second] = await json(["receive", queue]);
    expect([first.id, first.ordering_key, second.id]).toEqual([high, "k", low]);
  });

  test("takes a stream of objects or of lines, no faster than asked to", async () => {
    const queue = await createQueue(service);
    const objects = [{ body: "a", label: "l" }, { body: { b: 1 } }, { body: "c", attributes: { d: "e" } }];
    const stdin = `${objects.map((own) => JSON.stringify(own)).join("\n")}\n\n`;
    expect(await cli(["publish", queue, "--ndjson", "--label", "usual"], { stdin })).toMatchObject({
      code: 0,
      stdout: "3 messages published\n",
    });
    expect(await json(["publish", queue, "--lines"], { stdin: "x\r\ny" })).toEqual([{ published: 2 }]);
    const seen = await json(["peek", queue, "--limit", "100"]);
    expect(seen.map(({ body, label, attributes }) => [body, label, attributes])).toEqual([
      ["a", "l", null],
      ['{"b":1}', "usual", null],
      ["c", "usual", { d: "e" }],
      ["x", null, null],
      ["y", null, null],
    ]);
    const start_ms = performance.now();
    const many = Array.from({ length: 30 }, (_, i) => `${i}\n`).join("");
    await cli(["publish", queue, "--lines", "--rate", "20"], { stdin: many });
    expect(performance.now() - start_ms).toBeGreaterThan(1400);
    expect((await stats(queue)).ready).toBe(35);
  });

  test("names the line that is wrong, and says what was published before it", async () => {
    const queue = await createQueue(service);
    const wrong: [string, string][] = [
      ['{"body":"a"}\n{"body"', "line 2 of standard input is not JSON"],
      ['["a"]', "line 1 of standard input is no JSON object"],
      ['{"label":"a"}', "line 1 of standard input has no body"],
    ];
    for (const [stdin, sentence] of wrong) {
      const { code, stderr } = await cli(["publish", queue, "--ndjson"], { stdin });
      expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining(sentence) });
    }
    const cut = new TextEncoder().encode("a\n\u{1f600}").subarray(0, -2);
    const { code, stderr } = await cli(["publish", queue, "--lines"], { stdin: cut });
    const half = "psqlqueue: after line 1 standard input is not UTF-8, and a body is text: encode it first";
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining(half) });
    const refused = await cli(["publish", queue, "--ndjson"], { stdin: '{"body":"a"}\n{"body":""}\n' });
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain(
      "0 messages published; lines 1 to 2 failed as a whole, and nothing after them was sent",
    );
    expect(refused.stderr).toContain("messages[1].body: cannot be blank");
    expect((await stats(queue)).ready).toBe(0);
  });
});

describe("receive", () => {
  test("prints messages, and acks them when it is told to", async () => {
    const queue = await createQueue(service);
    const id = await put(queue, { body: "two\nlines\u001b[2J", label: "l" });
    await put(queue, { body: "other" });
    const [message] = await json(["receive", queue, "--label", "l"]);
    const { lease_token } = message;
    expect(message).toMatchObject({
      id,
      body: "two\nlines\u001b[2J",
      delivery_attempts: 1,
      lease_token: expect.any(String),
    });
    expect(await cli(["extend", queue, id, "--by", "0", "--token", lease_token])).toMatchObject({
      code: 0,
      stdout: `${id} given back\n`,
    });
    const { stdout } = await cli(["receive", queue, "--label", "l", "--ack"]);
    expect(stdout.split("\n")).toEqual([
      "id                          delivery_attempts  label  body",
      `${id}                  2  l      two\\nlines\\u001b[2J`,
      "",
    ]);
    expect((await look(queue, id)).body.state).toBe("acked");
    expect(await json(["receive", queue, "--wait", "1s", "--label", "none"])).toEqual([]);
    expect((await stats(queue)).ready).toBe(1);
  });

  test("gives back what nobody has read", async () => {
    const queue = await createQueue(service);
    for (let i = 0; i < 3; i++) await put(queue, { body: "x".repeat(200_000) });
    const command = [...sourceProgram, "receive", queue, "--follow", "--ack", "--json"].join(" ");
    const child = Bun.spawn(["sh", "-c", `${command} | head -c 10`], {
      env: { PATH: process.env["PATH"] ?? "", PSQLQUEUE_URL: url },
      stdout: "pipe",
    });
    expect(await new Response(child.stdout).text()).toHaveLength(10);
    expect(await child.exited).toBe(0);
    await until(async () => (await stats(queue)).leased === 0);
    expect((await stats(queue)).ready).toBeGreaterThanOrEqual(2);
  });

  test("runs a command for each: its exit code acks or nacks", async () => {
    const queue = await createQueue(service, { retry_policy: { min_seconds: 60 } });
    const good = await put(queue, { body: "good", label: "l", attributes: { a: "b" } });
    const bad = await put(queue, { body: "bad" });
    const script =
      'read -r body; echo "$body $PSQLQUEUE_MESSAGE_ID $PSQLQUEUE_MESSAGE_ATTRIBUTES"; ' +
      'test "$body" = good || { echo no >&2; exit 3; }';
    const { code, stdout, stderr } = await cli(["receive", queue, "--", "sh", "-c", script, "--verbose"]);
    expect({ code, stdout, stderr }).toEqual({
      code: 1,
      stdout: `good ${good} {"a":"b"}\nbad ${bad} {}\n`,
      stderr: "no\n",
    });
    expect((await look(queue, good)).body.state).toBe("acked");
    expect((await look(queue, bad)).body).toMatchObject({ state: "backing_off", last_error: "no" });
  });

  test("keeps the end of what a command says of its failure, from a whole character on", async () => {
    const queue = await createQueue(service, { retry_policy: { min_seconds: 60 } });
    const id = await put(queue);
    const script = `process.stderr.write("\u{1f600}".repeat(1000) + "a\\0b"); process.exit(3)`;
    const { code } = await cli(["receive", queue, "--", process.execPath, "-e", script]);
    expect(code).toBe(1);
    expect((await look(queue, id)).body).toMatchObject({
      state: "backing_off",
      last_error: `${"\u{1f600}".repeat(511)}a b`,
    });
  });
});

test("ack, nack, extend and peek work on messages by their ids, and say which they could not", async () => {
  const dead_queue_id = await createQueue(service);
  const queue = await createQueue(service, { dead_queue_id, message_max_deliveries: 9 });
  const [one, two, three] = [await put(queue), await put(queue), await put(queue)];
  const { lease_token } = await take(queue);
  const fenced = await cli(["ack", queue, one, "--token", "1"]);
  expect(fenced).toMatchObject({ code: 1, stdout: "" });
  expect(fenced.stderr).toBe(
    `psqlqueue: ${one} is not acked: the lease is lost: somebody else may have it, or it was settled\n`,
  );
  expect(await cli(["ack", queue, one, "--token", lease_token])).toMatchObject({ code: 0, stdout: `${one} acked\n` });
  expect((await cli(["nack", queue, two, "--delay", "1h", "--error", "why"])).code).toBe(0);
  expect((await json(["peek", queue, two]))[0]).toMatchObject({ last_error: "why", id: two });
  expect((await cli(["nack", queue, three, "--dead-letter", "--error", "dead"])).code).toBe(0);
  expect((await json(["peek", dead_queue_id]))[0]).toMatchObject({ id: three, dead: { error: "dead" } });
  const mixed = await cli(["ack", queue, two, three]);
  expect(mixed).toMatchObject({ code: 1, stdout: `${two} acked\n` });
  expect(mixed.stderr).toContain(`${three} is not acked: there is no such message`);
  const seen = await cli(["peek", queue, "--state", "acked", "--without-body"]);
  expect(seen.stdout.split("\n")).toHaveLength(4);
  expect(seen.stdout).not.toContain("body");
});

test("topics, subscriptions, redrives and tasks are worked with", async () => {
  const dead_queue_id = await createQueue(service);
  const queue = await createQueue(service, { dead_queue_id, message_max_deliveries: 9 });
  const topic = uniqueId("t");
  const subscription = uniqueId("s");
  expect(await cli(["topic", "create", topic])).toMatchObject({ code: 0, stdout: `topic ${topic} created\n` });
  const [made] = await json(["subscription", "create", subscription, topic, queue, "--filter", "c=DE,AT"]);
  expect(made).toMatchObject({ id: subscription, message_filters: { c: ["DE", "AT"] } });
  expect((await json(["subscription", "get", subscription]))[0]).toEqual(made);
  expect((await json(["subscription", "list"]))[0]).toContainEqual(made);
  expect((await json(["topic", "list"]))[0]).toContainEqual((await json(["topic", "get", topic]))[0]);
  const none = await cli(["topic", "publish", topic, "x"]);
  expect(none.stdout).toBe("no subscription let it pass: stored nowhere\n");
  const [id = ""] = (await cli(["topic", "publish", topic, "x", "--attribute", "c=AT"])).stdout.split("  ");
  await cli(["nack", queue, id, "--dead-letter"]);

  const started = await cli(["redrive", dead_queue_id]);
  const task = started.stdout.trim();
  const watched = cli(["task", "watch", task]);
  await until(async () => {
    await service.broker.runTasks();
    return (await stats(queue)).ready === 1;
  });
  expect(await watched).toMatchObject({ code: 0, stdout: `task ${task} is completed: 1 messages moved, 0 not\n` });
  expect((await json(["task", "list", "--limit", "1"]))[0]).toMatchObject([{ id: task, kind: "redrive", moved: 1 }]);
  expect((await cli(["task", "cancel", task])).code).toBe(0);
  expect((await cli(["subscription", "delete", subscription, "--yes"])).code).toBe(0);
  expect((await cli(["topic", "delete", topic, "--yes"])).code).toBe(0);
});
