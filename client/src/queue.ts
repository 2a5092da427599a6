import type { Bodies } from "./bodies.ts";
import { type ConsumeOptions, type Consumer, consume, type Handler } from "./consume.ts";
import { cleanError, withCleanError } from "./errorText.ts";
import type { ChangeInput, MatchingInput, MessageInput, PauseInput, RedriveInput } from "./inputs.ts";
import { type Delivery, type IterateOptions, iterate } from "./iterate.ts";
import type {
  ErrorGroups,
  MessageCount,
  Moved,
  OrderingKeyPage,
  Published,
  PublishResult,
  Queue,
  QueueMinutes,
  QueueStats,
  RepairedQueue,
  SeenMessageWithEvents,
  StartedTask,
} from "./outputs.ts";
import {
  type Lease,
  type NackOptions,
  type Query,
  type Received,
  type ReceiveOptions,
  receive,
  type SettleResult,
} from "./receive.ts";
import type { Given, Send } from "./send.ts";

/** A message to publish. */
export type Outgoing<Body> = Omit<MessageInput, "body"> & { body: Body };
export type PeekOptions = Query<"peekMessages">;

/** One queue's messages. Every call throws a PsqlqueueError when it is refused, or not answered. */
export type QueueHandle<Input, Output> = ReturnType<typeof createQueue<Input, Output>>;

/** A publish as it goes over the wire. */
export async function writeMessage<Body>(
  bodies: Bodies<Body, unknown>,
  message: Outgoing<Body>,
): Promise<MessageInput> {
  return { ...message, body: await bodies.write(message.body) };
}

const leaseOf = ({ id, lease_token }: Lease) => ({ id, lease_token });

/** What concerns the queue as a whole. */
function createControls(send: Send, id: string) {
  const queue = { queue_id: id };
  return {
    /** The queue's settings. */
    get: (): Promise<Queue> => send("getQueue", { path: queue }),
    stats: (): Promise<QueueStats> => send("getQueueStats", { path: queue }),
    /** Pauses consuming, or what `body` says. */
    pause: (body: PauseInput = {}): Promise<Queue> => send("pauseQueue", { path: queue, body }),
    resume: (): Promise<Queue> => send("resumeQueue", { path: queue }),
    /** Removes every message. What takes long goes on as a task, which is answered. */
    purge: (query: Query<"purgeQueue"> = {}): Promise<StartedTask | undefined> =>
      send("purgeQueue", { path: queue, query }),
    /** Removes acked and expired messages. What takes long goes on as a task, which is answered. */
    cleanUp: (query: Query<"cleanUpQueue"> = {}): Promise<StartedTask | undefined> =>
      send("cleanUpQueue", { path: queue, query }),
    /** Ordering keys with unfinished messages. */
    orderingKeys: (query: Query<"listOrderingKeys"> = {}): Promise<OrderingKeyPage> =>
      send("listOrderingKeys", { path: queue, query }),
    /** Looks at every ordering key, and gives those their first message back that have lost it. */
    repair: (): Promise<RepairedQueue> => send("repairQueue", { path: queue }),
    /** What happened minute by minute, for the last day. */
    rates: (query: Query<"listRates"> = {}): Promise<QueueMinutes> => send("listRates", { path: queue, query }),
    /** Counts messages that match, a bounded number of rows a call: go on from `next`. */
    count: (query: Query<"countMessages"> = {}): Promise<MessageCount> => send("countMessages", { path: queue, query }),
    /** Dead letters by their error, a bounded number of rows a call: go on from `next`. */
    errorGroups: (query: Query<"groupDeadLetters"> = {}): Promise<ErrorGroups> =>
      send("groupDeadLetters", { path: queue, query }),
    /** Deletes or nacks every message that matches, as a task. */
    actOnMatching: (body: MatchingInput): Promise<StartedTask> => send("actOnMatching", { path: queue, body }),
    /** Moves messages of this dead-letter queue back, as a task. */
    redrive: async (body: RedriveInput = {}): Promise<StartedTask> =>
      (await send("redriveMessages", { path: queue, body })) as StartedTask,
    /** The same of at most 1000 messages, and answers when it is done. */
    redriveNow: async (body: RedriveInput & { limit: number }): Promise<Moved> =>
      (await send("redriveMessages", { path: queue, body, query: { wait: true }, wait_ms: 60_000 })) as Moved,
  };
}

