import type { Queue, QueueStats, QueueUpdate, StartedTask } from "../../client/src/client.ts";
import { CommandError, type Context, type Runner } from "./context.ts";
import { checkSettingNames } from "./settingNames.ts";
import { take } from "./topics.ts";

type Settings = {
  ack_deadline?: number;
  retention?: number;
  delay?: number;
  dead_queue?: string;
  max_deliveries?: number;
  set?: Record<string, string>;
};

/** Settings that a queue must have, where nobody says otherwise. */
export const new_queue = {
  ack_deadline_seconds: 30,
  message_retention_seconds: 14 * 86_400,
  delivery_delay_seconds: 0,
};

/** A value of `--set`: JSON, or a text without quotes around it. */
function readSetting(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Settings of the options, as the API calls them; those that are not given are left out. */
function settingsOf({ ack_deadline, retention, delay, dead_queue, max_deliveries, set = {} }: Settings) {
  const has_no_dead_queue = dead_queue === "none";
  return {
    ...(ack_deadline !== undefined && { ack_deadline_seconds: ack_deadline }),
    ...(retention !== undefined && { message_retention_seconds: retention }),
    ...(delay !== undefined && { delivery_delay_seconds: delay }),
    ...(dead_queue !== undefined && { dead_queue_id: has_no_dead_queue ? null : dead_queue }),
    ...(has_no_dead_queue && { message_max_deliveries: null }),
    ...(max_deliveries !== undefined && { message_max_deliveries: max_deliveries }),
    ...Object.fromEntries(Object.entries(set).map(([name, text]) => [name, readSetting(text)])),
  };
}

const checkNames = ({ set = {} }: Settings, shown: Queue | undefined) =>
  checkSettingNames(Object.keys(set), shown, "--set ");

/**
 * What a change must send of a queue as it is, for v1 replaces it as a whole. Throws where it cannot be sent: the API
 * takes no lease of 0 seconds, which clients of SQS can make.
 */
export function baseOf(before: Queue, changes: Partial<QueueUpdate>) {
  const { id, ack_deadline_seconds, message_retention_seconds, delivery_delay_seconds } = before;
  if (ack_deadline_seconds < 1 && changes.ack_deadline_seconds === undefined) {
    throw new CommandError(
      `queue ${id} has ack_deadline_seconds 0, as SQS clients set it with VisibilityTimeout; a change over this API ` +
        "sets at least 1: say which, with --ack-deadline 30s, or ack_deadline_seconds: 30 in a file",
      2,
    );
  }
  return { ack_deadline_seconds, message_retention_seconds, delivery_delay_seconds };
}

const headings = ["id", "ack_deadline_seconds", "message_retention_seconds", "delivery_delay_seconds", "dead_queue_id"];

/** `queue create` */
export const create: Runner = {
  async run({ client, out }: Context, [id = ""]: string[], options: Settings) {
    checkNames(options, undefined);
    // Another queue tells the names before anything is made; the first one of a server tells them itself.
    if (options.set !== undefined) checkNames(options, (await client.queues.list({ limit: 1 })).data[0]);
    const queue = await client.queues.create({ ...new_queue, ...settingsOf(options), id });
    try {
      checkNames(options, queue);
    } catch (error) {
      await client.queues.delete(queue.id);
      throw error;
    }
    await out.done(`queue ${queue.id} created`, queue);
    return 0;
  },
};

/** `queue get` */
export const get: Runner = {
  async run({ client, out }: Context, [id = ""]: string[]) {
    await out.record(await client.queues.get(id));
    return 0;
  },
};

/** `queue list` */
export const list: Runner = {
  async run({ client, out }: Context, _: string[], options: { limit?: number }) {
    await out.rows(await take<Queue>(client.queues.all(), options), headings);
    return 0;
  },
};

/** `queue update` */
export const update: Runner = {
  async run({ client, out }: Context, [id = ""]: string[], options: Settings) {
    checkNames(options, undefined);
    const before = await client.queues.get(id);
    checkNames(options, before);
    const changes = settingsOf(options) as Partial<QueueUpdate>;
    const queue = await client.queues.update(id, { ...baseOf(before, changes), ...changes });
    await out.done(`queue ${id} updated`, queue);
    return 0;
  },
};

async function sayDone({ out }: Context, sentence: string, task: StartedTask | undefined): Promise<number> {
  if (task === undefined) await out.done(sentence);
  else await out.done(`goes on as task ${task.task_id}: psqlqueue task watch ${task.task_id}`, task);
  return 0;
}

/** `queue delete` */
export const remove: Runner = {
  async run(context: Context, [id = ""]: string[], options: { force?: boolean; async?: boolean; yes?: boolean }) {
    const { force, async: is_async } = options;
    await context.confirm(`deletes queue ${id}, its messages and its subscriptions`, id, options);
    const task = await context.client.queues.delete(id, { force, async: is_async });
    return await sayDone(context, `queue ${id} deleted`, task);
  },
};

/** `queue purge` */
export const purge: Runner = {
  async run(context: Context, [id = ""]: string[], options: { async?: boolean; yes?: boolean }) {
    await context.confirm(`removes every message of queue ${id}`, id, options);
    return await sayDone(context, `queue ${id} purged`, await context.client.queue(id).purge({ async: options.async }));
  },
};

/** `queue cleanup` */
export const cleanUp: Runner = {
  async run(context: Context, [id = ""]: string[], options: { async?: boolean }) {
    const task = await context.client.queue(id).cleanUp({ async: options.async });
    return await sayDone(context, `queue ${id} cleaned up`, task);
  },
};

const stats_headings = [
  "id",
  "ready",
  "delayed",
  "leased",
  "backing_off",
  "dead",
  "oldest_ready_age_seconds",
  "publish_rate_1m",
  "ack_rate_1m",
];

/** `queue stats` */
export const stats: Runner = {
  async run({ client, out }: Context, [id]: string[]) {
    if (id !== undefined) {
      await out.record(await client.queue(id).stats());
      return 0;
    }
    const all: (QueueStats & { id: string })[] = [];
    for await (const queue of client.queues.all()) {
      all.push({ id: queue.id, ...(await client.queue(queue.id).stats()) });
    }
    await out.rows(all, stats_headings);
    return 0;
  },
};

/** `queue pause` */
export const pause: Runner = {
  async run({ client, out }: Context, [id = ""]: string[], options: { publish?: boolean; publish_only?: boolean }) {
    const paused = { publish: options.publish || options.publish_only || false, consume: !options.publish_only };
    const queue = await client.queue(id).pause(paused);
    const what = Object.entries(paused).flatMap(([name, is_paused]) => (is_paused ? [name] : []));
    await out.done(`queue ${id} paused: ${what.join(" and ")}`, queue);
    return 0;
  },
};

/** `queue resume` */
export const resume: Runner = {
  async run({ client, out }: Context, [id = ""]: string[]) {
    await out.done(`queue ${id} resumed`, await client.queue(id).resume());
    return 0;
  },
};
