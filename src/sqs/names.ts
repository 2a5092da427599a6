import { invalidParameter, missing, noQueue } from "./errors.ts";
import type { Origin } from "./origin.ts";

// Queues by their names, URLs and ARNs. The name is the queue's id.

export type Place = { account_id: string; region: string; public_url: string };

const suffix = ".fifo";

/** Is it the name of a FIFO queue? */
export const isFifo = (name: string): boolean => name.endsWith(suffix);

/** `arn:aws:sqs:<region>:<account>:<queue>` */
export const arnOf = ({ region, account_id }: Place, name: string): string =>
  `arn:aws:sqs:${region}:${account_id}:${name}`;

/** The queue that an ARN names, whatever its region and account; undefined when it is none. */
export const nameOfArn = (arn: string): string | undefined => /^arn:[^:]*:sqs:[^:]*:[^:]*:([^:]+)$/.exec(arn)?.[1];

/** Where clients find a queue: under the address that this server is known by, else under the one they used. */
export function urlOf({ public_url, account_id }: Place, { scheme, host }: Origin, name: string): string {
  const base = public_url === "" ? `${scheme}://${host ?? "localhost"}` : public_url;
  return `${base}/${account_id}/${name}`;
}

// No queue that exists has other characters, and NUL would upset the database.
const possible_name = /^[!-~]{1,255}$/;

/** The queue of a request: the last segment of its QueueUrl, whose host does not matter. Throws. */
export function nameOfUrl(url: string | undefined): string {
  if (url === undefined || url === "") throw missing("QueueUrl");
  const path = url.split(/[?#]/, 1)[0] ?? "";
  // Not with a regular expression, which would start anew at each of a million slashes.
  let end = path.length;
  while (end > 0 && path[end - 1] === "/") end -= 1;
  let name = path.slice(0, end);
  name = name.slice(name.lastIndexOf("/") + 1);
  try {
    name = decodeURIComponent(name);
  } catch {
    throw noQueue();
  }
  if (!possible_name.test(name)) throw noQueue();
  return name;
}

/** The queue that a QueueName names: all of it, and not a part as of a URL, or rights would be checked for another. */
export function nameOfName(name: string | undefined): string {
  if (name === undefined) throw missing("QueueName");
  if (!possible_name.test(name)) throw noQueue();
  return name;
}

const strict_name = /^[\w-]{1,80}$/;
const strict_fifo_name = /^[\w-]{1,75}\.fifo$/;
const relaxed_name = /^[\w.-]{1,255}$/;

/** Throws InvalidParameterValue for a name that a new queue may not have. */
export function checkNewName(name: string | undefined, is_fifo: boolean, is_strict: boolean): asserts name is string {
  if (name === undefined) throw missing("QueueName");
  const is_named_so = isFifo(name);
  if (is_fifo && !(is_named_so && (is_strict ? strict_fifo_name : relaxed_name).test(name))) {
    throw invalidParameter(
      "The name of a FIFO queue can only include alphanumeric characters, hyphens, or underscores, must end with .fifo " +
        "suffix and be 1 to 80 in length.",
    );
  }
  if (!is_fifo && (is_named_so || !(is_strict ? strict_name : relaxed_name).test(name))) {
    throw invalidParameter("Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length");
  }
}
