import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { killChildren, runChild, startChild } from "./child.ts";
import { createQueue, listen, serviceForFile, until } from "./harness.ts";
import { openTerminal } from "./terminal.ts";
import { verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

afterAll(killChildren);
const service = await serviceForFile();
const listener = await listen(service.app);
afterAll(() => listener.stop(true));
const url = `http://127.0.0.1:${listener.port}`;
const env = { PSQLQUEUE_URL: url };
const { put, take } = verbsOf(service);

const deep = await createQueue(service);
const leased = await createQueue(service);
for (let i = 0; i < 3; i++) await put(deep);
for (let i = 0; i < 2; i++) await put(leased);
for (let i = 0; i < 2; i++) await take(leased);

test("prints one table, the deepest queue first, or another order", async () => {
  const { code, stdout } = await runChild(["top", "--once"], { env });
  const lines = stdout.split("\n").map((line) => line.trim().split(/ {2,}/));
  expect(code).toBe(0);
  expect(lines[0]).toEqual(["queue", "ready", "age", "leased", "delayed", "backing off", "publish/s", "ack/s"]);
  expect(lines[1]).toEqual([deep, "3", expect.stringMatching(/^\d+s$/), "0", "0", "0", "0", "0"]);
  expect((await runChild(["top", "--once", "--sort", "leased"], { env })).stdout.split("\n")[1]).toStartWith(leased);
});

test("prints objects, one a line, until it is interrupted", async () => {
  const child = startChild(["top", "--json", "--every", "1"], { env });
  await until(() => child.lines().length === 4);
  child.signal("SIGINT");
  expect(await child.exited).toBe(0);
  const shown = child.lines() as unknown as { queue_id: string; ready: number }[];
  expect(shown.slice(0, 2).map(({ queue_id, ready }) => [queue_id, ready])).toEqual([
    [deep, 3],
    [leased, 0],
  ]);
});

test("without a terminal says what to add", async () => {
  expect(await runChild(["top"], { env })).toMatchObject({
    code: 2,
    stderr: "psqlqueue: top draws on a terminal: add --once for one table, or --json for one object a line\n",
  });
});

test.if(Bun.which("tmux") !== null)(
  "draws itself anew as queues change and as the terminal does, and leaves it as it was",
  async () => {
    const terminal = openTerminal(url);
    terminal.run("top --every 1; echo ended with $?");
    const first = () => terminal.screen().split("\n")[4]?.split(" ")[0];
    await until(() => first() === deep);
    expect(terminal.screen()).toContain("2 queues by ready");
    terminal.type("l");
    await until(() => first() === leased);
    await put(deep);
    await until(() => / {2}4 {2}/.test(terminal.screen()));
    terminal.resize(50, 5);
    await until(
      () =>
        terminal
          .screen()
          .split("\n")
          .every((line) => line.length <= 50) && first() === leased,
    );
    expect(terminal.screen()).toContain("…");
    terminal.resize(100, 30);
    await until(() => terminal.screen().includes("publish/s"));
    terminal.type("C-c");
    await until(() => terminal.screen().includes("ended with 0"));
    expect(terminal.screen()).not.toContain("publish/s");
    terminal.close();
  },
);
