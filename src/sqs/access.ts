import type { Broker } from "../broker/broker.ts";
import type { Identity, Action as Right } from "../web/identity.ts";
import { SqsError } from "./errors.ts";
import { nameOfArn, nameOfUrl } from "./names.ts";
import type { Lists } from "./service.ts";
import type { Action } from "./shapes.ts";

/** What each action needs of a key. */
export const rights: Record<Action, Right> = {
  AddPermission: "manage",
  CancelMessageMoveTask: "manage",
  ChangeMessageVisibility: "consume",
  ChangeMessageVisibilityBatch: "consume",
  CreateQueue: "manage",
  DeleteMessage: "consume",
  DeleteMessageBatch: "consume",
  DeleteQueue: "manage",
  GetQueueAttributes: "peek",
  GetQueueUrl: "peek",
  ListDeadLetterSourceQueues: "peek",
  ListMessageMoveTasks: "peek",
  ListQueueTags: "peek",
  ListQueues: "peek",
  PurgeQueue: "manage",
  ReceiveMessage: "consume",
  RemovePermission: "manage",
  SendMessage: "publish",
  SendMessageBatch: "publish",
  SetQueueAttributes: "manage",
  StartMessageMoveTask: "manage",
  TagQueue: "manage",
  UntagQueue: "manage",
};

type Named = {
  QueueUrl?: string;
  QueueName?: string;
  SourceArn?: string;
  DestinationArn?: string;
  TaskHandle?: string;
  Attributes?: Record<string, string>;
};

/** The queue of a dead-letter policy, as far as it is one; what is wrong with it, its reader says. */
function deadQueueOf(attributes: Record<string, string> | undefined): string | undefined {
  try {
    const policy = JSON.parse(attributes?.["RedrivePolicy"] ?? "null") as { deadLetterTargetArn?: unknown } | null;
    const arn = policy?.deadLetterTargetArn;
    return typeof arn === "string" ? nameOfArn(arn) : undefined;
  } catch {
    return undefined;
  }
}

/** Every queue that a request names. Throws when its QueueUrl is of none. */
export function queuesOf(input: Named): string[] {
  const of_arns = [input.SourceArn, input.DestinationArn].map((arn) =>
    arn === undefined ? undefined : nameOfArn(arn),
  );
  const of_url = input.QueueUrl === undefined || input.QueueUrl === "" ? undefined : nameOfUrl(input.QueueUrl);
  return [of_url, input.QueueName, ...of_arns, deadQueueOf(input.Attributes)].filter((name) => name !== undefined);
}

/**
 * Throws `AccessDenied` unless the key may do this to all that the request names, whether that is there or not, and to
 * all that changes with it.
 */
export async function checkAccess(identity: Identity, action: Action, input: object, broker: Broker): Promise<void> {
  const right = rights[action];
  const queues = queuesOf(input as Named);
  // A move without a destination goes back to where messages came from, and its handle names no queue that was checked.
  const is_wide =
    (action === "StartMessageMoveTask" && (input as Named).DestinationArn === undefined) ||
    action === "CancelMessageMoveTask";
  const isAllowed = (queue: string) => identity.may(right, "queue", queue);
  const may = is_wide ? identity.mayAll(right) : identity.may(right) && queues.every(isAllowed);
  if (!may) throw new SqsError("AccessDenied", `Access denied: the key does not allow ${right} on this.`);
  if (action !== "DeleteQueue" || identity.mayAll(right)) return;
  for (const queue of queues) {
    if (await broker.everyDeadLetterSource(queue, isAllowed)) continue;
    const what = `${right} on the queues whose dead-letter queue it is, which would lose it`;
    throw new SqsError("AccessDenied", `Access denied: the key does not allow ${what}.`);
  }
}

const rows_min = 100;

/** Ids after `after`, of those that are found the ones that the key may see: page by page, for the others make room. */
async function pageSeenBy(
  identity: Identity,
  after: string,
  limit: number,
  find: (after: string, limit: number) => Promise<string[]>,
): Promise<string[]> {
  const names: string[] = [];
  const rows = Math.max(limit, rows_min);
  for (let last = after; ; ) {
    const found = await find(last, rows);
    for (const name of found) if (identity.may("peek", "queue", name)) names.push(name);
    last = found.at(-1) ?? "";
    if (found.length < rows || names.length >= limit) return names.slice(0, limit);
  }
}

/** What the key may see of lists. */
export const asSeenBy = (lists: Lists, identity: Identity): Lists => ({
  searchQueues: (prefix, after, limit) =>
    pageSeenBy(identity, after, limit, (last, rows) => lists.searchQueues(prefix, last, rows)),
  listDeadLetterSources: (id, after, limit) =>
    pageSeenBy(identity, after, limit, (last, rows) => lists.listDeadLetterSources(id, last, rows)),
});
