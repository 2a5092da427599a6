import { STATUS_CODES } from "node:http";
import { carriedText, isStream, takeSent, takeUnsent } from "./answer.ts";
import type { Exchange } from "./exchange.ts";
import { headerLines } from "./textResponse.ts";

/** An answer of so many bytes is not waited for: it fits into what the system keeps. */
const small_bytes_max = 65_536;
const second_ms = 1000;

/** Of this second, by status. */
let beginnings = { until_ms: 0, texts: new Map<number, string>() };

/** How an answer begins: with the status line, and the time as HTTP writes it. */
function beginningOf(status: number): string {
  const now_ms = Date.now();
  // A clock that was put back counts as well.
  if (now_ms >= beginnings.until_ms || now_ms < beginnings.until_ms - second_ms) {
    beginnings = { until_ms: now_ms - (now_ms % second_ms) + second_ms, texts: new Map() };
  }
  let text = beginnings.texts.get(status);
  if (text === undefined) {
    const date = new Date(beginnings.until_ms - second_ms).toUTCString();
    text = `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ""}\r\ndate: ${date}\r\n`;
    beginnings.texts.set(status, text);
  }
  return text;
}

/** Status line and headers, without the empty line that ends them. */
const headText = (response: Response): string => beginningOf(response.status) + headerLines(response);

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

async function sendStream(exchange: Exchange, stream: ReadableStream<Uint8Array>): Promise<void> {
  const { connection } = exchange;
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

/** Writes the head, and the body that is in one piece. Answers how many bytes that has. */
function begin(
  exchange: Exchange,
  response: Response,
  body: string | Uint8Array | undefined,
  is_stream: boolean,
): number {
  const { wire } = exchange.connection;
  exchange.has_begun = true;
  // HTTP/1.0 knows no other end of a body of unknown length.
  if (response.headers.get("connection") === "close" || (is_stream && !exchange.is_modern))
    exchange.keeps_alive = false;
  const length = typeof body === "object" ? body.length : Number(response.headers.get("content-length") ?? 0);
  const head = headText(response) + framing(exchange, response, is_stream ? undefined : length);
  if (body === undefined || exchange.request.method === "HEAD" || never_has_body(response.status)) wire.write(head);
  else if (typeof body === "string") wire.write(head + body);
  else {
    wire.write(head);
    wire.write(body);
  }
  return length;
}

/**
 * Writes a response, in its turn. Undefined when that is done; else resolves when it is written or the client is gone,
 * and calls what the response has for that case (see whenUnsent).
 */
export function sendResponse(exchange: Exchange, response: Response): Promise<void> | undefined {
  exchange.is_answered = true;
  const text = carriedText(response);
  if (!exchange.connection.isNext(exchange) || (text === undefined && response.body !== null)) {
    return sendLater(exchange, response);
  }
  const length = begin(exchange, response, text, false);
  return whenGone(exchange, response, length);
}

/** As sendResponse, what has to wait: for its turn, or for its body. */
async function sendLater(exchange: Exchange, response: Response): Promise<void> {
  const { connection } = exchange;
  const text = carriedText(response);
  const is_stream = text === undefined && isStream(response) && response.body !== null;
  const body = text ?? (is_stream || response.body === null ? undefined : await response.bytes());
  if (!connection.isNext(exchange)) await connection.whenNext(exchange);
  const length = begin(exchange, response, body, is_stream);
  if (is_stream && exchange.request.method !== "HEAD" && !never_has_body(response.status)) {
    await sendStream(exchange, response.body as ReadableStream<Uint8Array>);
  }
  await whenGone(exchange, response, length);
}

/**
 * Resolves when all that was written has left, or the client is gone: then what must be undone is. Undefined for what
 * nobody waits for, which costs no promise.
 */
function whenGone(exchange: Exchange, response: Response, length: number): Promise<void> | undefined {
  const onUnsent = takeUnsent(response);
  const onSent = takeSent(response);
  if (onUnsent === undefined && onSent === undefined && length < small_bytes_max) return undefined;
  return awaitGone(exchange, onUnsent, onSent);
}

async function awaitGone(
  exchange: Exchange,
  onUnsent: (() => void) | undefined,
  onSent: (() => void) | undefined,
): Promise<void> {
  const { connection } = exchange;
  await connection.whenFlushed();
  onSent?.();
  // A client that is gone resets the connection now, which shows only while it is open.
  if (onUnsent !== undefined) await connection.whenProven(exchange);
  if (connection.is_closed) onUnsent?.();
}
