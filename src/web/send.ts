import { once } from "node:events";
import type http from "node:http";
import { STATUS_CODES } from "node:http";
import { carriedText, isStream, takeUnsent } from "./answer.ts";
import type { Connection } from "./connections.ts";
import type { IncomingRequest } from "./request.ts";

/** An answer of so many bytes is not waited for. */
const small_bytes_max = 65_536;

/** A whole response as bytes, for a connection that has no request; it is to be closed afterwards. */
export function rawResponse(response: Response): string {
  const headers = { ...Object.fromEntries(response.headers), connection: "close" };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}`);
  const reason = STATUS_CODES[response.status] ?? "";
  return [`HTTP/1.1 ${response.status} ${reason}`, ...lines, "", carriedText(response) ?? ""].join("\r\n");
}

/** Resolves when everything is written, or nothing more can be. */
async function whenClosed(outgoing: http.ServerResponse): Promise<void> {
  if (!outgoing.writableFinished && !outgoing.closed) await once(outgoing, "close").catch(() => {});
}

async function sendStream(connection: Connection, outgoing: http.ServerResponse, stream: ReadableStream<Uint8Array>) {
  const reader = stream.getReader();
  const stop = () => void reader.cancel().catch(() => {});
  outgoing.once("close", stop);
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
      if (outgoing.destroyed || outgoing.closed) return;
      connection.note();
      if (!outgoing.write(next.value)) await Promise.race([once(outgoing, "drain"), once(outgoing, "close")]);
      connection.note();
    }
    outgoing.end();
  } finally {
    outgoing.off("close", stop);
  }
}

/**
 * Writes a response. Resolves when it is written or the client is gone; calls what the response has for that case (see
 * whenUnsent).
 */
export async function sendResponse(
  connection: Connection,
  request: IncomingRequest,
  outgoing: http.ServerResponse,
  response: Response,
): Promise<void> {
  const onUnsent = takeUnsent(response);
  const is_whole = response.body !== null && carriedText(response) === undefined && !isStream(response);
  const bytes = is_whole ? await response.bytes() : undefined;
  if (bytes !== undefined) response.headers.set("content-length", String(bytes.length));
  outgoing.writeHead(response.status, response.headers.toJSON() as http.OutgoingHttpHeaders);
  const text = carriedText(response);
  if (onUnsent !== undefined && text !== undefined) {
    // All of it, but not the end: a client that is gone resets the connection now, which shows only while it is open.
    outgoing.write(text);
    await connection.whenProven(request, outgoing);
    outgoing.end();
  } else if (text !== undefined && request.method !== "HEAD") outgoing.end(text);
  else if (isStream(response) && response.body !== null) await sendStream(connection, outgoing, response.body);
  else outgoing.end(bytes);
  // A small one fits into what the kernel keeps.
  const is_small = onUnsent === undefined && text !== undefined && text.length < small_bytes_max;
  if (is_small || (text === undefined && response.body === null)) return;
  if (!outgoing.writableFinished) await whenClosed(outgoing);
  if (!outgoing.writableFinished || request.is_gone) onUnsent?.();
}
