import type net from "node:net";
import postgres from "postgres";
import { unreplicated } from "./failures.ts";
import { type Connector, type DatabaseServer, readHosts, type ServerState } from "./hosts.ts";

const connect_seconds = 5;
/** With several hosts, so that one that does not answer leaves time for the next. */
const connect_seconds_each = 2;

/** Read-only: a standby, or a primary that was demoted. Nothing happened. */
export const read_only = "25006";
/** SQLSTATE: no room for what was to be written. Nothing happened. */
export const disk_full = "53100";

/** How the driver reaches the servers, for every client that is opened to them. */
export function driverOptions(server: DatabaseServer, connector: Connector) {
  return {
    connect_timeout: connector.count > 1 ? connect_seconds_each : connect_seconds,
    onnotice: unreplicated,
    socket: connector.connect,
    onsession: (socket: net.Socket, _pid: number, state: ServerState) => connector.check(socket, state),
    // A connection to a read-only server is not used again, and the next one may reach another.
    retires: (error: { code?: string }, socket: net.Socket) => {
      if (error.code !== read_only) return false;
      connector.leave(socket);
      return true;
    },
    ...(typeof server !== "string" && server),
  };
}

/** Opens a client of the driver. */
export function openClient(server: DatabaseServer, options: object): postgres.Sql {
  return typeof server === "string"
    ? postgres(readHosts(server).url, options)
    : postgres({ ...options, ...server } as object);
}
