/** A connection string that cannot be used. One sentence: the parameter, why, what to write. Never a password. */
export class ConnectionError extends Error {
  override readonly name = "ConnectionError";
}

/** Every parameter by libpq's name: `host`, `port`, `user`, `password`, `dbname` and what stands behind the `?`. */
export type Parameters = Map<string, string>;

const example = "postgres://user:password@host:5432/database";
const url_schemes = new Set(["postgres", "postgresql"]);

/** Without blanks and line ends around it, and without the quotes that an env file of Docker leaves in. */
export function trimText(text: string): string {
  const trimmed = text.trim();
  return /^(["'])(.*)\1$/s.exec(trimmed)?.[2]?.trim() ?? trimmed;
}

/** Reads a URL, or libpq's `name=value name=value`. Throws ConnectionError. */
export function readParameters(text: string): Parameters {
  const trimmed = trimText(text);
  if (/^jdbc:/i.test(trimmed)) {
    throw new ConnectionError(`jdbc: is Java's form: write ${example}, with user and password before the host`);
  }
  const [, scheme, rest = ""] = /^([a-z][a-z0-9+.-]*):\/\/(.*)$/is.exec(trimmed) ?? [];
  if (scheme === undefined) {
    if (/^[a-z_]+\s*=/i.test(trimmed)) return readWords(trimmed);
    throw new ConnectionError(`it does not begin with postgres://: write ${example}`);
  }
  if (url_schemes.has(scheme.toLowerCase())) return readUrl(rest);
  const driver = /^(postgres(?:ql)?)\+[a-z0-9]+$/i.exec(scheme)?.[1];
  if (driver !== undefined)
    throw new ConnectionError(`${scheme}:// is Python's form: write ${driver.toLowerCase()}://`);
  throw new ConnectionError(`${scheme}:// is not PostgreSQL: write ${example}`);
}

/** Splits at the first `separator`. */
function split(text: string, separator: string): [string, string | undefined] {
  const at = text.indexOf(separator);
  return at === -1 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)];
}

/**
 * Undoes percent-encoding. A `%` that is no escape stands for itself where `is_lenient`: in user and password, which
 * people paste.
 */
function decode(text: string, name: string, is_lenient = false): string {
  if (!is_lenient && /%(?![0-9a-f]{2})/i.test(text)) {
    throw new ConnectionError(`${name} holds a % that is no escape: write %25 for %`);
  }
  let decoded: string;
  try {
    decoded = text.replace(/(?:%[0-9a-f]{2})+/gi, (escapes) => decodeURIComponent(escapes));
  } catch {
    throw new ConnectionError(
      `${name} holds escapes (%XX) that are not UTF-8: write the UTF-8 bytes of each character`,
    );
  }
  if (decoded.includes("\0")) throw new ConnectionError(`${name} holds %00, which PostgreSQL cannot take`);
  return decoded;
}

/** The last `@` before the host ends the password; what would end the host before it must be escaped. */
function readUrl(rest: string): Parameters {
  const parameters: Parameters = new Map();
  const end = rest.search(/[/?]/);
  const authority = end === -1 ? rest : rest.slice(0, end);
  const [before_query, query] = split(end === -1 ? "" : rest.slice(end), "?");
  const at = authority.lastIndexOf("@");
  const isPair = (part: string) => /^[^=@/]+=/.test(part);
  const parts = (query ?? "").split("&").filter((part) => part !== "");
  // Else a password with / or ? in it would be read as a host, and tried.
  if (before_query.includes("@") || (query?.includes("@") && !parts.every(isPair))) {
    throw new ConnectionError(
      "there is an @ after a / or ?: if the password holds an unescaped character, write %2F for /, %3F for ?, %23 for #, " +
        "%40 for @; else write %40 for that @",
    );
  }
  if (at !== -1) {
    const [user, password] = split(authority.slice(0, at), ":");
    parameters.set("user", decode(user, "user", true));
    if (password !== undefined) parameters.set("password", decode(password, "password", true));
  }
  readHosts(authority.slice(at + 1), parameters);
  const database = before_query.slice(1);
  if (/[/#]/.test(database)) {
    throw new ConnectionError("the database's name holds an unescaped character: write %2F for /, %23 for #");
  }
  if (database !== "") parameters.set("dbname", decode(database, "dbname"));
  for (const part of parts) {
    const [name, value] = split(part, "=");
    if (value === undefined) {
      throw new ConnectionError(
        "a parameter behind the ? has no =: write name=value, with & between them and %26 for &",
      );
    }
    const given = decode(value, "the parameter");
    // Nothing is what libpq takes for not given.
    if (given !== "" || !parameters.has(decode(name, "a name"))) parameters.set(decode(name, "a name"), given);
  }
  return parameters;
}

/** `a:1,[::1]:2,c` as libpq's lists: host `a,::1,c`, port `1,2,`. */
function readHosts(authority: string, parameters: Parameters): void {
  if (authority === "") return;
  const found = authority.split(",").map((item) => {
    const [, bracketed, plain, port = ""] = /^(?:\[([^\]]*)\]|([^:[\]]*))(?::([^:]*))?$/s.exec(item) ?? [];
    const host = bracketed ?? plain;
    if (host === undefined) throw new ConnectionError("host is an IPv6 address without brackets: write [::1]:5432");
    return { host: decode(host, "host"), port: decode(port, "port") };
  });
  parameters.set("host", found.map(({ host }) => host).join());
  if (found.some(({ port }) => port !== "")) parameters.set("port", found.map(({ port }) => port).join());
}

/** `host=a password='it''s \'quoted\''`: quotes and backslashes as libpq reads them. */
export function readWords(text: string): Parameters {
  const parameters: Parameters = new Map();
  const word = /\s*([^\s=]+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'(?=\s|$)|((?:[^\s'\\]|\\.)(?:[^\s\\]|\\.)*)?(?=\s|$))/sy;
  const end = text.trimEnd().length;
  while (word.lastIndex < end) {
    const found = word.exec(text);
    if (found === null) {
      throw new ConnectionError(
        "it is no list of name=value words: quote a value with blanks ('a b'), and write \\' for ' and \\\\ for \\",
      );
    }
    const [whole, name = "", quoted, plain = ""] = found;
    // libpq takes the next word for the value, and so a password of this name, without a word.
    if (/=\s+\w+=/.test(whole) && quoted === undefined)
      throw new ConnectionError(`${name} has no value: write '' for none`);
    parameters.set(name, (quoted ?? plain).replace(/\\(.)/gs, "$1"));
  }
  return parameters;
}
