import type http from "node:http";
import type net from "node:net";
import tls from "node:tls";
import { BrokerError } from "../errors.ts";
import { observe } from "../observe.ts";
import { takeUnsent } from "./answer.ts";
import { type Connection, createConnections } from "./connections.ts";
import {
  type Certificates,
  check_ms,
  type Given,
  type Handlers,
  header_bytes_max,
  openServer,
  secureOptions,
} from "./openServer.ts";
import { createRequest, type IncomingRequest, type RequestHeaders } from "./request.ts";
import { rawResponse, sendResponse } from "./send.ts";
import { readTarget } from "./target.ts";

// The HTTP server. node's, because the runtime's own closes a connection on which a second request arrives before the
// first is answered, drops requests of clients that have ended their side, and hides the path as it was written.

export type ListenerOptions = {
  hostname: string;
  port: number;
  /** TLS; without them there is none. */
  certificates?: Certificates | undefined;
  /** Answers a request. Never rejects. */
  fetch(request: Request): Promise<Response>;
  /** How a refusal is worded. */
  refusal(error: BrokerError): Response;
  /** Seconds until a connection without a request is closed. */
  idle_seconds_max: number;
  /** Seconds until a client has sent the headers of a request. */
  header_seconds_max: number;
  /** Bytes per second that a body must keep; 0: none. */
  body_rate_min: number;
  /** Over so many milliseconds that is measured. */
  rate_window_ms: number;
  /** Seconds until a request is answered 503, without what it asks to wait. */
  handler_seconds_max: number;
};

export type Listener = {
  port: number;
  /** Goes on with other certificates, for new connections. Throws when they cannot be used: then nothing changes. */
  reload(certificates: Certificates): Promise<void>;
  /** Accepts nothing more and closes each connection when it is idle; with `is_forced` at once. Repeatable. */
  stop(is_forced?: boolean): Promise<void>;
};

const host_name = /^(?:\[[\da-f:.%\w]*\]|[\w.~!$&'()*+,;=%-]*)(?::\d*)?$/i;

/** How long a client is listened to after it was refused, so that the closing does not destroy the answer. */
const linger_ms = 1000;

/** What the parser found, in the words of this service. */
function parserError(error: Error & { code?: string }): BrokerError {
  const code = error.code ?? "";
  if (code === "ERR_HTTP_REQUEST_TIMEOUT") {
    return new BrokerError("request_timeout", "the headers did not arrive in time");
  }
  if (code === "HPE_HEADER_OVERFLOW") {
    return new BrokerError("headers_too_large", `request line and headers may have ${header_bytes_max} bytes`);
  }
  const what = code.replace(/^HPE_/, "").replaceAll("_", " ").toLowerCase();
  return new BrokerError("bad_request", `not HTTP/1.1 (${what || "unreadable"})`);
}

/** A request that no route may see: without a host that names one server, or with a path that is not what it seems. */
function problemOf(headers: RequestHeaders, target: string | undefined, http_version: string): BrokerError | undefined {
  const host = headers.get("host");
  if (host === null && http_version !== "1.0") {
    return new BrokerError("bad_request", "there is no Host header");
  }
  if (host !== null && !host_name.test(host)) {
    return new BrokerError("bad_request", "the Host header is not a host");
  }
  if (headers.count("host") > 1) return new BrokerError("bad_request", "there is more than one Host header");
  return target === undefined ? new BrokerError("route_not_found") : undefined;
}

/** Serves HTTP/1.1. Rejects when it cannot listen. */
export async function startListener(options: ListenerOptions): Promise<Listener> {
  const { refusal } = options;
  const connections = createConnections(options);
  let is_stopping = false;

  async function answer(connection: Connection, request: IncomingRequest, outgoing: http.ServerResponse) {
    let response: Response;
    try {
      response = await options.fetch(request as unknown as Request);
    } catch (error) {
      observe({ kind: "internal_error", where: "listener", error });
      response = refusal(new BrokerError("internal"));
    }
    // Answered already, for it took too long; or there is nobody to be answered.
    if (outgoing.headersSent || request.is_gone) {
      takeUnsent(response)?.();
      await response.body?.cancel();
      connection.finish(request);
      return;
    }
    await sendResponse(connection, request, outgoing, response);
    connection.finish(request);
    if (is_stopping) connection.closeWhenIdle();
  }

  function take(incoming: http.IncomingMessage, outgoing: http.ServerResponse, given: Given) {
    const target = readTarget(incoming.url ?? "");
    const request = createRequest(incoming, {
      url: `http://localhost${target ?? "/"}`,
      problemOf: (headers) =>
        given.error === undefined ? problemOf(headers, target, incoming.httpVersion) : new BrokerError(given.error),
      askForBody: given.expects ? () => outgoing.writeContinue() : undefined,
    });
    const connection = connections.of(incoming.socket);
    connection.begin(request, outgoing);
    void answer(connection, request, outgoing);
  }

  /** Answers what is no request. What is being answered on that connection comes first. */
  function refuseBytes(error: Error & { code?: string }, socket: net.Socket): void {
    const connection = connections.of(socket);
    const problem = parserError(error);
    observe({ kind: "malformed_request", reason: `${error.code ?? error.message}`, request_id: "" });
    connection.break(
      !socket.writable || error.code === "ECONNRESET" ? undefined : rawResponse(refusal(problem)),
      linger_ms,
    );
  }

  const handlers: Handlers = {
    onRequest: take,
    onConnection: connections.add,
    onBroken: refuseBytes,
    methodRefusal: () => rawResponse(refusal(new BrokerError("method_not_allowed"))),
  };
  let server = await openServer(options, handlers, options.certificates);
  const check = setInterval(() => connections.check(), check_ms);
  const address = server.address() as net.AddressInfo;

  return {
    port: address.port,
    async reload(certificates) {
      // Throws before anything is changed.
      tls.createSecureContext(secureOptions(certificates));
      // The port is free at once. Connections with a request go on until it is answered; idle ones are closed, as they
      // are at the end of their time.
      server.close();
      server = await openServer({ ...options, port: address.port }, handlers, certificates);
    },
    async stop(is_forced = false) {
      if (!is_stopping) server.close();
      is_stopping = true;
      await connections.close(is_forced);
      clearInterval(check);
    },
  };
}
