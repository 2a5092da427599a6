import type http from "node:http";
import { BrokerError } from "../errors.ts";

/** The client went away, or its request ended before it was whole: nobody is there to be answered. */
export class ClientGoneError extends Error {
  override readonly name = "ClientGoneError";
}

/** The status under which such a request is counted and logged; nobody is sent it. */
const client_gone = 499;

/** Of these a repeated header has the value of one: the parser has refused those that differ. */
const single = new Set(["content-length", "host"]);

/**
 * The part of `Headers` that is read of a request; values of a repeated name are joined as `fetch` joins them. A few
 * names are looked up in a short list, which costs less than making a map of it.
 */
export class RequestHeaders {
  /** Names and values in turn, as they were sent. */
  readonly #raw: string[];

  constructor(raw: string[]) {
    this.#raw = raw;
  }

  /** The name in lower case. */
  get(name: string): string | null {
    const raw = this.#raw;
    let found: string | null = null;
    for (let i = 0; i < raw.length; i += 2) {
      const own = raw[i] ?? "";
      if (own.length !== name.length || (own !== name && own.toLowerCase() !== name)) continue;
      if (found === null) found = raw[i + 1] ?? "";
      else if (!single.has(name)) found += `, ${raw[i + 1]}`;
    }
    return found;
  }

  has(name: string): boolean {
    return this.get(name) !== null;
  }

  /** How often the header was sent. */
  count(name: string): number {
    return this.#raw.filter((own, i) => i % 2 === 0 && own.length === name.length && own.toLowerCase() === name).length;
  }

  toJSON(): Record<string, string> {
    const names = this.#raw.flatMap((own, i) => (i % 2 === 0 ? [own.toLowerCase()] : []));
    return Object.fromEntries(names.map((name) => [name, this.get(name) ?? ""]));
  }

  entries(): IterableIterator<[string, string]> {
    return Object.entries(this.toJSON()).values();
  }

  [Symbol.iterator](): IterableIterator<[string, string]> {
    return this.entries();
  }
}

type Reading = { bytes: number; bytes_max: number; chunks: Buffer[]; fail(error: Error): void };

/** What one request and its copies with another path share. */
type Shared = {
  incoming: http.IncomingMessage;
  headers: RequestHeaders;
  /** Asks for the body where the client waits to be asked. */
  askForBody: (() => void) | undefined;
  body: Promise<Uint8Array> | undefined;
  reading: Reading | undefined;
  gone: AbortController | undefined;
  is_gone: boolean;
  /** What the client was answered instead of what its handler said. */
  cut_status: number | undefined;
  wait_ms: number;
};

const no_bytes = new Uint8Array(0);

/**
 * A request as `fetch` handlers know it, of node's server: only what this service reads of a `Request`. One made of the
 * runtime's would cost more than the rest of the way to the route, and would hide the path as it was written.
 */
export class IncomingRequest {
  readonly method: string;
  /** `http://localhost`, path and query. What the client calls this server is in the Host header. */
  readonly url: string;
  readonly headers: RequestHeaders;
  /** Why it is refused before anybody looks for its route. */
  readonly problem: BrokerError | undefined;
  readonly #shared: Shared;

  constructor(method: string, url: string, shared: Shared, problem: BrokerError | undefined) {
    this.method = method;
    this.url = url;
    this.headers = shared.headers;
    this.problem = problem;
    this.#shared = shared;
  }

