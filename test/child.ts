// The program as its users run it: a child process with an environment of its own, far from this checkout's files.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { until } from "./harness.ts";

const main = path.resolve(import.meta.dir, "../src/main.ts");
const scratch = mkdtempSync(path.join(tmpdir(), "psqlqueue-child-"));
process.on("exit", () => rmSync(scratch, { recursive: true, force: true }));

/** An empty directory below one that no `.env` is in. */
export function emptyDirectory(): string {
  return mkdtempSync(path.join(scratch, "cwd-"));
}

export type LogLine = { time: string; level: string; msg: string; [member: string]: unknown };

export type Child = {
  pid: number;
  /** What it has written so far. */
  stdout(): string;
  stderr(): string;
  /** Standard output so far as log lines; throws when one is not JSON. */
  lines(): LogLine[];
  /** The first log line with this message; throws with all output when the process ends without it. */
  waitFor(msg: string): Promise<LogLine>;
  signal(name: "SIGTERM" | "SIGINT" | "SIGHUP" | "SIGKILL"): void;
  /** The exit code, once all output has been read; a signal's is 128 and more. */
  exited: Promise<number>;
};

export type ChildOptions = {
  env?: Record<string, string>;
  cwd?: string;
  /** What is started, instead of this source by Bun. */
  program?: string[];
  /** Standard input; without it there is none. */
  stdin?: string | Uint8Array<ArrayBuffer>;
};

/** Bun itself reads no `.env` then, as in the binary. */
export const sourceProgram = [process.execPath, "--no-env-file", main];

const living = new Set<Child>();

/** Starts `psqlqueue …args` with nothing in its environment but `env` and what a program needs to run. */
export function startChild(args: string[], options: ChildOptions = {}): Child {
  const started = Bun.spawn([...(options.program ?? sourceProgram), ...args], {
    cwd: options.cwd ?? emptyDirectory(),
    env: { PATH: process.env["PATH"] ?? "", HOME: scratch, TMPDIR: scratch, ...options.env },
    stdin: options.stdin === undefined ? "ignore" : new Blob([options.stdin]),
    stdout: "pipe",
    stderr: "pipe",
  });
  const written = { stdout: "", stderr: "" };
  const collect = async (name: keyof typeof written) => {
    const decoder = new TextDecoder();
    for await (const chunk of started[name]) written[name] += decoder.decode(chunk, { stream: true });
  };
  let has_ended = false;
  const exited = Promise.all([started.exited, collect("stdout"), collect("stderr")]).then(([code]) => {
    has_ended = true;
    living.delete(child);
    return code;
  });
  const lines = () =>
    written.stdout
      .split("\n")
      .slice(0, -1)
      .map((line) => JSON.parse(line) as LogLine);
  const child: Child = {
    pid: started.pid,
    stdout: () => written.stdout,
    stderr: () => written.stderr,
    lines,
    async waitFor(msg) {
      let found: LogLine | undefined;
      await until(() => {
        found = lines().find((line) => line.msg === msg);
        if (found === undefined && has_ended)
          throw new Error(`ended without ${msg}:\n${written.stdout}${written.stderr}`);
        return found !== undefined;
      }, 60_000);
      return found as LogLine;
    },
    signal: (name) => started.kill(name),
    exited,
  };
  living.add(child);
  return child;
}

export type Finished = { code: number; stdout: string; stderr: string; lines: LogLine[] };

/** Runs `psqlqueue …args` to its end. `lines` is empty when standard output is not a log. */
export async function runChild(args: string[], options: ChildOptions = {}): Promise<Finished> {
  const child = startChild(args, options);
  const code = await child.exited;
  const is_log = child.stdout().startsWith("{");
  return { code, stdout: child.stdout(), stderr: child.stderr(), lines: is_log ? child.lines() : [] };
}

/** Kills whatever a test has left running. For `afterAll`. */
export async function killChildren(): Promise<void> {
  const left = [...living];
  for (const child of left) child.signal("SIGKILL");
  await Promise.all(left.map((child) => child.exited));
}

export type ServerChild = Child & { url: string; metrics_url: string };

/** Starts `psqlqueue server` on free ports of the loopback and waits until it listens. */
export async function startServerChild(database_url: string, env: Record<string, string> = {}): Promise<ServerChild> {
  const child = startChild(["server"], {
    env: {
      PSQLQUEUE_DATABASE_URL: database_url,
      PSQLQUEUE_SERVER_HOST: "127.0.0.1",
      PSQLQUEUE_SERVER_PORT: "0",
      PSQLQUEUE_METRICS_HOST: "127.0.0.1",
      PSQLQUEUE_METRICS_PORT: "0",
      ...env,
    },
  });
  const { port } = await child.waitFor("http server starting");
  const { port: metrics_port } = await child.waitFor("metrics server starting");
  return Object.assign(child, { url: `http://127.0.0.1:${port}`, metrics_url: `http://127.0.0.1:${metrics_port}` });
}
