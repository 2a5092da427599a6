import net from "node:net";
import { drizzle, type PostgresJsDatabase } from "drizzle-orm/postgres-js";
import postgres from "postgres";
import { DatabaseError } from "../errors.ts";
import { classify, isRefused } from "./failures.ts";
import { sessionSettings } from "./session.ts";

export type DatabaseOptions = {
  /** A postgres:// URL, or the private socket of the embedded database. */
  server: string | { host: string; path: string; user: string; password: string; database: string };
  connections_max: number;
  connections_min?: number;
  /** Milliseconds until PostgreSQL cancels a statement. 2 s later the connection itself is given up. */
  statement_timeout_ms: number;
  /** Called when the database becomes unreachable, and when it is back. */
  onAvailability?: (is_up: boolean) => void;
};

/** A prepared Drizzle statement: what `.prepare("name")` returns. */
export type Prepared<T> = { execute(values?: Record<string, unknown>): PromiseLike<T> };

export type Db = {
  /** For building statements. Statements run through `run`, so that each has a deadline and clean errors. */
  orm: PostgresJsDatabase;
  /**
   * Runs one statement. Rejects with DatabaseError and nothing else, at the latest 2 s after the statement timeout.
   * `is_repeatable`: sent once more on a new connection when the first was lost; only for statements that may run
   * twice.
   */
  run<T>(name: string, statement: () => PromiseLike<T>, is_repeatable?: boolean): Promise<T>;
  /** The driver itself, for commands that are no statements (vacuum, checkpoint); without deadline and clean errors. */
  client: postgres.Sql;
  /** Statements in flight. */
  inFlight(): number;
  /** Listens on a connection of its own; listens again by itself after a loss and calls `onListening` each time. */
  listen(channel: string, onPayload: (payload: string) => void, onListening: () => void): Promise<() => Promise<void>>;
  /** Ends after the statements in flight, at most `seconds` later. */
  close(seconds?: number): Promise<void>;
};

/** A connection, and when it was last seen to have heard more. Counted in bytes: TLS takes a socket's listeners off. */
type Tracked = { socket: net.Socket; bytes: number; heard_at_ms: number };
type InFlight = { name: string; started_at_ms: number; reject: (error: DatabaseError) => void };

const watch_interval_ms = 250;
const deadline_slack_ms = 2000;

/**
 * Gives a statement that gets no answer an end. postgres.js has no deadline of its own: on a connection that went
 * silent (no FIN) its queries never settle. So the sockets are ours: past the deadline the caller gets its error, and
 * every socket that has heard nothing since is destroyed.
 */
function createWatchdog(deadline_ms: number) {
  const sockets = new Set<Tracked>();
  const in_flight = new Set<InFlight>();
  let timer: ReturnType<typeof setInterval> | undefined;
  let gave_up_at_ms = Number.NEGATIVE_INFINITY;

  const look = () => {
    const now = performance.now();
    for (const tracked of sockets) {
      const { bytesRead, destroyed } = tracked.socket;
      if (destroyed) sockets.delete(tracked);
      else if (bytesRead !== tracked.bytes) Object.assign(tracked, { bytes: bytesRead, heard_at_ms: now });
    }
    let is_stuck = false;
    for (const entry of in_flight) {
      if (now - entry.started_at_ms < deadline_ms) break; // in order of start
      in_flight.delete(entry);
      entry.reject(new DatabaseError("lost", "DEADLINE", entry.name));
      is_stuck = true;
    }
    if (is_stuck) {
      gave_up_at_ms = now;
      // What was heard just before the statement was seen up to a look after it.
      const silent_ms = deadline_ms - 2 * watch_interval_ms;
      for (const { socket, heard_at_ms } of sockets) if (now - heard_at_ms >= silent_ms) socket.destroy();
    }
    if (in_flight.size === 0) {
      clearInterval(timer);
      timer = undefined;
    }
  };

  return {
    in_flight,
    add(entry: InFlight): void {
      in_flight.add(entry);
      timer ??= setInterval(look, watch_interval_ms);
    },
    track(socket: net.Socket): net.Socket {
      sockets.add({ socket, bytes: 0, heard_at_ms: performance.now() });
      return socket;
    },
    /** Has a connection been given up since then? What was lost with it has waited long enough. */
    hasGivenUpSince: (at_ms: number) => gave_up_at_ms >= at_ms,
    /** Cuts every connection: for the end of the process, when waiting is over. */
    destroyAll(): void {
      for (const { socket } of sockets) socket.destroy();
      clearInterval(timer);
    },
  };
}

