import { backoffMs, createIdle, pause } from "./backoff.ts";
import type { Bodies } from "./bodies.ts";
import { isPassing } from "./errors.ts";
import { textOf } from "./errorText.ts";
import { type Delivery, deliveryOf } from "./iterate.ts";
import { createKeeper, type Held, type Keeper, leaseOf } from "./keeper.ts";
import { type NackOptions, type Received, receive } from "./receive.ts";
import type { Send } from "./send.ts";

// A consumer is running → stopping → finished. While it runs it polls for as many messages as it has free handlers;
// once it stops it starts no poll, gives back what a poll still brings, and ends when every handler has.

/** Works on one message. When it returns, the message is acked; when it throws, nacked with the error's text. */
export type Handler<Body> = (message: Delivery<Body>) => unknown;

export type ConsumeOptions = {
  /** Messages in work at once. Default 10. */
  concurrency?: number | undefined;
  /** Seconds between extensions of a lease. Default a third of the lease. */
  extendEvery?: number | undefined;
  /**
   * What a handler threw, a lease that was lost, a server that did not answer. Default: printed by console.error. What
   * it answers for a handler's error is how the message is nacked.
   */
  // biome-ignore lint/suspicious/noConfusingVoidType: a callback that answers nothing is fine
  onError?: ((error: unknown, message?: Received<unknown>) => NackOptions | void) | undefined;
  /** Stops it when aborted. */
  signal?: AbortSignal | undefined;
  /** Only messages with this label. */
  label?: string | undefined;
  /** The lease, instead of the queue's. */
  ack_deadline_seconds?: number | undefined;
  /** Seconds that a poll waits for a message, and so a stop at most beyond its handlers. Default 5. */
  wait_seconds?: number | undefined;
};

export type StopOptions = {
  /** Seconds that handlers get; then their signal is aborted and their messages are given back. Default: no end. */
  grace_seconds?: number | undefined;
};

export type Consumer = {
  /** Takes no more messages, lets handlers end. Answers as `finished` does. Repeatable. */
  stop(options?: StopOptions): Promise<void>;
  /** Resolves when it has stopped; rejects with what made it stop: a queue that is gone, a key that may not. */
  finished: Promise<void>;
  /** `await using`: stops it. */
  [Symbol.asyncDispose](): Promise<void>;
};

type Subject<Body> = {
  send: Send;
  id: string;
  bodies: Bodies<never, Body>;
  handler: Handler<Body>;
  options: ConsumeOptions;
};

const polls_max = 8;
const receive_limit_max = 1000;

function print(error: unknown, message?: Received<unknown>): void {
  const where = message === undefined ? "" : ` (message ${message.id} of ${message.queue_id})`;
  console.error(`psqlqueue consumer${where}:`, error);
}

/** See QueueHandle.consume. */
export function consume<Body>(subject: Subject<Body>): Consumer {
  const { signal } = subject.options;
  const stopping = new AbortController();
  const work = run(subject, stopping.signal);
  const stop = async ({ grace_seconds }: StopOptions = {}) => {
    stopping.abort();
    if (grace_seconds !== undefined) void work.end(grace_seconds);
    await work.finished;
  };
  // What goes wrong shows in `finished`.
  const onAbort = () => void stop().catch(() => {});
  if (signal?.aborted) onAbort();
  else signal?.addEventListener("abort", onAbort, { once: true });
  const finished = work.finished.finally(() => signal?.removeEventListener("abort", onAbort));
  return { stop, finished, [Symbol.asyncDispose]: () => stop() };
}

