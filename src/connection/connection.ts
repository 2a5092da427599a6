import os from "node:os";
import { maskConnection } from "./mask.ts";
import { fateOf, settingFateOf } from "./names.ts";
import { ConnectionError, type Parameters, readParameters } from "./text.ts";
import { readTls, type Tls } from "./tls.ts";

/** A server: `address` is where it is when that need not be looked up by its name. Or the file of a socket. */
export type Address = { host: string; port: number; address?: string } | { path: string };

/** Which servers a connection may be kept to: `primary` takes one whose sessions are read-only by default, too. */
export type Target = "read-write" | "primary" | "any";

/** All that a connection string says, checked. What it does not say is left out, or has libpq's default. */
export type Connection = {
  /** For logs and errors: without the password. */
  shown: string;
  addresses: Address[];
  /** The order of the addresses means nothing. */
  is_balanced: boolean;
  target: Target;
  user: string;
  password?: string;
  /** A file in the format of `~/.pgpass`, for when there is no password. */
  password_file?: string;
  database: string;
  tls: Tls;
  /** Until the next address is tried; 0: for as long as it takes. */
  connect_timeout_seconds?: number;
  /** Until a silent connection is asked whether it lives; 0: never. */
  keepalive_seconds?: number;
  /** The server must prove, by the password, that the TLS is its own. */
  is_bound: boolean;
  is_prepared: boolean;
  /** Settings of the session, to be sent when a connection starts. None of them is one of ours. */
  session: Record<string, string>;
  connections_max?: number;
  connections_min?: number;
};

const addresses_max = 32;

function wholeNumber(given: Parameters, name: string, min: number, max: number): number | undefined {
  const text = given.get(name);
  if (!text) return undefined;
  const value = /^-?\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw new ConnectionError(`${name} must be a whole number from ${min} to ${max}`);
}

function choice<T>(given: Parameters, name: string, values: Record<string, T>, or: T, otherwise: string): T {
  const text = given.get(name)?.toLowerCase();
  if (!text) return or;
  const found = Object.hasOwn(values, text) ? values[text] : undefined;
  if (found === undefined) throw new ConnectionError(`${name} ${otherwise}`);
  return found;
}

function portOf(text: string | undefined): number {
  if (!text) return 5432;
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (port >= 1 && port <= 65_535) return port;
  throw new ConnectionError(
    "port must be a whole number from 1 to 65535: does the password hold an unescaped character?",
  );
}

