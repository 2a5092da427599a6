import { catalogue, groups } from "./catalogue.ts";
import type { CommandSpec, OptionSpec } from "./command.ts";

// The commands as shells complete them. Where one stands is the words without a dash: the first, and behind a group the
// second.

const shells = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof shells)[number];

const group_names = groups.map(({ name }) => name);
const firsts = [...new Set(catalogue.map(({ path }) => path.split(" ")[0] ?? "")), "help"];
const below = (group: string) =>
  catalogue.flatMap(({ path }) => (path.startsWith(`${group} `) ? [path.slice(group.length + 1)] : []));
const choicesOf = ({ reader }: OptionSpec) => (reader?.kind === "choice" ? reader.choices : []);
const optionsOf = ({ options = [] }: CommandSpec) => [...options.map(({ name }) => `--${name}`), "--help"];
/** `queue create` asks for nothing that a file is; a command behind `--` and a directory are files. */
const single = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;

const choices = new Map(
  catalogue.flatMap(({ options = [] }) => options.map((own) => [`--${own.name}`, choicesOf(own)] as const)),
);
const withChoices = [...choices].filter(([, own]) => own.length > 0);

/** The part that bash and zsh share: which words fit at `$place`, behind `$before`. */
function wordsFor(): string {
  const cases = [
    `    '') words=${single(firsts.join(" "))} ;;`,
    ...group_names.map((name) => `    ${single(name)}) words=${single(below(name).join(" "))} ;;`),
    ...catalogue.map((spec) => `    ${single(spec.path)}) words=${single(optionsOf(spec).join(" "))} ;;`),
  ];
  const values = withChoices.map(([name, own]) => `    ${name}) words=${single(own.join(" "))} ;;`);
  return `  case "$place" in\n${cases.join("\n")}\n    *) words= ;;\n  esac\n  case "$before" in\n${values.join("\n")}\n  esac\n`;
}

const placeOf = (list: string) => `  local place= word
  for word in ${list}; do
    case "$word" in
      --) return 0 ;;
      -*) continue ;;
    esac
    case "$place" in
      '') place=$word ;;
      ${group_names.join("|")}) place="$place $word" ;;
    esac
  done
`;

// In two parts, since they are no placeholders of ours.
const bash_words = `"$${"{COMP_WORDS[@]:1:COMP_CWORD-1}"}"`;
const zsh_words = `"$${"{(@)words[2,CURRENT-1]}"}"`;

const bash = () => `# psqlqueue completions bash > /etc/bash_completion.d/psqlqueue
_psqlqueue() {
  local current="\${COMP_WORDS[COMP_CWORD]}" before="\${COMP_WORDS[COMP_CWORD - 1]}" words=
${placeOf(bash_words)}${wordsFor()}  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _psqlqueue psqlqueue
`;

const zsh = () => `#compdef psqlqueue
# psqlqueue completions zsh > "\${fpath[1]}/_psqlqueue"
_psqlqueue() {
  local before="\${words[CURRENT-1]}" list
${placeOf(zsh_words)}${wordsFor().replaceAll("words=", "list=")}  compadd -- \${=list} || _files
}
if [ "\${funcstack[1]}" = _psqlqueue ]; then _psqlqueue "$@"; else compdef _psqlqueue psqlqueue; fi
`;

function fish(): string {
  const line = (place: string, rest: string) =>
    `complete -c psqlqueue -n ${single(`__psqlqueue_is ${single(place)}`)} ${rest}`;
  const about = (text: string) => `-d ${single(text)}`;
  const words = [
    `complete -c psqlqueue -l help -s h ${about("this command's help")}`,
    ...firsts.map((name) => {
      const own = [...groups, ...catalogue.map((spec) => ({ ...spec, name: spec.path }))].find(
        (one) => one.name === name,
      );
      return line("", `-a ${name} ${about(own?.about ?? "the help of a command")}`);
    }),
    ...catalogue.flatMap(({ path, about: text }) => {
      const [group = "", name] = path.split(" ");
      return name === undefined ? [] : [line(group, `-a ${name} ${about(text)}`)];
    }),
    ...catalogue.flatMap((spec) =>
      (spec.options ?? []).map((option) => {
        const short = option.short === undefined ? "" : ` -s ${option.short}`;
        const own = choicesOf(option);
        const value = option.value === undefined ? "" : own.length > 0 ? ` -x -a ${single(own.join(" "))}` : " -r";
        return line(spec.path, `-l ${option.name}${short}${value} ${about(option.about)}`);
      }),
    ),
  ];
  return `# psqlqueue completions fish > ~/.config/fish/completions/psqlqueue.fish
function __psqlqueue_is
  set -l place
  for word in (commandline -opc)[2..-1]
    string match -q -- '-*' $word; and continue
    if test -z "$place"
      set place $word
    else if contains -- $place ${group_names.join(" ")}
      set place "$place $word"
    end
  end
  test "$place" = "$argv[1]"
end
${words.join("\n")}
`;
}

/** The script that teaches a shell the commands. */
export function completionsOf(shell: Shell): string {
  return { bash, zsh, fish }[shell]();
}

/** undefined when there are none for it. */
export const shellNamed = (name: string): Shell | undefined => shells.find((own) => own === name);
