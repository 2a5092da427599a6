import { isKnown } from "./names.ts";
import { readWords, trimText } from "./text.ts";

const hidden = "***";
/** Parameters whose values may be shown; of all others only the name is. */
const shown = new Set([
  ...["host", "port", "hostaddr", "dbname", "sslmode", "ssl", "sslrootcert", "sslcert", "sslnegotiation"],
  ...["connect_timeout", "target_session_attrs", "load_balance_hosts", "channel_binding", "gssencmode"],
  ...["pool_max_conns", "pool_min_conns", "connection_limit", "client_encoding", "replication", "keepalives"],
]);
const isHarmless = (value: string) => /^[\w.,:/[\]-]*$/.test(value);
const maskPair = (name: string, value: string) => {
  if (!isKnown(name)) return hidden;
  return `${name}=${shown.has(name) && isHarmless(value) ? value : hidden}`;
};

function maskAddress(text: string): string {
  const [, hosts = "", path = "", query] =
    /^((?:[\w.-]|%2F|\[[\da-f:.]+\])+(?::\d{1,5})?(?:,[\w.-]+(?::\d{1,5})?)*)?(\/[\w.-]*)?(?:\?([^?]*))?$/i.exec(
      text,
    ) ?? [];
  if (hosts + path === "" && query === undefined) return text === "" ? "" : hidden;
  if (query === undefined) return hosts + path;
  const pairs = query.split("&").map((part) => {
    const [name = "", ...value] = part.split("=");
    return value.length === 0 ? hidden : maskPair(name, value.join("="));
  });
  return `${hosts}${path}?${pairs.join("&")}`;
}

/**
 * A connection string for logs and errors. What is shown is known not to be a password; of a text that is broken, and
 * whose password may be the reason for that, little is left.
 */
export function maskConnection(text: string): string {
  if (/^([\w.-]+:\d{1,5})?$/.test(text.trim())) return text;
  const trimmed = trimText(text);
  const [, scheme, rest = ""] = /^([a-z][a-z0-9+.]*:(?:\/\/|\/)?)(.*)$/is.exec(trimmed) ?? [];
  if (scheme?.endsWith("//")) {
    const at = rest.lastIndexOf("@");
    if (at === -1) return scheme + maskAddress(rest);
    const user = /^([\w.-]*):/.exec(rest.slice(0, at))?.[1];
    return `${scheme}${user === undefined ? hidden : `${user}:${hidden}`}@${maskAddress(rest.slice(at + 1))}`;
  }
  if (scheme !== undefined) return `${/^postgres/i.test(scheme) ? scheme : ""}${hidden}`;
  try {
    return [...readWords(trimmed)].map(([name, value]) => maskPair(name, value)).join(" ");
  } catch {
    return hidden;
  }
}
