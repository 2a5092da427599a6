import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createQueue, listen, serviceForFile } from "./harness.ts";

setDefaultTimeout(90_000);

// What is published: packed, installed into a directory that is not ours, and used from there.
const service = await serviceForFile();
const listener = await listen(service.app);
afterAll(() => listener.stop(true));
const root = path.resolve(import.meta.dir, "..");
const directory = mkdtempSync(path.join(tmpdir(), "psqlqueue-client-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

async function run(command: string[], cwd = directory): Promise<string> {
  const child = Bun.spawn(command, { cwd, stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  if ((await child.exited) !== 0) throw new Error(`${command.join(" ")} failed:\n${stdout}${stderr}`);
  return stdout;
}

const installed = path.join(directory, "node_modules/@psqlqueue/client");

beforeAll(async () => {
  await run([process.execPath, "pm", "pack", "--destination", directory, "--quiet"], path.join(root, "client"));
  const file = readdirSync(directory).find((name) => name.endsWith(".tgz"));
  writeFileSync(path.join(directory, "package.json"), '{ "type": "module" }');
  await run([process.execPath, "add", "--silent", `./${file}`]);
}, 120_000);

const script = `import { createClient, NotFoundError } from "@psqlqueue/client";
const [url, id] = process.argv.slice(2);
const client = createClient({ url });
const queue = client.queue(id);
await queue.publishBatch(Array.from({ length: 30 }, (_, i) => ({ body: String(i) })));
const bodies = [];
const consumer = queue.consume(({ body }) => {
  bodies.push(body);
  if (bodies.length === 30) consumer.stop();
}, { wait_seconds: 1 });
await consumer.finished;
for await (const message of queue.messages({ until_empty: true })) throw new Error("left: " + message.body);
const error = await client.queue("none").publish({ body: "x" }).catch((error) => error);
const { leased, ready } = await queue.stats();
console.log(JSON.stringify({ sum: bodies.reduce((sum, body) => sum + Number(body), 0), leased, ready,
  is_not_found: error instanceof NotFoundError, code: error.code }));
`;

test("it holds the built code, its types and nothing else, and depends on nothing", () => {
  const manifest = JSON.parse(readFileSync(path.join(installed, "package.json"), "utf8"));
  const own = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8"));
  expect({ name: manifest.name, version: manifest.version }).toEqual({
    name: "@psqlqueue/client",
    version: own.version,
  });
  expect(Object.keys(manifest).filter((name) => /dependencies/i.test(name))).toEqual([]);
  expect(
    readdirSync(installed)
      .filter((name) => !name.startsWith("."))
      .sort(),
  ).toEqual(["README.md", "dist", "package.json"]);
  const files = readdirSync(path.join(installed, "dist"));
  expect(files.filter((name) => !/\.(js|d\.ts)$/.test(name))).toEqual([]);
  for (const name of files) {
    const text = readFileSync(path.join(installed, "dist", name), "utf8");
    const imports = [...text.matchAll(/(?:from|import\()\s*"([^"]+)"/g)].map(([, to]) => to);
    expect(imports.filter((to) => !/^\.\/\w+\.js$/.test(to ?? ""))).toEqual([]);
    expect(text).not.toMatch(/\b(Bun|Buffer|process)\b\./);
  }
});

const programs = [[process.execPath], ["node"], ["deno", "run", "--quiet", "--allow-net"]];
const found = programs.filter(([name = ""]) => Bun.which(name) !== null).map((command) => [command]);

test.each(found)("%p can use it", async (command) => {
  const queue = await createQueue(service);
  writeFileSync(path.join(directory, "use.js"), script);
  const output = await run([...command, "use.js", `http://127.0.0.1:${listener.port}`, queue]);
  expect(JSON.parse(output)).toEqual({ sum: 435, leased: 0, ready: 0, is_not_found: true, code: 5 });
});

test("its types are found, and say what a call answers", async () => {
  writeFileSync(
    path.join(directory, "types.ts"),
    `import { createClient, type Message } from "@psqlqueue/client";
const client = createClient({ url: "http://localhost:8000" });
const [message] = await client.queue("q").receive({ limit: 1 });
export const body: string | undefined = message?.body;
export const ids = (messages: Message[]): string[] => messages.map(({ id }) => id);
const wrong: number = (await client.queues.get("q")).id;
`,
  );
  // And the example of the README is one that compiles.
  const readme = readFileSync(path.join(root, "README.md"), "utf8");
  const [, example = ""] = /^```ts\n(.*?)^```/ms.exec(readme) ?? [];
  const declared =
    "declare const process: { env: { PSQLQUEUE_KEY?: string }; once(name: string, work: () => void): void };";
  writeFileSync(path.join(directory, "readme.ts"), `${example}\n${declared}\n`);
  const options = ["--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--lib", "esnext,dom"];
  writeFileSync(
    path.join(directory, "tsconfig.json"),
    JSON.stringify({ compilerOptions: { types: [] }, files: ["types.ts", "readme.ts"] }),
  );
  const compiler = path.join(root, "node_modules/.bin/tsc");
  const compiled = Bun.spawn([compiler, ...options], { cwd: directory, stdout: "pipe" });
  const errors = (await new Response(compiled.stdout).text()).trim().split("\n");
  expect(errors).toEqual(["types.ts(6,7): error TS2322: Type 'string' is not assignable to type 'number'."]);
});
