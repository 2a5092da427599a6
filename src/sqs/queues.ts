import { BrokerError } from "../errors.ts";
import {
  asksForFifo,
  type Change,
  checkThroughput,
  firstDifference,
  needsStats,
  new_base,
  readChange,
  readNames,
  refusedTarget,
  showAttributes,
} from "./attributes.ts";
import { invalidParameter, invalidValue, missing, SqsError } from "./errors.ts";
import { tags_max } from "./limits.ts";
import { arnOf, checkNewName, isFifo, nameOfName, nameOfUrl, urlOf } from "./names.ts";
import { addPermission, allowsSource, removePermission } from "./policies.ts";
import { type Act, type Call, nothing, type Service } from "./service.ts";
import { isXmlText } from "./xml.ts";

// Actions on queues themselves.

const tag_prefix = "tag:";

const tagsOf = (extras: Record<string, string>): Record<string, string> =>
  Object.fromEntries(
    Object.entries(extras).flatMap(([name, value]) =>
      name.startsWith(tag_prefix) ? [[name.slice(tag_prefix.length), value]] : [],
    ),
  );

const asExtras = <Value>(tags: Record<string, Value>): Record<string, Value> =>
  Object.fromEntries(Object.entries(tags).map(([name, value]) => [tag_prefix + name, value]));

function checkTags(tags: Record<string, string>): void {
  for (const [name, value] of Object.entries(tags)) {
    if (name.length < 1 || name.length > 128) {
      throw invalidValue(name, "TagKey", "A tag key must be 1 to 128 in length.");
    }
    if (!isXmlText(name + value)) throw invalidValue(name, "TagKey", "Invalid characters found.");
    if (value.length > 256) throw invalidValue(value, "TagValue", "A tag value must be at most 256 in length.");
    if (/^aws:/i.test(name)) throw invalidValue(name, "TagKey", "Tag keys must not start with aws:.");
  }
}

const tooManyTags = (queue: string) => invalidParameter(`Too many tags added for queue ${queue}.`);

/** Is the dead-letter queue there, and does it take this queue's messages? */
async function checkTarget({ broker }: Service, queue: string, { later }: Change, policy: string): Promise<void> {
  if (later.dead_queue_id == null) return;
  try {
    const { extras } = await broker.getQueueAndExtras(later.dead_queue_id);
    if (allowsSource(extras["RedriveAllowPolicy"], queue)) return;
  } catch (error) {
    if (error instanceof BrokerError && error.error === "queue_not_found") {
      throw refusedTarget(policy, "Dead letter target does not exist.");
    }
    throw error;
  }
  throw refusedTarget(policy, "The dead-letter queue does not allow this queue as a source.");
}

/** What the broker refuses of a change is the RedrivePolicy: everything else has been checked. */
async function refusingTarget<Result>(policy: string, work: () => Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof BrokerError && error.error === "validation_failed")) throw error;
    throw refusedTarget(policy, "The dead-letter queue must not lead back to the queue.");
  }
}

const urlOfQueue = ({ place }: Service, { origin }: Call, name: string) => urlOf(place, origin, name);

/** Makes a queue. Repeatable with the same attributes. */
export const createQueue: Act<"CreateQueue"> = async (service, input, call) => {
  const { broker, place, deleted } = service;
  const given = input.Attributes ?? {};
  const tags = input.tags ?? {};
  const name = input.QueueName;
  const is_fifo = asksForFifo(given);
  if (Object.hasOwn(given, "FifoQueue") && !is_fifo && !isFifo(name ?? "")) {
    throw new SqsError("InvalidAttributeName", "Unknown Attribute FifoQueue.");
  }
  checkNewName(name, is_fifo, service.limits.is_strict);
  const change = readChange(given, name);
  checkThroughput(change);
  checkTags(tags);
  if (Object.keys(tags).length > tags_max) throw tooManyTags(name);
  const policy = given["RedrivePolicy"] ?? "";
  await checkTarget(service, name, change, policy);
  if (deleted?.has(name)) {
    throw new SqsError(
      "QueueDeletedRecently",
      "You must wait 60 seconds after deleting a queue before you can create another with the same name.",
    );
  }
  const later = { ...change.later, ...(is_fifo && { strict_leases: true }) };
  const extras = { ...change.extras, ...asExtras(tags) };
  const QueueUrl = urlOfQueue(service, call, name);
  try {
    await refusingTarget(policy, () => broker.createQueue(name, { ...new_base, ...change.base }, later, extras));
  } catch (error) {
    if (!(error instanceof BrokerError && error.error === "queue_exists")) throw error;
    const different = firstDifference(given, await broker.getQueueAndExtras(name), place);
    if (different !== undefined) {
      throw new SqsError(
        "QueueNameExists",
        `A queue already exists with the same name and a different value for attribute ${different}`,
      );
    }
  }
  return { QueueUrl };
};

