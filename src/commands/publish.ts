import { fstatSync } from "node:fs";
import { type MessageInput, TooManyRequestsError } from "../../client/src/client.ts";
import { progressForPeople } from "../terminal/progress.ts";
import { CommandError, type Context, type Runner } from "./context.ts";

/** What is said of a message beside its body. */
export type MessageOptions = {
  label?: string;
  attribute?: Record<string, string>;
  ordering_key?: string;
  priority?: number;
  fairness_key?: string;
  weight?: number;
  dedup_id?: string;
  delay?: number;
  deliver_at?: string;
  ttl?: number;
  expires_at?: string;
};

/** Options as members of a publish. */
export const membersOf = (options: MessageOptions): Omit<MessageInput, "body"> => ({
  label: options.label,
  attributes: options.attribute,
  ordering_key: options.ordering_key,
  priority: options.priority,
  fairness_key: options.fairness_key,
  weight: options.weight,
  dedup_id: options.dedup_id,
  delay_seconds: options.delay,
  deliver_at: options.deliver_at,
  ttl_seconds: options.ttl,
  expires_at: options.expires_at,
});

/** The body of the arguments, else standard input as it is. */
export async function readBody(argument: string | undefined, example: string): Promise<string> {
  if (argument !== undefined && argument !== "-") return argument;
  if (process.stdin.isTTY && argument === undefined) {
    throw new CommandError(`there is no body: give it, or pipe it in: psqlqueue ${example} < file`, 2);
  }
  const bytes = await Bun.stdin.bytes();
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new CommandError("standard input is not UTF-8, and a body is text: encode it first, as with base64", 2);
  }
}

const batch_items_max = 1000;
const batch_characters_max = 1_000_000;
/** Of a stream with a rate: several batches a second, so that it is even. */
const batches_per_second = 10;

type StreamOptions = MessageOptions & { ndjson?: boolean; lines?: boolean; rate?: number };

/** One line as a message. Throws a sentence that names the line. */
function readLine(line: string, number: number, { ndjson, ...options }: StreamOptions): MessageInput {
  if (!ndjson) return { ...membersOf(options), body: line };
  const refuse = (what: string) =>
    new CommandError(`line ${number} of standard input ${what}; write one object a line, as {"body":"…"}`);
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    throw refuse("is not JSON");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw refuse("is no JSON object");
  const { body } = value as { body?: unknown };
  if (body === undefined || body === null) throw refuse("has no body");
  // What is no text is sent as its JSON.
  return { ...membersOf(options), ...value, body: typeof body === "string" ? body : JSON.stringify(body) };
}

/** Of a file; how much comes through a pipe nobody knows. */
function stdinBytes(): number | undefined {
  try {
    const { size } = fstatSync(0);
    return size > 0 ? size : undefined;
  } catch {
    // Closed: nothing comes.
    return undefined;
  }
}

/** Lines of standard input with their numbers; empty ones are passed over. */
async function* readLines(): AsyncGenerator<{ line: string; number: number }, void, undefined> {
  let rest = "";
  let number = 0;
  const decoder = new TextDecoder("utf-8", { fatal: true });
  /** Without bytes it throws when half of a character is left. */
  const decode = (bytes?: Uint8Array) => {
    try {
      return bytes === undefined ? decoder.decode() : decoder.decode(bytes, { stream: true });
    } catch {
      const where = `after line ${number} standard input is not UTF-8`;
      throw new CommandError(`${where}, and a body is text: encode it first, as with base64`);
    }
  };
  const take = (text: string) => {
    number += 1;
    return { line: text.endsWith("\r") ? text.slice(0, -1) : text, number };
  };
  for await (const chunk of Bun.stdin.stream()) {
    rest += decode(chunk);
    const lines = rest.split("\n");
    rest = lines.pop() ?? "";
    for (const text of lines) {
      const own = take(text);
      if (own.line !== "") yield own;
    }
  }
  rest += decode();
  if (rest !== "") yield take(rest);
}

async function publishStream(context: Context, queue_id: string, options: StreamOptions): Promise<number> {
  const { client, out } = context;
  const { stopping } = context.signals();
  const queue = client.queue(queue_id);
  const { rate = Number.POSITIVE_INFINITY } = options;
  const items_max = Math.max(1, Math.min(batch_items_max, Math.floor(rate / batches_per_second)));
  const progress = progressForPeople();
  const start_ms = performance.now();
  const bytes_max = stdinBytes();
  let bytes = 0;
  let published = 0;
  let first_line = 1;
  let batch: MessageInput[] = [];
  let characters = 0;

  async function flush(next_line: number): Promise<void> {
    if (batch.length === 0) return;
    try {
      for (;;) {
        try {
          await queue.publishBatch(batch);
          break;
        } catch (error) {
          // Nothing was stored. A full queue may be full for long: that is for a person to decide.
          if (!(error instanceof TooManyRequestsError) || error.code === 18 || stopping.aborted) throw error;
          await Bun.sleep((error.retry_after_seconds ?? 1) * 1000);
        }
      }
    } catch (error) {
      progress.end();
      const where = `lines ${first_line} to ${next_line - 1} failed as a whole, and nothing after them was sent`;
      process.stderr.write(`psqlqueue: ${published} messages published; ${where}\n`);
      throw error;
    }
    published += batch.length;
    first_line = next_line;
    batch = [];
    characters = 0;
    const seconds = (performance.now() - start_ms) / 1000;
    const share = bytes_max === undefined ? undefined : bytes / bytes_max;
    progress.show(share, `${published} messages, ${Math.round(published / seconds)}/s`);
    const due_ms = start_ms + (published / rate) * 1000;
    if (due_ms > performance.now()) await Bun.sleep(due_ms - performance.now());
  }

  for await (const { line, number } of readLines()) {
    if (stopping.aborted) break;
    const message = readLine(line, number, options);
    if (batch.length >= items_max || characters + message.body.length > batch_characters_max) await flush(number);
    batch.push(message);
    bytes += Buffer.byteLength(line) + 1;
    characters += message.body.length;
    if (batch.length >= items_max) await flush(number + 1);
  }
  if (!stopping.aborted) await flush(first_line + batch.length);
  progress.end();
  await out.done(`${published} messages published`, { published });
  return stopping.aborted ? 1 : 0;
}

/** `publish` */
export const publish: Runner = {
  async run(context: Context, [queue = "", argument]: string[], options: StreamOptions) {
    if (options.ndjson && options.lines) {
      throw new CommandError("a line is either an object or a body: give --ndjson or --lines", 2);
    }
    if (options.ndjson || options.lines) {
      if (argument !== undefined)
        throw new CommandError("--ndjson and --lines read standard input: leave the body out", 2);
      return await publishStream(context, queue, options);
    }
    if (options.rate !== undefined) throw new CommandError("--rate belongs to a stream: add --ndjson or --lines", 2);
    const body = await readBody(argument, "publish QUEUE");
    const published = await context.client.queue(queue).publish({ ...membersOf(options), body });
    await context.out.item(published.id, published);
    return 0;
  },
};
