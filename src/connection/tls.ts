import { ConnectionError, type Parameters } from "./text.ts";

/**
 * - `disable`: never.
 * - `prefer`: where the server offers it.
 * - `require`: or there is no connection; nobody's certificate is checked.
 * - `verify-ca`: the certificate is signed by an authority that is trusted.
 * - `verify-full`: and it is that of the host.
 */
export type TlsMode = "disable" | "prefer" | "require" | "verify-ca" | "verify-full";

export type Tls = {
  mode: TlsMode;
  /** Of the authorities; the built-in ones where there is none. */
  root_file?: string;
  certificate_file?: string;
  key_file?: string;
  key_password?: string;
  /** Tells the server which host is meant. */
  sends_name: boolean;
  /** Without asking the server first (PostgreSQL 17). */
  is_direct: boolean;
  version_min: "TLSv1.2" | "TLSv1.3";
  version_max: "TLSv1.2" | "TLSv1.3";
};

// `allow` would try without TLS first: `prefer` reaches the same servers, and hides more.
const modes: Record<string, TlsMode> = {
  disable: "disable",
  allow: "prefer",
  prefer: "prefer",
  require: "require",
  "no-verify": "require",
  "verify-ca": "verify-ca",
  "verify-full": "verify-full",
};
const switches: Record<string, TlsMode> = { true: "verify-full", "1": "verify-full", false: "disable", "0": "disable" };
const modes_listed = "disable, allow, prefer, require, verify-ca or verify-full";
const isVerified = (mode: TlsMode) => mode === "verify-ca" || mode === "verify-full";

function oneOf<T>(name: string, value: string, values: Record<string, T>, listed: string): T {
  const found = Object.hasOwn(values, value) ? values[value] : undefined;
  if (found === undefined) throw new ConnectionError(`${name} must be ${listed}`);
  return found;
}

function readMode(given: Parameters): TlsMode {
  const sslmode = given.get("sslmode");
  const ssl = given.get("ssl");
  const root = given.get("sslrootcert");
  if (given.get("requiressl")) throw new ConnectionError("requiressl is libpq's of old: write sslmode=require");
  let mode: TlsMode | undefined;
  if (sslmode) mode = oneOf("sslmode", sslmode, modes, modes_listed);
  else if (ssl) mode = oneOf("ssl", ssl, { ...modes, ...switches }, `true, false, ${modes_listed}`);
  if (root === "system") {
    if (mode !== undefined && mode !== "verify-full") {
      throw new ConnectionError("sslrootcert=system needs sslmode=verify-full: anybody can get such a certificate");
    }
    return "verify-full";
  }
  const accepted = given.get("sslaccept");
  if (accepted === "strict") {
    if (mode === undefined || mode === "disable" || mode === "prefer") {
      throw new ConnectionError("sslaccept=strict needs sslmode=require or sslmode=verify-full");
    }
    return "verify-full";
  }
  if (accepted === "accept_invalid_certs" && mode !== undefined && isVerified(mode)) {
    throw new ConnectionError(
      `sslaccept=accept_invalid_certs contradicts ${sslmode ? "sslmode" : "ssl"}: leave it out`,
    );
  }
  if (accepted && accepted !== "accept_invalid_certs") {
    throw new ConnectionError("sslaccept must be strict or accept_invalid_certs");
  }
  // As libpq does: a file of authorities is there to be used.
  if (mode === "require" && root) return "verify-ca";
  return mode ?? "disable";
}

const versions = { "TLSv1.2": "TLSv1.2", "TLSv1.3": "TLSv1.3" } as const;

/** Reads what is said about TLS, without looking at the files. Throws ConnectionError. */
export function readTls(given: Parameters): Tls {
  const mode = readMode(given);
  const root = given.get("sslrootcert");
  const certmode = given.get("sslcertmode") || "allow";
  if (!["allow", "disable"].includes(certmode)) throw new ConnectionError("sslcertmode must be allow or disable");
  const certificate_file = certmode === "allow" ? given.get("sslcert") : "";
  const key_file = certmode === "allow" ? given.get("sslkey") : "";
  if (certificate_file && !key_file) {
    throw new ConnectionError(
      "sslcert needs sslkey: write both for a certificate of the client; that of the server's authority is sslrootcert",
    );
  }
  if (key_file && !certificate_file) throw new ConnectionError("sslkey needs sslcert: write both");
  const negotiation = given.get("sslnegotiation") || "postgres";
  const is_direct = oneOf("sslnegotiation", negotiation, { postgres: false, direct: true }, "postgres or direct");
  if (is_direct && (mode === "disable" || mode === "prefer")) {
    throw new ConnectionError("sslnegotiation=direct needs sslmode=require, verify-ca or verify-full");
  }
  const least = given.get("ssl_min_protocol_version") || "TLSv1.2";
  const most = given.get("ssl_max_protocol_version") || "TLSv1.3";
  const old = { TLSv1: "TLSv1.2", "TLSv1.1": "TLSv1.2" } as const; // Not spoken any more.
  const version_min = oneOf("ssl_min_protocol_version", least, { ...old, ...versions }, "TLSv1.2 or TLSv1.3");
  const version_max = oneOf("ssl_max_protocol_version", most, versions, "TLSv1.2 or TLSv1.3");
  if (version_min > version_max) {
    throw new ConnectionError("ssl_min_protocol_version is above ssl_max_protocol_version");
  }
  return {
    mode,
    ...(root && root !== "system" && isVerified(mode) && { root_file: root }),
    ...(certificate_file && key_file && { certificate_file, key_file }),
    ...(given.get("sslpassword") && key_file && { key_password: given.get("sslpassword") ?? "" }),
    sends_name: oneOf("sslsni", given.get("sslsni") || "1", { "1": true, "0": false }, "1 or 0"),
    is_direct,
    version_min,
    version_max,
  };
}
