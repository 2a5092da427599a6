import type { Order, Report } from "./workerMessages.ts";

// How processes share a port (Bun 1.4): a server of node:http listens with SO_REUSEPORT in a process that node:cluster
// takes for one of its workers, and Linux spreads new connections evenly over all that listen so. Such a process has
// NODE_UNIQUE_ID in its environment, has loaded node:cluster, and has a channel to its parent. We start it ourselves:
// cluster.fork() puts the path of a script before the arguments, which a compiled binary would take for a command. The
// end of the channel ends such a process at once, so none outlives a server that was killed.

export type WorkerProcess = {
  pid: number;
  /** Nothing happens when the process has ended. */
  send(order: Order): void;
  signal(name: NodeJS.Signals): void;
};

/** How a process ended: its code, or the signal that ended it. */
export type Ending = { code: number | null; signal: string | null };

/** The command that starts the server of this program. */
const program = (): string[] => [
  process.execPath,
  ...(Bun.isStandaloneExecutable ? [] : [...process.execArgv, Bun.main]),
  "server",
];

/** Starts a worker. `onReport` hears what it tells, and `onEnd` is called once, after that. */
export function startProcess(
  number: number,
  onReport: (report: Report) => void,
  onEnd: (ending: Ending) => void,
): WorkerProcess {
  const child = Bun.spawn(program(), {
    env: { ...process.env, NODE_UNIQUE_ID: String(number) },
    stdin: "ignore",
    stdout: "inherit",
    stderr: "inherit",
    ipc: (message) => onReport(message as Report),
  });
  child.exited.then(() =>
    onEnd({ code: child.exitCode, signal: child.signalCode === null ? null : String(child.signalCode) }),
  );
  return {
    pid: child.pid,
    send(order) {
      try {
        child.send(order);
      } catch {
        // It has just ended, which is told next.
      }
    },
    signal: (name) => child.kill(name),
  };
}

/** Is this process a worker of a server? */
export const isWorker = (): boolean => process.env["NODE_UNIQUE_ID"] !== undefined && process.send !== undefined;
