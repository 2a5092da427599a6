// Every process that the benchmark starts, ended by its pid when the benchmark ends, however it ends.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";

const cleanups: (() => unknown)[] = [];
let is_ending: Promise<void> | undefined;

/** Registers what must happen at the end; the last registered happens first. */
export function atEnd(cleanup: () => unknown): void {
  cleanups.push(cleanup);
}

/** Ends everything that was started. Repeatable. */
function endAll(): Promise<void> {
  is_ending ??= (async () => {
    for (let cleanup = cleanups.pop(); cleanup !== undefined; cleanup = cleanups.pop()) {
      try {
        await cleanup();
      } catch (error) {
        console.error(error);
      }
    }
  })();
  return is_ending;
}

/**
 * Runs a benchmark and answers its exit code: 1 when it throws, which is told by `explain`. What it started ends with
 * it, and with a signal that ends it before.
 */
export async function runToEnd(run: () => Promise<number>, explain = (error: unknown) => error): Promise<number> {
  for (const [signal, code] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
    ["SIGHUP", 129],
  ] as const) {
    process.on(signal, () => endAll().then(() => process.exit(code)));
  }
  try {
    return await run();
  } catch (error) {
    console.error(explain(error));
    return 1;
  } finally {
    await endAll();
  }
}

// The pipe to the shell closes when this process is gone, also after kill -9, which no handler of ours would see.
function guard(script: string, argument: string): void {
  const shell = Bun.spawn(["sh", "-c", `cat >/dev/null; ${script}`, "guard", argument], {
    stdin: "pipe",
    stdout: "ignore",
    stderr: "ignore",
    detached: true,
  });
  shell.unref();
  atEnd(() => shell.kill("SIGKILL"));
}

/** A new empty directory, removed at the end. */
export function temporaryDirectory(): string {
  const directory = mkdtempSync(path.join(tmpdir(), "psqlqueue-bench-"));
  // Later than the processes that write to it are killed.
  guard('sleep 5; rm -rf "$1"', directory);
  atEnd(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** Kills the process when this one is gone. */
export function guardProcess(pid: number): void {
  guard('kill "$1" && sleep 3 && kill -9 "$1"', String(pid));
}

type Spawned = { pid: number; exitCode: number | null; exited: Promise<number>; kill(signal: NodeJS.Signals): void };

/** Ends a process at the end of the benchmark: SIGTERM, and SIGKILL after 5 s. */
export function endAtEnd(child: Spawned): void {
  guardProcess(child.pid);
  atEnd(() => endProcess(child));
}

/** Ends a process now: SIGTERM, and SIGKILL after 5 s. Repeatable. */
export async function endProcess(child: Spawned): Promise<void> {
  if (child.exitCode !== null) return;
  child.kill("SIGTERM");
  const is_gone = await Promise.race([child.exited.then(() => true), Bun.sleep(5000).then(() => false)]);
  if (is_gone) return;
  child.kill("SIGKILL");
  await child.exited;
}

/** Resolves with the first match in a stream of text; rejects when it ends without one, or after `ms_max`. */
export async function waitForText(
  stream: ReadableStream<Uint8Array>,
  pattern: RegExp,
  ms_max: number,
): Promise<RegExpExecArray> {
  const found = Promise.withResolvers<RegExpExecArray>();
  let text = "";
  void (async () => {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      // Read to the end: a full pipe would stop the child.
      if (text.length > 1_000_000) continue;
      text += decoder.decode(chunk, { stream: true });
      const match = pattern.exec(text);
      if (match !== null) found.resolve(match);
    }
    found.reject(new Error(`the process ended without ${pattern}:\n${text}`));
  })();
  const timer = setTimeout(() => found.reject(new Error(`no ${pattern} within ${ms_max} ms:\n${text}`)), ms_max);
  try {
    return await found.promise;
  } finally {
    clearTimeout(timer);
  }
}
