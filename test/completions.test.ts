import { expect, setDefaultTimeout, test } from "bun:test";
import { writeFileSync } from "node:fs";
import path from "node:path";
import { catalogue } from "../src/commandLine/catalogue.ts";
import { emptyDirectory, runChild } from "./child.ts";

setDefaultTimeout(90_000);

const directory = emptyDirectory();

/** What stands on the line, the cursor behind it, and what a shell then offers: these words among others. */
const cases: [line: string, offered: string[], not_offered: string[]][] = [
  ["psqlqueue ", ["server", "queue", "publish", "help"], ["create", "--json"]],
  ["psqlqueue que", ["queue"], ["publish"]],
  ["psqlqueue queue ", ["create", "purge"], ["publish"]],
  ["psqlqueue queue create orders --", ["--ack-deadline", "--json", "--help"], ["--force"]],
  ["psqlqueue peek orders --state ", ["ready", "leased"], ["--limit"]],
  ["psqlqueue redrive dead --reason rej", ["rejected"], ["expired"]],
  ["psqlqueue task ", ["watch", "cancel"], ["redrive"]],
];

async function scriptOf(shell: string): Promise<string> {
  const { code, stdout, stderr } = await runChild(["completions", shell]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  const file = path.join(directory, `psqlqueue.${shell}`);
  writeFileSync(file, stdout);
  return file;
}

async function offers(command: string[]): Promise<string[]> {
  const child = Bun.spawn(command, {
    stdout: "pipe",
    stderr: "pipe",
    env: { PATH: process.env["PATH"] ?? "", HOME: directory },
  });
  const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  expect(stderr).toBe("");
  return stdout.split("\n").map((line) => line.split("\t")[0] ?? "");
}

test.if(Bun.which("bash") !== null)("bash completes commands, options and their words", async () => {
  const file = await scriptOf("bash");
  for (const [line, offered, others] of cases) {
    const words = line.split(" ");
    const script = `source ${file}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _psqlqueue; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const given = await offers(["bash", "-c", script, "bash", ...words]);
    expect([line, offered.filter((word) => !given.includes(word))]).toEqual([line, []]);
    expect([line, others.filter((word) => given.includes(word))]).toEqual([line, []]);
  }
});

test.if(Bun.which("fish") !== null)("fish completes commands, options and their words", async () => {
  const file = await scriptOf("fish");
  for (const [line, offered, others] of cases) {
    const given = await offers(["fish", "-c", `source ${file}; complete -C ${JSON.stringify(line)}`]);
    expect([line, offered.filter((word) => !given.includes(word))]).toEqual([line, []]);
    expect([line, others.filter((word) => given.includes(word))]).toEqual([line, []]);
  }
});

test.if(Bun.which("zsh") !== null)("zsh completes commands, options and their words", async () => {
  const file = await scriptOf("zsh");
  // What its own completion system would call.
  const stubs = 'compdef() { :; }; compadd() { shift; print -l -- "$@"; }; _files() { :; }';
  for (const [line, offered, others] of cases) {
    const script = `${stubs}; source ${file}; words=("$@"); CURRENT=$#; _psqlqueue`;
    const given = await offers(["zsh", "-f", "-c", script, "zsh", ...line.split(" ")]);
    expect([line, offered.filter((word) => !given.includes(word))]).toEqual([line, []]);
    // compadd itself leaves out what does not begin as the word does.
    const begun = line.split(" ").at(-1) ?? "";
    const left = given.filter((word) => word.startsWith(begun));
    expect([line, others.filter((word) => left.includes(word))]).toEqual([line, []]);
  }
});

test("scripts name every command and option", async () => {
  for (const shell of ["bash", "zsh", "fish"]) {
    const { stdout } = await runChild(["completions", shell]);
    for (const { path: own, options = [] } of catalogue) {
      const words = [...own.split(" "), ...options.map(({ name }) => name)];
      expect([shell, own, words.filter((word) => !stdout.includes(word))]).toEqual([shell, own, []]);
    }
  }
  const other = await runChild(["completions", "tcsh"]);
  expect(other).toMatchObject({
    code: 2,
    stderr: "psqlqueue: there are no completions for tcsh; there are bash, zsh, fish\n",
  });
});

test("schema --json is the catalogue: every command, its options, and what it does to what is stored", async () => {
  const { stdout } = await runChild(["schema", "--json"]);
  const commands: { command: string; effect: string; options: { name: string }[] }[] = JSON.parse(stdout);
  expect(commands.map(({ command, effect, options }) => [command, effect, options.map(({ name }) => name)])).toEqual(
    catalogue.map(({ path: own, effect, options = [] }) => [own, effect, options.map(({ name }) => `--${name}`)]),
  );
  // What destroys asks first.
  for (const { command, effect, options } of commands) {
    const is_asking = options.some(({ name }) => name === "--yes");
    expect([command, is_asking]).toEqual([command, effect === "destroys"]);
  }
  expect((await runChild(["schema"])).stdout).toMatch(/^command +effect +about\nserver +serves /);
});
