import { STATUS_CODES } from "node:http";
import { carriedText, isStream, takeUnsent } from "./answer.ts";
import type { Connection, Exchange } from "./connection.ts";
import { headerLines } from "./textResponse.ts";

/** An answer of so many bytes is not waited for: it fits into what the system keeps. */
const small_bytes_max = 65_536;
const second_ms = 1000;

let dated = { until_ms: 0, text: "" };

/** The time as HTTP writes it, made once a second. */
function dateText(): string {
  const now_ms = Date.now();
  // A clock that was put back counts as well.
  if (now_ms >= dated.until_ms || now_ms < dated.until_ms - second_ms) {
    const start_ms = now_ms - (now_ms % second_ms);
    dated = { until_ms: start_ms + second_ms, text: new Date(start_ms).toUTCString() };
  }
  return dated.text;
}

const status_lines = new Map<number, string>();

function statusLine(status: number): string {
  let line = status_lines.get(status);
  if (line === undefined) {
    line = `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ""}\r\n`;
    status_lines.set(status, line);
  }
  return line;
}

/** Status line and headers, without the empty line that ends them. */
const headText = (response: Response): string =>
  `${statusLine(response.status)}date: ${dateText()}\r\n${headerLines(response)}`;

/** A whole response as bytes, for a connection that has no request; it is to be closed afterwards. */
export const rawResponse = (response: Response): string =>
  `${headText(response)}connection: close\r\n\r\n${carriedText(response) ?? ""}`;

const never_has_body = (status: number) => status === 204 || status === 304;

/** Length, and what becomes of the connection. */
function framing({ keeps_alive, is_modern, request }: Exchange, response: Response, length: number | undefined) {
  const { headers, status } = response;
  let text = "";
  if (length !== undefined && !headers.has("content-length") && !never_has_body(status) && request.method !== "HEAD") {
    text += `content-length: ${length}\r\n`;
  }
  if (length === undefined && is_modern) text += "transfer-encoding: chunked\r\n";
  if (headers.has("connection")) return `${text}\r\n`;
  if (!keeps_alive) text += "connection: close\r\n";
  else if (!is_modern) text += "connection: keep-alive\r\n";
  return `${text}\r\n`;
}

const chunk_end = Buffer.from("\r\n");

async function sendStream(connection: Connection, exchange: Exchange, stream: ReadableStream<Uint8Array>) {
  const { wire } = connection;
  const reader = stream.getReader();
  const stop = () => void reader.cancel().catch(() => {});
  exchange.onClose = stop;
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
      if (connection.is_closed) return;
      connection.note();
      if (next.value.length > 0) {
        if (exchange.is_modern) wire.write(`${next.value.length.toString(16)}\r\n`);
        wire.write(next.value);
        if (exchange.is_modern) wire.write(chunk_end);
      }
      await connection.whenFlushed();
      connection.note();
    }
    if (exchange.is_modern) wire.write("0\r\n\r\n");
  } catch (error) {
    // The client must see that this is not all.
    wire.destroy();
    throw error;
  } finally {
    exchange.onClose = undefined;
  }
}

/**
 * Writes a response, in its turn. Resolves when it is written or the client is gone; calls what the response has for
 * that case (see whenUnsent).
 */
export async function sendResponse(connection: Connection, exchange: Exchange, response: Response): Promise<void> {
  const onUnsent = takeUnsent(response);
  const { wire } = connection;
  const { request } = exchange;
  const text = carriedText(response);
  const is_stream = text === undefined && isStream(response) && response.body !== null;
  const bytes = text === undefined && !is_stream && response.body !== null ? await response.bytes() : undefined;
  if (!connection.isNext(exchange)) await connection.whenNext(exchange);
  exchange.has_begun = true;
  // HTTP/1.0 knows no other end of a body of unknown length.
  if (response.headers.get("connection") === "close" || (is_stream && !exchange.is_modern))
    exchange.keeps_alive = false;
  const length = is_stream ? undefined : (bytes?.length ?? Number(response.headers.get("content-length") ?? 0));
  const head = headText(response) + framing(exchange, response, length);
  if (request.method === "HEAD" || never_has_body(response.status)) wire.write(head);
  else if (text !== undefined) wire.write(head + text);
  else {
    wire.write(head);
    if (bytes !== undefined) wire.write(bytes);
    else if (is_stream) await sendStream(connection, exchange, response.body as ReadableStream<Uint8Array>);
  }
  // A client that is gone resets the connection now, which shows only while it is open.
  if (onUnsent !== undefined && text !== undefined) await connection.whenProven(exchange);
  else if (length !== undefined && length < small_bytes_max) return;
  if (!connection.is_closed) await connection.whenFlushed();
  if (connection.is_closed) onUnsent?.();
}
