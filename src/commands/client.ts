import {
  type Client,
  createClient,
  PsqlqueueError,
  UnavailableError,
  UnreachableError,
} from "../../client/src/client.ts";
import type { Options } from "../commandLine/command.ts";
import { createOutput } from "../terminal/output.ts";
import { type Target, targetOf } from "../terminal/profile.ts";
import { stopSignals } from "../terminal/signals.ts";
import { printable } from "../terminal/table.ts";
import { createFetch } from "./clientTls.ts";
import { type ClientFetch, CommandError, type Context, type Runner } from "./context.ts";

// The commands that ask a server. Exit codes: 0, 1 refused, 2 not understood, 3 not reachable.

const runners: Record<string, () => Promise<Runner>> = {
  "queue create": async () => (await import("./queues.ts")).create,
  "queue get": async () => (await import("./queues.ts")).get,
  "queue list": async () => (await import("./queues.ts")).list,
  "queue update": async () => (await import("./queues.ts")).update,
  "queue delete": async () => (await import("./queues.ts")).remove,
  "queue purge": async () => (await import("./queues.ts")).purge,
  "queue cleanup": async () => (await import("./queues.ts")).cleanUp,
  "queue stats": async () => (await import("./queues.ts")).stats,
  "queue pause": async () => (await import("./queues.ts")).pause,
  "queue resume": async () => (await import("./queues.ts")).resume,
  publish: async () => (await import("./publish.ts")).publish,
  receive: async () => (await import("./receive.ts")).receive,
  ack: async () => (await import("./settle.ts")).ack,
  nack: async () => (await import("./settle.ts")).nack,
  extend: async () => (await import("./settle.ts")).extend,
  peek: async () => (await import("./settle.ts")).peek,
  "topic create": async () => (await import("./topics.ts")).createTopic,
  "topic get": async () => (await import("./topics.ts")).getTopic,
  "topic list": async () => (await import("./topics.ts")).listTopics,
  "topic delete": async () => (await import("./topics.ts")).deleteTopic,
  "topic publish": async () => (await import("./topics.ts")).publishToTopic,
  "subscription create": async () => (await import("./topics.ts")).createSubscription,
  "subscription get": async () => (await import("./topics.ts")).getSubscription,
  "subscription list": async () => (await import("./topics.ts")).listSubscriptions,
  "subscription delete": async () => (await import("./topics.ts")).deleteSubscription,
  redrive: async () => (await import("./tasks.ts")).redrive,
  "task list": async () => (await import("./tasks.ts")).list,
  "task watch": async () => (await import("./tasks.ts")).watch,
  "key create": async () => (await import("./keys.ts")).create,
  "key list": async () => (await import("./keys.ts")).list,
  "key delete": async () => (await import("./keys.ts")).remove,
  "queue keys": async () => (await import("./keys.ts")).ordering,
  "queue repair": async () => (await import("./keys.ts")).repair,
  doctor: async () => (await import("./doctor.ts")).doctor,
  top: async () => (await import("./top.ts")).top,
  apply: async () => (await import("./apply.ts")).apply,
  export: async () => (await import("./transfer.ts")).exporting,
  import: async () => (await import("./transfer.ts")).importing,
  backup: async () => (await import("./backup.ts")).backup,
  restore: async () => (await import("./backup.ts")).restore,
  completions: async () => (await import("./local.ts")).completions,
  schema: async () => (await import("./local.ts")).schema,
  "task cancel": async () => (await import("./tasks.ts")).cancel,
};

/** Paths of the commands that ask a server. */
export const client_commands: string[] = Object.keys(runners);

const refused_remedy = "`psqlqueue queue list` shows the queues there are, `psqlqueue queue create ID` makes one";

/** What to do about a refusal of the server, by its code. */
const remedies = new Map<number, string>([
  [2, "a value has the wrong type: numbers, true, false and null stand without quotes, as --set max_depth=1000"],
  [4, "choose another id, or change it: `psqlqueue queue update ID`"],
  [5, refused_remedy],
  [6, "it was purged or cleaned up, or is in another queue: `psqlqueue peek QUEUE --state all` shows what there is"],
  [7, "choose another id"],
  [8, "`psqlqueue topic list` shows the topics there are"],
  [9, "choose another id; a queue subscribes to a topic once: `psqlqueue subscription list`"],
  [10, "`psqlqueue subscription list` shows the subscriptions there are"],
  [11, "somebody else may have it, or it was settled: look with `psqlqueue peek QUEUE ID`"],
  [
    12,
    "it is the dead-letter queue of others (--force deletes it all the same), or a task of it runs: `psqlqueue task list`",
  ],
  [13, "make the message smaller, or raise max_message_bytes of the queue or PSQLQUEUE_MAX_BODY_BYTES of the server"],
  [14, "come back later"],
  [15, "set PSQLQUEUE_KEY, or `key` of the profile, to a key of this server"],
  [16, "use a key that may do this"],
  [17, "`psqlqueue queue resume QUEUE` opens it"],
  [18, "the queue is full: let it be consumed, or raise max_depth or max_bytes: `psqlqueue queue update QUEUE --set`"],
  [19, "the server is there, but its database did not do it; the server's log tells more"],
  [21, "`psqlqueue task list` shows the tasks there are"],
  [25, "`psqlqueue key list` shows the keys there are"],
  [23, "is this a psqlqueue, and new enough? `psqlqueue --version` tells this program's"],
]);

