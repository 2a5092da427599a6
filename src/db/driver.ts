import type net from "node:net";
import type tls from "node:tls";
import postgres from "postgres";
import { endPointOf } from "./channelBinding.ts";
import { encryptionFor, passwordFor } from "./credentials.ts";
import { unreplicated } from "./failures.ts";
import { type Connector, connectionOf, type DatabaseServer, type ServerState } from "./hosts.ts";

const connect_seconds = 5;
/** With several hosts, so that one that does not answer leaves time for the next. */
const connect_seconds_each = 2;
/** Until the system asks a silent connection whether it lives. */
const keepalive_seconds = 60;

/** Read-only: a standby, or a primary that was demoted. Nothing happened. */
export const read_only = "25006";
/** SQLSTATE: no room for what was to be written. Nothing happened. */
export const disk_full = "53100";

/**
 * How the driver reaches the servers, for every client that is opened to them, and with which settings of the session.
 * All is said, because the driver looks for what is not in the environment (PGHOST, PGSSLMODE and the like).
 */
export function driverOptions(server: DatabaseServer, connector: Connector, session: Record<string, string>) {
  const asked = connectionOf(server);
  const addressOf = (socket: net.Socket) => {
    const address = connector.addressOf(socket);
    return address !== undefined && "host" in address ? address : {};
  };
  const passwordOf = (socket: net.Socket) => {
    try {
      return passwordFor(asked, addressOf(socket));
    } catch {
      return ""; // The file has gone since the start. The server refuses the connection, and the next one may find it.
    }
  };
  return {
    env: {},
    // The connector chooses; these stand in the driver's errors.
    host: ["localhost"],
    port: [5432],
    user: asked.user,
    // A text that is empty would be looked for elsewhere.
    pass: passwordOf,
    database: asked.database,
    ssl: asked.tls.mode === "disable" ? false : (socket: net.Socket) => encryptionFor(asked, addressOf(socket)),
    sslnegotiation: asked.tls.is_direct ? "direct" : null,
    ...(asked.is_bound && { bind: (socket: tls.TLSSocket) => endPointOf(socket.getPeerCertificate().raw) }),
    connect_timeout: asked.connect_timeout_seconds ?? (connector.count > 1 ? connect_seconds_each : connect_seconds),
    keep_alive: asked.keepalive_seconds ?? keepalive_seconds,
    prepare: asked.is_prepared,
    // A statement that has no name is described before it is run, in the same transaction. Behind another one, which
    // ends first, a pooler would give the session away in between, with the statement of somebody else on it.
    ...(!asked.is_prepared && { max_pipeline: 0 }),
    connection: { ...session, ...asked.session },
    onnotice: unreplicated,
    socket: connector.connect,
    onsession: (socket: net.Socket, _pid: number, state: ServerState) => connector.check(socket, state),
    // A connection to a read-only server is not used again, and the next one may reach another.
    retires: (error: { code?: string }, socket: net.Socket) => {
      if (error.code !== read_only) return false;
      connector.leave(socket);
      return true;
    },
  };
}

/** Opens a client of the driver, with the options that `driverOptions` makes and some more. */
export function openClient(options: object): postgres.Sql {
  return postgres(options);
}
