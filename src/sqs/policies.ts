import { invalidValue } from "./errors.ts";
import { arnOf, isFifo, nameOfArn, type Place } from "./names.ts";

// The policies of a queue, JSON texts in its attributes: where dead messages go, who may send them here, and who may
// do what, which is kept and changed but not enforced.

const receives_max = 1000;
/** How often a message is received before it is dead, when nobody says. */
const receives_default = 10;

type Map = Record<string, unknown>;

function parseMap(text: string, parameter: string, what: string): Map {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = undefined;
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw invalidValue(text, parameter, `${what} is not a valid JSON map.`);
  }
  return value as Map;
}

export type Redrive = { dead_queue_id: string; message_max_deliveries: number };

/** What a RedrivePolicy of the queue says. Throws InvalidParameterValue. */
export function readRedrivePolicy(text: string, queue: string): Redrive {
  const refuse = (reason: string) => invalidValue(text, "RedrivePolicy", reason);
  const { deadLetterTargetArn, maxReceiveCount = receives_default } = parseMap(text, "RedrivePolicy", "Redrive policy");
  if (deadLetterTargetArn === undefined) {
    throw refuse("Redrive policy does not contain mandatory attribute: deadLetterTargetArn.");
  }
  const dead_queue_id = typeof deadLetterTargetArn === "string" ? nameOfArn(deadLetterTargetArn) : undefined;
  if (dead_queue_id === undefined) throw refuse("Invalid value for deadLetterTargetArn.");
  const count = /^\d{1,9}$/.test(String(maxReceiveCount)) ? Number(maxReceiveCount) : 0;
  if (count < 1 || count > receives_max) {
    const range = `valid values are from 1 to ${receives_max} both inclusive.`;
    throw refuse(`Invalid value for maxReceiveCount: ${maxReceiveCount}, ${range}`);
  }
  if (dead_queue_id === queue) throw refuse("A queue cannot be its own dead-letter queue.");
  if (isFifo(dead_queue_id) !== isFifo(queue)) {
    throw refuse("Dead-letter queue must be same type of queue as the source.");
  }
  return { dead_queue_id, message_max_deliveries: count };
}

/** The RedrivePolicy that these settings are. */
export const writeRedrivePolicy = (place: Place, { dead_queue_id, message_max_deliveries }: Redrive): string =>
  JSON.stringify({ deadLetterTargetArn: arnOf(place, dead_queue_id), maxReceiveCount: message_max_deliveries });

const sources_max = 10;

/** Checks a RedriveAllowPolicy. Throws InvalidParameterValue. */
export function checkRedriveAllowPolicy(text: string): void {
  const { redrivePermission, sourceQueueArns } = parseMap(text, "RedriveAllowPolicy", "Redrive allow policy");
  const refuse = (reason: string) => invalidValue(text, "RedriveAllowPolicy", reason);
  if (!["allowAll", "denyAll", "byQueue"].includes(redrivePermission as string)) {
    throw refuse("redrivePermission must be allowAll, denyAll or byQueue.");
  }
  const is_list = Array.isArray(sourceQueueArns) && sourceQueueArns.length > 0 && sourceQueueArns.length <= sources_max;
  if (redrivePermission === "byQueue" && !is_list)
    throw refuse(`sourceQueueArns must name 1 to ${sources_max} queues.`);
  if (redrivePermission !== "byQueue" && sourceQueueArns !== undefined) {
    throw refuse("sourceQueueArns is only allowed with the redrivePermission byQueue.");
  }
}

/** Does a queue with this RedriveAllowPolicy take dead messages of that queue? */
export function allowsSource(text: string | undefined, source: string): boolean {
  if (text === undefined) return true;
  const { redrivePermission, sourceQueueArns } = JSON.parse(text) as Map;
  if (redrivePermission !== "byQueue") return redrivePermission !== "denyAll";
  return (sourceQueueArns as unknown[]).some((arn) => typeof arn === "string" && nameOfArn(arn) === source);
}

