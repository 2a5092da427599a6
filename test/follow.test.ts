import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { type Child, emptyDirectory, killChildren, startChild } from "./child.ts";
import { createQueue, listen, serviceForFile, until } from "./harness.ts";
import { openTerminal } from "./terminal.ts";
import { verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

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
    const queue = await createQueue(service, { dead_queue_id, message_max_deliveries: 3 });
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
    const numbers = Array.from({ length: 30 }, (_, i) => i + 1);
    const runs = (number: number) => counts.get(String(number))?.length ?? 0;
    const [bad, good] = [numbers.filter((own) => own % 3 === 0), numbers.filter((own) => own % 3 !== 0)];
    expect(good.map((own) => [own, runs(own)])).toEqual(good.map((own) => [own, 1]));
    // A message that came while the first one stopped was given back, which is a delivery without a run.
    expect(bad.filter((own) => runs(own) < 2 || runs(own) > 3)).toEqual([]);
    const { body } = await service.call("GET", `/v1/queues/${dead_queue_id}/messages/peek?limit=100`);
    const dead = body.data.map((message: { body: string; dead: { error: string } }) => [
      message.body,
      message.dead.error,
    ]);
    expect(dead.sort()).toEqual(bad.map((own) => [String(own), `no ${own}`]).sort());
  });

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

describe("at a terminal", () => {
  test.if(Bun.which("tmux") !== null)("Ctrl-C ends receive, and gives leases back", async () => {
    const queue = await createQueue(service);
    const id = await put(queue);
    const { file, log } = script('echo begun >> "$LOG"; exec sleep 600');
    const terminal = openTerminal(url);
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
    const terminal = openTerminal(url);
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
    const terminal = openTerminal(url);
    terminal.run(`peek ${queue}; echo ended with $?`);
    await until(() => terminal.screen().includes("ended with 0"));
    expect(terminal.screen()).toContain("long");
    expect(terminal.screen()).toContain("…");
    terminal.resize(60, 30);
    terminal.run(`peek ${queue} | wc -c; echo counted`);
    await until(() => /^ *\d{3,}\s+counted$/m.test(terminal.screen()));
    terminal.close();
  });
});
