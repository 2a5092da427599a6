import net from "node:net";
import { drizzle, type PostgresJsDatabase } from "drizzle-orm/postgres-js";
import type postgres from "postgres";
import { DatabaseError } from "../errors.ts";
import { observe } from "../observe.ts";
import { createProbe } from "./abandoned.ts";
import { createAvailability } from "./availability.ts";
import { disk_full, driverOptions, openClient, read_only } from "./driver.ts";
import { classify } from "./failures.ts";
import { createConnector, type DatabaseServer, isEmbedded, type ServerState } from "./hosts.ts";
import { createListener, type Listener } from "./listen.ts";
import { sessionSettings } from "./session.ts";
import { createWatchdog, type InFlight } from "./watchdog.ts";

/** How long a full disk makes the health check say no, after the last statement that met it. */
const full_ms = 10_000;

export type DatabaseOptions = {
  server: DatabaseServer;
  connections_max: number;
  connections_min?: number;
  /** Milliseconds until PostgreSQL cancels a statement. 2 s later the connection itself is given up. */
  statement_timeout_ms: number;
  /** Called when the database does not answer or does not take writes, and when it takes them again. */
  onAvailability?: (is_up: boolean, reason?: string) => void;
  /** Called when a statement found no room on the disk. */
  onDiskFull?: () => void;
  /** Called when connections are made to another server than before: what was read from the former may be undone. */
  onServerChange?: () => void;
};

/** A prepared Drizzle statement: what `.prepare("name")` returns. */
export type Prepared<T> = { execute(values?: Record<string, unknown>): PromiseLike<T> };

export type Db = {
  /** For building statements. Statements run through `run`, so that each has a deadline and clean errors. */
  orm: PostgresJsDatabase;
  /**
   * Runs one statement. Rejects with DatabaseError and nothing else, at the latest 2 s after the statement timeout.
   * `is_repeatable`: sent once more on a new connection when the first was lost; only for statements that may run
   * twice. What the first try may have done has been written, and replicated where that is awaited, before the second
   * is answered.
   */
  run<T>(name: string, statement: () => PromiseLike<T>, is_repeatable?: boolean): Promise<T>;
  /** Rejects with DatabaseError unless the database answers and takes writes. */
  ping(): Promise<void>;
  /**
   * Resolves when all that was committed before is as durable as a write is: replicated, where the database waits for
   * that. For answers that say that something has happened already. Repeatable.
   */
  confirm(): Promise<void>;
  /** The driver itself, for commands that are no statements (vacuum, checkpoint); without deadline and clean errors. */
  client: postgres.Sql;
  /** Statements in flight. */
  inFlight(): number;
  /** Listens on a connection of its own, again after each loss, and tells whether notifications arrive. */
  listen: Listener["listen"];
  /** Ends after the statements in flight, at most `seconds` later. */
  close(seconds?: number): Promise<void>;
};

const deadline_slack_ms = 2000;
/** Outcomes that a second try would not better: the wait was long enough, or the server has said how it ended. */
const answered = new Set(["DEADLINE", "NOT_REPLICATED"]);

function notice(level: "INFO" | "WARN", message: string, details: Record<string, unknown>): void {
  observe({ kind: "notice", level, message, details });
}

/** A connection that fails at once, in the way that the driver's pool recovers from. */
function refusedSocket(): net.Socket {
  const socket = new net.Socket();
  const error = Object.assign(new Error("too many backends were given up"), { code: "BACKENDS_ABANDONED" });
  setImmediate(() => socket.destroy(error));
  return socket;
}

