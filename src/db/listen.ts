import type net from "node:net";
import type postgres from "postgres";
import { DatabaseError } from "../errors.ts";

/** A notification to oneself must be back within this. */
const proof_ms_max = 3000;
/** Until the next try, where LISTEN is taken and nothing arrives, or is refused. */
const retry_ms = 10_000;
/** And where the database cannot be reached, or has closed the connection. */
const reconnect_ms = 250;
const proof_prefix = "psqlqueue:listening:";

/** Told after each try, and a loss leads to another; `error` says why nothing is heard. */
export type OnListening = (is_listening: boolean, error?: DatabaseError) => void;

export type Listener = {
  /** Resolves when the first try is over, however it ended; goes on trying. The answer ends it. */
  listen(channel: string, onPayload: (payload: string) => void, onListening: OnListening): Promise<() => Promise<void>>;
  close(): Promise<void>;
};

type Once = <T>(name: string, statement: () => PromiseLike<T>) => Promise<T>;
type Socket = () => net.Socket;
type Channel = { name: string; onPayload: (payload: string) => void; onListening: OnListening };

const quoted = (name: string) => `"${name.replaceAll('"', '""')}"`;

/**
 * Listens on one connection of its own, each channel in a circle of
 *
 * - trying: LISTEN is sent, and then a notification to oneself, through the pool. A pooler may take LISTEN and deliver
 *   nothing.
 * - listening: the notification has arrived. A loss of the connection leads back to trying.
 * - waiting: it has not, or LISTEN failed. After a while, trying again, on a new connection.
 */
export function createListener(
  open: (options: object) => postgres.Sql,
  base: { socket: Socket },
  pool: postgres.Sql,
  once: Once,
): Listener {
  const channels = new Map<string, Channel>();
  const proofs = new Map<string, () => void>();
  let lost = Promise.withResolvers<void>();
  let socket: net.Socket | undefined;
  let is_closed = false;

  const client = open({
    ...base,
    max: 1,
    fetch_types: false,
    max_lifetime: null,
    socket: () => {
      socket = base.socket();
      return socket;
    },
    onclose() {
      lost.resolve();
      lost = Promise.withResolvers();
    },
    onnotify(name: string, payload: string) {
      if (payload.startsWith(proof_prefix)) proofs.get(payload)?.();
      else channels.get(name)?.onPayload(payload);
    },
  });

  const pause = (ms: number) => new Promise<boolean>((resolve) => setTimeout(resolve, ms, false).unref());
  const isWanted = (channel: Channel) => !is_closed && channels.get(channel.name) === channel;

  /** Rejects with DatabaseError unless a notification on the channel arrives here. */
  async function hear({ name }: Channel): Promise<void> {
    await once("listen", () => client.unsafe(`listen ${quoted(name)}`));
    const payload = proof_prefix + crypto.randomUUID();
    const arrived = new Promise<boolean>((resolve) => proofs.set(payload, () => resolve(true)));
    try {
      await once("prove_listening", () => pool`select pg_notify(${name}, ${payload})::text as sent`);
      if (await Promise.race([arrived, pause(proof_ms_max)])) return;
    } finally {
      proofs.delete(payload);
    }
    // Maybe the next connection is better.
    socket?.destroy();
    throw new DatabaseError("failed", "NO_NOTIFICATION", "listen");
  }

  async function keep(channel: Channel, onFirst: () => void): Promise<void> {
    while (isWanted(channel)) {
      const { promise: loss } = lost;
      let wait_ms = reconnect_ms;
      try {
        await hear(channel);
        channel.onListening(true);
        onFirst();
        await loss;
      } catch (thrown) {
        const error = thrown as DatabaseError;
        if (isWanted(channel)) channel.onListening(false, error);
        if (error.failure === "failed") wait_ms = retry_ms;
      }
      onFirst();
      if (isWanted(channel)) await pause(wait_ms);
    }
  }

  return {
    async listen(name, onPayload, onListening) {
      const channel = { name, onPayload, onListening };
      channels.set(name, channel);
      await new Promise<void>((resolve) => void keep(channel, resolve));
      return async () => {
        channels.delete(name);
        await once("unlisten", () => client.unsafe(`unlisten ${quoted(name)}`)).catch(() => {});
      };
    },
    async close() {
      is_closed = true;
      lost.resolve();
      await client.end({ timeout: 0 }).catch(() => {});
      socket?.destroy();
    },
  };
}
