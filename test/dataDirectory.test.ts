import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { type Child, emptyDirectory, killChildren, runChild, sourceProgram, startChild } from "./child.ts";

setDefaultTimeout(90_000);

afterAll(killChildren);

const time: string = expect.any(String);
const any_port = {
  PSQLQUEUE_SERVER_HOST: "127.0.0.1",
  PSQLQUEUE_SERVER_PORT: "0",
  PSQLQUEUE_METRICS_HOST: "127.0.0.1",
  PSQLQUEUE_METRICS_PORT: "0",
};
const remedy = "one process at a time; set PSQLQUEUE_DATABASE_URL to use a PostgreSQL server instead";

const home = emptyDirectory();
const data_dir = path.join(home, "psqlqueue-data");

/** Waits until the server serves. */
async function started(child: Child): Promise<string> {
  const { url } = await child.waitFor("http server starting");
  return String(url);
}

describe("a server without a database URL", () => {
  test("warns that it makes a database, and tells which settings it saw; a closed terminal stops it gracefully", async () => {
    const dotenv_file = path.join(home, ".env");
    writeFileSync(dotenv_file, "PSQLQUEUE_DATABSE_URL=postgres://user:s3cret@localhost/x\n");
    const child = startChild(["server"], { cwd: home, env: any_port });
    await started(child);
    const message = "a new embedded database was made, because PSQLQUEUE_DATABASE_URL is not set";
    expect(await child.waitFor(message)).toEqual({
      time,
      level: "WARN",
      msg: message,
      data_dir,
      is_new: true,
      dotenv_file,
      unknown_settings: ["PSQLQUEUE_DATABSE_URL"],
      note: remedy,
    });
    // The shell tells it once more.
    child.signal("SIGHUP");
    await child.waitFor("server shutting down gracefully, press Ctrl+C again to force");
    child.signal("SIGHUP");
    expect(await child.exited).toBe(0);
    expect(child.lines().map(({ msg }) => msg)).toContain(
      "server shutting down gracefully, press Ctrl+C again to force",
    );
    expect(child.stdout()).not.toContain("s3cret");
  });

  test("says no more than that it opened the one that is there; under nohup a closed terminal changes nothing", async () => {
    const program = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", ...sourceProgram];
    const child = startChild(["server"], { cwd: home, env: any_port, program });
    const url = await started(child);
    const level = "INFO";
    expect(await child.waitFor("embedded database")).toEqual({
      time,
      level,
      msg: "embedded database",
      data_dir,
      is_new: false,
      note: remedy,
    });
    child.signal("SIGHUP");
    expect((await fetch(`${url}/v1/healthz`)).status).toBe(200);
    child.signal("SIGTERM");
    expect(await child.exited).toBe(0);
    expect(child.lines().filter(({ msg }) => msg.startsWith("server shutting down"))).toHaveLength(1);
  });
});

describe("a data directory that is not ours is refused, and nothing in it is changed:", () => {
  const foreign =
    "is not empty and not a psqlqueue data directory; nothing was changed. Name another with PSQLQUEUE_DATA_DIR";
  const file = (name: string) => (directory: string) => {
    mkdirSync(path.dirname(path.join(directory, name)), { recursive: true });
    writeFileSync(path.join(directory, name), "{}");
  };
  const cases: [string, (directory: string) => void, string][] = [
    ["somebody's home", file("letter.txt"), foreign],
    ["a home of dot files", file(".profile"), foreign],
    ["one with our name in it", file("postgresql/15/main/PG_VERSION"), foreign],
    ["the directory above a server's", file("15/PG_VERSION"), foreign],
    [
      "one with a format.json of another program",
      (directory) => {
        file("format.json")(directory);
        file("letter.txt")(directory);
      },
      foreign,
    ],
    ["a PostgreSQL server's", file("PG_VERSION"), "is the data directory of a PostgreSQL server"],
    [
      "one beside a database of ours without its format file",
      (directory) => {
        cpSync(path.join(data_dir, "postgresql"), path.join(directory, "postgresql"), { recursive: true });
        file("letter.txt")(directory);
      },
      foreign,
    ],
  ];
  const snapshot = (directory: string) =>
    readdirSync(directory, { recursive: true })
      .map((name) => `${name} ${statSync(path.join(directory, String(name))).mtimeMs}`)
      .sort();

  test.each(cases)("%s", async (_what, fill, sentence) => {
    const directory = emptyDirectory();
    fill(directory);
    const before = [statSync(directory).mode, ...snapshot(directory)];
    const { code, lines } = await runChild(["server"], { env: { ...any_port, PSQLQUEUE_DATA_DIR: directory } });
    expect(code).toBe(1);
    expect(lines).toEqual([
      { time, level: "ERROR", msg: "cli app failed", error: expect.stringContaining(`${directory} ${sentence}`) },
    ]);
    expect([statSync(directory).mode, ...snapshot(directory)]).toEqual(before);
  });

  test("a file", async () => {
    const directory = emptyDirectory();
    file("letter.txt")(directory);
    const given = path.join(directory, "letter.txt");
    const { lines } = await runChild(["server"], { env: { ...any_port, PSQLQUEUE_DATA_DIR: given } });
    expect(lines.at(-1)?.["error"]).toStartWith(
      `${given} is a file, or below one, and no directory; name another with`,
    );
  });

  const is_root = process.platform === "linux" && process.getuid?.() === 0;
  const nobody = ["setpriv", "--reuid=65534", "--clear-groups"];
  const can_be_nobody =
    is_root && Bun.spawnSync([...nobody, ...sourceProgram, "--version"], { stdout: "ignore" }).exitCode === 0;
  test.if(can_be_nobody)("one that this user may not write", async () => {
    const directory = mkdtempSync(path.join(tmpdir(), "psqlqueue-foreign-"));
    chmodSync(directory, 0o755);
    const program = [...nobody, ...sourceProgram];
    const { lines } = await runChild(["server"], { env: { ...any_port, PSQLQUEUE_DATA_DIR: directory }, program });
    expect(lines.at(-1)?.["error"]).toStartWith(
      `The data directory ${directory} is not readable and writable by this user (uid 65534): change its owner or its`,
    );
    expect(readdirSync(directory)).toEqual([]);
    rmSync(directory, { recursive: true });
  });

  const can_mount = is_root && Bun.spawnSync(["unshare", "--mount", "true"]).exitCode === 0;
  test.if(can_mount)("one on a file system that is read-only", async () => {
    const directory = emptyDirectory();
    const mount = 'mount -t tmpfs -o ro none "$PSQLQUEUE_DATA_DIR" && exec "$@"';
    const program = ["unshare", "--mount", "sh", "-c", mount, "sh", ...sourceProgram];
    const { lines } = await runChild(["server"], { env: { ...any_port, PSQLQUEUE_DATA_DIR: directory }, program });
    expect(lines.at(-1)?.["error"]).toStartWith(
      `The data directory ${directory} is on a file system that is read-only; name another with PSQLQUEUE_DATA_DIR`,
    );
  });

  test("migrate --from makes no database in an empty directory", async () => {
    const directory = emptyDirectory();
    const env = { PSQLQUEUE_DATABASE_URL: "postgres://127.0.0.1:1/x" };
    const { lines } = await runChild(["migrate", "--from", directory], { env });
    const error = `--from ${directory}: there is no embedded database in it; name its data directory`;
    expect(lines.at(-1)).toEqual({ time, level: "ERROR", msg: "cli app failed", error });
    expect(readdirSync(directory)).toEqual([]);
  });
});
