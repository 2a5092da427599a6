import { pause } from "./backoff.ts";
import { type Bodies, jsonBodies, plain_bodies, type StandardSchema } from "./bodies.ts";
import type { ApiKeyInput, QueueInput, QueueUpdate, SubscriptionInput, TopicInput } from "./inputs.ts";
import type { Operations } from "./operations.ts";
import type {
  FannedOut,
  FanOutResult,
  Health,
  Info,
  Maintenance,
  NewApiKey,
  Queue,
  QueueSummaryPage,
  QueueTrends,
  StartedTask,
  Subscription,
  Task,
  Topic,
} from "./outputs.ts";
import { createQueue, type Outgoing, type QueueHandle, writeMessage } from "./queue.ts";
import { type ClientOptions, createSend, type Send } from "./send.ts";

type ListOptions = Operations["listQueues"]["query"];
type Page<Item> = { data: Item[]; offset?: number; limit: number };

const page_rows = 1000;

/** Every item of a list, page by page. */
async function* pages<Item>(list: (query: ListOptions) => Promise<Page<Item>>): AsyncGenerator<Item, void, undefined> {
  for (let offset = 0; ; offset += page_rows) {
    const { data, limit } = await list({ limit: page_rows, offset });
    yield* data;
    if (data.length < limit) return;
  }
}

function createTopic<Input>(send: Send, id: string, bodies: Bodies<Input, unknown>) {
  const path = { topic_id: id };
  return {
    id,
    /** Stores a copy for each subscription whose filter matches, and answers which. */
    async publish(message: Outgoing<Input>): Promise<FannedOut> {
      const body = await writeMessage(bodies, message);
      return (await send("publishToTopic", { path, body, wants_result: true })) as FannedOut;
    },
    /** The same of up to 1000 messages, all or none. */
    async publishBatch(messages: readonly Outgoing<Input>[]): Promise<FanOutResult[]> {
      const body = { messages: await Promise.all(messages.map((own) => writeMessage(bodies, own))) };
      return (await send("publishManyToTopic", { path, body })).data;
    },
    get: (): Promise<Topic> => send("getTopic", { path }),
  };
}

export type TopicHandle<Input> = ReturnType<typeof createTopic<Input>>;

/** What a queue or a topic holds: text, or JSON that a validator checks. */
export type HandleOptions<Input, Output> = { schema: StandardSchema<Input, Output> };

const task_every_ms = 500;

function createLists(send: Send) {
  const listQueues = (query: ListOptions = {}) => send("listQueues", { query });
  const listTopics = (query: ListOptions = {}) => send("listTopics", { query });
  const listSubscriptions = (query: ListOptions = {}) => send("listSubscriptions", { query });
  const listTasks = (query: ListOptions = {}) => send("listTasks", { query });
  const listKeys = (query: ListOptions = {}) => send("listKeys", { query });
  const getTask = (task_id: string): Promise<Task> => send("getTask", { path: { task_id } });

  return {
    queues: {
      create: (body: QueueInput): Promise<Queue> => send("createQueue", { body }),
      get: (queue_id: string): Promise<Queue> => send("getQueue", { path: { queue_id } }),
      list: listQueues,
      all: () => pages(listQueues),
      /** Replaces the first three settings; of the others an absent one stays, and null resets it. */
      update: (queue_id: string, body: QueueUpdate): Promise<Queue> =>
        send("updateQueue", { path: { queue_id }, body }),
      /** With its messages and subscriptions. What takes long goes on as a task, which is answered. */
      delete: (queue_id: string, query: Operations["deleteQueue"]["query"] = {}): Promise<StartedTask | undefined> =>
        send("deleteQueue", { path: { queue_id }, query }),
    },
    topics: {
      create: (body: TopicInput): Promise<Topic> => send("createTopic", { body }),
      get: (topic_id: string): Promise<Topic> => send("getTopic", { path: { topic_id } }),
      list: listTopics,
      all: () => pages(listTopics),
      delete: (topic_id: string): Promise<undefined> => send("deleteTopic", { path: { topic_id } }),
    },
    subscriptions: {
      create: (body: SubscriptionInput): Promise<Subscription> => send("createSubscription", { body }),
      get: (subscription_id: string): Promise<Subscription> => send("getSubscription", { path: { subscription_id } }),
      list: listSubscriptions,
      all: () => pages(listSubscriptions),
      delete: (subscription_id: string): Promise<undefined> =>
        send("deleteSubscription", { path: { subscription_id } }),
    },
    tasks: {
      get: getTask,
      list: listTasks,
      all: () => pages(listTasks),
      cancel: (task_id: string): Promise<undefined> => send("cancelTask", { path: { task_id } }),
      /** The task as it goes on, twice a second, until it has ended or the signal is aborted. */
      async *watch(task_id: string, signal?: AbortSignal): AsyncGenerator<Task, void, undefined> {
        for (;;) {
          const task = await getTask(task_id);
          yield task;
          if (task.state !== "running" || signal?.aborted) return;
          await pause(task_every_ms, signal);
        }
      },
    },
    keys: {
      /** The answer holds the key's text, which nobody can show again. */
      create: (body: ApiKeyInput): Promise<NewApiKey> => send("createKey", { body }),
      list: listKeys,
      all: () => pages(listKeys),
      /** Revokes it. */
      delete: (key_id: string): Promise<undefined> => send("deleteKey", { path: { key_id } }),
    },
    /** Numbers of many queues; large ones are estimates. */
    stats: (query: Operations["listStats"]["query"] = {}): Promise<QueueSummaryPage> => send("listStats", { query }),
    /** Publishes and acks a minute of several queues: their ids, with commas. */
    trends: (query: Operations["listTrends"]["query"] = {}): Promise<QueueTrends> => send("listTrends", { query }),
    info: (): Promise<Info> => send("getInfo"),
    health: (): Promise<Health> => send("getHealth"),
    maintenance: (): Promise<Maintenance> => send("getMaintenance"),
  };
}

export type Client = ReturnType<typeof createLists> & {
  /** The messages of a queue. Bodies are text, or with `schema` JSON that it checks. */
  queue(id: string): QueueHandle<string, string>;
  queue<Input, Output>(id: string, options: HandleOptions<Input, Output>): QueueHandle<Input, Output>;
  /** The same of a topic. */
  topic(id: string): TopicHandle<string>;
  topic<Input, Output>(id: string, options: HandleOptions<Input, Output>): TopicHandle<Input>;
};

/** A client of one server. It holds nothing open: there is nothing to close. Throws a TypeError for a bad address. */
export function createClient(options: ClientOptions): Client {
  const send = createSend(options);
  const bodiesOf = <Input, Output>(own?: HandleOptions<Input, Output>) =>
    own === undefined ? (plain_bodies as unknown as Bodies<Input, Output>) : jsonBodies(own.schema);
  return {
    ...createLists(send),
    queue: <Input, Output>(id: string, own?: HandleOptions<Input, Output>) => createQueue(send, id, bodiesOf(own)),
    topic: <Input, Output>(id: string, own?: HandleOptions<Input, Output>) => createTopic(send, id, bodiesOf(own)),
  } as Client;
}
