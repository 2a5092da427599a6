import { expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { settings } from "../src/config.ts";
import { emptyDirectory, sourceProgram } from "./child.ts";
import { is_embedded, listen, openService, uniqueId, until } from "./harness.ts";
import { verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const file = path.resolve(import.meta.dir, "../README.md");
const readme = readFileSync(file, "utf8");

const ulid = /\b[0-7][0-9A-HJKMNP-TV-Z]{25}\b/g;
const time = /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z/g;

/** Text with ids and times replaced, so that a run compares with what is printed. */
const plain = (text: string) => text.replace(ulid, "ID").replace(time, "T");

const parse = (text: string) => (text.trim() === "" ? "" : JSON.parse(plain(text)));

/** The commands of one of the two walk-throughs, and what each is shown to print. */
function readSteps(program: "curl" | "psqlqueue"): { command: string; printed: string }[] {
  const blocks = [...readme.matchAll(/^```console\n(.*?)^```/gms)].map(([, block]) => block ?? "");
  return blocks
    .filter((block) => block.includes(`$ ${program} `))
    .join("\n")
    .split(/^\$ /m)
    .flatMap((step) => {
      const [command = "", ...printed] = step.trim().split("\n");
      return command === "" ? [] : [{ command, printed: printed.join("\n") }];
    });
}

test.if(Bun.which("curl") !== null)("the walk-through gives what the README shows", async () => {
  const service = await openService();
  const listener = await listen(service.app);
  const origin = `http://127.0.0.1:${listener.port}`;
  const steps = readSteps("curl");
  expect(steps.length).toBeGreaterThan(18);
  let id = "";
  for (const { command, printed } of steps) {
    const [status = "", ...rest] = printed.split("\n");
    const body = rest.join("\n");
    const sleep = /^sleep (\d+)$/.exec(command);
    if (sleep !== null) {
      await service.elapse(Number(sleep[1]));
      continue;
    }
    const line = command.replaceAll("http://localhost:8000", origin).replace(ulid, id);
    const child = Bun.spawn(["sh", "-c", line.replace("curl -i", "curl -si")], { stdout: "pipe" });
    const [head = "", answer = ""] = (await new Response(child.stdout).text()).split("\r\n\r\n");
    expect({ command, status: head.split("\r\n")[0] }).toEqual({ command, status });
    // Newer members come after those that are shown.
    expect({ command, body: parse(answer) }).toMatchObject({ command, body: parse(body) });
    id = answer.match(ulid)?.[0] ?? id;
  }
  await listener.stop(true);
  await service.close();
});

test("the same walk with the command line prints what the README shows", async () => {
  const service = await openService();
  const listener = await listen(service.app);
  const steps = readSteps("psqlqueue");
  expect(steps.length).toBeGreaterThan(18);
  const directory = emptyDirectory();
  writeFileSync(path.join(directory, "psqlqueue"), `#!/bin/sh\nexec ${sourceProgram.join(" ")} "$@"\n`, {
    mode: 0o755,
  });
  const env = {
    PATH: `${directory}:${process.env["PATH"]}`,
    PSQLQUEUE_URL: `http://127.0.0.1:${listener.port}`,
  };
  let id = "";
  for (const { command, printed } of steps) {
    const sleep = /^sleep (\d+)$/.exec(command);
    if (sleep !== null) {
      await service.elapse(Number(sleep[1]));
      continue;
    }
    const child = Bun.spawn(["sh", "-c", `${command.replace(ulid, id)} 2>&1`], { env, stdout: "pipe" });
    const answer = (await new Response(child.stdout).text()).trimEnd();
    expect({ command, printed: plain(answer) }).toEqual({ command, printed: plain(printed) });
    id = answer.match(ulid)?.[0] ?? id;
  }
  await listener.stop(true);
  await service.close();
});

test.if(!is_embedded)("the SQL does what the README says, as the role it is granted to", async () => {
  const service = await openService();
  const { put, take, look, receive } = verbsOf(service);
  const [block = ""] = [...readme.matchAll(/^```sql\n(.*?)^```/gms)].map(([, text]) => text);
  const [grants = "", publishing = "", acking = ""] = block.split(/^begin;$/m);
  await service.call("POST", "/v1/queues", { id: "orders", ack_deadline_seconds: 30, message_retention_seconds: 1000 });
  const role = uniqueId("shop").replaceAll("-", "_");
  const asRole = async (text: string) => {
    await service.sql.begin(async (session) => {
      await session.unsafe(`set local role ${role}`);
      await session.unsafe(text.replace("commit;", ""));
    });
  };
  await service.sql.unsafe(`create role ${role}; create table orders (id int, total numeric, paid_at timestamptz);
    grant all on orders to ${role}; ${grants.replaceAll("to shop;", `to ${role};`)}`);
  await asRole(publishing);
  await until(async () => {
    await service.broker.moveOutbox();
    const [message] = await receive("orders");
    return message?.label === "created" && message.body === '{"order":4711}';
  });
  await put("orders");
  const { id, lease_token } = await take("orders");
  await asRole(acking.replace(ulid, id).replace(/'\d{19}'/, `'${lease_token}'`));
  expect((await look("orders", id)).body.state).toBe("acked");
  expect([...(await service.sql`select total, paid_at is not null as is_paid from orders`)]).toEqual([
    { total: "99.50", is_paid: true },
  ]);
  await service.sql.unsafe(`drop owned by ${role}; drop role ${role}`);
  await service.close();
});

const table = [
  "| name | default | allowed | meaning |",
  "|---|---|---|---|",
  ...Object.entries(settings).map(
    ([name, setting]) => `| \`${name}\` | ${setting.default || "empty"} | ${setting.allowed} | ${setting.meaning} |`,
  ),
].join("\n");

test("the table of settings is the one the program reads", () => {
  const current = /<!-- settings -->\n(.*?)<!-- \/settings -->/s.exec(readme)?.[1];
  if (process.env["UPDATE_README"] === "1") {
    const updated = readme.replace(
      /<!-- settings -->.*<!-- \/settings -->/s,
      `<!-- settings -->\n${table}\n<!-- /settings -->`,
    );
    writeFileSync(file, updated);
  } else expect(current).toBe(`${table}\n`);
});
