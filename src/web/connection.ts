import { type Answering, createExchange, type Exchange, type ExchangeLimits, isLate, startClock } from "./exchange.ts";
import { type Head, type ParserError, RequestParser } from "./parser.ts";
import type { Wire, WireEvents } from "./port.ts";
import type { IncomingRequest } from "./request.ts";

// A connection is
//
//   unused    → busy     the headers of a request arrived      (else it is refused when the time for them is over)
//   busy      → idle     all of its requests are answered
//   idle      → busy     the headers of the next request arrived
//             → closed   nothing came for the idle time, the client ended its side, or the server stops
//   any       → broken   what arrived is no HTTP: it is refused, and closed a moment later
//             → closed   the client closed it, a request took too long, or the server stops at once
//
// Requests are handled as they arrive, also behind one that is not answered yet. Answers leave in their order.

export type ConnectionOptions = {
  /** A request whose headers have arrived; its body may still be coming. */
  onRequest(exchange: Exchange): void;
  createRequest(head: Head, connection: Connection): IncomingRequest;
  /** What arrived is no HTTP. */
  onBroken(connection: Connection, error: ParserError): void;
  /** Handling what arrived has failed. */
  onError(error: unknown): void;
  /** A request took too long. It is to be answered so, in its turn. */
  onLate(exchange: Exchange): void;
  idle_seconds_max: number;
  header_seconds_max: number;
} & ExchangeLimits;

/** How long a client that was sent messages gets at least and at most to show that it is gone. */
const proof_ms_min = 50;
const proof_ms_max = 500;
/** How long what a refused client still sends is read and dropped: closing earlier would destroy the answer. */
const discard_ms_max = 5000;
/** How long a client that was refused is listened to, so that the closing does not destroy the answer. */
const linger_ms = 1000;
/**
 * Bytes of bodies that nobody reads yet, bytes of answers that the client does not read, and requests that are not
 * answered yet, beyond which no more is read.
 */
const kept_bytes_max = 1_048_576;
const unsent_bytes_max = 1_048_576;
const exchanges_max = 256;
const continues = "HTTP/1.1 100 Continue\r\n\r\n";

/** One connection: what arrives on it, what is answered, and when it ends. */
export class Connection implements WireEvents, Answering {
  readonly wire: Wire;
  is_closed = false;
  readonly #options: ConnectionOptions;
  readonly #parser: RequestParser;
  readonly #exchanges: Exchange[] = [];
  /** Their headers are there, and nobody was told yet. */
  readonly #arrived: Exchange[] = [];
  /** Whose body is arriving. */
  #incoming: Exchange | undefined;
  #is_broken = false;
  /** Of what broke it, while earlier requests are being answered. */
  #refusal: string | undefined;
  #is_ending = false;
  #is_stopping = false;
  #is_paused = false;
  /** The client has ended its side. */
  #has_ended = false;
  #held: { since_ms: number; release(): void } | undefined;
  #flushed: PromiseWithResolvers<void> | undefined;
  /** Since when headers are waited for: from the start, and again from the first byte of the next request. */
  #head_since_ms: number | undefined = performance.now();
  /** Of the last sign of life. */
  #last_ms = performance.now();
  /** From then on it is closed, whatever happens. */
  #end_ms = Number.POSITIVE_INFINITY;
  readonly #onGone: () => void;

  readonly onData: WireEvents["onData"];
  readonly onDrain: WireEvents["onDrain"];
  readonly onEnd: WireEvents["onEnd"];
  readonly onClose: WireEvents["onClose"];
  readonly onError: WireEvents["onError"];

