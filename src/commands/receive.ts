import type { Delivery, Received } from "../../client/src/client.ts";
import { cell, printable } from "../terminal/table.ts";
import { CommandError, type Context, type Runner } from "./context.ts";

type ReceiveOptions = {
  limit?: number;
  wait?: number;
  label?: string;
  ack_deadline?: number;
  ack?: boolean;
  follow?: boolean;
  concurrency?: number;
};

/** As the server keeps of it. */
const error_bytes_max = 2048;
/** How long a poll of `--follow` waits, and so an interrupted one at most. */
const poll_seconds = 2;

/** How much later than its command a signal may reach us. */
const signal_ms_max = 300;

/** What fits on a terminal; JSON has all members. */
const headings = ["id", "delivery_attempts", "label", "body"];

/** A message as a line. */
const lineOf = (message: Received<string>) =>
  [message.id, message.delivery_attempts, message.label ?? "-", message.attributes ?? "-", message.body]
    .map(cell)
    .join("  ");

/** Keeps the end of what a command writes on standard error, from a whole character on, and passes it on. */
async function readError(stream: ReadableStream<Uint8Array>): Promise<string> {
  let kept: Uint8Array = new Uint8Array();
  let is_cut = false;
  for await (const chunk of stream) {
    process.stderr.write(chunk);
    is_cut ||= kept.length + chunk.length > error_bytes_max;
    kept = Buffer.concat([kept, chunk]).subarray(-error_bytes_max);
  }
  const start = is_cut ? kept.findIndex((byte) => (byte & 0xc0) !== 0x80) : 0;
  const text = new TextDecoder().decode(kept.subarray(Math.max(0, start)));
  // As the replacement character a NUL would be longer, and the end of the text be cut.
  return text.replaceAll("\0", " ").trim();
}

/** Was a command ended by the signal that ends us, too? A terminal sends it to both, in whatever order. */
async function isOurEnd(signal_code: number | string | null, stopping: AbortSignal): Promise<boolean> {
  if (signal_code === null) return false;
  const end_ms = performance.now() + signal_ms_max;
  while (!stopping.aborted && performance.now() < end_ms) await Bun.sleep(10);
  return stopping.aborted;
}

/**
 * Runs the command for a message. Throws what it wrote on standard error unless it ends with exit 0. When it was ended
 * by the signal that ends us too, the message is given back: nothing failed.
 */
async function runCommand(command: string[], message: Delivery<string>, stopping: AbortSignal): Promise<void> {
  const child = Bun.spawn(command, {
    stdin: new Blob([message.body]),
    stdout: "inherit",
    stderr: "pipe",
    env: {
      ...process.env,
      PSQLQUEUE_MESSAGE_ID: message.id,
      PSQLQUEUE_MESSAGE_QUEUE: message.queue_id,
      PSQLQUEUE_MESSAGE_LABEL: message.label ?? "",
      PSQLQUEUE_MESSAGE_ATTRIBUTES: JSON.stringify(message.attributes ?? {}),
      PSQLQUEUE_MESSAGE_DELIVERY_ATTEMPTS: String(message.delivery_attempts),
    },
  });
  const kill = () => child.kill("SIGTERM");
  message.signal.addEventListener("abort", kill, { once: true });
  const [error] = await Promise.all([readError(child.stderr), child.exited]);
  message.signal.removeEventListener("abort", kill);
  if (child.exitCode === 0) return;
  if (await isOurEnd(child.signalCode, stopping)) return await message.release();
  const how = child.signalCode === null ? `exit code ${child.exitCode}` : `ended by ${child.signalCode}`;
  throw new Error(error === "" ? `${command[0]}: ${how}` : error);
}

function checkCommand([program]: string[]): void {
  if (program === undefined || Bun.which(program) !== null) return;
  throw new CommandError(`${program} is no program that can be run: name one of PATH, or its file, as ./handle`, 2);
}

