/** What a command does to what is stored; `serves`: it is no client of a server. */
export type Effect = "reads" | "changes" | "destroys" | "serves";

/** How the text of an option is read. Without a value it is a flag. */
export type Reader =
  | { kind: "text" }
  | { kind: "directory"; needs: string }
  | { kind: "choice"; choices: readonly string[] }
  | { kind: "whole"; min: number; max: number }
  /** `90`, `90s`, `15m`, `12h`, `14d`: seconds. */
  | { kind: "seconds"; min: number; max: number }
  /** `name=value`, any number of times. */
  | { kind: "pairs"; example: string };

export type OptionSpec = {
  /** Without the dashes; with underscores it is the name in `options`. */
  name: string;
  short?: string;
  /** What stands for the value in the help. */
  value?: string;
  reader?: Reader;
  about: string;
};

export type ArgumentSpec = { name: string; about: string; is_optional?: boolean; is_many?: boolean };

export type CommandSpec = {
  /** `queue create` */
  path: string;
  /** The old short form of a name. */
  alias?: string;
  about: string;
  effect: Effect;
  arguments?: ArgumentSpec[];
  options?: OptionSpec[];
  /** Command lines that work, the usual one first. */
  examples: string[];
  /** Text of the help behind the options. */
  more?: () => string;
};

export type Value = string | number | boolean | Record<string, string> | undefined;
/** Options as they were read, by their names with underscores. */
export type Options = Record<string, Value>;

/** A command line that is understood: what to do. */
export type CommandLine =
  | { kind: "help"; text: string }
  | { kind: "version" }
  | { kind: "run"; command: CommandSpec; arguments: string[]; options: Options };

/** A command line that is not understood. The message says what and what to do; `usage` is the command's. */
export class UsageError extends Error {
  override readonly name = "UsageError";
  readonly usage: string;

  constructor(message: string, usage: string) {
    super(message);
    this.usage = usage;
  }
}
