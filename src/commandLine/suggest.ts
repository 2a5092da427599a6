import { settingLike } from "../config.ts";
import { nearestOf } from "../nearest.ts";
import type { CommandSpec, OptionSpec } from "./command.ts";

/** What somebody may have meant with a word that is none of ours: the nearest one, or all there are. */
export function suggest(word: string, known: readonly string[], may_be_setting: boolean): string {
  const bare = word.replace(/^-+/, "");
  const is_option = word.startsWith("-");
  const wanted = is_option ? `--${bare}` : bare;
  const initial = bare.length === 1 ? known.find((name) => name.startsWith(`--${bare}`)) : undefined;
  const other = known.find((name) => name.replace("--", "") === bare);
  const found = initial ?? other ?? (bare.length > 1 ? nearestOf(wanted, known, 2) : undefined);
  if (found !== undefined) return `did you mean ${found}?`;
  const setting = may_be_setting && is_option && bare.length > 2 ? settingLike(bare) : undefined;
  if (setting !== undefined) return `set ${setting} in the environment or in a file .env`;
  return `there are ${known.filter((name) => name.startsWith("-") === is_option).join(", ")}`;
}

const hasOption = ({ options = [] }: CommandSpec, name: string) => options.some((own) => own.name === name);

/** An example of the option, as it is written with one of its commands. */
function exampleOf(owners: readonly CommandSpec[], { name, value }: OptionSpec): string {
  const line = owners.flatMap(({ examples }) => examples).find((own) => own.includes(`--${name}`));
  return line ?? `${owners[0]?.path} --${name}${value === undefined ? "" : ` ${value}`}`;
}

/** Says where an option belongs that this command does not have; undefined when no command has it. */
export function ownerOf(
  word: string,
  command: CommandSpec | undefined,
  all: readonly CommandSpec[],
): string | undefined {
  const name = word.replace(/^--/, "");
  const owners = all.filter((own) => hasOption(own, name));
  const [first] = owners;
  const option = first?.options?.find((own) => own.name === name);
  if (first === undefined || option === undefined) return undefined;
  if (command === undefined) return `${word} belongs to a command: ${exampleOf(owners, option)}`;
  const shown = owners.slice(0, 3).map(({ path }) => path);
  return `${command.path} has no option ${word}; ${shown.join(", ")} ${shown.length === 1 ? "has" : "have"}`;
}
