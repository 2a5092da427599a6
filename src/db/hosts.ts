import net from "node:net";

/** A postgres:// URL, maybe with several hosts, or the private socket of the embedded database. */
export type DatabaseServer = string | { host: string; path: string; user: string; password: string; database: string };

type Host = { host: string; port: number };

/** Which servers a connection may be kept to: `primary` takes one whose sessions are read-only by default, too. */
type Target = "read-write" | "primary" | "any";

export type Hosts = {
  /** The URL with its first host only, and without `target_session_attrs`: both are ours. */
  url: string;
  /** Empty: where the driver would connect to. */
  hosts: Host[];
  target: Target;
};

/** What a server tells of itself before the first statement (PostgreSQL 14 and newer). */
export type ServerState = { in_hot_standby?: string; default_transaction_read_only?: string };

const parts_of_url = /^(postgres(?:ql)?:\/\/(?:[^/?#]*@)?)([^/?#]*)(.*)$/s;

/** Reads `postgres://user:password@a:5432,b/database?target_session_attrs=read-write`. A host without port has 5432. */
export function readHosts(url: string): Hosts {
  const [, head = "", authority = "", tail = ""] = parts_of_url.exec(url) ?? [];
  const names = authority.split(",");
  const first = new URL(`${head}${names[0]}${tail}`);
  const asked = first.searchParams.get("target_session_attrs");
  if (asked !== null) first.searchParams.delete("target_session_attrs");
  const hosts = names.map((name) => {
    const [, bracketed, plain, port] = /^(?:\[(.*)\]|([^:]*))(?::(\d+))?$/.exec(decodeURIComponent(name)) ?? [];
    return { host: bracketed ?? plain ?? "", port: Number(port ?? 5432) };
  });
  return {
    url: asked === null && names.length === 1 ? url : first.href,
    hosts: hosts.length > 1 ? hosts : [],
    target: asked === "any" || asked === "primary" ? asked : "read-write",
  };
}

export type Connector = {
  /** How many servers there are to choose from. */
  count: number;
  target: Target;
  /**
   * Opens a connection. It is handed to the driver while still connecting: what is written meanwhile is kept, and a
   * refusal arrives as the socket's own error and close, which is the only way that the driver's pool recovers from
   * one.
   */
  connect(options: { host: string[]; port: number[]; path?: string }): net.Socket;
  /** To be called when a connection can take its first statement: an error when it is not to be kept. */
  check(socket: net.Socket, state: ServerState): Error | undefined;
  /** To be called when a statement found the server read-only: the next connection goes to the next host. */
  leave(socket: net.Socket): void;
};

export type ConnectorOptions = {
  /** A host that is passed over, once per change for the worse. */
  onTrouble?: (host: string, reason: string) => void;
  /** Another server than before answers: what was read from the former one may be undone. */
  onChange?: (host: string) => void;
};

const nameOf = ({ host, port }: Host) => `${host}:${port}`;

/**
 * Chooses the host of each connection. It stays with one until a connection to it fails, does not get ready in time or
 * turns out to be read-only, and then takes the next, for ever in a circle: which one is the primary may have changed.
 */
export function createConnector(server: DatabaseServer, options: ConnectorOptions = {}): Connector {
  const { hosts, target } = typeof server === "string" ? readHosts(server) : { hosts: [], target: "any" as const };
  const hosts_of = new WeakMap<net.Socket, Host>();
  /** Connections that have not become ready yet. */
  const pending = new Set<net.Socket>();
  const in_trouble = new Set<string>();
  let at = 0;
  let answering: string | undefined;

  function passOver(host: Host, reason: string): void {
    const name = nameOf(host);
    if (hosts[at % hosts.length] === host) at += 1;
    if (answering === name) answering = "";
    if (in_trouble.has(name)) return;
    in_trouble.add(name);
    options.onTrouble?.(name, reason);
  }

  return {
    count: Math.max(1, hosts.length),
    target,
    connect(own) {
      const path = typeof server === "string" ? own.path : server.path;
      if (path) return net.connect({ path });
      // Looked at here, because TLS takes a socket's listeners off. A connection refused, timed out, or ended by a
      // server that is starting: all the same.
      for (const socket of pending) {
        const host = hosts_of.get(socket);
        if (socket.destroyed && pending.delete(socket) && host) passOver(host, "it cannot be reached");
      }
      const next = hosts[at % hosts.length] ?? { host: own.host[0] ?? "localhost", port: own.port[0] ?? 5432 };
      const socket = net.connect({ ...next, noDelay: true });
      hosts_of.set(socket, next);
      pending.add(socket);
      return Object.assign(socket, next);
    },
    check(socket, { in_hot_standby, default_transaction_read_only }) {
      pending.delete(socket);
      const host = hosts_of.get(socket);
      if (host === undefined) return undefined;
      const is_standby = target !== "any" && in_hot_standby === "on";
      if (is_standby || (target === "read-write" && default_transaction_read_only === "on")) {
        passOver(host, is_standby ? "it is a standby" : "its sessions are read-only");
        return Object.assign(new Error("the server is read-only"), { code: "READ_ONLY" });
      }
      const before = answering;
      answering = nameOf(host);
      if (before !== answering) in_trouble.clear();
      if (before !== undefined && before !== answering) options.onChange?.(answering);
      return undefined;
    },
    leave(socket) {
      const host = hosts_of.get(socket);
      if (host !== undefined) passOver(host, "it is read-only");
    },
  };
}