  /** The same request under another method and URL. */
  as(method: string, url: string): IncomingRequest {
    return new IncomingRequest(method, url, this.#shared, this.problem);
  }

  get remote_address(): string {
    return this.#shared.incoming.socket.remoteAddress ?? "";
  }

  get is_encrypted(): boolean {
    return (this.#shared.incoming.socket as { encrypted?: boolean }).encrypted === true;
  }

  /** Aborts when nobody can be answered any more. */
  get signal(): AbortSignal {
    const shared = this.#shared;
    shared.gone ??= new AbortController();
    if (shared.is_gone) shared.gone.abort();
    return shared.gone.signal;
  }

  get is_gone(): boolean {
    return this.#shared.is_gone;
  }

  /** The status that the client got instead of the handler's: it took too long, or nobody was there (499). */
  get cut_status(): number | undefined {
    return this.#shared.cut_status ?? (this.#shared.is_gone ? client_gone : undefined);
  }

  /** Milliseconds that it may take for waiting as it was asked to. */
  get wait_ms(): number {
    return this.#shared.wait_ms;
  }

  mayWait(ms: number): void {
    this.#shared.wait_ms = ms;
  }

  /** Bytes of the body that have arrived; undefined while nobody reads it. */
  get bytes_read(): number | undefined {
    return this.#shared.reading?.bytes;
  }

  /**
   * The whole body. Rejects with `payload_too_large` as soon as there are more than `bytes_max`, and with
   * ClientGoneError when it ends early. Repeatable.
   */
  read(bytes_max: number): Promise<Uint8Array> {
    const shared = this.#shared;
    shared.body ??= readAll(shared, bytes_max);
    return shared.body;
  }

  /** Ends the reading of the body, if anybody still reads it. */
  fail(error: Error): void {
    this.#shared.reading?.fail(error);
  }

  markGone(): void {
    const shared = this.#shared;
    if (shared.is_gone) return;
    shared.is_gone = true;
    shared.reading?.fail(new ClientGoneError("the client went away"));
    shared.gone?.abort();
  }

  /** Somebody else has answered it. */
  cut(status: number): void {
    this.#shared.cut_status = status;
    this.markGone();
  }
}

function readAll(shared: Shared, bytes_max: number): Promise<Uint8Array> {
  const { incoming } = shared;
  if (shared.is_gone) return Promise.reject(new ClientGoneError("the client went away"));
  const announced = shared.headers.get("content-length");
  if (announced === null && !shared.headers.has("transfer-encoding")) return Promise.resolve(no_bytes);
  const length = announced === null ? undefined : Number(announced);
  if (length === 0) return Promise.resolve(no_bytes);
  shared.askForBody?.();
  return new Promise((resolve, reject) => {
    const finish = (settle: () => void) => {
      if (shared.reading === undefined) return;
      shared.reading = undefined;
      settle();
    };
    const reading: Reading = { bytes: 0, bytes_max, chunks: [], fail: (error) => finish(() => reject(error)) };
    shared.reading = reading;
    const whole = () =>
      finish(() =>
        resolve(reading.chunks.length === 1 ? (reading.chunks[0] as Buffer) : Buffer.concat(reading.chunks)),
      );
    incoming.on("data", (chunk: Buffer) => {
      if (shared.reading !== reading) return;
      reading.bytes += chunk.length;
      if (reading.bytes > bytes_max) {
        reading.fail(new BrokerError("payload_too_large", `at most ${bytes_max} bytes`));
        return;
      }
      reading.chunks.push(chunk);
      // An event earlier than "end".
      if (reading.bytes === length) whole();
    });
    incoming.on("end", whole);
    incoming.on("error", () => reading.fail(new ClientGoneError("the body ended early")));
  });
}

/** Is it one of node's server, and not made by a test or another caller in this process? */
export const isIncoming = (request: Request): request is Request & IncomingRequest =>
  (request as unknown) instanceof IncomingRequest;

/** What a client was told, or was not there to be told, instead of the handler's answer. */
export const cutStatus = (request: Request): number | undefined =>
  isIncoming(request) ? request.cut_status : undefined;

/** Did it come over TLS to this server itself? */
export const isEncrypted = (request: Request): boolean => isIncoming(request) && request.is_encrypted;

/** The client's address; empty when it is not known. */
export const addressOf = (request: Request): string => (isIncoming(request) ? request.remote_address : "");

/** Why the request is refused before its route is looked for. */
export const problemOf = (request: Request): BrokerError | undefined =>
  isIncoming(request) ? request.problem : undefined;

/** Lets a request take longer, by what it asks to wait. */
export function mayWait(request: Request, ms: number): void {
  if (isIncoming(request)) request.mayWait(ms);
}

/** The same request under another method and URL. */
export function withTarget(request: Request, method: string, url: string): Request {
  if (isIncoming(request)) return request.as(method, url) as unknown as Request;
  return new Request(url === request.url ? request : new Request(url, request), { method });
}

export type RequestOptions = {
  url: string;
  problemOf(headers: RequestHeaders): BrokerError | undefined;
  /** Where the client waits until it is told to send the body. */
  askForBody: (() => void) | undefined;
};

/** A request of node's server. */
export function createRequest(
  incoming: http.IncomingMessage,
  { url, problemOf, askForBody }: RequestOptions,
): IncomingRequest {
  const headers = new RequestHeaders(incoming.rawHeaders);
  const shared: Shared = {
    incoming,
    headers,
    askForBody,
    body: undefined,
    reading: undefined,
    gone: undefined,
    is_gone: false,
    cut_status: undefined,
    wait_ms: 0,
  };
  return new IncomingRequest(incoming.method ?? "", url, shared, problemOf(headers));
}
