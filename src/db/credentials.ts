import { readFileSync } from "node:fs";
import tls from "node:tls";
import type { Connection } from "../connection/connection.ts";

/** What the driver asks for before each connection: no TLS, or how. Files are read again, so they may be replaced. */
export type Encryption = false | { is_optional: boolean; options: tls.ConnectionOptions };

type Host = { host?: string };

function readFile(parameter: string, file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (cause) {
    const reason = (cause as { code?: string }).code ?? "unknown";
    const message = `${parameter}: the file ${file} cannot be read (${reason}): correct its path, or who may read it`;
    throw Object.assign(new Error(message, { cause }), { code: "CREDENTIAL_FILE" });
  }
}

/** How to encrypt a connection to `host`; a socket's file has none, and no TLS. Throws for a file. */
export function encryptionFor({ tls: asked }: Connection, { host }: Host): Encryption {
  if (asked.mode === "disable" || host === undefined) return false;
  const is_verified = asked.mode === "verify-ca" || asked.mode === "verify-full";
  const { root_file, certificate_file, key_file } = asked;
  const options: tls.ConnectionOptions = {
    rejectUnauthorized: is_verified,
    minVersion: asked.version_min,
    maxVersion: asked.version_max,
    checkServerIdentity: (_, certificate) =>
      asked.mode === "verify-full" ? tls.checkServerIdentity(host, certificate) : undefined,
    ...(root_file !== undefined && { ca: readFile("sslrootcert", root_file) }),
    ...(certificate_file !== undefined && { cert: readFile("sslcert", certificate_file) }),
    ...(key_file !== undefined && { key: readFile("sslkey", key_file) }),
    ...(asked.key_password !== undefined && { passphrase: asked.key_password }),
    ...(!asked.sends_name && { servername: "" }),
  };
  return { is_optional: asked.mode === "prefer", options };
}

/** The password of the first line `host:port:database:user:password` that fits; `*` fits all, a backslash escapes. */
function findPassword(content: string, wanted: string[]): string | undefined {
  for (const line of content.split(/\r?\n/)) {
    if (line.startsWith("#")) continue;
    const fields = [...line.matchAll(/((?:\\.|[^\\:])*)(?::|$)/g)].map(([, field = ""]) => field);
    const is_found = wanted.every((value, i) => fields[i] === "*" || fields[i]?.replace(/\\(.)/g, "$1") === value);
    if (is_found && fields[4] !== undefined) return fields[4].replace(/\\(.)/g, "$1");
  }
  return undefined;
}

/** The password for a server; empty where there is none. Throws for a file. */
export function passwordFor(connection: Connection, { host, port }: Host & { port?: number }): string {
  const { password, password_file, user, database } = connection;
  if (password !== undefined || password_file === undefined) return password ?? "";
  const content = readFile("passfile", password_file);
  return findPassword(content, [host ?? "localhost", String(port ?? 5432), database, user]) ?? "";
}

/** Throws a sentence, naming parameter and file, when a file of the connection string cannot be used. */
export function checkFiles(connection: Connection): void {
  passwordFor(connection, {});
  for (const address of connection.addresses) {
    const found = encryptionFor(connection, "host" in address ? { host: address.host } : {});
    if (found === false) continue;
    const { ca, cert, key, passphrase } = found.options;
    checkPart("sslrootcert", connection.tls.root_file, { ca });
    checkPart("sslcert", connection.tls.certificate_file, { cert });
    checkPart("sslkey", connection.tls.key_file, { key, passphrase });
    return;
  }
}

function checkPart(parameter: string, file: string | undefined, options: tls.SecureContextOptions): void {
  if (file === undefined) return;
  try {
    tls.createSecureContext(options);
  } catch (cause) {
    const password = parameter === "sslkey" ? ", or sslpassword is missing or wrong" : "";
    throw new Error(`${parameter}: the file ${file} holds nothing in PEM that can be used${password}`, { cause });
  }
}
