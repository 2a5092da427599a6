import { parseArgs } from "node:util";

/** The help. */
export const usage = `usage: bun bench/run.ts [URL] [options]

Without URL: a private PostgreSQL and a server of ours, started and ended here. With URL: any server of the v1 API.

what runs
  --binary FILE         this program instead of bun src/main.ts
  --workers N           processes of the server, default 1
  --embedded            the embedded database instead of PostgreSQL
  --database URL        the database of the server at URL: faster preparation, PostgreSQL's CPU, more rows
  --server-pid N        the process of the server at URL: its CPU
the table
  --connections LIST    default 1,16,64,256
  --only LIST           of publish,receive+ack,lifecycle (default), mixed,publish-10,publish-100,receive+ack-100
  --seconds N           of a measurement, default 5
  --body-bytes N        default 100
  --closed              throughput and CPU only, no latencies
  --wrk                 adds publish rows by wrk, which must be in PATH: a second opinion on the load generator
  --quick               shorter measurements, 1 and 64 connections
flatness, instead of the table (--all: both); a size may be given, --backlog=100000
  --flat                all of these
  --backlog --in-flight --pinned-horizon --rare-label --queues --idle --single
gate
  --gate                CPU per message against bench/baseline.json; exit 1 beyond 25 %
  --write               makes it the baseline instead
two servers in turn, instead of the table: throughput, CPU per message, latencies; --only and --seconds as above
  --spread N            one process against N
  --against DIR         the server of another checkout, with its packages installed, against this one
`;

/** Sizes of the flatness rows: what each costs to prepare, or how long it lasts. */
export const flat_sizes = {
  backlog: 1_000_000,
  "in-flight": 500_000,
  "pinned-horizon": 60,
  "rare-label": 500_000,
  queues: 10_000,
  idle: 1000,
  single: 1000,
} as const;

/** A flatness row's option, without its dashes. */
export type FlatName = keyof typeof flat_sizes;
/** The table's workloads, unless others are asked for. */
export const table_names = ["publish", "receive+ack", "lifecycle"] as const;
/** All workloads. A number is that of the messages in a request. */
export const workload_names = [...table_names, "mixed", "publish-10", "publish-100", "receive+ack-100"] as const;
/** One of them. */
export type WorkloadName = (typeof workload_names)[number];

/** The command line, read. */
export type Options = {
  url: string | undefined;
  database_url: string | undefined;
  server_pid: number | undefined;
  binary: string | undefined;
  is_embedded: boolean;
  workers: number;
  /** How many processes one is compared with; undefined: none. */
  spread: number | undefined;
  /** The root of another checkout, with which this one is compared. */
  against: string | undefined;
  connections: number[];
  only: WorkloadName[];
  /** Of a closed loop; open ones take 0.8 of it each. */
  seconds: number;
  warmup_seconds: number;
  body_bytes: number;
  has_latency: boolean;
  has_table: boolean;
  has_wrk: boolean;
  flat: { name: FlatName; size: number }[];
  gate: "no" | "check" | "write";
};

/** What the command line cannot mean. The message is for the user. */
export class OptionsError extends Error {
  override readonly name = "OptionsError";
}

function wholeNumbers(name: string, text: string): number[] {
  const numbers = text.split(",").map(Number);
  if (numbers.every((number) => Number.isSafeInteger(number) && number > 0)) return numbers;
  throw new OptionsError(`--${name} ${text}: not a whole number above 0`);
}

const wholeNumber = (name: string, text: string) => wholeNumbers(name, text)[0] ?? 0;

/** Flags that may carry a size (`--backlog` or `--backlog=N`), which parseArgs does not know. */
function takeFlat(argv: string[]): { flat: Options["flat"]; rest: string[] } {
  const flat: Options["flat"] = [];
  const rest: string[] = [];
  for (let i = 0; i < argv.length; i++) {
    const argument = argv[i] ?? "";
    const [flag = "", own] = argument.split("=", 2);
    const name = flag.slice(2) as FlatName;
    if (flag.startsWith("--") && Object.hasOwn(flat_sizes, name)) {
      const next = own ?? (/^\d+$/.test(argv[i + 1] ?? "") ? argv[++i] : undefined);
      flat.push({ name, size: next === undefined ? flat_sizes[name] : wholeNumber(name, next) });
    } else rest.push(argument);
  }
  return { flat, rest };
}

/** Reads the command line; undefined when only help is asked for. Throws OptionsError. */
export function readOptions(argv: string[]): Options | undefined {
  const { flat, rest } = takeFlat(argv);
  let parsed: ReturnType<typeof parse>;
  try {
    parsed = parse(rest);
  } catch (cause) {
    throw new OptionsError((cause as Error).message, { cause });
  }
  const { values, positionals } = parsed;
  if (values.help) return undefined;
  if (positionals.length > 1) throw new OptionsError(`${positionals[1]}: one URL at most`);
  const [url] = positionals;
  if (url !== undefined && !URL.canParse(url)) throw new OptionsError(`${url} is no URL`);
  if (values.wrk && Bun.which("wrk") === null) throw new OptionsError("--wrk: there is no wrk in PATH");
  const only = (values.only?.split(",") ?? [...table_names]) as WorkloadName[];
  const unknown = only.find((name) => !workload_names.includes(name));
  if (unknown !== undefined) throw new OptionsError(`--only ${unknown}: one of ${workload_names.join(", ")}`);
  const seconds = values.seconds === undefined ? (values.quick ? 1.5 : 5) : Number(values.seconds);
  if (!(seconds > 0 && seconds <= 600)) throw new OptionsError(`--seconds ${values.seconds}: above 0, at most 600`);
  const all = Object.entries(flat_sizes).map(([name, size]) => ({ name: name as FlatName, size }));
  const asked = values.flat || (values.all && flat.length === 0) ? all : flat;
  // A size given beside --flat counts.
  const sized = asked.map((item) => flat.find((own) => own.name === item.name) ?? item);
  return {
    url: url?.replace(/\/$/, ""),
    database_url: values.database,
    server_pid: values["server-pid"] === undefined ? undefined : wholeNumber("server-pid", values["server-pid"]),
    binary: values.binary,
    is_embedded: values.embedded ?? false,
    workers: wholeNumber("workers", values.workers ?? "1"),
    spread: values.spread === undefined ? undefined : wholeNumber("spread", values.spread),
    against: values.against,
    connections: wholeNumbers("connections", values.connections ?? (values.quick ? "1,64" : "1,16,64,256")),
    only,
    seconds,
    warmup_seconds: values.quick ? 0.5 : 1,
    body_bytes: wholeNumber("body-bytes", values["body-bytes"] ?? "100"),
    has_latency: !values.closed,
    has_table:
      values.all || (sized.length === 0 && !values.gate && values.spread === undefined && values.against === undefined),
    has_wrk: values.wrk ?? false,
    flat: sized,
    gate: values.gate ? (values.write ? "write" : "check") : "no",
  };
}

function parse(args: string[]) {
  const text = { type: "string" } as const;
  const flag = { type: "boolean" } as const;
  return parseArgs({
    args,
    allowPositionals: true,
    options: {
      help: { ...flag, short: "h" },
      binary: text,
      embedded: flag,
      workers: text,
      spread: text,
      against: text,
      database: text,
      "server-pid": text,
      connections: text,
      only: text,
      seconds: text,
      "body-bytes": text,
      closed: flag,
      wrk: flag,
      quick: flag,
      flat: flag,
      all: flag,
      gate: flag,
      write: flag,
    },
  });
}
