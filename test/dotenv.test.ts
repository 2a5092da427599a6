import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { buildBinary } from "./binary.ts";
import { emptyDirectory, killChildren, runChild, sourceProgram } from "./child.ts";

setDefaultTimeout(90_000);

afterAll(killChildren);

const time: string = expect.any(String);

function directoryWith(content: string | Uint8Array): string {
  const directory = emptyDirectory();
  writeFileSync(path.join(directory, ".env"), content);
  return directory;
}

const name = "PSQLQUEUE_LOG_LEVEL";
/** UTF-16, little-endian, or big-endian when its bytes are swapped. */
const wide = (text: string, is_big = false) => {
  const bytes = Buffer.from(text, "utf16le");
  return is_big ? bytes.swap16() : bytes;
};

/** A `.env`, and what it makes of a setting: no value here can be used, so each is told. undefined: as if not set. */
const rows: [what: string, content: string | Uint8Array, value: string | undefined][] = [
  ["a plain value", `${name}=a b`, "a b"],
  ["blanks around it", ` \t${name} \t= \ta  \n`, "a"],
  ["a byte order mark", `\ufeff${name}=a`, "a"],
  ["UTF-16 of Windows", wide(`\ufeff${name}=ü\r\n`), "ü"],
  ["UTF-16 of Windows without its mark", wide(`# a\r\n${name}=ü\r\n`), "ü"],
  ["UTF-16, big-endian", wide(`\ufeff${name}=ü`, true), "ü"],
  ["UTF-16, big-endian, without its mark", wide(`${name}=ü`, true), "ü"],
  ["# in a value", `${name}=p#ss`, "p#ss"],
  ["# in quotes", `${name}='p #ss' # comment`, "p #ss"],
  ["a comment after a value", `${name}=a # comment`, "a"],
  ["$ in a value", `${name}=$HOME\${HOME}$`, `$HOME\${HOME}$`],
  ["$ in double quotes", `${name}="a$HOME"`, "a$HOME"],
  ["single quotes", `${name}='a "b" \\n'`, 'a "b" \\n'],
  ["double quotes", `${name}="a 'b'\\n\\r"`, "a 'b'\n\r"],
  ["a path of Windows in double quotes", `${name}="C:\\data\\"`, "C:\\data\\"],
  ["backquotes", `${name}=\`a "b" 'c'\``, `a "b" 'c'`],
  ["several lines in quotes", `${name}="a\nb # c"\n`, "a\nb # c"],
  ["CRLF", `A=1\r\n${name}=a\r\nB=2`, "a"],
  ["a lone CR", `A=1\r${name}=a\rB=2`, "a"],
  ["export", `export ${name}=a`, "a"],
  ["a colon instead of =", `${name}: a`, "a"],
  ["= in a value", `${name}=a=b`, "a=b"],
  ["a name twice", `${name}=a\n${name}=b`, "b"],
  ["nothing", `${name}=`, undefined],
  ["nothing in quotes", `${name}=""`, undefined],
  ["nothing and a comment", `${name}= # a`, undefined],
  ["a comment of a setting", `# ${name}=a`, undefined],
];

describe.each(["source", "binary"])("from %s", (from) => {
  test("a .env is read as the package dotenv reads it, # in a value is kept, and $ means nothing", async () => {
    const program = from === "source" ? sourceProgram : [await buildBinary()];
    const left = [...rows];
    const work = async () => {
      for (let row = left.shift(); row !== undefined; row = left.shift()) {
        const [what, content, value] = row;
        const env = { HOME: "/home", PSQLQUEUE_SERVER_PORT: "1" };
        const { stderr } = await runChild(["healthcheck"], { cwd: directoryWith(content), env, program });
        const said = stderr.split(/ cannot be used| not answer/)[0];
        const wanted =
          value === undefined ? "http://127.0.0.1:1/v1/healthz did" : `psqlqueue: ${name}=${JSON.stringify(value)}`;
        expect({ what, said }).toEqual({ what, said: wanted });
      }
    };
    await Promise.all([work(), work(), work(), work()]);
  }, 120_000);
});

test("what is not understood is told by file and line, never by its value", async () => {
  const lines = ["s3cret", "A='s3cret", 'B="s3cret" s3cret', "C=\xff s3cret", "# \xff", "D=1"];
  const cwd = directoryWith(Buffer.from(lines.join("\n"), "latin1"));
  const answer = await runChild(["healthcheck"], { cwd, env: { PSQLQUEUE_SERVER_PORT: "1" } });
  const file = path.join(cwd, ".env");
  const warning = { time, level: "WARN", msg: "a line of .env is not understood", file };
  expect(answer.lines).toEqual([
    { time, level: "INFO", msg: "Found .env", file },
    { ...warning, line: 1, reason: "it is not NAME=value" },
    { ...warning, line: 2, reason: "a quote that is not closed" },
    { ...warning, line: 3, reason: "text behind the closing quote" },
    { ...warning, line: 4, reason: "bytes that are neither UTF-8 nor UTF-16" },
  ]);
  expect(answer.stdout + answer.stderr).not.toContain("s3cret");
});