/** Where a queue is found. */
export const getQueueUrl: Act<"GetQueueUrl"> = async (service, input, call) => {
  const name = nameOfName(input.QueueName);
  await service.broker.getQueue(name);
  return { QueueUrl: urlOfQueue(service, call, name) };
};

const page_max = 1000;

/** Where the page before ended. */
function readToken(token: string | undefined): string {
  if (token === undefined) return "";
  const name = Buffer.from(token, "base64url").toString();
  if (!/^[!-~]+$/.test(name)) throw invalidValue(token, "NextToken", "It is not a token of this service.");
  return name;
}

function readPageSize(asked: number | undefined): number {
  if (asked === undefined) return page_max;
  if (asked < 1 || asked > page_max) {
    throw invalidValue(asked, "MaxResults", `Must be between 1 and ${page_max}, if provided.`);
  }
  return asked;
}

/** One page of names that were asked for with one more. A page without a size has no token, as at Amazon. */
function pageOf(names: string[], limit: number, is_paged: boolean): { names: string[]; NextToken?: string } {
  const shown = names.slice(0, limit);
  const last = shown.at(-1);
  if (names.length <= limit || last === undefined || !is_paged) return { names: shown };
  return { names: shown, NextToken: Buffer.from(last).toString("base64url") };
}

/** Queues by name, page by page. */
export const listQueues: Act<"ListQueues"> = async (service, input, call) => {
  const limit = readPageSize(input.MaxResults);
  const prefix = input.QueueNamePrefix ?? "";
  if (!/^[!-~]*$/.test(prefix)) return nothing;
  const found = await service.lists.searchQueues(prefix, readToken(input.NextToken), limit + 1);
  const { names, NextToken } = pageOf(found, limit, input.MaxResults !== undefined);
  if (names.length === 0) return nothing;
  return {
    QueueUrls: names.map((name) => urlOfQueue(service, call, name)),
    ...(NextToken !== undefined && { NextToken }),
  };
};

/** Queues whose dead-letter queue this one is. */
export const listDeadLetterSourceQueues: Act<"ListDeadLetterSourceQueues"> = async (service, input, call) => {
  const queue = nameOfUrl(input.QueueUrl);
  const limit = readPageSize(input.MaxResults);
  const found = await service.lists.listDeadLetterSources(queue, readToken(input.NextToken), limit + 1);
  const { names, NextToken } = pageOf(found, limit, input.MaxResults !== undefined);
  return {
    queueUrls: names.map((name) => urlOfQueue(service, call, name)),
    ...(NextToken !== undefined && { NextToken }),
  };
};

/** Removes a queue with everything in it. */
export const deleteQueue: Act<"DeleteQueue"> = async ({ broker, facts, deleted }, input) => {
  const queue = nameOfUrl(input.QueueUrl);
  // Those whose dead-letter queue it is go on without.
  const queue_no = await broker.removeQueue(queue, true);
  facts.forget(queue);
  deleted?.note(queue);
  await broker.removeDeleted(queue, queue_no);
  return nothing;
};

/** Removes the messages of a queue, whatever their state. */
export const purgeQueue: Act<"PurgeQueue"> = async ({ broker, purged }, input) => {
  const queue = nameOfUrl(input.QueueUrl);
  if (purged?.has(queue)) {
    throw new SqsError(
      "PurgeQueueInProgress",
      `Only one PurgeQueue operation on ${queue} is allowed every 60 seconds.`,
    );
  }
  await broker.purge(queue);
  purged?.note(queue);
  return nothing;
};

