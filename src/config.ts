import { readFileSync } from "node:fs";
import { readConnection } from "./connection/connection.ts";
import { maskConnection } from "./connection/mask.ts";
import { trimText } from "./connection/text.ts";
import { nearestOf } from "./nearest.ts";
import {
  accessKeys,
  baseUrl,
  databaseUrl,
  databaseUrlFile,
  host,
  masterKeys,
  matching,
  names,
  oneOf,
  onOff,
  optionalText,
  origins,
  portOrNone,
  problemOf,
  proxies,
  type Setting,
  secret,
  text,
  truth,
  whole,
  wholeOr,
} from "./settingKinds.ts";

/** A setting that cannot be used. The message is one line: the variable, the value, what is allowed. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
}

/** More processes than this gain nothing: the database is the limit long before. */
const workers_max = 64;
/** Connections of each worker, where their number is not set. */
const worker_connections = 4;

/** Every setting: environment name → default, bound, meaning. The README's table and `server --help` are made of it. */
export const settings = {
  PSQLQUEUE_DATABASE_URL: databaseUrl("the PostgreSQL to use; empty: the embedded database"),
  PSQLQUEUE_DATABASE_URL_FILE: databaseUrlFile("a file that holds PSQLQUEUE_DATABASE_URL, instead of it"),
  PSQLQUEUE_DATA_DIR: text("./psqlqueue-data", "directory of the embedded database"),
  PSQLQUEUE_EMBEDDED_FSYNC: oneOf(
    ["on", "off"],
    "on",
    "off: the embedded database answers before data is on disk; a power cut may lose it",
  ),
  PSQLQUEUE_TESTING: truth(false, "use PSQLQUEUE_TEST_DATABASE_URL instead of PSQLQUEUE_DATABASE_URL"),
  PSQLQUEUE_TEST_DATABASE_URL: databaseUrl("the PostgreSQL of the tests"),
  PSQLQUEUE_DATABASE_MIN_CONNS: whole(0, 1000, 0, "connections opened at start"),
  PSQLQUEUE_DATABASE_MAX_CONNS: whole(
    1,
    1000,
    10,
    "connections of the server, shared among its workers; not set: at least 4 for each of them",
  ),
  PSQLQUEUE_DATABASE_STATEMENT_TIMEOUT_MS: whole(
    100,
    600_000,
    5000,
    "milliseconds until the database cancels a statement; 2 s later the connection is given up and the answer is 503",
  ),
  PSQLQUEUE_WORKERS: wholeOr(
    "auto",
    1,
    workers_max,
    1,
    "processes that serve together, on one core each; auto: as many as there are cores",
  ),
  PSQLQUEUE_AUTH: oneOf(["on", "off"], "off", "on: every request needs an API key, but those in PSQLQUEUE_AUTH_OPEN"),
  PSQLQUEUE_AUTH_OPEN: names(["healthz", "docs", "info", "metrics"], "healthz", "what needs no key"),
  PSQLQUEUE_ROOT_KEY: secret("a key with all rights, kept nowhere; empty: there is none"),
  PSQLQUEUE_MASTER_KEY: masterKeys,
  PSQLQUEUE_METRICS_AUTH: oneOf(
    ["on", "off"],
    "off",
    "on: the metrics need a key with the right to peek at everything",
  ),
  PSQLQUEUE_LOG_LEVEL: oneOf(["debug", "info", "warn", "error"], "info", "least level that is logged"),
  PSQLQUEUE_SERVER_HOST: host("0.0.0.0", "address of the API"),
  PSQLQUEUE_SERVER_PORT: whole(0, 65535, 8000, "port of the API; 0: any free one"),
  PSQLQUEUE_TLS_CERT: optionalText(
    "path of the certificate of the API and of SQS clients' port, with its chain, in PEM; empty: no TLS",
  ),
  PSQLQUEUE_TLS_KEY: optionalText("path of its key"),
  PSQLQUEUE_TLS_CLIENT_CA: optionalText(
    "path of an authority: only clients with a certificate of it are let in, at both ports; the metrics port has no TLS",
  ),
  PSQLQUEUE_SERVER_READ_HEADER_TIMEOUT_SECONDS: whole(
    1,
    3600,
    60,
    "seconds until a client has sent the headers of a request; later: 408",
  ),
  PSQLQUEUE_SERVER_BODY_RATE_MIN: whole(
    0,
    1_000_000_000,
    240,
    "bytes per second that a request body must keep, over 10 s each; slower: 408; 0: none",
  ),
  PSQLQUEUE_SERVER_HANDLER_TIMEOUT_SECONDS: whole(
    1,
    3600,
    300,
    "seconds until a request that has arrived is answered 503; what a receive waits for messages does not count",
  ),
  PSQLQUEUE_SERVER_IDLE_TIMEOUT_SECONDS: whole(
    1,
    86_400,
    120,
    "seconds until a connection without a request, or whose client does not read its answer, is closed",
  ),
  PSQLQUEUE_SHUTDOWN_GRACE_SECONDS: whole(0, 3600, 5, "seconds that requests in flight get at SIGTERM"),
  PSQLQUEUE_METRICS_HOST: host("0.0.0.0", "address of the metrics"),
  PSQLQUEUE_METRICS_PORT: whole(0, 65535, 9090, "port of the metrics; 0: any free one"),
  PSQLQUEUE_METRICS_MAX_QUEUES: whole(0, 100_000, 1000, "queues with metrics of their own; the rest is one, _other"),
  PSQLQUEUE_QUEUE_MAX_NUMBER_OF_MESSAGES: whole(1, 1000, 10, "most messages that one receive returns"),
  PSQLQUEUE_MAX_WAIT_SECONDS: whole(0, 240, 20, "longest time that a receive waits for a message"),
  PSQLQUEUE_MAX_WAITERS: whole(1, 1_000_000, 10_000, "receives that wait at once; one more is answered 429"),
  PSQLQUEUE_MAX_BODY_BYTES: whole(1024, 268_435_456, 16_777_216, "bytes of a request body"),
  PSQLQUEUE_WAITING_MAX_BYTES: whole(
    1_048_576,
    1_099_511_627_776,
    268_435_456,
    "bytes of all message bodies together that wait to be stored; one more is answered 503",
  ),
  PSQLQUEUE_RECEIVE_MAX_BYTES: whole(
    1024,
    268_435_456,
    67_108_864,
    "bytes of the messages that one receive returns: fewer messages, but at least one",
  ),
  PSQLQUEUE_ANSWERS_MAX_BYTES: whole(
    1_048_576,
    1_099_511_627_776,
    67_108_864,
    "bytes of all received messages together that consumers have not read yet",
  ),
  PSQLQUEUE_BATCH_LANES: whole(
    1,
    16,
    2,
    "statements in flight per verb; requests gather while one is, and many of them take another",
  ),
  PSQLQUEUE_BATCH_MAX_ITEMS: whole(1, 10_000, 500, "requests, or items of batches, that one statement carries"),
  PSQLQUEUE_BATCH_MAX_BYTES: whole(1024, 268_435_456, 8_388_608, "bytes of message bodies that one statement carries"),
  PSQLQUEUE_BATCH_MAX_WAITING: whole(1, 1_000_000, 20_000, "requests that wait per verb; one more is answered 503"),
  PSQLQUEUE_CORS_ORIGINS: origins,
  PSQLQUEUE_UI: onOff("on", "the dashboard at /ui"),
  PSQLQUEUE_TRUSTED_PROXIES: proxies,
  PSQLQUEUE_SQS: onOff("on", "whether clients of Amazon SQS are served"),
  PSQLQUEUE_SQS_PORT: portOrNone("port of their own besides that of the API; 0: any free one; empty: none"),
  PSQLQUEUE_SQS_PUBLIC_URL: baseUrl("what QueueUrls begin with; empty: the address that the client used"),
  PSQLQUEUE_SQS_ACCOUNT_ID: matching("000000000000", /^\d{12}$/, "twelve digits", "account in QueueUrls and ARNs"),
  PSQLQUEUE_SQS_REGION: matching("us-east-1", /^[a-z0-9-]{1,64}$/, "a region such as us-east-1", "region in ARNs"),
  PSQLQUEUE_SQS_AUTH: oneOf(["auto", "on", "off"], "auto", "SQS clients must sign; auto: with access keys or API keys"),
  PSQLQUEUE_SQS_ACCESS_KEYS: accessKeys,
  PSQLQUEUE_SQS_UNSIGNED_PAYLOAD: onOff("off", "whether a signature may leave the body out"),
  PSQLQUEUE_SQS_LIMITS: oneOf(
    ["strict", "relaxed"],
    "strict",
    "strict: names, sizes, batches and receives as at Amazon; relaxed: as this service can",
  ),
  PSQLQUEUE_SQS_LEGACY_HANDLES: onOff("off", "whether the receipt handle of an earlier delivery still deletes"),
  PSQLQUEUE_SQS_PURGE_LIMIT: onOff("off", "whether a queue can be purged once in 60 s only, as at Amazon"),
  PSQLQUEUE_SQS_NAME_LIMIT: onOff("off", "whether the name of a deleted queue is free after 60 s only, as at Amazon"),
} as const satisfies Record<string, Setting<unknown>>;

