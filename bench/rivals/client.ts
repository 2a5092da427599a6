// What the client of every queue can do, so that one loop drives all of them.

/** Publishes one message; resolves when the queue has confirmed it. */
export type Publish = (body: string) => Promise<void>;

/**
 * Hears of a message that was acked; `ack_ms` is what the ack took until it was confirmed, undefined where nothing
 * confirms it.
 */
export type OnAcked = (body: string, ack_ms: number | undefined) => void;

/** A queue's client, connected. */
export type Client = {
  /** So many publishers. Those of an earlier call are used again. */
  publishers(count: number): Promise<Publish[]>;
  /** Stores messages in the fastest way that the client knows: preparation, not measured. */
  fill(bodies: string[]): Promise<void>;
  /** Starts consumers. What it answers ends them; it resolves when no ack is under way. */
  consume(count: number, onAcked: OnAcked): Promise<() => Promise<void>>;
  /** How many messages the queue still holds, those under way included. */
  left(): Promise<number>;
  close(): Promise<void>;
};

/** How many messages a consumer takes at a time, where the queue knows batches. */
export const batch = 10;

/** So many parts of a list. */
export function partsOf<Item>(items: Item[], size: number): Item[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, i) => items.slice(i * size, (i + 1) * size));
}

/** Where consumers ask for messages themselves. */
export type Pull<Message> = {
  /** Up to ten messages; empty when there are none for now. */
  receive(consumer: number): Promise<Message[]>;
  bodyOf(message: Message): string;
  /** Resolves when the ack is confirmed. */
  ack(message: Message, consumer: number): Promise<void>;
};

/** Consumers that receive, ack one message after the other, and receive again. */
export function pull<Message>(count: number, { receive, bodyOf, ack }: Pull<Message>, onAcked: OnAcked) {
  let is_over = false;
  const work = async (_: unknown, consumer: number) => {
    while (!is_over) {
      for (const message of await receive(consumer)) {
        const asked_ms = performance.now();
        await ack(message, consumer);
        onAcked(bodyOf(message), performance.now() - asked_ms);
      }
    }
  };
  const working = Promise.all(Array.from({ length: count }, work));
  return async () => {
    is_over = true;
    await working;
  };
}