/** Goes on until interrupted. What is printed is acked when it was printed; a command decides itself. */
async function follow(context: Context, queue_id: string, command: string[], options: ReceiveOptions): Promise<number> {
  const { client, out } = context;
  const { stopping, forced } = context.signals();
  let closed: unknown;
  const handle = async (message: Delivery<string>) => {
    if (command.length > 0) return await runCommand(command, message, stopping);
    const { signal: _, ack: __, nack: ___, release: ____, ...shown } = message;
    try {
      await out.item(lineOf(message), shown);
    } catch (error) {
      // Nobody has seen it.
      closed = error;
      await message.release();
      void consumer.stop().catch(() => {});
    }
  };
  const consumer = client.queue(queue_id).consume(handle, {
    concurrency: options.concurrency ?? 1,
    label: options.label,
    ack_deadline_seconds: options.ack_deadline,
    wait_seconds: poll_seconds,
    signal: stopping,
    onError: (error, message) => {
      const text = error instanceof Error ? error.message : String(error);
      // Of a message it is kept beside it; that a server is away is nowhere else to be seen.
      if (message !== undefined) out.note(`psqlqueue: ${message.id} ${text}`);
      else process.stderr.write(`psqlqueue: ${printable(text)}; trying again\n`);
    },
  });
  const force = () => void consumer.stop({ grace_seconds: 0 }).catch(() => {});
  forced.addEventListener("abort", force, { once: true });
  stopping.addEventListener("abort", () => out.note("psqlqueue: stopping; once more ends it at once"), { once: true });
  await consumer.finished;
  if (closed !== undefined) throw closed;
  return 0;
}

/** Up to `limit` messages, one after the other, each through the command. Answers 1 when one of them failed. */
async function runEach(
  context: Context,
  queue_id: string,
  command: string[],
  options: ReceiveOptions,
): Promise<number> {
  const { stopping } = context.signals();
  const { limit = 10, wait = 0 } = options;
  let left = limit;
  let exit_code = 0;
  const messages = context.client.queue(queue_id).messages({
    label: options.label,
    ack_deadline_seconds: options.ack_deadline,
    wait_seconds: wait,
    until_empty: true,
    signal: stopping,
  });
  for await (const message of messages) {
    try {
      await runCommand(command, message, stopping);
      await message.ack();
    } catch (error) {
      exit_code = 1;
      await message.nack({ error: (error as Error).message });
    }
    left -= 1;
    if (left === 0) break;
  }
  return exit_code;
}

async function receiveOnce({ client, out }: Context, queue_id: string, options: ReceiveOptions): Promise<number> {
  const queue = client.queue(queue_id);
  const messages = await queue.receive({
    limit: options.limit,
    wait_seconds: options.wait,
    label: options.label,
    ack_deadline_seconds: options.ack_deadline,
  });
  try {
    if (!out.is_json) await out.rows(messages, headings);
    else for (const message of messages) await out.item("", message);
  } catch (error) {
    // Nobody has seen them.
    if (messages.length > 0) await queue.extendBatch(messages, 0);
    throw error;
  }
  if (!options.ack || messages.length === 0) return 0;
  const lost = (await queue.ackBatch(messages)).filter(({ status }) => status !== "ok");
  for (const { id, status } of lost) process.stderr.write(`psqlqueue: ${id} is not acked: ${status}\n`);
  return lost.length === 0 ? 0 : 1;
}

/** `receive` */
export const receive: Runner = {
  async run(context: Context, [queue = "", ...command]: string[], options: ReceiveOptions) {
    checkCommand(command);
    if (command.length > 0 && options.ack) {
      throw new CommandError("a command acks by itself, with exit 0: leave --ack out", 2);
    }
    if (options.follow && command.length === 0 && !options.ack) {
      const why = "the same messages would come again with every lease that ends";
      throw new CommandError(`--follow needs --ack or a command: ${why}; to look only, use psqlqueue peek`, 2);
    }
    if (options.follow) return await follow(context, queue, command, options);
    if (options.concurrency !== undefined) {
      throw new CommandError("--concurrency belongs to --follow: add that, or leave it out", 2);
    }
    if (command.length > 0) return await runEach(context, queue, command, options);
    return await receiveOnce(context, queue, options);
  },
};