type Values = { [K in keyof typeof settings]: NonNullable<ReturnType<(typeof settings)[K]["read"]>> };

/** The settings of one process, checked. Nothing below `commands/` reads the environment. */
export type Config = Readonly<Values> & {
  /** The database to use: the test database when PSQLQUEUE_TESTING is true. Empty: the embedded one. */
  readonly database_url: string;
  /** Processes that serve together. */
  readonly workers: number;
  readonly origin: Origin;
};

/** Where settings came from, for a message about what is not set. */
export type Origin = {
  /** The `.env` that was read. */
  readonly dotenv_file?: string | undefined;
  /** Names that were given and are no setting. */
  readonly unknown_names: readonly string[];
};

/** The connection string of the file, when there is one. */
function readUrlFile({ PSQLQUEUE_DATABASE_URL_FILE: file, PSQLQUEUE_DATABASE_URL: url }: Values): string {
  if (file === "") return url;
  const name = `PSQLQUEUE_DATABASE_URL_FILE=${JSON.stringify(file)} cannot be used`;
  if (url !== "") throw new ConfigError(`${name} together with PSQLQUEUE_DATABASE_URL; allowed: one of the two`);
  let content: string;
  try {
    content = readFileSync(file, "utf8");
  } catch (cause) {
    throw new ConfigError(`${name}: ${(cause as Error).message}; allowed: a file that can be read`);
  }
  const problem = trimText(content) === "" ? "the file is empty" : problemOf(content);
  if (problem === undefined) return trimText(content);
  throw new ConfigError(`${name}: ${problem}; allowed: a file that holds ${settings.PSQLQUEUE_DATABASE_URL.allowed}`);
}

