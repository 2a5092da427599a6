import { backoffMs, createIdle, pause } from "./backoff.ts";
import type { Bodies } from "./bodies.ts";
import { isPassing } from "./errors.ts";
import { createKeeper, type Held, type Keeper, leaseOf } from "./keeper.ts";
import type { NackOptions, Received, ReceiveOptions } from "./receive.ts";
import { receive } from "./receive.ts";
import type { Send } from "./send.ts";

/** A message in hand: its lease is extended until it is settled. */
export type Delivery<Body> = Received<Body> & {
  /** Aborted when the lease is lost, or the work is to end. */
  signal: AbortSignal;
  /** The message never comes back. Throws LeaseLostError. */
  ack(): Promise<void>;
  /** The message comes back. Throws LeaseLostError. */
  nack(options?: NackOptions): Promise<void>;
  /** The message comes back at once, and nothing failed. */
  release(): Promise<void>;
  /** `await using`: gives back what was not settled. */
  [Symbol.asyncDispose](): Promise<void>;
};

export type IterateOptions = Pick<ReceiveOptions, "label" | "ack_deadline_seconds" | "signal"> & {
  /** Seconds that one receive waits for a message. Default 5, and none with `until_empty`. */
  wait_seconds?: number | undefined;
  /** Seconds between extensions of a lease. Default a third of the lease. */
  extendEvery?: number | undefined;
  /** End when the queue has nothing ready, instead of waiting for more. */
  until_empty?: boolean | undefined;
};

const wait_seconds_default = 5;

/** What the holder of a message can do with it. */
export function deliveryOf<Body>(message: Received<Body>, held: Held, keeper: Keeper): Delivery<Body> {
  return {
    ...message,
    signal: held.controller.signal,
    ack: () => keeper.ack(held),
    nack: (options) => keeper.nack(held, options),
    release: () => keeper.release(held),
    async [Symbol.asyncDispose]() {
      if (held.state === "held") await keeper.release(held);
    },
  };
}

/** See QueueHandle.messages. */
export async function* iterate<Body>(
  send: Send,
  id: string,
  bodies: Bodies<never, Body>,
  options: IterateOptions,
): AsyncGenerator<Delivery<Body>, void, undefined> {
  const { label, signal, until_empty = false } = options;
  const wait_seconds = options.wait_seconds ?? (until_empty ? 0 : wait_seconds_default);
  const { lease_seconds, ack_deadline_seconds } = await leaseOf(send, id, options.ack_deadline_seconds);
  const extend_every_seconds = options.extendEvery ?? lease_seconds / 3;
  // The loop is told by the signal of its message, and when it settles it.
  const keeper = createKeeper(send, id, { lease_seconds, extend_every_seconds, onError: () => {} });
  const query = { label, limit: 1, wait_seconds, ack_deadline_seconds };
  const idleMs = createIdle();
  let failures = 0;
  /** The next message; undefined when there is none. Not cut short by the signal: a lease would be lost. */
  async function take() {
    try {
      const begun_ms = performance.now();
      const { messages, invalid, count } = await receive(send, id, bodies, query);
      failures = 0;
      const idle_ms = until_empty ? 0 : idleMs(count, performance.now() - begun_ms);
      if (idle_ms > 0) await pause(idle_ms, signal);
      for (const { message, error } of invalid) await keeper.nack(keeper.hold(message), { error: error.message });
      return { message: messages[0], is_empty: count === 0 };
    } catch (error) {
      if (!isPassing(error)) throw error;
      failures += 1;
      await pause(backoffMs(failures, error), signal);
      return { message: undefined, is_empty: false };
    }
  }
  try {
    while (!signal?.aborted) {
      const { message, is_empty } = await take();
      if (is_empty && until_empty) return;
      if (message === undefined) continue;
      const held = keeper.hold(message);
      try {
        if (!signal?.aborted) yield deliveryOf(message, held, keeper);
      } finally {
        if (held.state === "held") await keeper.release(held);
      }
    }
  } finally {
    await keeper.close();
  }
}
