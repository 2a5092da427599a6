import { BrokerError } from "../errors.ts";
import type { Head } from "./parser.ts";
import type { Wire } from "./port.ts";
import type { IncomingRequest } from "./request.ts";

/** The connection of an exchange, as far as answering needs it. */
export type Answering = {
  readonly wire: Wire;
  readonly is_closed: boolean;
  isNext(exchange: Exchange): boolean;
  whenNext(exchange: Exchange): Promise<void>;
  whenFlushed(): Promise<void>;
  whenProven(exchange: Exchange): Promise<void>;
  note(): void;
  finish(exchange: Exchange): void;
  closeWhenIdle(): void;
};

/** A request and its answer. */
export type Exchange = {
  readonly connection: Answering;
  readonly request: IncomingRequest;
  readonly is_modern: boolean;
  keeps_alive: boolean;
  /** Its handler was told of it. */
  is_told: boolean;
  /** Its client waits to be asked for the body, and was not asked yet. */
  asks_for_body: boolean;
  /** Its answer is there. It may still wait for its turn, or for its body. */
  is_answered: boolean;
  /** Some of its answer is written. */
  has_begun: boolean;
  /** It was answered by somebody else than its handler. */
  is_cut: boolean;
  /** Called when the connection is closed meanwhile. */
  onClose: (() => void) | undefined;
  onNext: (() => void) | undefined;
  /** When it is answered that it took too long. */
  deadline_ms: number;
  window_ms: number;
  window_bytes: number;
};

export type ExchangeLimits = {
  /** Bytes per second that a body must keep. */
  body_rate_min: number;
  /** Over so many milliseconds that is measured. */
  rate_window_ms: number;
  handler_seconds_max: number;
};

/** A request whose headers have arrived. */
export function createExchange(connection: Answering, request: IncomingRequest, head: Head): Exchange {
  return {
    connection,
    request,
    is_modern: head.is_modern,
    keeps_alive: head.keeps_alive,
    is_told: false,
    asks_for_body: false,
    is_answered: false,
    has_begun: false,
    is_cut: false,
    onClose: undefined,
    onNext: undefined,
    deadline_ms: Number.POSITIVE_INFINITY,
    window_ms: 0,
    window_bytes: 0,
  };
}

/** From now on the time of its handler counts: it was told of it, or the body is whole. */
export function startClock(exchange: Exchange, { handler_seconds_max }: ExchangeLimits): void {
  const now_ms = performance.now();
  exchange.deadline_ms = now_ms + handler_seconds_max * 1000;
  exchange.window_ms = now_ms;
}

/** Does its handler take too long? To be asked about every second: ends the reading of a body that comes too slowly. */
export function isLate(exchange: Exchange, now_ms: number, limits: ExchangeLimits): boolean {
  const { request, deadline_ms } = exchange;
  const { bytes_read } = request;
  if (bytes_read === undefined) {
    return !exchange.is_answered && !exchange.is_cut && now_ms > deadline_ms + request.wait_ms;
  }
  exchange.deadline_ms = now_ms + limits.handler_seconds_max * 1000;
  // A client that was not asked yet sends nothing.
  if (exchange.asks_for_body) exchange.window_ms = now_ms;
  if (now_ms - exchange.window_ms < limits.rate_window_ms) return false;
  const bytes_min = (limits.body_rate_min * (now_ms - exchange.window_ms)) / 1000;
  if (bytes_read - exchange.window_bytes < bytes_min) {
    const why = `the body came slower than ${limits.body_rate_min} bytes per second`;
    request.fail(new BrokerError("request_timeout", why));
  }
  exchange.window_ms = now_ms;
  exchange.window_bytes = bytes_read;
  return false;
}