const isMap = (value: unknown) => typeof value === "object" && value !== null && !Array.isArray(value);

/** Checks that a Policy is a map, and so are its statements. Throws InvalidParameterValue. */
export function checkPolicy(text: string): void {
  const { Statement = [] } = parseMap(text, "Policy", "The policy");
  if ([Statement].flat().every(isMap)) return;
  throw invalidValue(text, "Policy", "Statement must be a JSON map, or a list of them.");
}

type Policy = { Statement?: unknown };

/** The label of a statement; of what is none, and was stored all the same, undefined. */
const labelOf = (statement: unknown) => (statement as { Sid?: string } | null)?.Sid;

const actions = [
  "*",
  "AddPermission",
  "ChangeMessageVisibility",
  "CreateQueue",
  "DeleteMessage",
  "DeleteQueue",
  "GetQueueAttributes",
  "GetQueueUrl",
  "ListDeadLetterSourceQueues",
  "ListQueues",
  "PurgeQueue",
  "ReceiveMessage",
  "RemovePermission",
  "SendMessage",
  "SetQueueAttributes",
];
/** Those that a permission cannot give away. */
const owner_actions = [
  "AddPermission",
  "CreateQueue",
  "DeleteQueue",
  "ListQueues",
  "RemovePermission",
  "SetQueueAttributes",
];

const single = <Item>(list: Item[]) => (list.length === 1 ? list[0] : list);

const emptyPolicy = (arn: string) => JSON.stringify({ Version: "2008-10-17", Id: `${arn}/SQSDefaultPolicy` });

export type Permission = { label: string; account_ids: string[]; action_names: string[] };

function checkPermission({ label, account_ids, action_names }: Permission): void {
  if (!/^[\w-]{1,80}$/.test(label)) {
    throw invalidValue(
      label,
      "Label",
      "A label can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length.",
    );
  }
  for (const id of account_ids) {
    if (!/^\d{12}$/.test(id)) throw invalidValue(id, "PrincipalId", "Unable to verify.");
  }
  for (const name of action_names) {
    if (owner_actions.includes(name)) {
      const why = "Only the queue owner is allowed to invoke this action.";
      throw invalidValue(`SQS:${name}`, "ActionName", why);
    }
    if (!actions.includes(name)) {
      const known = actions.filter((own) => !owner_actions.includes(own)).join(", ");
      throw invalidValue(
        `SQS:${name}`,
        "ActionName",
        `Please refer to the appropriate WSDL for a list of valid actions: ${known}.`,
      );
    }
  }
}

/** The Policy with one more permission. Throws InvalidParameterValue for a label that is taken. */
export function addPermission(text: string | undefined, permission: Permission, arn: string): string {
  checkPermission(permission);
  const { label, account_ids, action_names } = permission;
  const policy: Policy = text === undefined ? JSON.parse(emptyPolicy(arn)) : JSON.parse(text);
  const statements = [policy.Statement ?? []].flat();
  if (statements.some((own) => labelOf(own) === label)) throw invalidValue(label, "Label", "Already exists.");
  const statement = {
    Sid: label,
    Effect: "Allow",
    Principal: { AWS: single(account_ids.map((id) => `arn:aws:iam::${id}:root`)) },
    Action: single(action_names.map((name) => `SQS:${name}`)),
    Resource: arn,
  };
  return JSON.stringify({ ...policy, Statement: [...statements, statement] });
}

/** The Policy without a permission; null when nothing is left. Throws InvalidParameterValue for an unknown label. */
export function removePermission(text: string | undefined, label: string): string | null {
  const policy: Policy = text === undefined ? {} : JSON.parse(text);
  const statements = [policy.Statement ?? []].flat();
  const left = statements.filter((own) => labelOf(own) !== label);
  if (left.length === statements.length) throw invalidValue(label, "Label", "can't find label.");
  return left.length === 0 ? null : JSON.stringify({ ...policy, Statement: left });
}
