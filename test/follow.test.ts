import { afterAll, describe, expect, test } from "bun:test";
import { chmodSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { type Child, emptyDirectory, killChildren, sourceProgram, startChild } from "./child.ts";
import { createQueue, listen, serviceForFile, uniqueId, until } from "./harness.ts";
import { verbsOf } from "./verbs.ts";

afterAll(killChildren);
const service = await serviceForFile();
const listener = await listen(service.app);
afterAll(() => listener.stop(true));
const url = `http://127.0.0.1:${listener.port}`;
const { put, stats, look } = verbsOf(service);

const follow = (queue: string, args: string[], env: Record<string, string> = {}): Child =>
  startChild(["receive", queue, "--follow", ...args], { env: { PSQLQUEUE_URL: url, ...env } });

/** A shell script in a directory of its own. */
function script(text: string): { file: string; log: string } {
  const directory = emptyDirectory();
  const file = path.join(directory, "handle");
  const log = path.join(directory, "log");
  writeFileSync(log, "");
  writeFileSync(file, `#!/bin/sh\n${text}\n`);
  chmodSync(file, 0o755);
  return { file, log };
}

const linesOf = (file: string) => readFileSync(file, "utf8").split("\n").slice(0, -1);
const publish = (queue: string, count: number) =>
  service.call("POST", `/v1/queues/${queue}/messages/batch`, {
    messages: Array.from({ length: count }, (_, i) => ({ body: String(i + 1) })),
  });

describe("receive --follow -- command", () => {
  test("a command that fails on every third message, and a SIGTERM half-way: nothing is lost, no lease is left", async () => {
    const dead_queue_id = await createQueue(service);
    const queue = await createQueue(service, { dead_queue_id, message_max_deliveries: 2 });
    await publish(queue, 30);
    const { file, log } = script(
      'read -r body; echo "$body" >> "$LOG"; if [ $((body % 3)) = 0 ]; then echo "no $body" >&2; exit 1; fi',
    );
    const first = follow(queue, ["--concurrency", "3", "--quiet", "--", file], { LOG: log });
    await until(() => linesOf(log).length >= 10);
    first.signal("SIGTERM");
    expect(await first.exited).toBe(0);
    const begun = linesOf(log).length;
    expect(begun).toBeLessThan(30);
    // Whoever comes next finds all that is left at once.
    expect((await stats(queue)).leased).toBe(0);
    const second = follow(queue, ["--concurrency", "3", "--quiet", "--", file], { LOG: log });
    await until(async () => {
      const { ready, leased } = await stats(queue);
      return ready + leased === 0;
    });
    second.signal("SIGTERM");
    expect(await second.exited).toBe(0);
    const counts = Map.groupBy(linesOf(log), (body) => body);
    const wanted = Array.from({ length: 30 }, (_, i) => [String(i + 1), (i + 1) % 3 === 0 ? 2 : 1] as const);
    expect(wanted.map(([body]) => [body, counts.get(body)?.length ?? 0])).toEqual(wanted.map((own) => [...own]));
    const { body } = await service.call("GET", `/v1/queues/${dead_queue_id}/messages/peek?limit=100`);
    const dead = body.data.map((message: { body: string; dead: { error: string } }) => [
      message.body,
      message.dead.error,
    ]);
    expect(dead.sort()).toEqual(
      wanted
        .filter(([, count]) => count === 2)
        .map(([own]) => [own, `no ${own}`])
        .sort(),
    );
  }, 30_000);

  test("a second signal ends what runs, and its message is ready again at once", async () => {
    const queue = await createQueue(service);
    const id = await put(queue, { body: "1" });
    const { file, log } = script('echo begun >> "$LOG"; exec sleep 600');
    const child = follow(queue, ["--", file], { LOG: log });
    await until(() => linesOf(log).length === 1);
    child.signal("SIGINT");
    await until(() => child.stderr().includes("stopping; once more ends it at once"));
    child.signal("SIGINT");
    expect(await child.exited).toBe(0);
    expect((await look(queue, id)).body).toMatchObject({ state: "ready", delivery_attempts: 1 });
  });

  test("a command may take longer than the lease", async () => {
    const queue = await createQueue(service, { ack_deadline_seconds: 1 });
    const id = await put(queue);
    const { file, log } = script('echo begun >> "$LOG"; while [ ! -e "$LOG.go" ]; do sleep 0.05; done');
    const child = follow(queue, ["--", file], { LOG: log });
    await until(() => linesOf(log).length === 1);
    const first = (await look(queue, id)).body.lease_expires_at;
    await until(async () => (await look(queue, id)).body.lease_expires_at > first);
    writeFileSync(`${log}.go`, "");
    await until(async () => (await look(queue, id)).body.state === "acked");
    child.signal("SIGTERM");
    expect(await child.exited).toBe(0);
    expect(linesOf(log)).toHaveLength(1);
  });
});

test("receive --follow --ack prints what comes, one JSON object a line, and acks it", async () => {
  const queue = await createQueue(service);
  const child = follow(queue, ["--ack", "--json"]);
  const id = await put(queue, { body: "a" });
  await until(() => child.stdout().includes("\n"));
  await put(queue, { body: "b" });
  await until(() => child.lines().length === 2);
  child.signal("SIGTERM");
  expect(await child.exited).toBe(0);
  const lines = child.stdout().trim().split("\n");
  const shown = lines.map((line) => JSON.parse(line));
  expect(shown.map(({ body }) => body)).toEqual(["a", "b"]);
  expect(Object.keys(shown[0])).toContain("lease_token");
  expect((await look(queue, id)).body.state).toBe("acked");
  expect(await stats(queue)).toMatchObject({ ready: 0, leased: 0 });
});

/** A terminal that a test types into and reads. */
function openTerminal() {
  const session = uniqueId("psqlqueue");
  const tmux = (...args: string[]) => Bun.spawnSync(["tmux", "-L", session, ...args]).stdout.toString();
  const environment = `PSQLQUEUE_URL=${url} HOME=${emptyDirectory()}`;
  tmux("-f", "/dev/null", "new-session", "-d", "-s", session, "-x", "100", "-y", "30", "sh");
  return {
    type: (...keys: string[]) => tmux("send-keys", "-t", session, ...keys),
    run: (args: string) =>
      tmux("send-keys", "-t", session, "-l", `${environment} ${sourceProgram.join(" ")} ${args}\n`),
    screen: () => tmux("capture-pane", "-p", "-t", session),
    resize: (columns: number, rows: number) =>
      tmux("resize-window", "-t", session, "-x", String(columns), "-y", String(rows)),
    close: () => tmux("kill-server"),
  };
}

describe("at a terminal", () => {
  test.if(Bun.which("tmux") !== null)("Ctrl-C ends receive, and gives leases back", async () => {
    const queue = await createQueue(service);
    const id = await put(queue);
    const { file, log } = script('echo begun >> "$LOG"; exec sleep 600');
    const terminal = openTerminal();
    terminal.run(`receive ${queue} --follow -- env LOG=${log} ${file}; echo ended with $?`);
    await until(() => linesOf(log).length === 1);
    // The terminal sends it to the command as well.
    terminal.type("C-c");
    await until(() => terminal.screen().includes("ended with 0"));
    expect((await look(queue, id)).body).toMatchObject({ state: "ready", delivery_attempts: 1 });
    expect((await look(queue, id)).body.last_error).toBeUndefined();
    terminal.close();
  });

  test.if(Bun.which("tmux") !== null)("a queue is deleted by whoever types its name", async () => {
    const queue = await createQueue(service);
    const terminal = openTerminal();
    terminal.run(`queue delete ${queue}; echo ended with $?`);
    await until(() => terminal.screen().includes(`Type ${queue} to go on:`));
    terminal.type("-l", "yes\n");
    await until(() => terminal.screen().includes("ended with 1"));
    expect(terminal.screen()).toContain(`nothing was done: the answer was not ${queue}`);
    terminal.type("-l", "clear\n");
    terminal.run(`queue delete ${queue}; echo ended with $?`);
    await until(() => terminal.screen().includes(`Type ${queue} to go on:`));
    terminal.type("-l", `${queue}\n`);
    await until(() => terminal.screen().includes("ended with 0"));
    expect((await service.call("GET", `/v1/queues/${queue}`)).status).toBe(404);
    terminal.close();
  });

  test.if(Bun.which("tmux") !== null)("a table is cut to the width that there is; in a pipe nothing is", async () => {
    const queue = await createQueue(service);
    await put(queue, { body: "long ".repeat(60) });
    const terminal = openTerminal();
    terminal.run(`peek ${queue}`);
    await until(() => terminal.screen().includes("long"));
    expect(terminal.screen()).toContain("…");
    terminal.resize(60, 30);
    terminal.type("-l", "clear\n");
    terminal.run(`peek ${queue} | wc -c`);
    await until(() => /^ *\d{3,} *$/m.test(terminal.screen()));
    terminal.close();
  });
});
