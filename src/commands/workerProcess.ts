import type { Order, Report } from "./workerMessages.ts";

// Processes of one server listen on its port with SO_REUSEPORT, and Linux spreads new connections evenly over them. A
// worker is known by its number in the environment and by the channel to its parent; it ends with the channel.

const number_name = "PSQLQUEUE_WORKER_NUMBER";

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
    env: { ...process.env, [number_name]: String(number) },
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
export const isWorker = (): boolean => process.env[number_name] !== undefined && process.send !== undefined;