/** What to do about a server that was not reached. */
function unreachableRemedy(message: string, url: string): string {
  if (/certificate|CERT_/i.test(message)) {
    return (
      "PSQLQUEUE_CACERT, or `cacert` of the profile, names an authority to trust; the name in the url must be one of " +
      "the certificate"
    );
  }
  const is_cut = /ECONNRESET|EPROTO|closed/.test(message);
  if (is_cut && url.startsWith("https:")) {
    return (
      "does it speak TLS? Where it asks for a certificate, PSQLQUEUE_CLIENT_CERT and PSQLQUEUE_CLIENT_CERT_KEY, or " +
      "`client_cert` and `client_cert_key` of the profile, name one"
    );
  }
  const other = is_cut ? "does it want https? " : "";
  return `${other}is a server there? \`psqlqueue server\` starts one; --url, PSQLQUEUE_URL or a profile name another`;
}

/** What went wrong, why, and what to do. */
function explain(error: unknown, url: string): { text: string; exit_code: number } {
  if (error instanceof CommandError) return { text: error.message, exit_code: error.exit_code };
  if (error instanceof UnreachableError) {
    return { text: `${error.message}; ${unreachableRemedy(error.message, url)}`, exit_code: 3 };
  }
  if (error instanceof PsqlqueueError) {
    const remedy = remedies.get(error.code);
    const text = error.message.replace(/\.$/, "");
    const exit_code = error instanceof UnavailableError ? 3 : 1;
    return { text: `${url} refused: ${text}${remedy === undefined ? "" : `; ${remedy}`}`, exit_code };
  }
  const { message } = error as Error;
  return { text: message ?? String(error), exit_code: 1 };
}

/** Nobody reads our output any more, as behind `| head`. */
const isClosed = (error: unknown) => (error as { code?: string } | undefined)?.code === "EPIPE";

function write(text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.write(text, (error) => (error ? reject(error) : resolve()));
  });
}

function watchSignals() {
  const stopping = new AbortController();
  const forced = new AbortController();
  const onSignal = () => (stopping.signal.aborted ? forced : stopping).abort(new Error("interrupted"));
  for (const signal of stopSignals()) process.on(signal, onSignal);
  return { stopping: stopping.signal, forced: forced.signal };
}

async function confirm(what: string, name: string, options: { yes?: boolean }): Promise<void> {
  if (options.yes) return;
  if (!process.stdin.isTTY) {
    throw new CommandError(`this ${what}, and nobody can be asked here: add --yes if that is meant`, 2);
  }
  process.stderr.write(`This ${what}. Type ${name} to go on: `);
  for await (const line of console) {
    if (line.trim() === name) return;
    break;
  }
  throw new CommandError(`nothing was done: the answer was not ${name}`);
}

/** Throws a CommandError for an address that cannot be one. */
function clientOf({ url, key }: Target, fetch: ClientFetch): Client {
  try {
    return createClient({ url, key, fetch });
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    throw new CommandError(error.message, 2);
  }
}

/** Runs a command that asks a server, and answers its exit code. */
export async function runClient(path: string, given: string[], options: Options): Promise<number> {
  // Whoever writes is told by its own call.
  process.stdout.on("error", () => {});
  let url = "";
  try {
    const load = runners[path];
    if (load === undefined) throw new Error(`no such command: ${path}`);
    const target = targetOf(options as { url?: string; profile?: string }, process.env);
    url = target.url;
    let signals: ReturnType<typeof watchSignals> | undefined;
    const fetch = createFetch(target.files);
    const context: Context = {
      client: clientOf(target, fetch),
      url,
      fetch,
      out: createOutput({
        is_json: options["json"] === true,
        is_quiet: options["quiet"] === true,
        columns: process.stdout.isTTY ? process.stdout.columns : undefined,
        write,
        writeError: (text) => process.stderr.write(text),
      }),
      signals: () => {
        signals ??= watchSignals();
        return signals;
      },
      confirm,
    };
    return (await (await load()).run(context, given, options)) ?? 0;
  } catch (error) {
    if (isClosed(error)) return 0;
    const { text, exit_code } = explain(error, url);
    process.stderr.write(`psqlqueue: ${printable(text)}\n`);
    return exit_code;
  }
}
