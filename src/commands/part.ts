import os from "node:os";
import type { Log } from "../log.ts";
import type { Link } from "./link.ts";
import type { ListenerName } from "./listeners.ts";
import type { Ports } from "./workerMessages.ts";

/** What this process is of a server: all of it, or one of the workers that serve together. */
export type Part = {
  /** The server's name among those of the database. */
  holder: string;
  /** Writes what is said at the start of a server, by one of its processes. */
  say: Log;
  /** What is found out about the database is said by one process, too. */
  is_first: boolean;
  /** What one process does for all: shared jobs, and what is heard from other servers. */
  leads: boolean;
  /** Undefined: whatever the settings say, and not checked yet. */
  addresses?: Record<ListenerName, string>;
  ports: Ports;
  /** Undefined: this process is alone. */
  link?: Link;
};

/** A name that no other server has. One of several processes says how many at the end. */
export function newHolder(workers: number): string {
  const name = `${os.hostname()}:${process.pid}:${crypto.randomUUID()}`;
  return workers > 1 ? `${name}:${workers}` : name;
}

/** A server of one process. */
export const wholeServer = (log: Log): Part => ({
  holder: newHolder(1),
  say: log,
  is_first: true,
  leads: true,
  ports: {},
});