  constructor(wire: Wire, options: ConnectionOptions, onGone: () => void) {
    this.wire = wire;
    this.#options = options;
    this.#onGone = onGone;
    this.#parser = new RequestParser({
      onBegin: () => {
        this.#head_since_ms = performance.now();
      },
      onHead: (head) => this.#begin(head),
      onBody: (bytes) => this.#incoming?.request.push(bytes),
      onComplete: () => this.#complete(),
    });
    this.onData = (bytes) => this.#take(bytes);
    this.onDrain = () => {
      this.note();
      if (wire.unsent_bytes === 0) this.#flushed?.resolve();
      this.#goOn();
    };
    this.onEnd = () => this.#takeEnd();
    this.onClose = () => this.#close();
    this.onError = options.onError;
  }

  get remote_address(): string {
    return this.wire.remote_address;
  }

  get is_encrypted(): boolean {
    return this.wire.is_encrypted;
  }

  /** Is it this one's turn to be answered? */
  isNext(exchange: Exchange): boolean {
    return this.#exchanges[0] === exchange;
  }

  /** Resolves when it is this one's turn, or the connection is closed. */
  async whenNext(exchange: Exchange): Promise<void> {
    if (this.is_closed) return;
    await new Promise<void>((resolve) => {
      exchange.onNext = resolve;
    });
  }

  /** Resolves when the system has taken all that was written, or the connection is closed. */
  async whenFlushed(): Promise<void> {
    if (this.is_closed || this.wire.unsent_bytes === 0) return;
    this.#flushed ??= Promise.withResolvers();
    await this.#flushed.promise;
    this.#flushed = undefined;
  }

  /**
   * Resolves when the client has shown that it is there, by its next request, or was not heard of being gone for a
   * moment.
   */
  async whenProven(exchange: Exchange): Promise<void> {
    if (this.is_closed || this.#exchanges.at(-1) !== exchange) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const own = { since_ms: performance.now(), release: resolve };
    this.#held = own;
    // A client that waits for the end of the connection waits for us.
    if (!exchange.keeps_alive || this.#has_ended) setTimeout(resolve, proof_ms_min);
    await promise;
    if (this.#held === own) this.#held = undefined;
  }

  /** The client took some of a long answer. */
  note(): void {
    this.#last_ms = performance.now();
  }

  /** It is answered, or nobody is there to be answered. Repeatable. */
  finish(exchange: Exchange): void {
    const at = this.#exchanges.indexOf(exchange);
    if (at < 0) return;
    this.#exchanges.splice(at, 1);
    this.#last_ms = performance.now();
    const { request } = exchange;
    if (!request.is_whole && !this.is_closed) {
      request.discard();
      this.#end_ms = Math.min(this.#end_ms, this.#last_ms + discard_ms_max);
    }
    if (!exchange.keeps_alive) this.#endSoon();
    else if (at === 0) this.#giveTurn();
    this.#goOn();
    if (this.#exchanges.length > 0) return;
    if (this.#refusal !== undefined) this.#refuse(this.#refusal);
    else if (this.#has_ended || this.#is_stopping) this.#endSoon();
  }

  /** Refuses what arrived with these bytes, after what is being answered, and closes. */
  break(refusal: string): void {
    this.#is_broken = true;
    const broken = this.#incoming;
    // It may have been refused already, while its body still arrived.
    for (const list of [this.#exchanges, this.#arrived]) {
      const at = broken === undefined ? -1 : list.indexOf(broken);
      if (at >= 0) list.splice(at, 1);
    }
    broken?.request.markGone();
    if (this.#exchanges.length === 0) this.#refuse(refusal);
    else this.#refusal = refusal;
  }

  closeWhenIdle(): void {
    this.#is_stopping = true;
    this.#held?.release();
    if (this.#exchanges.length === 0) this.#endSoon();
  }

  /** Ends what takes too long; to be called about every second. */
  check(now_ms: number): void {
    const { idle_seconds_max, header_seconds_max } = this.#options;
    if (this.#held !== undefined && now_ms - this.#held.since_ms > proof_ms_max) this.#held.release();
    if (now_ms > this.#end_ms) this.wire.destroy();
    else if (this.#exchanges.length > 0) for (const own of [...this.#exchanges]) this.#checkExchange(own, now_ms);
    else if (this.#head_since_ms !== undefined && !this.#is_broken) {
      if (now_ms - this.#head_since_ms <= header_seconds_max * 1000) return;
      const error: ParserError = new Error("the headers did not arrive in time");
      error.code = "ERR_HTTP_REQUEST_TIMEOUT";
      this.#options.onBroken(this, error);
    } else if (now_ms - this.#last_ms > idle_seconds_max * 1000) this.wire.destroy();
  }

  #take(bytes: Buffer): void {
    if (this.#is_broken || this.#is_ending) return;
    const error = this.#parser.execute(bytes);
    this.#tellArrived();
    if (error !== undefined) this.#options.onBroken(this, error);
    else if (!this.#is_paused && !this.#hasRoom()) {
      this.#is_paused = true;
      this.wire.pause();
    }
  }

  #takeEnd(): void {
    this.#has_ended = true;
    if (this.#is_broken || this.#is_ending) return;
    const error = this.#parser.finish();
    if (error !== undefined) this.#options.onBroken(this, error);
    else if (this.#exchanges.length === 0) this.#endSoon();
  }

  #begin(head: Head): void {
    this.#held?.release();
    this.#head_since_ms = undefined;
    this.#last_ms = performance.now();
    const exchange = createExchange(this, this.#options.createRequest(head, this), head);
    this.#incoming = exchange;
    this.#exchanges.push(exchange);
    this.#arrived.push(exchange);
  }

  #complete(): void {
    const exchange = this.#incoming;
    this.#incoming = undefined;
    if (exchange === undefined) return;
    exchange.request.complete();
    if (exchange.is_told) startClock(exchange, this.#options);
    // What a refused client still had to send has come.
    if (!this.#exchanges.includes(exchange)) this.#end_ms = Number.POSITIVE_INFINITY;
  }

  /** Not from within the parser, so that a small body is there already; and no more than one connection may have. */
  #tellArrived(): void {
    while (this.#arrived.length > 0 && !this.#is_ending) {
      if (this.#exchanges.length - this.#arrived.length >= exchanges_max) return;
      if (this.wire.unsent_bytes > unsent_bytes_max) return;
      const next = this.#arrived.shift() as Exchange;
      next.is_told = true;
      startClock(next, this.#options);
      this.#options.onRequest(next);
    }
  }

  /** Something was answered, or the client has read some of an answer: there may be room for more. */
  #goOn(): void {
    if (this.#arrived.length > 0) this.#tellArrived();
    if (this.#is_paused) this.#resumeWhenRoom();
  }

  /** The first of the exchanges may be answered now. */
  #giveTurn(): void {
    const [next] = this.#exchanges;
    if (next === undefined) return;
    if (next.asks_for_body) this.#continue(next);
    next.onNext?.();
  }

  #continue(exchange: Exchange): void {
    exchange.asks_for_body = false;
    if (!exchange.request.is_whole) this.wire.write(continues);
  }

  #hasRoom(): boolean {
    if (this.#exchanges.length > exchanges_max || this.wire.unsent_bytes > unsent_bytes_max) return false;
    let kept = 0;
    for (const { request } of this.#exchanges) kept += request.bytes_kept;
    return kept < kept_bytes_max;
  }

  #resumeWhenRoom(): void {
    if (!this.#hasRoom()) return;
    this.#is_paused = false;
    this.wire.resume();
  }

  /** Tells a client that waits for it to send its body: in the turn of its request, for it looks like an answer. */
  askForBody(request: IncomingRequest): void {
    const exchange = this.#exchanges.find((own) => own.request === request);
    if (exchange === undefined) return;
    exchange.asks_for_body = true;
    if (this.isNext(exchange)) this.#continue(exchange);
  }

  /** A body is wanted now. */
  resume(): void {
    if (this.#is_paused) this.#resumeWhenRoom();
  }

  #refuse(refusal: string): void {
    if (!this.#is_ending) this.wire.write(refusal);
    this.#endSoon();
    this.#end_ms = Math.min(this.#end_ms, performance.now() + linger_ms);
  }

  /** Ends our side. A client that is slow may still be reading what the system keeps for it. */
  #endSoon(): void {
    if (this.#is_ending) return;
    this.#is_ending = true;
    this.wire.end();
    this.#end_ms = Math.min(this.#end_ms, performance.now() + this.#options.idle_seconds_max * 1000);
  }

  #close(): void {
    this.is_closed = true;
    this.#arrived.length = 0;
    this.#flushed?.resolve();
    this.#held?.release();
    for (const { request, onClose, onNext } of [...this.#exchanges]) {
      request.markGone();
      onClose?.();
      onNext?.();
    }
    this.#onGone();
  }

  #checkExchange(own: Exchange, now_ms: number): void {
    if (own.has_begun) {
      if (now_ms - this.#last_ms > this.#options.idle_seconds_max * 1000) this.wire.destroy();
    } else if (isLate(own, now_ms, this.#options)) {
      own.is_cut = true;
      this.#options.onLate(own);
    }
  }
}
