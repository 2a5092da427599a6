// A response whose body is text, or nothing: what nearly every request is answered. It is what this service reads of a
// `Response`; one of the runtime's and its headers would cost a sixth of what a request costs before the broker.

const not_a_value = /[\r\n\0]/;

/** The part of `Headers` that is used of an answer. Names are kept in lower case. */
class TextHeaders {
  /** Names and values in turn. */
  readonly #raw: string[] = [];

  constructor(given: Record<string, string>) {
    for (const name in given) this.set(name, given[name] ?? "");
  }

  get(name: string): string | null {
    const at = this.#placeOf(name.toLowerCase());
    return at < 0 ? null : (this.#raw[at + 1] ?? null);
  }

  has(name: string): boolean {
    return this.#placeOf(name.toLowerCase()) >= 0;
  }

  /** Throws TypeError for a value that would end the header. */
  set(name: string, value: string): void {
    if (not_a_value.test(value)) throw new TypeError(`the value of the header ${name} has a line break`);
    const own = name.toLowerCase();
    const at = this.#placeOf(own);
    if (at >= 0) this.#raw[at + 1] = value;
    else this.#raw.push(own, value);
  }

  append(name: string, value: string): void {
    const before = this.get(name);
    this.set(name, before === null ? value : `${before}, ${value}`);
  }

  delete(name: string): void {
    const at = this.#placeOf(name.toLowerCase());
    if (at >= 0) this.#raw.splice(at, 2);
  }

  forEach(each: (value: string, name: string) => void): void {
    for (const [name, value] of this) each(value, name);
  }

  *entries(): IterableIterator<[string, string]> {
    for (let i = 0; i < this.#raw.length; i += 2) yield [this.#raw[i] ?? "", this.#raw[i + 1] ?? ""];
  }

  [Symbol.iterator](): IterableIterator<[string, string]> {
    return this.entries();
  }

  /** As lines of a head. */
  lines(): string {
    let text = "";
    for (let i = 0; i < this.#raw.length; i += 2) text += `${this.#raw[i]}: ${this.#raw[i + 1]}\r\n`;
    return text;
  }

  #placeOf(name: string): number {
    for (let i = 0; i < this.#raw.length; i += 2) if (this.#raw[i] === name) return i;
    return -1;
  }

  toJSON(): Record<string, string> {
    return Object.fromEntries(this);
  }
}

class TextResponse {
  readonly status: number;
  readonly headers: TextHeaders;
  /** Undefined: it has no body. */
  readonly carried_text: string | undefined;
  // Under which it is known to be undone.
  onUnsent: (() => void) | undefined = undefined;

  constructor(status: number, text: string | undefined, headers: Record<string, string>) {
    this.status = status;
    this.carried_text = text;
    this.headers = new TextHeaders(headers);
    if (text !== undefined) this.headers.set("content-length", String(Buffer.byteLength(text)));
  }

  get ok(): boolean {
    return this.status >= 200 && this.status < 300;
  }

  get body(): ReadableStream<Uint8Array> | null {
    return this.carried_text === undefined ? null : new Response(this.carried_text).body;
  }

  get bodyUsed(): boolean {
    return false;
  }

  clone(): TextResponse {
    return new TextResponse(this.status, this.carried_text, this.headers.toJSON());
  }

  async text(): Promise<string> {
    return this.carried_text ?? "";
  }

  async json(): Promise<unknown> {
    return JSON.parse(this.carried_text ?? "");
  }

  async bytes(): Promise<Uint8Array> {
    return Buffer.from(this.carried_text ?? "");
  }

  async arrayBuffer(): Promise<ArrayBuffer> {
    return await new Response(this.carried_text ?? "").arrayBuffer();
  }
}

// So that the router takes it for a response, and hands it on as it is.
Object.setPrototypeOf(TextResponse.prototype, Response.prototype);

/** The same as a response of the runtime, for its own server. */
export function nativeResponse(response: Response): Response {
  const own: unknown = response;
  if (!(own instanceof TextResponse)) return response;
  return new Response(own.carried_text ?? null, { status: own.status, headers: [...own.headers] });
}

/** A response of text, with its length, or without a body. Only our listener can send it: see nativeResponse. */
export const textResponse = (
  status: number,
  text: string | undefined,
  headers: Record<string, string> = {},
): Response => new TextResponse(status, text, headers) as unknown as Response;

/** The lines of the headers, each with its end. */
export function headerLines({ headers }: Response): string {
  const own: unknown = headers;
  if (own instanceof TextHeaders) return own.lines();
  let text = "";
  for (const [name, value] of headers) text += `${name}: ${value}\r\n`;
  return text;
}
