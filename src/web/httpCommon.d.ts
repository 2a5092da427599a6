// What this service uses of the runtime's HTTP parser, which has no types of its own.
declare module "node:_http_common" {
  type Callback = (...found: never[]) => unknown;
  export class HTTPParser {
    static readonly REQUEST: number;
    static readonly kLenientNone: number;
    static readonly kOnMessageBegin: number;
    static readonly kOnHeaders: number;
    static readonly kOnHeadersComplete: number;
    static readonly kOnBody: number;
    static readonly kOnMessageComplete: number;
    initialize(type: number, resource: object, header_bytes_max: number, lenient: number): void;
    /** How many bytes it took, or what is wrong. */
    execute(bytes: Uint8Array): number | Error;
    finish(): Error | undefined;
    [callback: number]: Callback;
  }
  /** By the parser's number. */
  export const methods: string[];
}