/** Lists go together: one host a place, and one port for all or one a place. */
function readAddresses(given: Parameters): Address[] {
  const names = given.get("host")?.split(",");
  const numbers = given.get("hostaddr")?.split(",");
  const ports = given.get("port")?.split(",") ?? [];
  if (names && numbers && names.length !== numbers.length) {
    throw new ConnectionError(`hostaddr has ${numbers.length} addresses for ${names.length} hosts: write one for each`);
  }
  const count = names?.length ?? numbers?.length ?? 1;
  if (ports.length > 1 && ports.length !== count) {
    throw new ConnectionError(`port has ${ports.length} ports for ${count} hosts: write one for all, or one for each`);
  }
  if (count > addresses_max) throw new ConnectionError(`host has more than ${addresses_max} hosts`);
  return Array.from({ length: count }, (_, i) => {
    const address = numbers?.[i];
    const host = names?.[i] || address || "";
    const port = portOf(ports.length === 1 ? ports[0] : ports[i]);
    if (host === "" && count > 1) throw new ConnectionError("host has an empty place in its list");
    if (host.startsWith("@")) {
      throw new ConnectionError(
        "host is an abstract socket, which is not supported: write the directory of a socket file",
      );
    }
    if (host.startsWith("/") && !address) return { path: `${host.replace(/(.)\/+$/, "$1")}/.s.PGSQL.${port}` };
    if (/[\s/@?#:]/.test(host) && !/^[\da-f:.]+(%\w+)?$/i.test(host)) {
      throw new ConnectionError("host holds a character that no host has: does the password hold an unescaped one?");
    }
    // libpq would look for a socket whose place depends on how it was built.
    return { host: host || "localhost", port, ...(address && { address }) };
  });
}

/** Words of `options`, as PostgreSQL splits them: a backslash keeps a blank. */
const wordsOf = (text: string) => text.match(/(?:\\.|[^\s\\])+/gs)?.map((word) => word.replace(/\\(.)/gs, "$1")) ?? [];

/** `-c name=value`, `--name=value`; and words for a proxy, such as `endpoint=…`, which are passed on. */
function readOptions(text: string, session: Record<string, string>): void {
  const words = wordsOf(text);
  const for_proxy: string[] = [];
  for (let i = 0; i < words.length; i++) {
    const word = words[i] ?? "";
    if (/^(project|endpoint|reference)=/.test(word)) {
      for_proxy.push(word.replace(/[\s\\]/g, "\\$&"));
      continue;
    }
    const setting = word === "-c" ? words[++i] : /^(?:-c|--)(.*)$/s.exec(word)?.[1];
    const [, name, value = ""] = /^([\w.-]+)=(.*)$/s.exec(setting ?? "") ?? [];
    if (name === undefined) {
      throw new ConnectionError(
        "options must be settings such as -c name=value, with a \\ before each blank in a value",
      );
    }
    const plain = name.replaceAll("-", "_");
    if (settingFateOf(plain) === "passed_on") session[plain] = value;
  }
  if (for_proxy.length > 0) session["options"] = for_proxy.join(" ");
}

/** What asks for something that this program cannot do is refused; the other values change nothing. */
function refuseWhatCannotBeMet(given: Parameters): void {
  const fine = { disable: true, prefer: true };
  choice(given, "gssencmode", fine, true, "must be disable or prefer: GSSAPI is not supported; TLS is (sslmode)");
  const off = { "0": true, off: true, false: true, no: true };
  choice(given, "replication", off, true, "is for programs that follow a server's changes: leave it out");
  const utf8 = { utf8: true, "utf-8": true, unicode: true, auto: true, "'utf-8'": true };
  choice(given, "client_encoding", utf8, true, "must be UTF8: leave it out");
  choice(given, "min_protocol_version", { "3.0": true }, true, "must be 3.0: leave it out");
}

/** The system's name of who runs this program, as libpq has it; in a container there may be none. */
function systemUser(): string {
  try {
    return os.userInfo().username;
  } catch {
    throw new ConnectionError(
      "user is missing, and whoever runs this program has no name: write user@ before the host",
    );
  }
}

/**
 * Reads a connection string: a URL as libpq, pgx, Prisma and hosters write them, or libpq's `name=value` words. Nothing
 * but the text and the system's user name counts: no environment variable, no file. Throws ConnectionError for what
 * cannot be honoured, unless it cannot matter. test/connectionStrings.test.ts lists the forms.
 */
export function readConnection(text: string): Connection {
  const parameters = readParameters(text);
  const session: Record<string, string> = {};
  const given: Parameters = new Map();
  for (const [name, value] of parameters) {
    const fate = fateOf(name);
    if (fate === "honoured") given.set(name, value);
    else if (fate === "passed_on") session[name] = value;
  }
  refuseWhatCannotBeMet(given);
  readOptions(given.get("options") ?? "", session);
  const application_name = given.get("application_name") || given.get("fallback_application_name");
  if (application_name) session["application_name"] = application_name;
  const targets = { any: "any", "read-write": "read-write", primary: "primary" } as const;
  const needs = "must be read-write, primary or any: psqlqueue writes";
  const keepalive_seconds = given.get("keepalives") === "0" ? 0 : wholeNumber(given, "keepalives_idle", 0, 2_147_483);
  const connect_seconds = wholeNumber(given, "connect_timeout", -2_147_483, 2_147_483);
  const connections_max =
    wholeNumber(given, "pool_max_conns", 1, 1000) ?? wholeNumber(given, "connection_limit", 1, 1000);
  const connections_min = wholeNumber(given, "pool_min_conns", 0, 1000);
  const tls = readTls(given);
  const bindings = { disable: false, prefer: false, require: true };
  const is_bound = choice(given, "channel_binding", bindings, false, "must be disable, prefer or require");
  if (is_bound && (tls.mode === "disable" || tls.mode === "prefer")) {
    throw new ConnectionError("channel_binding=require needs TLS: write sslmode=require, verify-ca or verify-full");
  }
  const user = given.get("user") || systemUser();
  const password = given.get("password");
  const password_file = given.get("passfile");
  return {
    shown: maskConnection(text),
    addresses: readAddresses(given),
    is_balanced: choice(
      given,
      "load_balance_hosts",
      { disable: false, random: true },
      false,
      "must be disable or random",
    ),
    target: choice(given, "target_session_attrs", targets, "read-write", needs),
    user,
    ...(password && { password }),
    ...(password_file && !password && { password_file }),
    database: given.get("dbname") || user,
    tls,
    is_bound,
    // libpq's least is 2; what is not above 0 is no limit.
    ...(connect_seconds !== undefined && {
      connect_timeout_seconds: connect_seconds <= 0 ? 0 : Math.max(2, connect_seconds),
    }),
    // 0 is the system's default for libpq; ours then.
    ...(keepalive_seconds !== undefined &&
      (keepalive_seconds > 0 || given.get("keepalives") === "0") && { keepalive_seconds }),
    is_prepared: choice(
      given,
      "prepare",
      { false: false, "0": false, true: true, "1": true },
      true,
      "must be true or false",
    ),
    session,
    ...(connections_max !== undefined && { connections_max }),
    ...(connections_min !== undefined && { connections_min }),
  };
}