/**
 * Opens a connection. It is handed to postgres.js while still connecting: what is written meanwhile is kept, and a
 * refusal arrives as the socket's own error and close, which is the only way that its pool recovers from one.
 */
function createConnector(server: DatabaseOptions["server"]) {
  let attempt = 0;
  return (options: { host: string[]; port: number[]; path?: string }): net.Socket => {
    const path = typeof server === "string" ? options.path : server.path;
    if (path) return net.connect({ path });
    const i = attempt % options.host.length;
    const host = options.host[i] ?? "localhost";
    const port = options.port[i] ?? 5432;
    const socket = net.connect({ host, port, noDelay: true });
    socket.once("error", () => attempt++); // the next connection tries the next host
    return Object.assign(socket, { host, port });
  };
}

/** Opens the pool. Does not connect yet, unless `connections_min` asks for it. */
export function openPostgres(options: DatabaseOptions): Db {
  const watchdog = createWatchdog(options.statement_timeout_ms + deadline_slack_ms);
  const connect = createConnector(options.server);
  const base = {
    max: options.connections_max,
    connect_timeout: 5,
    backoff: (retries: number) => Math.min(0.5, 0.05 * 2 ** Math.min(retries, 10)),
    onnotice() {},
    socket: (own: { host: string[]; port: number[]; path?: string }) => watchdog.track(connect(own)),
    connection: sessionSettings(options.statement_timeout_ms),
  };
  const client =
    typeof options.server === "string"
      ? postgres(options.server, base as object)
      : postgres({ ...base, ...options.server } as object);
  const orm = drizzle(client);

  let is_up = true;
  const noteAvailability = (now_up: boolean) => {
    if (now_up === is_up) return;
    is_up = now_up;
    options.onAvailability?.(now_up);
  };

  const once = <T>(name: string, statement: () => PromiseLike<T>): Promise<T> =>
    new Promise((resolve, reject) => {
      const entry: InFlight = { name, started_at_ms: performance.now(), reject };
      watchdog.add(entry);
      statement().then(
        (result) => {
          watchdog.in_flight.delete(entry);
          if (!is_up) noteAvailability(true);
          resolve(result);
        },
        (error) => {
          watchdog.in_flight.delete(entry);
          reject(classify(name, error));
        },
      );
    });

  async function run<T>(name: string, statement: () => PromiseLike<T>, is_repeatable = false): Promise<T> {
    const started_at_ms = performance.now();
    try {
      return await once(name, statement);
    } catch (first) {
      const error = first as DatabaseError;
      // A pooled connection that died while idle shows only when it is used. One second try, never a storm.
      const is_worth_it =
        error.code !== "DEADLINE" && !isRefused(error.code) && !watchdog.hasGivenUpSince(started_at_ms);
      if (error.failure === "lost" && is_repeatable && is_worth_it) {
        try {
          return await once(name, statement);
        } catch (second) {
          noteFailure(second as DatabaseError);
          throw second;
        }
      }
      noteFailure(error);
      throw error;
    }
  }

  const noteFailure = (error: DatabaseError) => {
    if (error.failure === "unavailable" || error.code === "DEADLINE") noteAvailability(false);
  };

  if (options.connections_min !== undefined && options.connections_min > 0) {
    // Held for a moment at the same time, so that each takes a connection of its own.
    for (let i = 0; i < options.connections_min; i++) client`select pg_sleep(0.05)`.catch(() => {});
  }

  return {
    orm,
    client,
    run,
    inFlight: () => watchdog.in_flight.size,
    async listen(channel, onPayload, onListening) {
      const listening = await client.listen(channel, onPayload, onListening);
      return () => listening.unlisten();
    },
    async close(seconds = 5) {
      await client.end({ timeout: seconds }).catch(() => {});
      watchdog.destroyAll();
    },
  };
}
