import { settingLike } from "./config.ts";
import { nearestOf } from "./nearest.ts";

export type CommandName = "server" | "migrate" | "healthcheck";

export type CommandLine = {
  /** undefined: help is asked for, of no command. */
  command: CommandName | undefined;
  /** The directory of `migrate --from`. */
  from: string | undefined;
  is_help: boolean;
  is_version: boolean;
};

const commands = new Map<string, CommandName>([
  ["server", "server"],
  ["s", "server"],
  ["migrate", "migrate"],
  ["m", "migrate"],
  ["healthcheck", "healthcheck"],
]);
const flags = new Map([
  ["--help", "help"],
  ["-h", "help"],
  ["--version", "version"],
]);
const names = ["server", "migrate", "healthcheck", "help", "--help", "--version"];

/** What somebody may have meant with a word that is none of ours: the nearest one, or all there are. */
function suggest(word: string, has_from: boolean): string {
  const known = has_from ? [...names, "--from"] : names;
  const bare = word.replace(/^-+/, "");
  const is_option = word.startsWith("-");
  const wanted = is_option ? `--${bare}` : bare;
  const initial = bare.length === 1 ? known.find((name) => name.startsWith(`--${bare}`)) : undefined;
  const other = known.find((name) => name.replace("--", "") === bare);
  const found = initial ?? other ?? (bare.length > 1 ? nearestOf(wanted, known, 2) : undefined);
  if (found !== undefined) return `did you mean ${found}?`;
  const setting = is_option && bare.length > 2 ? settingLike(bare) : undefined;
  if (setting !== undefined) return `set ${setting} in the environment or in a file .env`;
  return `there are ${known.filter((name) => name.startsWith("-") === is_option).join(", ")}`;
}

function checkDirectory(from: string | undefined): string {
  if (from !== undefined && from !== "" && !from.startsWith("-")) return from;
  throw new Error("--from needs the directory of an embedded database: migrate --from ./psqlqueue-data");
}

/** Throws a sentence for what cannot be understood: it names the word, and the nearest that there is. */
export function readCommandLine(argv: readonly string[]): CommandLine {
  const words: string[] = [];
  const seen = new Set<string>();
  let from: string | undefined;
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] ?? "";
    if (!word.startsWith("-") || word === "-") {
      words.push(word);
      continue;
    }
    const [option = "", ...values] = word.split("=");
    const value = values.length > 0 ? values.join("=") : undefined;
    const flag = flags.get(option);
    if (option === "--from") {
      from = checkDirectory(value ?? argv[i + 1]);
      if (value === undefined) i += 1;
    } else if (flag === undefined) {
      const has_from = argv.some((other) => commands.get(other) === "migrate");
      throw new Error(`unknown option ${JSON.stringify(option)}; ${suggest(option, has_from)}`);
    } else if (value !== undefined) throw new Error(`${option} takes no value`);
    else seen.add(flag);
  }
  const is_version = seen.has("version");
  const is_help = seen.has("help") || words[0] === "help" || (words.length === 0 && from === undefined);
  const [first, ...rest] = words[0] === "help" ? words.slice(1) : words;
  if (first === undefined && from === undefined) return { command: undefined, from, is_help, is_version };
  const command = first === undefined ? undefined : commands.get(first);
  if (first === undefined) throw new Error("--from belongs to a command: migrate --from ./psqlqueue-data");
  if (command === undefined) throw new Error(`unknown command ${JSON.stringify(first)}; ${suggest(first, false)}`);
  const [other] = rest;
  if (other !== undefined && commands.has(other)) {
    throw new Error(`one command at a time: there are ${first} and ${other}; start each by itself`);
  }
  if (other !== undefined) throw new Error(`${command} takes nothing else: there is ${JSON.stringify(other)} after it`);
  if (from !== undefined && command !== "migrate") throw new Error(`${command} has no option --from; migrate has`);
  return { command, from, is_help, is_version };
}