/** Attributes of a queue, those that are asked for. */
export const getQueueAttributes: Act<"GetQueueAttributes"> = async ({ broker, place }, input) => {
  const queue = nameOfUrl(input.QueueUrl);
  const known = await broker.getQueueAndExtras(queue);
  const names = readNames(input.AttributeNames ?? []);
  const stats = needsStats(names) ? await broker.getStats(queue) : undefined;
  const Attributes = showAttributes(known, place, names, stats);
  return Object.keys(Attributes).length === 0 ? nothing : { Attributes };
};

/** Changes attributes of a queue. */
export const setQueueAttributes: Act<"SetQueueAttributes"> = async (service, input) => {
  const { broker, facts } = service;
  const queue = nameOfUrl(input.QueueUrl);
  if (input.Attributes === undefined) throw missing("Attributes");
  const known = await broker.getQueueAndExtras(queue);
  const change = readChange(input.Attributes, queue);
  checkThroughput(change, known);
  const policy = input.Attributes["RedrivePolicy"] ?? "";
  await checkTarget(service, queue, change, policy);
  await refusingTarget(policy, () => broker.updateQueue(queue, change.base, change.later, change.extras));
  facts.forget(queue);
  return nothing;
};

/** Adds tags, and replaces those of the same name. */
export const tagQueue: Act<"TagQueue"> = async ({ broker }, input) => {
  const queue = nameOfUrl(input.QueueUrl);
  if (input.Tags === undefined) throw missing("Tags");
  checkTags(input.Tags);
  const { extras } = await broker.getQueueAndExtras(queue);
  if (Object.keys({ ...tagsOf(extras), ...input.Tags }).length > tags_max) throw tooManyTags(queue);
  await broker.changeExtras(queue, asExtras(input.Tags));
  return nothing;
};

/** Removes tags; those that are not there do not matter. */
export const untagQueue: Act<"UntagQueue"> = async ({ broker }, input) => {
  const queue = nameOfUrl(input.QueueUrl);
  if (input.TagKeys === undefined) throw missing("TagKeys");
  // No tag has other characters, and those that are not there do not matter.
  const gone = input.TagKeys.filter(isXmlText).map((name): [string, null] => [name, null]);
  await broker.changeExtras(queue, asExtras(Object.fromEntries(gone)));
  return nothing;
};

/** Tags of a queue. */
export const listQueueTags: Act<"ListQueueTags"> = async ({ broker }, input) => {
  const { extras } = await broker.getQueueAndExtras(nameOfUrl(input.QueueUrl));
  const Tags = tagsOf(extras);
  return Object.keys(Tags).length === 0 ? nothing : { Tags };
};

/** Two that change one policy at a time: the later one looks again, at most this often. */
const policy_rounds_max = 20;

async function changePolicy(
  { broker }: Service,
  queue: string,
  change: (policy: string | undefined) => string | null,
): Promise<void> {
  for (let round = 0; round < policy_rounds_max; round++) {
    const { Policy } = (await broker.getQueueAndExtras(queue)).extras;
    const guard = { name: "Policy", value: Policy };
    if (await broker.changeExtras(queue, { Policy: change(Policy) }, guard)) return;
  }
  throw new BrokerError("unavailable", "too many changes of the queue's policy at once");
}

/** Adds a statement to the policy of a queue. */
export const addPermissionTo: Act<"AddPermission"> = async (service, input) => {
  const queue = nameOfUrl(input.QueueUrl);
  const { Label: label, AWSAccountIds: account_ids, Actions: action_names } = input;
  if (label === undefined) throw missing("Label");
  if (account_ids === undefined || account_ids.length === 0) throw missing("AWSAccountIds");
  if (action_names === undefined || action_names.length === 0) throw missing("Actions");
  const arn = arnOf(service.place, queue);
  await changePolicy(service, queue, (policy) => addPermission(policy, { label, account_ids, action_names }, arn));
  return nothing;
};

/** Removes a statement from the policy of a queue. */
export const removePermissionFrom: Act<"RemovePermission"> = async (service, input) => {
  const queue = nameOfUrl(input.QueueUrl);
  const { Label: label } = input;
  if (label === undefined) throw missing("Label");
  await changePolicy(service, queue, (policy) => removePermission(policy, label));
  return nothing;
};