/** Where the number of connections is not set, that of the connection string counts: `pool_max_conns` and the like. */
function connectionCounts(url: string, values: Values, isSet: (name: keyof Values) => boolean): Partial<Values> {
  if (url === "") return {};
  const asked = readConnection(url);
  const min = isSet("PSQLQUEUE_DATABASE_MIN_CONNS") ? undefined : asked.connections_min;
  const max = isSet("PSQLQUEUE_DATABASE_MAX_CONNS") ? undefined : asked.connections_max;
  const most = max ?? values.PSQLQUEUE_DATABASE_MAX_CONNS;
  return {
    ...(max !== undefined && { PSQLQUEUE_DATABASE_MAX_CONNS: max }),
    ...(min !== undefined && { PSQLQUEUE_DATABASE_MIN_CONNS: Math.min(min, most) }),
  };
}

/** Reads and checks the settings. Throws ConfigError at the first one that cannot be used. */
export function readConfig(
  environment: Readonly<Record<string, string | undefined>>,
  origin: Origin = { unknown_names: [] },
): Config {
  const values: Record<string, unknown> = {};
  for (const [name, setting] of Object.entries<Setting<unknown>>(settings)) {
    const given = environment[name] ?? setting.default;
    // Blanks around a value mean nothing. Blanks alone are no value, and never the default.
    const value = setting.read(given.trim() === "" ? given : given.trim());
    if (value === undefined) {
      const is_url = name.endsWith("DATABASE_URL");
      const shown = setting.is_secret ? '"***"' : JSON.stringify(is_url ? maskConnection(given) : given);
      const problem = is_url ? `: ${problemOf(given)}` : "";
      throw new ConfigError(`${name}=${shown} cannot be used${problem}; allowed: ${setting.allowed}`);
    }
    values[name] = value;
  }
  const read = values as Values;
  checkTls(read);
  const url = readUrlFile(read);
  const database_url = read.PSQLQUEUE_TESTING ? read.PSQLQUEUE_TEST_DATABASE_URL : url;
  const isSet = (name: string) => environment[name] !== undefined;
  const counts = connectionCounts(database_url, read, isSet);
  const config = { ...read, PSQLQUEUE_DATABASE_URL: url, ...counts };
  if (config.PSQLQUEUE_TESTING && config.PSQLQUEUE_TEST_DATABASE_URL === "") {
    throw new ConfigError(
      'PSQLQUEUE_TEST_DATABASE_URL="" cannot be used with PSQLQUEUE_TESTING=true; allowed: a database URL',
    );
  }
  if (config.PSQLQUEUE_DATABASE_MIN_CONNS > config.PSQLQUEUE_DATABASE_MAX_CONNS) {
    throw new ConfigError(
      `PSQLQUEUE_DATABASE_MIN_CONNS="${config.PSQLQUEUE_DATABASE_MIN_CONNS}" cannot be used; ` +
        `allowed: at most PSQLQUEUE_DATABASE_MAX_CONNS (${config.PSQLQUEUE_DATABASE_MAX_CONNS})`,
    );
  }
  const can_keys_sign = config.PSQLQUEUE_AUTH === "on" && config.PSQLQUEUE_MASTER_KEY.size > 0;
  if (config.PSQLQUEUE_SQS_AUTH === "on" && config.PSQLQUEUE_SQS_ACCESS_KEYS.size === 0 && !can_keys_sign) {
    throw new ConfigError(
      'PSQLQUEUE_SQS_AUTH="on" cannot be used: nobody could sign; allowed: with PSQLQUEUE_SQS_ACCESS_KEYS, ' +
        "or with PSQLQUEUE_AUTH=on and PSQLQUEUE_MASTER_KEY; or off",
    );
  }
  const has_most = isSet("PSQLQUEUE_DATABASE_MAX_CONNS") || counts.PSQLQUEUE_DATABASE_MAX_CONNS !== undefined;
  const workers = countWorkers(config, database_url, has_most);
  if (!has_most && workers > 1) {
    config.PSQLQUEUE_DATABASE_MAX_CONNS = Math.max(config.PSQLQUEUE_DATABASE_MAX_CONNS, worker_connections * workers);
  }
  return Object.freeze({ ...config, database_url, workers, origin });
}

