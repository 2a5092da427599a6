import { catalogue } from "../commandLine/catalogue.ts";
import type { CommandSpec, OptionSpec } from "../commandLine/command.ts";
import { completionsOf, shellNamed } from "../commandLine/completions.ts";
import { CommandError, type Context, type Runner } from "./context.ts";

const describeOption = ({ name, short, value, reader, about }: OptionSpec) => ({
  name: `--${name}`,
  ...(short !== undefined && { short: `-${short}` }),
  ...(value !== undefined && { value, kind: reader?.kind ?? "text" }),
  ...(reader?.kind === "choice" && { choices: reader.choices }),
  is_repeatable: reader?.kind === "pairs",
  about,
});

const describe = ({ path, alias, about, effect, arguments: given = [], options = [], examples }: CommandSpec) => ({
  command: path,
  ...(alias !== undefined && { alias }),
  about,
  effect,
  arguments: given.map(({ name, about: text, is_optional = false, is_many = false }) => ({
    name,
    is_optional,
    is_many,
    about: text,
  })),
  options: options.map(describeOption),
  examples: examples.map((line) => `psqlqueue ${line}`),
});

/** `schema` */
export const schema: Runner = {
  async run({ out }: Context) {
    await out.rows(catalogue.map(describe), ["command", "effect", "about"]);
    return 0;
  },
};

/** `completions` */
export const completions: Runner = {
  async run({ out }: Context, [name = ""]: string[]) {
    const shell = shellNamed(name);
    if (shell === undefined)
      throw new CommandError(`there are no completions for ${name}; there are bash, zsh, fish`, 2);
    await out.text(completionsOf(shell));
    return 0;
  },
};
