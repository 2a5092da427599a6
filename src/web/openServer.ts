import http from "node:http";
import https from "node:https";
import type net from "node:net";
import type { ErrorName } from "../errors.ts";

/** PEM texts. With `client_ca` only clients are let in that have a certificate of it. */
export type Certificates = { cert: string; key: string; client_ca?: string | undefined };

/** What is known of a request beside itself. */
export type Given = { expects?: boolean; error?: ErrorName };

/** What becomes of what a server receives. */
export type Handlers = {
  onRequest(incoming: http.IncomingMessage, outgoing: http.ServerResponse, given: Given): void;
  onConnection(socket: net.Socket): void;
  onBroken(error: Error, socket: net.Socket): void;
  methodRefusal(): string;
};

type ServerOptions = { hostname: string; port: number; header_seconds_max: number };

/** A request line and headers together, in bytes: node's default. */
export const header_bytes_max = 16_384;
/** How often what takes too long is looked for. */
export const check_ms = 1000;
const listen_tries_max = 50;
const listen_again_ms = 10;

/** How certificates are given to TLS. */
export const secureOptions = ({ cert, key, client_ca }: Certificates): https.ServerOptions => ({
  cert,
  key,
  minVersion: "TLSv1.2",
  ...(client_ca !== undefined && { ca: client_ca, requestCert: true, rejectUnauthorized: true }),
});

async function listen(server: http.Server, { hostname, port }: ServerOptions): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host: hostname, port }, () => {
      server.off("error", reject);
      resolve();
    });
  });
}

/** Opens node's server. A port that a former server of this process leaves is waited for a moment. */
export async function openServer(
  options: ServerOptions,
  handlers: Handlers,
  certificates: Certificates | undefined,
): Promise<http.Server> {
  const own: http.ServerOptions = {
    // Both of the checks are ours: with an answer that says what is wrong, and without a timer for each request.
    requireHostHeader: false,
    keepAliveTimeout: 0,
    headersTimeout: options.header_seconds_max * 1000,
    requestTimeout: 0,
    connectionsCheckingInterval: check_ms,
    maxHeaderSize: header_bytes_max,
    noDelay: true,
  };
  const server =
    certificates === undefined
      ? http.createServer(own)
      : https.createServer({ ...own, ...secureOptions(certificates) });
  // A client may end its side after the request and still wait for the answer.
  Object.assign(server, { httpAllowHalfOpen: true });
  server.on("request", (incoming, outgoing) => handlers.onRequest(incoming, outgoing, {}));
  server.on("checkContinue", (incoming, outgoing) => handlers.onRequest(incoming, outgoing, { expects: true }));
  server.on("checkExpectation", (incoming, outgoing) =>
    handlers.onRequest(incoming, outgoing, { error: "expectation_failed" }),
  );
  server.on(certificates === undefined ? "connection" : "secureConnection", handlers.onConnection);
  server.on("clientError", handlers.onBroken);
  server.on("connect", (_, socket) => socket.end(handlers.methodRefusal()));
  for (let tries = 1; ; tries++) {
    try {
      await listen(server, options);
      return server;
    } catch (error) {
      const is_reload = certificates !== undefined && options.port !== 0;
      if (!is_reload || tries >= listen_tries_max) throw error;
      await Bun.sleep(listen_again_ms);
    }
  }
}