/** How many processes serve. Throws ConfigError for more than there can be. */
function countWorkers(values: Values, database_url: string, has_most: boolean): number {
  const { PSQLQUEUE_WORKERS: asked, PSQLQUEUE_DATABASE_MAX_CONNS: connections } = values;
  const is_embedded = database_url === "";
  const is_linux = process.platform === "linux";
  if (asked === "auto") {
    const most = Math.min(workers_max, has_most ? connections : workers_max);
    return is_embedded || !is_linux ? 1 : Math.max(1, Math.min(navigator.hardwareConcurrency, most));
  }
  const refusal = (why: string, allowed: string) =>
    new ConfigError(`PSQLQUEUE_WORKERS="${asked}" cannot be used ${why}; allowed: ${allowed}`);
  if (asked > 1 && is_embedded) {
    throw refusal(
      "with the embedded database: it commits one statement at a time, and more processes would give it smaller ones",
      "1 or auto, or a PostgreSQL server in PSQLQUEUE_DATABASE_URL",
    );
  }
  // Elsewhere the system does not spread the connections of a port over the processes that listen on it.
  if (asked > 1 && !is_linux) throw refusal(`on ${process.platform}`, "1 or auto; more on Linux");
  if (has_most && asked > connections) {
    throw refusal(
      `with ${connections} connections to the database`,
      "at most PSQLQUEUE_DATABASE_MAX_CONNS: one for each worker",
    );
  }
  return asked;
}

