import type { Client, Queue, QueueInput, Subscription, Topic } from "../../client/src/client.ts";
import { CommandError, type Context, type Runner } from "./context.ts";
import { type Declaration, readDeclaration } from "./declaration.ts";
import { baseOf, new_queue } from "./queues.ts";
import { checkSettingNames } from "./settingNames.ts";
import { take } from "./topics.ts";

/** One step: what it is, as a person reads it, and how it is done. */
type Step = {
  action: "create" | "change" | "delete";
  kind: string;
  id: string;
  details: string[];
  run(): Promise<unknown>;
};

type Present = { queues: Map<string, Queue>; topics: Map<string, Topic>; subscriptions: Map<string, Subscription> };

const byId = <Item extends { id: string }>(items: Item[]) => new Map(items.map((item) => [item.id, item]));

async function look(client: Client): Promise<Present> {
  const [queues, topics, subscriptions] = await Promise.all([
    take(client.queues.all(), {}),
    take(client.topics.all(), {}),
    take(client.subscriptions.all(), {}),
  ]);
  return { queues: byId(queues), topics: byId(topics), subscriptions: byId(subscriptions) };
}

/** Equal as JSON, whatever the order of members. What is declared of an object counts, what is not stays. */
function fits(declared: unknown, present: unknown): boolean {
  if (typeof declared !== "object" || declared === null || Array.isArray(declared)) {
    return JSON.stringify(declared) === JSON.stringify(present);
  }
  if (typeof present !== "object" || present === null) return false;
  return Object.entries(declared).every(([name, own]) => fits(own, (present as Record<string, unknown>)[name]));
}

const shown = (value: unknown) => JSON.stringify(value) ?? "none";

/** Members that differ, as `name: before → after`. */
function differences(declared: object, present: object): string[] {
  const before = present as Record<string, unknown>;
  return Object.entries(declared).flatMap(([name, own]) =>
    fits(own, before[name]) ? [] : [`${name}: ${shown(before[name])} → ${shown(own)}`],
  );
}

/** A dead-letter queue comes before those that use it. */
function inOrder(queues: Declaration["queues"]): Declaration["queues"] {
  const left = byId(queues);
  const ordered: Declaration["queues"] = [];
  const add = (queue: Declaration["queues"][number]) => {
    if (!left.delete(queue.id)) return;
    const target = left.get(queue.dead_queue_id ?? "");
    if (target !== undefined) add(target);
    ordered.push(queue);
  };
  for (const queue of queues) add(queue);
  return ordered;
}

const checkNames = ({ id: _, ...settings }: Declaration["queues"][number], file: string, shown: Queue | undefined) =>
  checkSettingNames(Object.keys(settings), shown, `${file}: queues: `);

function queueSteps(client: Client, declared: Declaration["queues"], present: Present, file: string): Step[] {
  return inOrder(declared).flatMap((queue): Step[] => {
    const { id } = queue;
    const before = present.queues.get(id);
    checkNames(queue, file, before ?? present.queues.values().next().value);
    if (before === undefined) {
      const create = async () => {
        const made = await client.queues.create({ ...new_queue, ...queue } as QueueInput);
        try {
          checkNames(queue, file, made);
        } catch (error) {
          await client.queues.delete(made.id);
          throw error;
        }
      };
      return [{ action: "create", kind: "queue", id, details: [], run: create }];
    }
    const details = differences(queue, before);
    if (details.length === 0) return [];
    const body = { ...baseOf(before, queue), ...queue };
    return [{ action: "change", kind: "queue", id, details, run: () => client.queues.update(id, body) }];
  });
}

function topicSteps(client: Client, { topics, subscriptions }: Declaration, present: Present): Step[] {
  const made = topics.flatMap(({ id }): Step[] =>
    present.topics.has(id)
      ? []
      : [{ action: "create", kind: "topic", id, details: [], run: () => client.topics.create({ id }) }],
  );
  const subscribed = subscriptions.flatMap((subscription): Step[] => {
    const { id } = subscription;
    const before = present.subscriptions.get(id);
    const create = () => client.subscriptions.create(subscription);
    if (before === undefined) return [{ action: "create", kind: "subscription", id, details: [], run: create }];
    const wanted = { ...subscription, message_filters: subscription.message_filters ?? null };
    // A filter is replaced as a whole.
    const is_same = JSON.stringify(wanted.message_filters) === JSON.stringify(before.message_filters);
    const details = differences(
      { ...wanted, message_filters: is_same ? before.message_filters : [wanted.message_filters] },
      before,
    );
    if (details.length === 0) return [];
    const again = async () => {
      await client.subscriptions.delete(id);
      await create();
    };
    const note = "made anew: what is published at that moment does not reach its queue";
    return [{ action: "change", kind: "subscription", id, details: [...details, note], run: again }];
  });
  return [...made, ...subscribed];
}

/** What is there and is not declared: subscriptions first, which go with their topics and queues anyway. */
function pruneSteps(client: Client, declaration: Declaration, present: Present): Step[] {
  const left = (kind: keyof Present) => {
    const kept = new Set(declaration[kind].map(({ id }) => id));
    return [...present[kind].keys()].filter((id) => !kept.has(id));
  };
  const step = (kind: string, id: string, run: () => Promise<unknown>): Step => ({
    action: "delete",
    kind,
    id,
    details: [],
    run,
  });
  return [
    ...left("subscriptions").map((id) => step("subscription", id, () => client.subscriptions.delete(id))),
    ...left("topics").map((id) => step("topic", id, () => client.topics.delete(id))),
    ...left("queues").map((id) => step("queue", id, () => client.queues.delete(id, { force: true }))),
  ];
}

const signs = { create: "+", change: "~", delete: "-" };

type ApplyOptions = { file?: string; dry_run?: boolean; prune?: boolean; yes?: boolean };

/** `apply` */
export const apply: Runner = {
  async run(context: Context, _: string[], options: ApplyOptions) {
    const { client, out } = context;
    const { file, dry_run, prune } = options;
    if (file === undefined) throw new CommandError("apply needs a file: psqlqueue apply --file queues.yaml", 2);
    const declaration = await readDeclaration(file);
    const present = await look(client);
    const deletions = prune ? pruneSteps(client, declaration, present) : [];
    const steps = [
      ...queueSteps(client, declaration.queues, present, file),
      ...topicSteps(client, declaration, present),
      ...deletions,
    ];
    const say = async ({ action, kind, id, details }: Step) => {
      const lines = [`${signs[action]} ${kind} ${id}`, ...details.map((detail) => `    ${detail}`)];
      await out.item(lines.join("\n"), { action, kind, id, details });
    };
    if (dry_run) {
      for (const step of steps) await say(step);
      out.note(steps.length === 0 ? "nothing would change" : `${steps.length} would change`);
      return 0;
    }
    if (deletions.length > 0) {
      const names = deletions.map(({ kind, id }) => `${kind} ${id}`).join(", ");
      await context.confirm(`deletes what ${file} does not declare: ${names}`, String(deletions.length), options);
    }
    for (const step of steps) {
      await step.run();
      await say(step);
    }
    out.note(steps.length === 0 ? "nothing to change" : `${steps.length} changed`);
    return 0;
  },
};
