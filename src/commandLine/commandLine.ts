import { Argument, Command, type CommanderError, Option } from "commander";
import { version } from "../version.ts";
import { catalogue, groups } from "./catalogue.ts";
import { type CommandLine, type CommandSpec, type OptionSpec, type Options, UsageError } from "./command.ts";
import { readValue } from "./readers.ts";
import { ownerOf, suggest } from "./suggest.ts";

// Commander takes the words apart and lays out the help. What is wrong with them is said in our own words.

const title = `psqlqueue ${version}: a durable message queue over HTTP`;
const help_width = 110;

const flagsOf = ({ short, name, value }: OptionSpec) =>
  `${short === undefined ? "" : `-${short}, `}--${name}${value === undefined ? "" : ` <${value}>`}`;

/** The usage that stands under a refusal: short, with the way to more. */
const usageOf = (command: Command, name: string) => {
  const line = `${title}\n\nusage: psqlqueue ${`${name} ${command.usage()}`.trim()}\n`;
  return `${line}\n\`psqlqueue ${`${name} --help`.trim()}\` says more\n`;
};

type Node = { command: Command; spec: CommandSpec | undefined; name: string };

const quoted = (message: string) => /'(.*)'/s.exec(message)?.[1] ?? "";

/** Our words for what Commander found wrong. */
function explain({ command, spec, name }: Node, { code, message }: CommanderError): string {
  const word = quoted(message);
  const below = command.commands.map((own) => own.name());
  if (code === "commander.unknownCommand") {
    const known = name === "" ? [...below, "help"] : below;
    return `unknown command ${JSON.stringify(`${name} ${word}`.trim())}; ${suggest(word, known, false)}`;
  }
  if (code === "commander.unknownOption") {
    const [option = ""] = word.split("=");
    const own = command.options.flatMap(({ long }) => long ?? []);
    if (word.includes("=") && [...own, "--help"].includes(option)) return `${option} takes no value`;
    const elsewhere = ownerOf(option, spec, catalogue);
    if (elsewhere !== undefined) return elsewhere;
    const own_version = spec?.effect === "serves" ? ["--version"] : [];
    const known = [...below, "--help", ...own, ...own_version];
    return `unknown option ${JSON.stringify(option)}; ${suggest(option, known, spec?.effect === "serves")}`;
  }
  if (code === "commander.optionMissingArgument") {
    const long = /--[\w-]+/.exec(word)?.[0] ?? word;
    const option = spec?.options?.find((own) => `--${own.name}` === long);
    const { reader, value = "a value" } = option ?? {};
    return `${long} needs ${reader?.kind === "directory" ? reader.needs : `a value: ${long} ${value}`}`;
  }
  if (code === "commander.missingArgument") return `${name} needs ${word}: psqlqueue ${spec?.examples[0] ?? name}`;
  return message.replace(/^error: /, "");
}

function refuseExcess({ command, spec, name }: Node, given: string[]): void {
  const other = given[spec?.arguments?.length ?? 0];
  if (spec?.arguments?.some(({ is_many }) => is_many) || other === undefined) return;
  const is_command = spec?.effect === "serves" && catalogue.some(({ path, alias }) => [path, alias].includes(other));
  const what = is_command
    ? `one command at a time: there are ${name} and ${other}; start each by itself`
    : `${name} takes nothing else: there is ${JSON.stringify(other)} after it`;
  throw new UsageError(what, usageOf(command, name));
}

function optionOf(spec: OptionSpec, { command, name }: Node): Option {
  const option = new Option(flagsOf(spec), spec.about);
  if (spec.value === undefined) return option;
  return option.argParser((text: string, before: unknown) => {
    try {
      return readValue(spec, text, before);
    } catch (error) {
      throw new UsageError((error as Error).message, usageOf(command, name));
    }
  });
}

/** The help of this command is asked for. */
class HelpAsked extends Error {
  override readonly name = "HelpAsked";
  readonly node: Node;

  constructor(node: Node) {
    super("help");
    this.node = node;
  }
}

