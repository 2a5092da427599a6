import type { Connection } from "../connection/connection.ts";

class ReachError extends Error {
  override readonly name = "ReachError";
}

type Thrown = { code?: unknown; message?: unknown; errors?: Thrown[] };

const name_checks = "there is no such host: check its name, and that names can be looked up here";
const way_checks = "no answer: check host and port, and the firewalls on the way";
const connection_checks: Record<string, string> = {
  ECONNREFUSED: "nobody listens there: check host and port, that PostgreSQL runs, and its listen_addresses",
  ENOENT: "there is no such socket: check its directory and port, and that PostgreSQL runs",
  EACCES: "the socket is closed to whoever runs this program: check its permissions",
  ENOTFOUND: name_checks,
  EAI_AGAIN: name_checks,
  DNS_ENOTFOUND: name_checks,
  EHOSTUNREACH: way_checks,
  ENETUNREACH: way_checks,
  ETIMEDOUT: way_checks,
  CONNECT_TIMEOUT: way_checks,
  ECONNRESET:
    "the connection was cut: check that it is a PostgreSQL that listens there, and whether it wants TLS (sslmode)",
  CONNECTION_CLOSED:
    "the connection was cut: check that it is a PostgreSQL that listens there, and whether it wants TLS (sslmode)",
  READ_ONLY: "it takes no writes: name its primary, or all its hosts",
  TLS_NOT_OFFERED: "the server does not offer TLS: switch it on there (ssl = on), or write sslmode=prefer or disable",
  CHANNEL_BINDING:
    "the server does not bind the authentication to TLS: let it ask for a SCRAM password, or write channel_binding=prefer",
  "57P03": "it is starting, stopping or recovering: wait",
  "53300": "all its connections are taken: raise its max_connections, or lower PSQLQUEUE_DATABASE_MAX_CONNS",
};

const isAboutCertificates = (code: string) => /CERT|SIGNATURE|ISSUER|^ERR_TLS|^ERR_SSL|^EPROTO/.test(code);

/** Why a connection could not be made, for a person. Holds no password: errors of a start have no parameters. */
function explain(error: unknown, { user, database, tls }: Connection): string {
  let thrown = error as Thrown;
  if (thrown.code === undefined && thrown.errors?.[0] !== undefined) thrown = thrown.errors[0];
  const code = String(thrown.code ?? "");
  const message = String(thrown.message ?? "");
  const known = Object.hasOwn(connection_checks, code) ? connection_checks[code] : undefined;
  if (known !== undefined) return known;
  if (code === "28P01") return `the server does not take this password for user ${JSON.stringify(user)}: check both`;
  if (code === "28000") {
    return `the server does not let user ${JSON.stringify(user)} in (${message}): check the user, its pg_hba.conf and sslmode`;
  }
  if (code === "3D000") return `there is no database ${JSON.stringify(database)}: create it, or check its name`;
  if (code === "ERR_TLS_CERT_ALTNAME_INVALID") {
    return "the server's certificate is for another host: connect by the name in it, or write sslmode=verify-ca";
  }
  if (isAboutCertificates(code)) {
    const root = tls.root_file === undefined ? "no authority that is known here" : `no authority in ${tls.root_file}`;
    return `TLS failed (${code}), maybe since ${root} has signed the server's certificate: check sslrootcert and sslmode`;
  }
  return code === "" || message.includes(code) ? message : `${message} (${code})`;
}

/**
 * The error for all addresses that were tried, in their order: the server cannot be reached, or does not let us in. The
 * message says where, why, and what to check.
 */
export function reachError(tried: { address: string; error: unknown }[], connection: Connection): Error {
  const texts = tried.map(({ address, error }) => `${address}: ${explain(error, connection)}`);
  const [first] = tried;
  return new ReachError(`${connection.shown} cannot be used: ${texts.join("; ")}`, { cause: first?.error });
}
