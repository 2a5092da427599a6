import type net from "node:net";
import { DatabaseError } from "../errors.ts";

/** A connection, and when it was last seen to have heard more. Counted in bytes: TLS takes a socket's listeners off. */
type Tracked = { bytes: number; heard_at_ms: number; pid: number | undefined };

/** A statement that is out. */
export type InFlight = { name: string; started_at_ms: number; reject: (error: DatabaseError) => void };

const watch_interval_ms = 250;

/**
 * Gives a statement that gets no answer an end. postgres.js has no deadline of its own: on a connection that went
 * silent (no FIN) its queries never settle. So the sockets are ours: past the deadline the caller gets its error, and
 * every socket that has heard nothing since is destroyed.
 *
 * What the server does about it is another matter: a backend that waits for a synchronous standby does not see that its
 * client has left. Such backends are remembered in `abandoned`.
 */
export function createWatchdog(deadline_ms: number, onAbandoned: () => void = () => {}) {
  const sockets = new Map<net.Socket, Tracked>();
  const in_flight = new Set<InFlight>();
  const abandoned = new Set<number>();
  let timer: ReturnType<typeof setInterval> | undefined;
  let gave_up_at_ms = Number.NEGATIVE_INFINITY;

  const forgetClosed = () => {
    for (const socket of sockets.keys()) if (socket.destroyed) sockets.delete(socket);
  };

  /** What was heard just before the statement was seen up to one interval after it. */
  const giveUpSilent = (now: number) => {
    gave_up_at_ms = now;
    const silent_ms = deadline_ms - 2 * watch_interval_ms;
    for (const [socket, { heard_at_ms, pid }] of sockets) {
      if (now - heard_at_ms < silent_ms) continue;
      socket.destroy();
      if (pid !== undefined) abandoned.add(pid);
    }
    if (abandoned.size > 0) onAbandoned();
  };

  const look = () => {
    const now = performance.now();
    forgetClosed();
    for (const [{ bytesRead }, tracked] of sockets) {
      if (bytesRead !== tracked.bytes) Object.assign(tracked, { bytes: bytesRead, heard_at_ms: now });
    }
    let is_stuck = false;
    for (const entry of in_flight) {
      if (now - entry.started_at_ms < deadline_ms) break; // in order of start
      in_flight.delete(entry);
      entry.reject(new DatabaseError("lost", "DEADLINE", entry.name));
      is_stuck = true;
    }
    if (is_stuck) giveUpSilent(now);
    if (in_flight.size === 0) {
      clearInterval(timer);
      timer = undefined;
    }
  };

  return {
    in_flight,
    /** Process ids of backends whose connection was given up, and which may still be there. */
    abandoned,
    add(entry: InFlight): void {
      in_flight.add(entry);
      timer ??= setInterval(look, watch_interval_ms);
    },
    track(socket: net.Socket): net.Socket {
      sockets.set(socket, { bytes: 0, heard_at_ms: performance.now(), pid: undefined });
      return socket;
    },
    /** Which backend serves this connection. */
    setBackend(socket: net.Socket, pid: number): void {
      const tracked = sockets.get(socket);
      if (tracked !== undefined) tracked.pid = pid;
      abandoned.delete(pid);
    },
    openCount(): number {
      forgetClosed();
      return sockets.size;
    },
    /** Has a connection been given up since then? What was lost with it has waited long enough. */
    hasGivenUpSince: (at_ms: number) => gave_up_at_ms >= at_ms,
    /** Cuts every connection: for the end of the process, when waiting is over. */
    destroyAll(): void {
      for (const socket of sockets.keys()) socket.destroy();
      clearInterval(timer);
    },
  };
}
