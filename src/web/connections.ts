import type http from "node:http";
import type net from "node:net";
import { BrokerError } from "../errors.ts";
import { carriedText } from "./answer.ts";
import type { IncomingRequest } from "./request.ts";

// A connection is
//
//   unused    → busy     a request arrived                     (else the server's header timeout ends it)
//   busy      → idle     all of its requests are answered
//   idle      → busy     the next request arrived
//             → closed   nothing came for the idle time, the client ended its side, or the server stops
//   any       → broken   what arrived is no HTTP: it is refused, and closed a moment later
//             → closed   the client closed it, a request took too long, or the server stops at once

export type ConnectionOptions = {
  refusal(error: BrokerError): Response;
  idle_seconds_max: number;
  body_rate_min: number;
  /** Over so many milliseconds the rate of a body is measured. */
  rate_window_ms: number;
  handler_seconds_max: number;
};

/** How long a client that was sent messages gets at least and at most to show that it is gone. */
const proof_ms_min = 50;
const proof_ms_max = 500;
/** How long what a refused client still sends is read and dropped: closing earlier would destroy the answer. */
const discard_ms_max = 5000;

type Open = {
  outgoing: http.ServerResponse;
  /** When it is answered that it took too long. */
  deadline_ms: number;
  window_ms: number;
  window_bytes: number;
};

export type Connection = {
  /** A request has arrived. */
  begin(request: IncomingRequest, outgoing: http.ServerResponse): void;
  /** It is answered, or nobody is there to be answered. Repeatable. */
  finish(request: IncomingRequest): void;
  /**
   * Resolves when the client has shown that it is there, by its next request, or was not heard of being gone for a
   * moment.
   */
  whenProven(request: IncomingRequest, outgoing: http.ServerResponse): Promise<void>;
  /** The client took some of a long answer. */
  note(): void;
  /** Refuses what arrived with these bytes, when nothing else is being answered, and closes soon. */
  break(refusal: string | undefined, linger_ms: number): void;
  closeWhenIdle(): void;
};

type Tracked = Connection & {
  check(now_ms: number): void;
  close(): void;
};

function createConnection(socket: net.Socket, options: ConnectionOptions): Tracked {
  const open = new Map<IncomingRequest, Open>();
  const handler_ms_max = options.handler_seconds_max * 1000;
  let is_used = false;
  let held: { since_ms: number; release(): void } | undefined;
  /** Of the last sign of life. */
  let last_ms = performance.now();
  /** From then on it is closed, whatever happens. */
  let end_ms = Number.POSITIVE_INFINITY;

  socket.on("error", () => {
    // A close follows.
  });
  socket.on("close", () => {
    for (const request of open.keys()) request.markGone();
  });

  function answerLate(request: IncomingRequest, { outgoing }: Open): void {
    const why = `no answer within ${options.handler_seconds_max} s; it may still happen`;
    const response = options.refusal(new BrokerError("unavailable", why));
    outgoing.writeHead(response.status, response.headers.toJSON() as http.OutgoingHttpHeaders);
    outgoing.end(carriedText(response));
    request.cut(response.status);
  }

  function checkRequest(request: IncomingRequest, own: Open, now_ms: number): void {
    const { bytes_read } = request;
    if (bytes_read !== undefined) {
      own.deadline_ms = now_ms + handler_ms_max;
      if (now_ms - own.window_ms < options.rate_window_ms) return;
      const bytes_min = (options.body_rate_min * (now_ms - own.window_ms)) / 1000;
      if (bytes_read - own.window_bytes < bytes_min) {
        const why = `the body came slower than ${options.body_rate_min} bytes per second`;
        request.fail(new BrokerError("request_timeout", why));
      }
      own.window_ms = now_ms;
      own.window_bytes = bytes_read;
    } else if (own.outgoing.headersSent) {
      if (now_ms - last_ms > options.idle_seconds_max * 1000) socket.destroy();
    } else if (now_ms > own.deadline_ms + request.wait_ms) answerLate(request, own);
  }

  return {
    begin(request, outgoing) {
      held?.release();
      is_used = true;
      const now_ms = performance.now();
      last_ms = now_ms;
      open.set(request, { outgoing, deadline_ms: now_ms + handler_ms_max, window_ms: now_ms, window_bytes: 0 });
      if (socket.destroyed) request.markGone();
    },
    finish(request) {
      const own = open.get(request);
      if (own === undefined) return;
      open.delete(request);
      last_ms = performance.now();
      const { req } = own.outgoing;
      if (req.complete || socket.destroyed) return;
      req.resume();
      end_ms = Math.min(end_ms, last_ms + discard_ms_max);
      req.once("end", () => {
        end_ms = Number.POSITIVE_INFINITY;
      });
    },
    async whenProven(request, outgoing) {
      if ([...open.keys()].at(-1) !== request) return;
      const { promise, resolve } = Promise.withResolvers<void>();
      const own = { since_ms: performance.now(), release: resolve };
      held = own;
      outgoing.once("close", resolve);
      // A client that waits for the end of the connection waits for us.
      if (!outgoing.shouldKeepAlive) setTimeout(resolve, proof_ms_min);
      await promise;
      if (held === own) held = undefined;
    },
    note() {
      last_ms = performance.now();
    },
    break(refusal, linger_ms) {
      const is_answering = [...open.keys()].some((request) => request.bytes_read === undefined);
      for (const request of open.keys()) if (request.bytes_read !== undefined) request.markGone();
      if (refusal === undefined) socket.destroy();
      else {
        if (!is_answering) socket.end(refusal);
        end_ms = performance.now() + linger_ms;
      }
    },
    closeWhenIdle() {
      held?.release();
      if (open.size === 0) socket.end();
    },
    check(now_ms) {
      if (held !== undefined && now_ms - held.since_ms > proof_ms_max) held.release();
      if (now_ms > end_ms) socket.destroy();
      else if (open.size > 0) for (const [request, own] of open) checkRequest(request, own, now_ms);
      else if (is_used && now_ms - last_ms > options.idle_seconds_max * 1000) socket.destroy();
    },
    close: () => socket.destroy(),
  };
}

/** The connections of a server. */
export function createConnections(options: ConnectionOptions) {
  const connections = new Map<net.Socket, Tracked>();
  let onEmpty: (() => void) | undefined;

  function add(socket: net.Socket): Tracked {
    const connection = createConnection(socket, options);
    connections.set(socket, connection);
    socket.once("close", () => {
      connections.delete(socket);
      if (connections.size === 0) onEmpty?.();
    });
    return connection;
  }

  return {
    add,
    of: (socket: net.Socket): Connection => connections.get(socket) ?? add(socket),
    /** Ends what takes too long; to be called about every second. */
    check(): void {
      const now_ms = performance.now();
      for (const connection of connections.values()) connection.check(now_ms);
    },
    /** Resolves when the last one is closed: the idle ones now, the others when they are answered, or all at once. */
    async close(is_forced: boolean): Promise<void> {
      for (const connection of connections.values()) {
        if (is_forced) connection.close();
        else connection.closeWhenIdle();
      }
      if (connections.size === 0) return;
      await new Promise<void>((resolve) => {
        const before = onEmpty;
        onEmpty = () => {
          before?.();
          resolve();
        };
      });
    },
  };
}