function run<Body>({ send, id, bodies, handler, options }: Subject<Body>, stopping: AbortSignal) {
  const { concurrency = 10, label, wait_seconds = 5, onError = print } = options;
  let { ack_deadline_seconds } = options;
  if (!(concurrency >= 1)) throw new RangeError(`concurrency is ${concurrency}; give a number from 1`);
  // Node 20 has no Promise.withResolvers.
  let resolve: () => void = () => {};
  let reject: (error: unknown) => void = () => {};
  const promise = new Promise<void>((done, failed) => {
    resolve = done;
    reject = failed;
  });
  const ending = new AbortController();
  const deliveries = new Map<Held, Received<unknown>>();
  let keeper: Keeper | undefined;
  let failure: { error: unknown } | undefined;
  // Handlers at work, acks and nacks on their way, and polls with the messages that they may bring.
  const now = { running: 0, settling: 0, polls: 0, asked: 0 };
  let limit_max = receive_limit_max;
  let is_busy = false;
  let failures = 0;
  const idleMs = createIdle();
  let is_waiting = false;
  /** The grace is over: what handlers still do does not count. */
  let is_abandoned = false;

  const hasStopped = () => ending.signal.aborted;
  function tell(error: unknown, message?: Received<unknown>): NackOptions | undefined {
    try {
      return onError(error, message) ?? undefined;
    } catch (thrown) {
      // The one who is to hear of errors does not work: nobody would know of the next.
      fail(thrown);
      return undefined;
    }
  }

  function fail(error: unknown): void {
    failure ??= { error };
    ending.abort();
  }

  /** Polls nothing meanwhile. */
  async function rest(ms: number): Promise<void> {
    is_waiting = true;
    await pause(ms, ending.signal);
    is_waiting = false;
  }

  /** Waits before the next try. */
  async function again(error: unknown): Promise<void> {
    failures += 1;
    tell(error);
    await rest(backoffMs(failures, error));
  }

  function next(): void {
    if (keeper === undefined || is_waiting) return;
    if (hasStopped()) {
      if ((is_abandoned ? 0 : now.running) + now.settling + now.polls > 0) return;
      // What handlers settle by themselves, and did not wait for, is waited for here.
      void keeper.close().then(() => (failure === undefined ? resolve() : reject(failure.error)));
      return;
    }
    const most = is_busy ? Math.min(polls_max, Math.ceil(concurrency / limit_max)) : 1;
    for (;;) {
      const free = Math.min(concurrency - now.running - now.asked, limit_max);
      // A second poll is for whole batches only: handlers that end one by one would ask for one message each.
      const is_worth = now.polls === 0 ? free > 0 : now.polls < most && free >= Math.min(limit_max, concurrency);
      if (!is_worth || now.settling > concurrency) return;
      void poll(keeper, free);
    }
  }

  async function poll(own: Keeper, limit: number): Promise<void> {
    const query = { label, limit, ack_deadline_seconds, wait_seconds: now.polls === 0 ? wait_seconds : 0 };
    now.polls += 1;
    now.asked += limit;
    try {
      // Never cut short: what the server leases at that moment would be lost until its lease ends.
      const begun_ms = performance.now();
      const received = await receive(send, id, bodies, query);
      failures = 0;
      limit_max = Math.max(1, received.limit < limit ? received.limit : limit_max);
      is_busy = received.count > 0 && received.count >= received.limit;
      for (const { message, error } of received.invalid) settle(own, own.hold(message), message, error);
      for (const message of received.messages) start(own, message);
      // A second poll waits for nothing, and the next one may.
      const idle_ms = now.polls === 1 ? idleMs(received.count, performance.now() - begun_ms) : 0;
      if (idle_ms > 0) await rest(idle_ms);
    } catch (error) {
      if (!isPassing(error)) return fail(error);
      await again(error);
    } finally {
      now.polls -= 1;
      now.asked -= limit;
      next();
    }
  }

  /** Acks, or nacks with the error; a stopped consumer gives back what it has not begun. */
  function settle(own: Keeper, held: Held, message: Received<unknown>, error?: unknown): void {
    now.settling += 1;
    const how = error === undefined ? undefined : (tell(error, message) ?? {});
    const settled = how === undefined ? own.ack(held) : own.nack(held, { error: textOf(error), ...how });
    settled
      .catch((cause: unknown) => tell(cause, message))
      .finally(() => {
        now.settling -= 1;
        next();
      });
  }

  function start(own: Keeper, message: Received<Body>): void {
    const held = own.hold(message);
    if (hasStopped()) {
      now.settling += 1;
      void own
        .release(held)
        .catch((error: unknown) => tell(error, message))
        .finally(() => {
          now.settling -= 1;
          next();
        });
      return;
    }
    now.running += 1;
    deliveries.set(held, message);
    const finish = (error?: unknown) => {
      now.running -= 1;
      deliveries.delete(held);
      // Settled by the handler itself, given back by the end of the grace, or lost, which was told.
      if (held.state === "held") settle(own, held, message, error);
      else if (error !== undefined && held.state !== "lost") tell(error, message);
      next();
    };
    new Promise((done) => done(handler(deliveryOf(message, held, own)))).then(
      () => finish(),
      (error: unknown) => finish(error ?? new Error("the handler failed without an error")),
    );
  }

  /** Asks how long a lease is, until a server answers. */
  async function open(): Promise<void> {
    while (!ending.signal.aborted) {
      try {
        const lease = await leaseOf(send, id, options.ack_deadline_seconds);
        ack_deadline_seconds = lease.ack_deadline_seconds;
        const { lease_seconds } = lease;
        const extend_every_seconds = options.extendEvery ?? lease_seconds / 3;
        const told = (error: unknown, held: Held) => void tell(error, deliveries.get(held));
        keeper = createKeeper(send, id, { lease_seconds, extend_every_seconds, onError: told });
        return next();
      } catch (error) {
        if (!isPassing(error)) return reject(error);
        await again(error);
      }
    }
    resolve();
  }
  const end = () => {
    ending.abort();
    next();
  };
  stopping.addEventListener("abort", end, { once: true });
  if (stopping.aborted) end();
  void open();

  return {
    finished: promise,
    /** Gives handlers so many seconds, then aborts them and gives their messages back. */
    async end(grace_seconds: number): Promise<void> {
      const finished = new AbortController();
      promise.catch(() => {}).then(() => finished.abort());
      await pause(grace_seconds * 1000, finished.signal);
      const given_back = [...deliveries].map(([held, message]) => {
        held.controller.abort(new Error("the consumer stops"));
        return keeper?.release(held).catch((error: unknown) => tell(error, message));
      });
      await Promise.all(given_back);
      is_abandoned = true;
      next();
    },
  };
}