/** Builds the commands; `found` is told which one is asked for. */
function build(found: (line: CommandLine) => void): Command {
  const nodes = new Map<string, Command>();
  const prepare = (node: Node) => {
    const { command, name } = node;
    command
      .exitOverride((error) => {
        if (error.code.startsWith("commander.help")) throw new HelpAsked(node);
        throw new UsageError(explain(node, error), usageOf(command, name));
      })
      .configureOutput({ writeErr() {}, writeOut() {}, outputError() {} })
      .configureHelp({ helpWidth: help_width, styleTitle: (text) => text.toLowerCase(), sortSubcommands: false })
      .helpCommand(false)
      .helpOption("-h, --help", "this page")
      .allowExcessArguments(true);
    nodes.set(name, command);
  };
  const root = new Command("psqlqueue").usage("COMMAND");
  root.option("--version", "version and commit");
  prepare({ command: root, spec: undefined, name: "" });
  for (const spec of catalogue) {
    const words = spec.path.split(" ");
    const group = words.length === 1 ? undefined : groups.find(({ name }) => name === words[0]);
    if (group !== undefined && !nodes.has(group.name)) {
      const parent = new Command(group.name).description(group.about).usage("COMMAND");
      prepare({ command: parent, spec: undefined, name: group.name });
    }
    const command = new Command(words.at(-1)).description(spec.about);
    const node: Node = { command, spec, name: spec.path };
    prepare(node);
    if (spec.alias !== undefined) command.alias(spec.alias);
    for (const { name, about, is_optional, is_many } of spec.arguments ?? []) {
      const shown = `${name}${is_many ? "..." : ""}`;
      command.addArgument(new Argument(is_optional ? `[${shown}]` : `<${shown}>`, about));
    }
    for (const option of spec.options ?? []) command.addOption(optionOf(option, node));
    command.action(() => {
      refuseExcess(node, command.args);
      const given = command.opts() as Record<string, Options[string]>;
      const named = (spec.options ?? []).map(({ name }) => {
        const own = command.options.find(({ long }) => long === `--${name}`);
        return [name.replaceAll("-", "_"), given[own?.attributeName() ?? ""]] as const;
      });
      found({ kind: "run", command: spec, arguments: command.args, options: Object.fromEntries(named) });
    });
  }
  for (const [name, command] of nodes) {
    if (name !== "") nodes.get(name.split(" ").slice(0, -1).join(" "))?.addCommand(command);
  }
  return root;
}

const examplesOf = ({ examples, more }: CommandSpec) =>
  `\nexamples:\n${examples.map((line) => `  psqlqueue ${line}`).join("\n")}\n${more === undefined ? "" : `\n${more()}\n`}`;

const helpOf = ({ command, spec, name }: Node): string => {
  const text = command.helpInformation();
  return name === "" ? `${title}\n\n${text}` : `${text}${spec === undefined ? "" : examplesOf(spec)}`;
};

/** The help of what does not exist is not that of everything. */
function refuseUnknown({ command, spec, name }: Node, asked: readonly string[]): void {
  const path = name === "" ? [] : name.split(" ");
  const word = asked.filter((own) => !own.startsWith("-"))[path.length];
  if (spec !== undefined || word === undefined) return;
  const known = command.commands.map((own) => own.name());
  const shown = JSON.stringify([...path, word].join(" "));
  const what = `unknown command ${shown}; ${suggest(word, name === "" ? [...known, "help"] : known, false)}`;
  throw new UsageError(what, usageOf(command, name));
}

/** Reads what stands behind the program's name. Throws UsageError. */
export function readCommandLine(argv: readonly string[]): CommandLine {
  let line: CommandLine | undefined;
  const root = build((found) => {
    line = found;
  });
  // `help queue create` is `queue create --help`.
  const is_help = argv.find((word) => !word.startsWith("-")) === "help";
  const asked = is_help ? [...argv.filter((word) => word !== "help"), "--help"] : argv;
  try {
    root.parse(["bun", "psqlqueue", ...asked]);
  } catch (error) {
    if (!(error instanceof HelpAsked)) throw error;
    refuseUnknown(error.node, asked);
    line = { kind: "help", text: helpOf(error.node) };
  }
  if (root.opts()["version"] === true) return { kind: "version" };
  if (line === undefined) throw new Error("the command line was neither understood nor refused");
  return line;
}