/** The handle of a queue, which is not asked for: it need not exist yet. */
export function createQueue<Input, Output>(send: Send, id: string, bodies: Bodies<Input, Output>) {
  const queue = { queue_id: id };
  const at = (message_id: string) => ({ ...queue, message_id });
  const settleAll = async <Name extends "ackMessages" | "nackMessages" | "extendLeases">(
    name: Name,
    body: Given<Name>["body"],
  ) => (await send(name, { path: queue, body } as Given<Name>)).results;

  return {
    id,

    /** Stores one message: when this resolves, it is on disk. */
    async publish(message: Outgoing<Input>): Promise<Published> {
      const body = await writeMessage(bodies, message);
      return (await send("publishMessage", { path: queue, body, wants_result: true })) as Published;
    },

    /** Stores up to 1000 messages in their order, all or none. */
    async publishBatch(messages: readonly Outgoing<Input>[]): Promise<Published[]> {
      const body = { messages: await Promise.all(messages.map((own) => writeMessage(bodies, own))) };
      return (await send("publishMessages", { path: queue, body })).data as Published[];
    },

    /** Stores those of up to 1000 messages that can be, and says of each what became of it. */
    async publishEach(messages: readonly Outgoing<Input>[]): Promise<PublishResult[]> {
      const body = { messages: await Promise.all(messages.map((own) => writeMessage(bodies, own))) };
      return (await send("publishMessages", { path: queue, body, query: { atomic: false } })).data;
    },

    /**
     * Leases messages. One whose body the schema refuses is nacked with the reason, as its retries and its dead-letter
     * queue are set, and left out.
     */
    async receive(options: ReceiveOptions = {}): Promise<Received<Output>[]> {
      const { messages, invalid } = await receive(send, id, bodies as Bodies<never, Output>, options);
      if (invalid.length > 0) {
        const items = invalid.map(({ message, error }) => ({ ...leaseOf(message), error: cleanError(error.message) }));
        await settleAll("nackMessages", { items });
      }
      return messages;
    },

    /** The message never comes back. Throws LeaseLostError when somebody else may have it. Repeatable. */
    async ack(message: Lease): Promise<void> {
      const { lease_token } = message;
      await send("ackMessage", { path: at(message.id), body: { lease_token } });
    },

    /** The message comes back: when `options` say, else as the queue's retry policy does. Throws LeaseLostError. */
    async nack(message: Lease, options: NackOptions = {}): Promise<void> {
      const { lease_token } = message;
      await send("nackMessage", { path: at(message.id), body: { ...withCleanError(options), lease_token } });
    },

    /** The lease ends so many seconds from now; 0 gives the message back. Answers when. Throws LeaseLostError. */
    async extend(message: Lease, ack_deadline_seconds: number): Promise<string> {
      const body = { lease_token: message.lease_token, ack_deadline_seconds };
      const extended = await send("extendLease", { path: at(message.id), body, wants_result: true });
      return extended?.lease_expires_at ?? "";
    },

    /** Acks up to 1000 messages, and says of each what became of it. */
    ackBatch: (messages: readonly Lease[]): Promise<SettleResult[]> =>
      settleAll("ackMessages", { items: messages.map(leaseOf) }),

    /** Nacks up to 1000 messages; `options` hold for those that do not say themselves. */
    nackBatch: (messages: readonly (Lease & NackOptions)[], options: NackOptions = {}): Promise<SettleResult[]> =>
      settleAll("nackMessages", {
        items: messages.map(({ id, lease_token, visibility_timeout_seconds, error, dead_letter }) => ({
          id,
          lease_token,
          visibility_timeout_seconds,
          error: error == null ? error : cleanError(error),
          dead_letter,
        })),
        ...withCleanError(options),
      }),

    /** Extends up to 1000 leases; 0 seconds give the messages back. */
    extendBatch: (messages: readonly Lease[], ack_deadline_seconds: number): Promise<SettleResult[]> =>
      settleAll("extendLeases", { items: messages.map(leaseOf), ack_deadline_seconds }),

    /** Hands messages to `handler` until it is stopped: see ConsumeOptions. */
    consume: (handler: Handler<Output>, options: ConsumeOptions = {}): Consumer =>
      consume({ send, id, bodies: bodies as Bodies<never, Output>, handler, options }),

    /**
     * Messages one after the other, each leased for as long as the loop works on it. What was not settled when the loop
     * goes on or ends is given back.
     */
    messages: (options: IterateOptions = {}): AsyncGenerator<Delivery<Output>, void, undefined> =>
      iterate(send, id, bodies as Bodies<never, Output>, options),

    /** Looks at messages without leasing them: a page, and `next` for the one after it. */
    peek: (query: PeekOptions = {}) => send("peekMessages", { path: queue, query }),
    /** Looks at one message without leasing it. Its body is text. */
    getMessage: (message_id: string): Promise<SeenMessageWithEvents> => send("getMessage", { path: at(message_id) }),
    /** Changes a message that nobody holds. Throws LeaseLostError otherwise. */
    changeMessage: (message_id: string, body: ChangeInput): Promise<SeenMessageWithEvents> =>
      send("changeMessage", { path: at(message_id), body }),
    /** Deletes a message, unless somebody else holds it. */
    async deleteMessage(message: Lease): Promise<void> {
      await send("deleteMessage", { path: at(message.id), query: { lease_token: message.lease_token } });
    },

    ...createControls(send, id),
  };
}
