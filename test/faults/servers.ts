// The server as its users run it, as a process that is started again on its port after whatever was done to it.

import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { freePort, type Machine } from "../postgres.ts";
import { childrenOf, isAlive } from "../processes.ts";

/** How to start it from this source: Bun itself reads no `.env` then, as in the binary. */
export const sourceProgram = (root: string): string[] => [
  process.execPath,
  "--no-env-file",
  path.join(root, "src/main.ts"),
];

const start_ms_max = 60_000;
const output_characters_max = 100_000;
/** For workers, which end by themselves when their parent is gone: their port must be free for the next server. */
const orphan_ms_max = 5000;

export type ServerProcess = {
  port: number;
  /** Undefined while it does not run. */
  pid(): number | undefined;
  /** Resolves when it listens. Throws with its output when it ends instead. */
  start(): Promise<void>;
  /** kill -9. Resolves when it is gone, and its workers with it. No-op while it does not run. */
  kill(): Promise<void>;
  /** SIGTERM: resolves with the exit code. */
  stop(): Promise<number>;
  /** What it has written to standard output and error since the last start. */
  output(): string;
};

export type ServerOptions = {
  /** See `sourceProgram`. */
  program: string[];
  env: Record<string, string>;
  /** Instead of here, on the loopback. */
  machine?: Machine | undefined;
  /** Told when it ends although nobody asked it to, or writes to standard error. */
  onProblem(problem: string): void;
};

// Everything that a run writes, but for its PostgreSQL.
const scratch = mkdtempSync(path.join(tmpdir(), "psqlqueue-faults-"));

// One shell kills what is left when this process is gone, also after kill -9, which no handler of ours would see.
const guard = Bun.spawn(
  [
    "sh",
    "-c",
    `trap '' TERM INT; left=
     while read change pid; do
       if [ "$change" = + ]; then left="$left $pid"
       else left=$(for one in $left; do [ "$one" = "$pid" ] || printf ' %s' "$one"; done); fi
     done
     for one in $left; do kill -9 "$one"; done
     rm -rf "$1"`,
    "guard",
    scratch,
  ],
  { stdin: "pipe", stdout: "ignore", stderr: "ignore", detached: true },
);
guard.unref();

/** `+`: this process is killed when ours is gone. `-`: it has ended. */
export function tellGuard(change: "+" | "-", pid: number): void {
  guard.stdin.write(`${change} ${pid}\n`);
  guard.stdin.flush();
}

/** A new empty directory; it goes when this process has ended. */
export function scratchDirectory(name: string): string {
  return mkdtempSync(path.join(scratch, `${name}-`));
}

/** Prepares a server on a free port; it does not run yet. */
export async function createServer(options: ServerOptions): Promise<ServerProcess> {
  const port = await freePort();
  const metrics_port = await freePort();
  const home = scratchDirectory("home");
  const env = {
    PATH: process.env["PATH"] ?? "",
    HOME: home,
    TMPDIR: tmpdir(),
    PSQLQUEUE_SERVER_HOST: options.machine?.address ?? "127.0.0.1",
    PSQLQUEUE_SERVER_PORT: String(port),
    PSQLQUEUE_METRICS_HOST: "127.0.0.1",
    PSQLQUEUE_METRICS_PORT: String(metrics_port),
    PSQLQUEUE_UI: "off",
    PSQLQUEUE_QUEUE_MAX_NUMBER_OF_MESSAGES: "100",
    ...options.env,
  };
  let output = "";
  let running: { pid: number; exited: Promise<number>; is_asked: boolean; kill(signal: NodeJS.Signals): void } | null =
    null;

  async function collect(stream: ReadableStream<Uint8Array>, is_error: boolean): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      const text = decoder.decode(chunk, { stream: true });
      output = (output + text).slice(-output_characters_max);
      if (is_error && text.trim() !== "") options.onProblem(`a server wrote to standard error: ${text.slice(0, 500)}`);
    }
  }

  async function launch(): Promise<void> {
    output = "";
    const child = Bun.spawn([...(options.machine?.enter ?? []), ...options.program, "server"], {
      cwd: home,
      env,
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    tellGuard("+", child.pid);
    const written = Promise.all([collect(child.stdout, false), collect(child.stderr, true)]);
    const own = {
      pid: child.pid,
      is_asked: false,
      kill: (signal: NodeJS.Signals) => child.kill(signal),
      exited: child.exited.then(async (code) => {
        await written;
        tellGuard("-", child.pid);
        if (!own.is_asked) options.onProblem(`a server ended by itself with ${code}: ${output.slice(-1000)}`);
        if (running === own) running = null;
        return code;
      }),
    };
    running = own;
    const end_ms = performance.now() + start_ms_max;
    while (!output.includes('"msg":"http server starting"')) {
      if (running !== own) throw new Error(`the server did not start: ${output}`);
      if (performance.now() > end_ms) throw new Error(`the server did not listen in time: ${output}`);
      await Bun.sleep(5);
    }
  }

  async function end(signal: NodeJS.Signals): Promise<number> {
    const own = running;
    if (own === null) return 0;
    own.is_asked = true;
    own.kill(signal);
    return await own.exited;
  }

  async function kill(): Promise<void> {
    const orphans = running === null || process.platform !== "linux" ? [] : childrenOf(running.pid);
    const ended = end("SIGKILL");
    const end_ms = performance.now() + orphan_ms_max;
    while (orphans.some(isAlive) && performance.now() < end_ms) await Bun.sleep(5);
    const left = orphans.filter(isAlive);
    if (left.length > 0) options.onProblem(`${left.length} workers of a killed server had not ended after 5 s`);
    for (const pid of left) process.kill(pid, "SIGKILL");
    await ended;
  }

  return {
    port,
    pid: () => running?.pid,
    start: launch,
    kill,
    stop: () => end("SIGTERM"),
    output: () => output,
  };
}
