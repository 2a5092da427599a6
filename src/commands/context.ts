import type { Client } from "../../client/src/client.ts";
import type { Options } from "../commandLine/command.ts";
import type { Output } from "../terminal/output.ts";

/** As the client's own option of that name. */
export type ClientFetch = (url: string, init?: RequestInit) => Promise<Response>;

/** What a command works with. */
export type Context = {
  client: Client;
  url: string;
  /** With the certificates of the target. */
  fetch: ClientFetch;
  out: Output;
  /** From the first SIGINT or SIGTERM on `stopping` is aborted, from the second on `forced`. */
  signals(): { stopping: AbortSignal; forced: AbortSignal };
  /** Asks a person before something is destroyed; throws where nobody can be asked, and when the answer is no. */
  confirm(what: string, name: string, options: { yes?: boolean }): Promise<void>;
};

/** Runs a command; `options` are those that its entry in the catalogue names. Answers an exit code other than 0. */
export type Runner = { run(context: Context, given: string[], options: Options): Promise<number | undefined> };

/** A refusal of ours: what, why, what to do. */
export class CommandError extends Error {
  override readonly name = "CommandError";
  readonly exit_code: number;

  constructor(message: string, exit_code = 1) {
    super(message);
    this.exit_code = exit_code;
  }
}