/** A certificate and its key go together. */
function checkTls(config: Values): void {
  const { PSQLQUEUE_TLS_CERT: cert, PSQLQUEUE_TLS_KEY: key, PSQLQUEUE_TLS_CLIENT_CA: client_ca } = config;
  if ((cert === "") !== (key === "") || (client_ca !== "" && cert === "")) {
    const missing = cert === "" ? "PSQLQUEUE_TLS_CERT" : "PSQLQUEUE_TLS_KEY";
    throw new ConfigError(`${missing}="" cannot be used; allowed: the path of a file, since the others are given`);
  }
}

/** Our own for builds, tests and the commands that ask a server, which a server does not read. */
const other_names = /^PSQLQUEUE_(COMMIT|TEST_[A-Z_]+|URL|KEY|PROFILE|CACERT|CLIENT_CERT(_KEY)?)$/;
/** What Kubernetes gives every container about a service that is named psqlqueue. */
const kubernetes_names = /^PSQLQUEUE_(.*_)?(SERVICE_(HOST|PORT(_.+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)$/;

/** The setting that somebody means with `port` or `PSQLQUEUE_PORT`, or undefined. */
export function settingLike(given: string): string | undefined {
  const wanted = given
    .toUpperCase()
    .replaceAll("-", "_")
    .replace(/^PSQLQUEUE_/, "");
  const known = Object.keys(settings);
  const name = `PSQLQUEUE_${wanted}`;
  return nearestOf(name, known, Math.floor(wanted.length / 3)) ?? known.find((one) => one.endsWith(`_${wanted}`));
}

/** A name that was given, that is no setting, and that looks as if it were to be one. */
export type UnknownName = { name: string; nearest: string | undefined };

/** Finds the names in `given` that are meant for us and are no settings: misspelt, lower case, or of other versions. */
export function findUnknown(given: Readonly<Record<string, string | undefined>>): UnknownName[] {
  const known = Object.keys(settings);
  const in_kubernetes = given["KUBERNETES_SERVICE_HOST"] !== undefined;
  return Object.keys(given).flatMap((name) => {
    if (known.includes(name) || other_names.test(name)) return [];
    if (in_kubernetes && kubernetes_names.test(name)) return [];
    const is_ours = /^psqlqueue/i.test(name);
    // Of names that begin otherwise, those that are a slip away: PSQL_QUEUE_DATABASE_URL.
    const nearest = is_ours ? settingLike(name) : nearestOf(name, known, 2);
    return is_ours || nearest !== undefined ? [{ name, nearest }] : [];
  });
}

/** The table of settings that `server --help` prints. */
export function describeSettings(): string {
  return Object.entries<Setting<unknown>>(settings)
    .map(([name, setting]) => {
      const shown = setting.default === "" ? "empty" : setting.default;
      return `  ${name}\n      ${setting.meaning}\n      default: ${shown}; allowed: ${setting.allowed}`;
    })
    .join("\n");
}
