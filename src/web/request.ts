import { BrokerError } from "../errors.ts";
import { Gathered } from "./gathered.ts";

/** The client went away, or its request ended before it was whole: nobody is there to be answered. */
export class ClientGoneError extends Error {
  override readonly name = "ClientGoneError";
}

/** The status under which such a request is counted and logged; nobody is sent it. */
const client_gone = 499;

/** Of these a repeated header has the value of one: the parser has refused those that differ. */
const single = new Set(["content-length", "host"]);

/** `name` is in lower case. */
const isNamed = (own: string, name: string) =>
  own.length === name.length && (own === name || own.toLowerCase() === name);

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
      if (!isNamed(own, name)) continue;
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
    const raw = this.#raw;
    let count = 0;
    for (let i = 0; i < raw.length; i += 2) if (isNamed(raw[i] ?? "", name)) count += 1;
    return count;
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

/** The connection a request came by, as far as the request needs it. */
export type Source = {
  readonly remote_address: string;
  readonly is_encrypted: boolean;
  /** Bytes that were kept back are wanted now. */
  resume(): void;
};

type Reading = { bytes_max: number; resolve(bytes: Uint8Array): void; reject(error: Error): void };

/** What one request and its copies with another path share. */
type Shared = {
  source: Source;
  headers: RequestHeaders;
  /** Asks for the body where the client waits to be asked. */
  askForBody: (() => void) | undefined;
  /** What has arrived of the body, until it is read. */
  gathered: Gathered | undefined;
  bytes: number;
  is_whole: boolean;
  /** Nobody wants the rest of the body. */
  is_discarded: boolean;
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
 * A request as `fetch` handlers know it: only what this service reads of a `Request`. One of the runtime's would cost
 * more than the rest of the way to the route, and would hide the path as it was written.
 */
export class IncomingRequest {
  readonly method: string;
  /** `http://localhost`, path and query. What the client calls this server is in the Host header. */
  readonly url: string;
  readonly headers: RequestHeaders;
  /** Why it is refused before anybody looks for its route. */
  readonly problem: BrokerError | undefined;
  /** What its way marks it with: here from the start, for a member that comes later costs more. */
  request_id: string | undefined = undefined;
  body_bytes_max: number | undefined = undefined;
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
    return this.#shared.source.remote_address;
  }

  get is_encrypted(): boolean {
    return this.#shared.source.is_encrypted;
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
    return this.#shared.reading && this.#shared.bytes;
  }

  /** Bytes of the body that have arrived and that nobody reads yet. */
  get bytes_kept(): number {
    const { reading, is_discarded, bytes } = this.#shared;
    return reading === undefined && !is_discarded ? bytes : 0;
  }

  /** Has all of it arrived? */
  get is_whole(): boolean {
    return this.#shared.is_whole;
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

  /** More of the body has arrived. The bytes are copied. */
  push(bytes: Buffer): void {
    const shared = this.#shared;
    if (shared.is_discarded) return;
    shared.bytes += bytes.length;
    const { reading } = shared;
    if (reading !== undefined && shared.bytes > reading.bytes_max) this.fail(tooLarge(reading.bytes_max));
    else {
      shared.gathered ??= new Gathered();
      shared.gathered.push(bytes);
    }
  }

  /** The body has arrived. */
  complete(): void {
    const shared = this.#shared;
    shared.is_whole = true;
    const { reading } = shared;
    shared.reading = undefined;
    reading?.resolve(taken(shared));
  }

  /** Nobody will read what still comes. */
  discard(): void {
    this.#shared.is_discarded = true;
    this.#shared.gathered?.clear();
  }

  /** Ends the reading of the body, if anybody still reads it. */
  fail(error: Error): void {
    const { reading } = this.#shared;
    if (reading === undefined) return;
    this.#shared.reading = undefined;
    this.discard();
    reading.reject(error);
  }

  markGone(): void {
    const shared = this.#shared;
    if (shared.is_gone) return;
    shared.is_gone = true;
    this.fail(new ClientGoneError("the client went away"));
    shared.gone?.abort();
  }

  /** Somebody else has answered it. */
  cut(status: number): void {
    this.#shared.cut_status = status;
    this.markGone();
  }
}

const tooLarge = (bytes_max: number) => new BrokerError("payload_too_large", `at most ${bytes_max} bytes`);

const taken = ({ gathered }: Shared): Uint8Array => gathered?.take() ?? no_bytes;

function readAll(shared: Shared, bytes_max: number): Promise<Uint8Array> {
  if (shared.bytes > bytes_max) return Promise.reject(tooLarge(bytes_max));
  if (shared.is_whole) return Promise.resolve(taken(shared));
  if (shared.is_gone) return Promise.reject(new ClientGoneError("the client went away"));
  shared.askForBody?.();
  return new Promise((resolve, reject) => {
    shared.reading = { bytes_max, resolve, reject };
    shared.source.resume();
  });
}

/** Did it come by a connection, and was not made by a test or another caller in this process? */
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
  /** Why it is refused before anybody looks for its route. */
  problem: BrokerError | undefined;
  /** Where the client waits until it is told to send the body. */
  askForBody: (() => void) | undefined;
};

/** A request of a connection. Its body arrives by `push` and `complete`. */
export function createRequest(
  method: string,
  headers: RequestHeaders,
  source: Source,
  { url, problem, askForBody }: RequestOptions,
): IncomingRequest {
  const shared: Shared = {
    source,
    headers,
    askForBody,
    gathered: undefined,
    bytes: 0,
    is_whole: false,
    is_discarded: false,
    body: undefined,
    reading: undefined,
    gone: undefined,
    is_gone: false,
    cut_status: undefined,
    wait_ms: 0,
  };
  return new IncomingRequest(method, url, shared, problem);
}
