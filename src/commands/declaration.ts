import { readFileSync } from "node:fs";
import type { QueueInput, SubscriptionInput, TopicInput } from "../../client/src/client.ts";
import { CommandError } from "./context.ts";

/** What there is to be: the members of the API, and of a queue only those settings that are to be looked after. */
export type Declaration = {
  queues: (Partial<QueueInput> & { id: string })[];
  topics: TopicInput[];
  subscriptions: SubscriptionInput[];
};

const kinds = ["queues", "topics", "subscriptions"] as const;
export type Kind = (typeof kinds)[number];

const required: Record<Kind, string[]> = {
  queues: ["id"],
  topics: ["id"],
  subscriptions: ["id", "topic_id", "queue_id"],
};

/** Those of queues are what the server has. */
const members: Partial<Record<Kind, string[]>> = {
  topics: ["id"],
  subscriptions: ["id", "topic_id", "queue_id", "message_filters"],
};

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const example = "queues: [{ id: orders, ack_deadline_seconds: 60 }]";

async function readText(file: string): Promise<string> {
  if (file === "-") return await Bun.stdin.text();
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw new CommandError(`${file} cannot be read: ${(error as Error).message}`, 2);
  }
}

function readList(file: string, kind: Kind, given: unknown): { id: string }[] {
  if (given === undefined || given === null) return [];
  const refuse = (what: string) => new CommandError(`${file}: ${what}`, 2);
  if (!Array.isArray(given)) throw refuse(`${kind} is no list; write it as ${example}`);
  const ids = new Set<string>();
  return given.map((item: unknown, i) => {
    if (!isRecord(item)) throw refuse(`${kind}[${i}] is no object; write it as ${example}`);
    for (const name of required[kind]) {
      // YAML takes 1e3, 0x10 and 007 for numbers too: the id would be another one than what is written.
      if (typeof item[name] === "number") {
        throw refuse(`${kind}[${i}].${name} is a number; write the id in quotes, as ${name}: "4711"`);
      }
      if (typeof item[name] !== "string" || item[name] === "") throw refuse(`${kind}[${i}] has no ${name}`);
    }
    const other = Object.keys(item).find((name) => members[kind]?.includes(name) === false);
    if (other !== undefined) {
      throw refuse(`${kind}[${i}] has no member ${other} to declare; there are ${members[kind]?.join(", ")}`);
    }
    const id = item["id"] as string;
    if (ids.has(id)) throw refuse(`${kind} names ${id} twice`);
    ids.add(id);
    return item as { id: string };
  });
}

/** Reads YAML, or JSON, which is YAML. Throws a sentence that names the file. */
export async function readDeclaration(file: string): Promise<Declaration> {
  const text = await readText(file);
  let value: unknown;
  try {
    value = Bun.YAML.parse(text);
  } catch (error) {
    throw new CommandError(`${file} is neither YAML nor JSON: ${(error as Error).message}`, 2);
  }
  if (!isRecord(value)) throw new CommandError(`${file} declares nothing; write it as ${example}`, 2);
  const other = Object.keys(value).find((name) => !kinds.some((kind) => kind === name));
  if (other !== undefined) throw new CommandError(`${file}: there is no ${other}; there are ${kinds.join(", ")}`, 2);
  const lists = kinds.map((kind) => [kind, readList(file, kind, value[kind])] as const);
  return Object.fromEntries(lists) as unknown as Declaration;
}
