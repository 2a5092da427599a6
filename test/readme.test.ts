import { expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { settings } from "../src/config.ts";
import { openService } from "./harness.ts";

const file = path.resolve(import.meta.dir, "../README.md");
const readme = readFileSync(file, "utf8");

const ulid = /\b[0-7][0-9A-HJKMNP-TV-Z]{25}\b/g;
const time = /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z/g;

/** Text with ids and times replaced, so that a run compares with what is printed. */
const plain = (text: string) => text.replace(ulid, "ID").replace(time, "T");

const parse = (text: string) => (text.trim() === "" ? "" : JSON.parse(plain(text)));

/** The commands of the walk-through and what each is shown to print. */
function readSteps(): { command: string; status: string; body: string }[] {
  const blocks = [...readme.matchAll(/^```console\n(.*?)^```/gms)].map(([, block]) => block ?? "");
  return blocks
    .join("\n")
    .split(/^\$ /m)
    .flatMap((step) => {
      const [command = "", status = "", ...body] = step.trim().split("\n");
      return command === "" ? [] : [{ command, status, body: body.join("\n") }];
    });
}

test.if(Bun.which("curl") !== null)(
  "the walk-through gives what the README shows",
  async () => {
    const service = await openService();
    service.app.listen({ port: 0, hostname: "127.0.0.1" });
    const origin = `http://127.0.0.1:${service.app.server?.port}`;
    const steps = readSteps();
    expect(steps.length).toBeGreaterThan(18);
    let id = "";
    for (const { command, status, body } of steps) {
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
    await service.app.server?.stop(true);
    await service.close();
  },
  30_000,
);

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
