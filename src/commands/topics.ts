import type { Subscription, Topic } from "../../client/src/client.ts";
import type { Context, Runner } from "./context.ts";
import { type MessageOptions, membersOf, readBody } from "./publish.ts";

type Page = { limit?: number };

/** The first items of a list, or all. */
export async function take<Item>(
  items: AsyncIterable<Item>,
  { limit = Number.POSITIVE_INFINITY }: Page,
): Promise<Item[]> {
  const taken: Item[] = [];
  for await (const item of items) {
    taken.push(item);
    if (taken.length >= limit) break;
  }
  return taken;
}

/** `topic create` */
export const createTopic: Runner = {
  async run({ client, out }: Context, [id = ""]: string[]) {
    await out.done(`topic ${id} created`, await client.topics.create({ id }));
    return 0;
  },
};

/** `topic get` */
export const getTopic: Runner = {
  async run({ client, out }: Context, [id = ""]: string[]) {
    await out.record(await client.topics.get(id));
    return 0;
  },
};

/** `topic list` */
export const listTopics: Runner = {
  async run({ client, out }: Context, _: string[], options: Page) {
    await out.rows(await take<Topic>(client.topics.all(), options), ["id", "created_at"]);
    return 0;
  },
};

/** `topic delete` */
export const deleteTopic: Runner = {
  async run({ client, out, confirm }: Context, [id = ""]: string[], options: { yes?: boolean }) {
    await confirm(`deletes topic ${id} and its subscriptions`, id, options);
    await client.topics.delete(id);
    await out.done(`topic ${id} deleted`);
    return 0;
  },
};

/** `topic publish` */
export const publishToTopic: Runner = {
  async run({ client, out }: Context, [id = "", argument]: string[], options: MessageOptions) {
    const body = await readBody(argument, "topic publish TOPIC");
    const published = await client.topic(id).publish({ ...membersOf(options), body });
    const { delivered_queues: count, data } = published;
    if (out.is_json) await out.record(published);
    else if (count === 0) await out.done("no subscription let it pass: stored nowhere");
    else for (const copy of data) await out.item(`${copy.id}  ${copy.queue_id}`, copy);
    return 0;
  },
};

/** `subscription create` */
export const createSubscription: Runner = {
  async run(
    { client, out }: Context,
    [id = "", topic_id = "", queue_id = ""]: string[],
    { filter }: { filter?: Record<string, string> },
  ) {
    const lists = Object.entries(filter ?? {}).map(([name, values]) => [name, values.split(",")] as const);
    const message_filters = filter === undefined ? undefined : Object.fromEntries(lists);
    const subscription = await client.subscriptions.create({ id, topic_id, queue_id, message_filters });
    await out.done(`subscription ${id} created`, subscription);
    return 0;
  },
};

/** `subscription get` */
export const getSubscription: Runner = {
  async run({ client, out }: Context, [id = ""]: string[]) {
    await out.record(await client.subscriptions.get(id));
    return 0;
  },
};

/** `subscription list` */
export const listSubscriptions: Runner = {
  async run({ client, out }: Context, _: string[], options: Page) {
    const subscriptions = await take<Subscription>(client.subscriptions.all(), options);
    await out.rows(subscriptions, ["id", "topic_id", "queue_id", "message_filters", "created_at"]);
    return 0;
  },
};

/** `subscription delete` */
export const deleteSubscription: Runner = {
  async run({ client, out, confirm }: Context, [id = ""]: string[], options: { yes?: boolean }) {
    await confirm(`deletes subscription ${id}`, id, options);
    await client.subscriptions.delete(id);
    await out.done(`subscription ${id} deleted`);
    return 0;
  },
};
