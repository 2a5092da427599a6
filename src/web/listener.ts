import tls from "node:tls";
import { BrokerError } from "../errors.ts";
import { observe } from "../observe.ts";
import { takeSent, takeUnsent } from "./answer.ts";
import { createConnections } from "./connections.ts";
import type { Exchange } from "./exchange.ts";
import { type Head, header_bytes_max, type ParserError } from "./parser.ts";
import { type Certificates, openPort, type Port } from "./port.ts";
import { createRequest, RequestHeaders } from "./request.ts";
import { rawResponse, sendResponse } from "./send.ts";
import { readTarget } from "./target.ts";

// The HTTP server: connections of the runtime, and the parser of node. The runtime's own server closes a connection on
// which a second request arrives before the first is answered, drops requests of clients that have ended their side,
// and hides the path as it was written; its server of node's kind costs twice as much for each request.

export type ListenerOptions = {
  hostname: string;
  port: number;
  /** Other processes listen on the port too. */
  is_shared?: boolean;
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

/** How often what takes too long is looked for. */
const check_ms = 1000;
const headers_max = 200;

/** What the parser found, in the words of this service. */
function parserError(error: ParserError): BrokerError {
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
function problemOf(
  head: Head,
  headers: RequestHeaders,
  target: string | undefined,
  expectation: string | null,
): BrokerError | undefined {
  if (head.headers.length > 2 * headers_max) {
    return new BrokerError("headers_too_large", `a request may have ${headers_max} headers`);
  }
  if (head.method === "CONNECT") return new BrokerError("method_not_allowed");
  const host = headers.get("host");
  if (host === null && head.is_modern) {
    return new BrokerError("bad_request", "there is no Host header");
  }
  if (host !== null && !host_name.test(host)) {
    return new BrokerError("bad_request", "the Host header is not a host");
  }
  if (headers.count("host") > 1) return new BrokerError("bad_request", "there is more than one Host header");
  const coding = headers.get("transfer-encoding");
  if (coding !== null && coding.trim().toLowerCase() !== "chunked") {
    return new BrokerError("bad_request", "of transfer codings only chunked is understood");
  }
  if (expectation !== null && !waits_for_us.test(expectation)) return new BrokerError("expectation_failed");
  return target === undefined ? new BrokerError("route_not_found") : undefined;
}

const waits_for_us = /(?:^|\W)100-continue(?:$|\W)/i;

const noteFailure = (error: unknown) => observe({ kind: "internal_error", where: "listener", error });

/** Serves HTTP/1.1. Rejects when it cannot listen. */
export async function startListener(options: ListenerOptions): Promise<Listener> {
  const { refusal, hostname, certificates } = options;
  let is_stopping = false;
  let arrived: Exchange[] = [];

  async function answer(exchange: Exchange): Promise<void> {
    const { connection, request } = exchange;
    let response: Response;
    try {
      response = await options.fetch(request as unknown as Request);
    } catch (error) {
      noteFailure(error);
      response = refusal(new BrokerError("internal"));
    }
    // Answered already, for it took too long; or there is nobody to be answered.
    if (exchange.is_cut || request.is_gone) {
      takeUnsent(response)?.();
      takeSent(response)?.();
      await response.body?.cancel();
      if (!exchange.is_cut) connection.finish(exchange);
      return;
    }
    send(exchange, response);
  }

  /**
   * All requests that were read in one turn of the event loop, and not each when it is read: between two calls of the
   * system a processor runs the same code for half as much again, for it has forgotten where its branches lead.
   */
  function answerArrived(): void {
    const exchanges = arrived;
    arrived = [];
    for (const exchange of exchanges) void answer(exchange);
  }

  function send(exchange: Exchange, response: Response): void {
    let sent: Promise<void> | undefined;
    try {
      sent = sendResponse(exchange, response);
    } catch (error) {
      noteFailure(error);
    }
    if (sent === undefined) finish(exchange);
    else void sent.catch(noteFailure).then(() => finish(exchange));
  }

  function finish(exchange: Exchange): void {
    exchange.connection.finish(exchange);
    if (is_stopping) exchange.connection.closeWhenIdle();
  }

  const connections = createConnections({
    ...options,
    createRequest(head, connection) {
      const target = readTarget(head.target);
      const headers = new RequestHeaders(head.headers);
      const expectation = head.is_modern ? headers.get("expect") : null;
      const request = createRequest(head.method, headers, connection, {
        url: `http://localhost${target ?? "/"}`,
        problem: problemOf(head, headers, target, expectation),
        askForBody: expectation === null ? undefined : () => connection.askForBody(request),
      });
      return request;
    },
    onRequest(exchange) {
      arrived.push(exchange);
      if (arrived.length === 1) setImmediate(answerArrived);
    },
    onBroken(connection, error) {
      observe({ kind: "malformed_request", reason: `${error.code ?? error.message}`, request_id: "" });
      connection.break(rawResponse(refusal(parserError(error))));
    },
    onError: (error) => observe({ kind: "internal_error", where: "connection", error }),
    onLate(exchange) {
      const why = `no answer within ${options.handler_seconds_max} s; it may still happen`;
      const response = refusal(new BrokerError("unavailable", why));
      exchange.request.cut(response.status);
      send(exchange, response);
    },
  });

  // Certificates are replaced by a second port beside the first.
  const is_shared = options.is_shared === true || certificates !== undefined;
  const open = (port: number, own: Certificates | undefined): Port =>
    openPort({ hostname, port, is_shared, certificates: own }, connections.add);
  let served = open(options.port, certificates);
  const check = setInterval(connections.check, check_ms);

  return {
    port: served.port,
    async reload(renewed) {
      // Throws before anything is changed.
      tls.createSecureContext({ cert: renewed.cert, key: renewed.key, ca: renewed.client_ca });
      const before = served;
      served = open(before.port, renewed);
      before.close();
    },
    async stop(is_forced = false) {
      if (!is_stopping) served.close();
      is_stopping = true;
      await connections.close(is_forced);
      clearInterval(check);
    },
  };
}