test("a setting of .env that the environment has empty is told: the environment wins", async () => {
  const cwd = directoryWith("PSQLQUEUE_DATABASE_URL=postgres://localhost/x\n");
  const env = { PSQLQUEUE_SERVER_PORT: "1", PSQLQUEUE_DATABASE_URL: "" };
  const { lines } = await runChild(["healthcheck"], { cwd, env });
  expect(lines.slice(1)).toEqual([
    {
      time,
      level: "WARN",
      msg: "a setting of .env is not used: it is empty in the environment",
      setting: "PSQLQUEUE_DATABASE_URL",
      remedy: "unset PSQLQUEUE_DATABASE_URL in the environment for the value of .env to count",
    },
  ]);
});

test("a directory named .env is passed over", async () => {
  const outer = directoryWith(`${name}=no`);
  mkdirSync(path.join(outer, "in/.env"), { recursive: true });
  const found = await runChild(["healthcheck"], { cwd: path.join(outer, "in") });
  expect(found.stderr).toStartWith(`psqlqueue: ${name}="no" cannot be used`);
});

const as_nobody = ["setpriv", "--reuid=65534", "--clear-groups", ...sourceProgram];
const can_be_nobody =
  process.platform === "linux" &&
  process.getuid?.() === 0 &&
  Bun.spawnSync([...as_nobody, "--version"], { stdout: "ignore", stderr: "ignore" }).exitCode === 0;
test.if(can_be_nobody)("a .env that this user may not read stops the start, in words", async () => {
  const cwd = mkdtempSync(path.join(tmpdir(), "psqlqueue-dotenv-"));
  chmodSync(cwd, 0o755);
  const file = path.join(cwd, ".env");
  writeFileSync(file, `${name}=info`, { mode: 0o600 });
  const { stderr, code } = await runChild(["healthcheck"], { cwd, program: as_nobody });
  rmSync(cwd, { recursive: true });
  expect(code).toBe(1);
  expect(stderr).toStartWith(`psqlqueue: ${file} cannot be read: EACCES`);
  expect(stderr).toContain("; make it readable for this user, or start in a directory that has none above it");
});

test("names that are no settings are told, with the nearest that is; Kubernetes' own are not", async () => {
  const cwd = directoryWith("psqlqueue_database_url=x\nPSQL_QUEUE_DATA_DIR=x\nDATABASE_URL=x\n");
  const env = {
    PSQLQUEUE_SERVER_PORT: "1",
    PSQLQUEUE_LOGLEVEL: "debug",
    PSQLQUEUE_HOST: "x",
    PSQLQUEUE_FROBNICATE: "x",
  };
  const { lines } = await runChild(["healthcheck"], { cwd, env });
  const unknown = (setting: string, from: string, remedy: string) => ({
    time,
    level: "WARN",
    msg: "a setting that does not exist",
    setting,
    from,
    remedy,
  });
  const file = path.join(cwd, ".env");
  const mine = lines.slice(1).toSorted((a, b) => String(a["setting"]).localeCompare(String(b["setting"])));
  expect(mine).toEqual([
    unknown("PSQL_QUEUE_DATA_DIR", file, "write PSQLQUEUE_DATA_DIR if that is meant"),
    unknown("psqlqueue_database_url", file, "write PSQLQUEUE_DATABASE_URL if that is meant"),
    unknown("PSQLQUEUE_FROBNICATE", "the environment", "`psqlqueue server --help` lists what there is"),
    unknown("PSQLQUEUE_HOST", "the environment", "write PSQLQUEUE_SERVER_HOST if that is meant"),
    unknown("PSQLQUEUE_LOGLEVEL", "the environment", "write PSQLQUEUE_LOG_LEVEL if that is meant"),
  ]);
  const kubernetes = {
    KUBERNETES_SERVICE_HOST: "10.0.0.1",
    PSQLQUEUE_SERVER_PORT: "1",
    PSQLQUEUE_SERVICE_HOST: "10.0.0.2",
    PSQLQUEUE_SERVICE_PORT_HTTP: "8000",
    PSQLQUEUE_PORT: "tcp://10.0.0.2:8000",
    PSQLQUEUE_PORT_8000_TCP_ADDR: "10.0.0.2",
  };
  expect((await runChild(["healthcheck"], { env: kubernetes })).lines).toEqual([]);
});

describe("Bun's own reading of .env files", () => {
  const [bun = "", , main = ""] = sourceProgram;
  const program = [bun, main];
  const content = `${name}=a$HOME`;
  const root = path.resolve(import.meta.dir, "..");

  test("is off where bunfig.toml is, and in the scripts of package.json", async () => {
    const cwd = directoryWith(content);
    copyFileSync(path.join(root, "bunfig.toml"), path.join(cwd, "bunfig.toml"));
    const { stderr } = await runChild(["healthcheck"], { cwd, program, env: { HOME: "/x" } });
    expect(stderr).toStartWith(`psqlqueue: ${name}="a$HOME" cannot be used`);
    const { scripts } = (await Bun.file(path.join(root, "package.json")).json()) as { scripts: { start: string } };
    expect(scripts.start).toEndWith("bun --no-env-file src/main.ts server");
  });

  test("is told when the source is started in another directory without --no-env-file", async () => {
    const cwd = directoryWith(content);
    const { lines } = await runChild(["healthcheck"], { cwd, program, env: { HOME: "/x" } });
    expect(lines.find(({ level }) => level === "WARN")).toEqual({
      time,
      level: "WARN",
      msg: "Bun has read the files .env of this directory in its own way before",
      directory: cwd,
      files: [".env"],
      remedy: "start with `bun --no-env-file`, or use the binary",
    });
  });
});
