import { HTTPParser, methods } from "node:_http_common";

// HTTP/1.1 as bytes: llhttp, the parser of node, which the runtime brings. Strict in everything.

/** A request line and headers together, in bytes: node's default. */
export const header_bytes_max = 16_384;

/** A request as far as its headers. */
export type Head = {
  method: string;
  target: string;
  /** Names and values in turn, as they were sent. */
  headers: string[];
  /** Of HTTP/1.1, and not 1.0: it understands chunks and `100 Continue`. */
  is_modern: boolean;
  /** The client wants the connection to stay open. */
  keeps_alive: boolean;
};

/** What was found; called during `execute` and `finish`. */
export type Found = {
  /** The first byte of a request. */
  onBegin(): void;
  onHead(head: Head): void;
  /** Bytes of the body, valid during the call only. */
  onBody(bytes: Buffer): void;
  /** The request is whole. */
  onComplete(): void;
};

/** Bytes that are no HTTP; `code` is llhttp's name of the reason. */
export type ParserError = Error & { code?: string; reason?: string };

const [kOnHeaders, kOnHeadersComplete, kOnBody, kOnMessageComplete, kOnMessageBegin] = [
  HTTPParser.kOnHeaders | 0,
  HTTPParser.kOnHeadersComplete | 0,
  HTTPParser.kOnBody | 0,
  HTTPParser.kOnMessageComplete | 0,
  HTTPParser.kOnMessageBegin | 0,
] as const;

/** The parser knows one method more than the list. */
const newest_method = "QUERY";

/** Reads requests, one after the other, from the bytes of one connection. */
export class RequestParser {
  readonly #found: Found;
  #parser: HTTPParser;
  /** What came in parts; the parser gives it out so when there are many headers. */
  #headers: string[] = [];
  #target = "";
  #is_past_head = false;

  constructor(found: Found) {
    this.#found = found;
    this.#parser = this.#open();
  }

  /** Takes bytes; answers why they are no HTTP. After that nothing may be given to it. */
  execute(bytes: Buffer): ParserError | undefined {
    let rest = bytes;
    while (true) {
      const taken = this.#parser.execute(rest);
      if (typeof taken !== "number") return taken;
      if (taken >= rest.length) return undefined;
      // It stops behind a request that asks for another protocol. We stay with this one.
      rest = rest.subarray(taken);
      this.#parser = this.#open();
    }
  }

  /** The bytes have ended; answers what is wrong with that: a request is not whole. */
  finish(): ParserError | undefined {
    const result = this.#parser.finish();
    return result instanceof Error ? result : undefined;
  }

  #open(): HTTPParser {
    const parser = new HTTPParser();
    parser.initialize(HTTPParser.REQUEST, {}, header_bytes_max, HTTPParser.kLenientNone);
    parser[kOnMessageBegin] = () => {
      this.#headers = [];
      this.#target = "";
      this.#is_past_head = false;
      this.#found.onBegin();
    };
    parser[kOnHeaders] = (headers: string[], target: string) => {
      // Later ones are trailers, which nobody reads.
      if (this.#is_past_head) return;
      this.#headers = this.#headers.concat(headers);
      this.#target += target;
    };
    parser[kOnHeadersComplete] = (
      _: number,
      minor: number,
      headers: string[] | undefined,
      method: number,
      target: string | undefined,
      _status: undefined,
      _reason: undefined,
      _upgrade: boolean,
      keeps_alive: boolean,
    ) => {
      this.#is_past_head = true;
      this.#found.onHead({
        method: methods[method] ?? newest_method,
        target: target ?? this.#target,
        headers: headers ?? this.#headers,
        is_modern: minor > 0,
        keeps_alive,
      });
      return 0;
    };
    parser[kOnBody] = (bytes: Buffer) => this.#found.onBody(bytes);
    parser[kOnMessageComplete] = () => this.#found.onComplete();
    return parser;
  }
}