/** Opens the pool. Does not connect yet, unless `connections_min` asks for it. */
export function openPostgres(options: DatabaseOptions): Db {
  const { server, connections_max, statement_timeout_ms } = options;
  const connector = createConnector(server, {
    onTrouble: (host, reason) => notice("WARN", "database host passed over", { host, reason }),
    onChange: (host) => {
      notice("INFO", "connected to another database host", { host });
      options.onServerChange?.();
    },
  });
  const watchdog = createWatchdog(statement_timeout_ms + deadline_slack_ms, () => probe?.start());
  const own = driverOptions(server, connector, sessionSettings(statement_timeout_ms));
  const probe = isEmbedded(server) ? undefined : createProbe(watchdog.abandoned, own);
  // Together with those given up, at most twice the pool; the one that asks after them is counted, too.
  const mayOpen = () =>
    probe === undefined ||
    watchdog.abandoned.size === 0 ||
    watchdog.openCount() + watchdog.abandoned.size + 2 <= 2 * connections_max;
  const base = {
    ...own,
    max: connections_max,
    backoff: (retries: number) => Math.min(0.5, 0.05 * 2 ** Math.min(retries, 10)),
    socket: () => (mayOpen() ? watchdog.track(connector.connect()) : refusedSocket()),
    onsession: (socket: net.Socket, pid: number, state: ServerState) => {
      watchdog.setBackend(socket, pid);
      return own.onsession(socket, pid, state);
    },
  };
  const client = openClient(base);
  const orm = drizzle(client);

  const once = <T>(name: string, statement: () => PromiseLike<T>): Promise<T> =>
    new Promise((resolve, reject) => {
      const entry: InFlight = { name, started_at_ms: performance.now(), reject };
      watchdog.add(entry);
      statement().then(
        (result) => {
          watchdog.in_flight.delete(entry);
          resolve(result);
        },
        (error) => {
          watchdog.in_flight.delete(entry);
          reject(classify(name, error));
        },
      );
    });

  const listener = createListener(openClient, base, client, once);

  /**
   * Writes, and returns when that is committed and replicated, and with it all that was committed before. A transaction
   * that writes nothing does not wait for the standby.
   */
  async function confirm(): Promise<void> {
    const rows = await once(
      "confirm",
      () => client`
        select pg_logical_emit_message(true, 'psqlqueue', '')::text as position
        where current_setting('transaction_read_only') = 'off'`,
    );
    if (rows.length === 0) throw new DatabaseError("unavailable", read_only, "confirm");
  }
  const availability = createAvailability(confirm, (is_up, reason) => options.onAvailability?.(is_up, reason));
  // Where a read-only server is acceptable, another connection would reach no other.
  const moves_max = connector.count - 1 + (connector.target === "any" ? 0 : connections_max);

  /** When a statement last found no room on the disk. */
  let full_at_ms = Number.NEGATIVE_INFINITY;

  async function run<T>(name: string, statement: () => PromiseLike<T>, is_repeatable = false): Promise<T> {
    const started_at_ms = performance.now();
    let is_repeat = false;
    for (let moves = 0; ; ) {
      try {
        const result = await once(name, statement);
        // What the first try did may wait for its standby still, while this one found it done and wrote nothing.
        if (is_repeat) await confirm();
        return result;
      } catch (thrown) {
        const error = thrown as DatabaseError;
        if (error.code === disk_full) {
          full_at_ms = performance.now();
          options.onDiskFull?.();
        }
        const may_move = moves < (error.code === read_only ? moves_max : connector.count - 1);
        if (error.failure === "unavailable" && may_move && performance.now() - started_at_ms < statement_timeout_ms) {
          moves += 1; // Nothing happened, and the next connection goes to another server.
          continue;
        }
        // A pooled connection that died while idle shows only when it is used. One second try, never a storm.
        const is_worth_it = !answered.has(error.code) && !watchdog.hasGivenUpSince(started_at_ms);
        if (error.failure === "lost" && is_repeatable && !is_repeat && is_worth_it) {
          is_repeat = true;
          continue;
        }
        if (error.failure === "unavailable" || error.code === "DEADLINE") availability.noteFailure(error.message);
        throw error;
      }
    }
  }

  if (options.connections_min !== undefined && options.connections_min > 0) {
    // Held for a moment at the same time, so that each takes a connection of its own.
    for (let i = 0; i < options.connections_min; i++) client`select pg_sleep(0.05)`.catch(() => {});
  }

  return {
    orm,
    client,
    run,
    confirm: () => run("confirm", confirm, true),
    async ping() {
      const [row] = await run("ping", () => client`select current_setting('transaction_read_only') as read_only`, true);
      if (row?.["read_only"] === "on") {
        const error = new DatabaseError("unavailable", read_only, "ping");
        availability.noteFailure(error.message);
        throw error;
      }
      if (!availability.isUp()) throw new DatabaseError("unavailable", "NOT_WRITABLE", "ping");
      if (performance.now() - full_at_ms < full_ms) throw new DatabaseError("timeout", disk_full, "ping");
    },
    inFlight: () => watchdog.in_flight.size,
    listen: listener.listen,
    async close(seconds = 5) {
      availability.close();
      probe?.close();
      await listener.close();
      await client.end({ timeout: seconds }).catch(() => {});
      watchdog.destroyAll();
    },
  };
}
