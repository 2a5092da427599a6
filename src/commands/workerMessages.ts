// What a server and its workers tell each other, over the channel between their processes.

import type { Ready } from "../broker/deliver/siblings.ts";
import type { Origin } from "../config.ts";
import type { Level } from "../log.ts";
import type { Numbers } from "../metrics.ts";
import type { ListenerName } from "./listeners.ts";

/** The ports that are listened on; undefined: that listener does not exist. */
export type Ports = Partial<Record<ListenerName, number>>;

/** A line of the log. */
export type Line = { level: Level; message: string; details?: Record<string, unknown> | undefined };

/** What one worker tells the others. */
export type Told =
  | { about: "ready"; ready: Ready[] }
  /** How many processes of other servers there are; kept for workers that start later. */
  | { about: "others"; count: number }
  /** Whether notifications of PostgreSQL arrive; kept, too. */
  | { about: "listening"; is_listening: boolean }
  /** A queue that needs the statement for caps, rates and priorities, or no longer does. */
  | { about: "governed"; queue_id: string; is_governed: boolean }
  /** A key was revoked; without its id: some may have been. */
  | { about: "key"; id: string | undefined }
  /** SQS: a queue was purged, or its name given up. */
  | { about: "purged" | "deleted"; queue_id: string };

/** All that a worker must know to begin. */
export type Start = {
  kind: "start";
  /** Version and commit of the server: its program may have been replaced since it started. */
  program: string;
  /** From 1. A worker that takes the place of one that ended has its number. */
  number: number;
  /** How many there are to be. */
  workers: number;
  /** The settings as they were given: those that the server has checked. */
  values: Record<string, string | undefined>;
  origin: Origin;
  holder: string;
  addresses: Record<ListenerName, string>;
  /** Those that the first worker got, where any free one was asked for. */
  ports: Ports;
  /** It says what is to be said once, at the start of the server. */
  is_first: boolean;
  leads: boolean;
};

/** From the server to a worker. */
export type Order =
  | Start
  /** It does from now on what one of them does for all. */
  | { kind: "lead" }
  | { kind: "stop" }
  | { kind: "told"; told: Told }
  /** Whether another worker wants to hear what becomes ready. */
  | { kind: "wanted"; is_wanted: boolean }
  | { kind: "count"; id: number }
  | { kind: "counted"; id: number; numbers: Numbers[] };

/** From a worker to the server. */
export type Report =
  /** It waits for its start. */
  | { kind: "loaded" }
  | { kind: "up"; ports: Ports; lines: Line[] }
  /** It could not start: what a server without workers would say. */
  | { kind: "failed"; line: Line; stderr: string | undefined }
  | { kind: "tell"; told: Told }
  | { kind: "want"; is_wanting: boolean }
  /** A scrape: the numbers of all others are wanted, and these are its own. */
  | { kind: "count"; id: number; own: Numbers }
  | { kind: "counted"; id: number; own: Numbers };
