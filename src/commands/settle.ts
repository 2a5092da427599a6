import type { NackOptions, SeenMessage, SettleResult } from "../../client/src/client.ts";
import { CommandError, type Context, type Runner } from "./context.ts";

type Token = { token?: string };

/** A token is one delivery's, so it goes with one id. */
function leasesOf(ids: string[], { token }: Token) {
  if (token !== undefined && ids.length > 1) {
    throw new CommandError("--token belongs to one delivery: give one id, or leave the token out", 2);
  }
  return ids.map((id) => ({ id, lease_token: token }));
}

const failures = {
  lease_lost: "the lease is lost: somebody else may have it, or it was settled",
  not_found: "there is no such message: it was purged or cleaned up, or is in another queue",
};

/** Says of each what became of it; 1 when one of them was not settled. */
async function sayResults({ out }: Context, results: SettleResult[], done: string): Promise<number> {
  let exit_code = 0;
  for (const result of results) {
    const { id, status, error } = result;
    if (status === "ok") await out.item(`${id} ${done}`, result);
    else {
      exit_code = 1;
      const needs_token = error?.details?.startsWith("lease_token: cannot be blank") === true;
      const told = needs_token ? "give the lease_token of its delivery, as --token" : (error?.details ?? "try again");
      const why = status === "failed" ? `${error?.message}: ${told}` : failures[status];
      process.stderr.write(`psqlqueue: ${id} is not ${done}: ${why}\n`);
      if (out.is_json) await out.item("", result);
    }
  }
  return exit_code;
}

/** `ack` */
export const ack: Runner = {
  async run(context: Context, [queue = "", ...ids]: string[], options: Token) {
    const results = await context.client.queue(queue).ackBatch(leasesOf(ids, options));
    return await sayResults(context, results, "acked");
  },
};

/** `nack` */
export const nack: Runner = {
  async run(
    context: Context,
    [queue = "", ...ids]: string[],
    options: Token & { delay?: number; error?: string; dead_letter?: boolean },
  ) {
    const how: NackOptions = {
      visibility_timeout_seconds: options.delay,
      error: options.error,
      dead_letter: options.dead_letter,
    };
    const results = await context.client.queue(queue).nackBatch(leasesOf(ids, options), how);
    return await sayResults(context, results, "nacked");
  },
};

/** `extend` */
export const extend: Runner = {
  async run(context: Context, [queue = "", ...ids]: string[], options: Token & { by?: number }) {
    const { by = 30 } = options;
    const results = await context.client.queue(queue).extendBatch(leasesOf(ids, options), by);
    return await sayResults(context, results, by === 0 ? "given back" : "extended");
  },
};

const page_rows = 100;
/** What fits on a terminal; JSON has all members. */
const headings = ["id", "state", "delivery_attempts", "label", "body"];

type PeekOptions = {
  state?: SeenMessage["state"] | "dead" | "all";
  label?: string;
  limit?: number;
  without_body?: boolean;
};

/** `peek` */
export const peek: Runner = {
  async run({ client, out }: Context, [queue = "", id]: string[], options: PeekOptions) {
    if (id !== undefined) {
      await out.record(await client.queue(queue).getMessage(id));
      return 0;
    }
    const { state, label, limit = 10, without_body } = options;
    const seen: SeenMessage[] = [];
    for (let after: string | undefined; seen.length < limit; ) {
      const rows = Math.min(page_rows, limit - seen.length);
      const body = without_body ? false : undefined;
      const { data, next } = await client.queue(queue).peek({ state, label, limit: rows, after, body });
      seen.push(...data);
      after = next;
      if (next === undefined) break;
    }
    const names = headings.filter((name) => name !== "body" || !without_body);
    if (!out.is_json) await out.rows(seen, names);
    else for (const message of seen) await out.item("", message);
    return 0;
  },
};
