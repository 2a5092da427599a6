import net from "node:net";
import { type Address, type Connection, readConnection, type Target } from "../connection/connection.ts";

/** A connection string, what was read from one, or the private socket of the embedded database. */
export type DatabaseServer = string | Connection | EmbeddedServer;

type EmbeddedServer = { host: string; path: string; user: string; password: string; database: string };

/** What a server tells of itself before the first statement (PostgreSQL 14 and newer). */
export type ServerState = { in_hot_standby?: string; default_transaction_read_only?: string };

/** Is it the database that this program carries? There is one connection to it, and no other server. */
export const isEmbedded = (server: DatabaseServer): server is EmbeddedServer =>
  typeof server !== "string" && "path" in server;

/** What is known of a server, in one form. Throws ConnectionError for a text that cannot be read. */
export function connectionOf(server: DatabaseServer): Connection {
  if (typeof server === "string") return readConnection(server);
  if (!isEmbedded(server)) return server;
  const { path, user, password, database } = server;
  const plain = readConnection("host=localhost user=psqlqueue target_session_attrs=any");
  return { ...plain, shown: "the embedded database", addresses: [{ path }], user, password, database };
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
  connect(): net.Socket;
  /** Where a connection leads to. */
  addressOf(socket: net.Socket): Address | undefined;
  /** The last address that a connection was opened to, for errors. */
  lastTried(): string;
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

function nameOf(address: Address): string {
  if ("path" in address) return address.path;
  return address.host.includes(":") ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`;
}

/** In an order of chance. */
function shuffled<T>(items: T[]): T[] {
  const keyed = items.map((item) => ({ item, key: Math.random() }));
  return keyed.sort((a, b) => a.key - b.key).map(({ item }) => item);
}

/**
 * Chooses the host of each connection. It stays with one until a connection to it fails, does not get ready in time or
 * turns out to be read-only, and then takes the next, for ever in a circle: which one is the primary may have changed.
 */
export function createConnector(server: DatabaseServer, options: ConnectorOptions = {}): Connector {
  const { addresses, is_balanced, target } = connectionOf(server);
  const hosts = is_balanced ? shuffled(addresses) : addresses;
  const is_watched = !isEmbedded(server);
  const hosts_of = new WeakMap<net.Socket, Address>();
  /** Connections that have not become ready yet. */
  const pending = new Set<net.Socket>();
  const in_trouble = new Set<string>();
  let at = 0;
  let answering: string | undefined;
  let last: Address | undefined;

  function passOver(host: Address, reason: string): void {
    const name = nameOf(host);
    if (hosts[at % hosts.length] === host) at += 1;
    if (answering === name) answering = "";
    if (in_trouble.has(name)) return;
    in_trouble.add(name);
    options.onTrouble?.(name, reason);
  }

  return {
    count: hosts.length,
    target,
    connect() {
      // Looked at here, because TLS takes a socket's listeners off. A connection refused, timed out, or ended by a
      // server that is starting: all the same.
      for (const socket of pending) {
        const host = hosts_of.get(socket);
        if (socket.destroyed && pending.delete(socket) && host) passOver(host, "it cannot be reached");
      }
      const next = hosts[at % hosts.length] as Address;
      last = next;
      const { host, port } = "host" in next ? next : { host: undefined, port: undefined };
      const way = "path" in next ? next : { host: next.address ?? next.host, port: next.port, noDelay: true };
      const socket = new net.Socket(way as net.SocketConstructorOpts);
      // Bun tells of some failures at once: not before the driver listens.
      queueMicrotask(() => socket.connect(way));
      if (!is_watched) return socket;
      hosts_of.set(socket, next);
      pending.add(socket);
      return Object.assign(socket, { host, port });
    },
    addressOf: (socket) => hosts_of.get(socket),
    lastTried: () => (last === undefined ? "" : nameOf(last)),
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
