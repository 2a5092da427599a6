import type net from "node:net";
import { openClient } from "./driver.ts";

const probe_interval_ms = 1000;
const probe_ms_max = 3000;

/**
 * Finds out which of the `abandoned` backends have ended, once a second while there are any, and takes those off the
 * set. On a connection of its own, since those of the pool may all wait. A server that does not know a process id is
 * another one, and the backend is none of its.
 */
export function createProbe(
  abandoned: Set<number>,
  options: { socket: () => net.Socket; connection: Record<string, string> },
) {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let is_closed = false;

  async function probe(): Promise<void> {
    const pids = [...abandoned];
    let socket: net.Socket | undefined;
    const open = () => {
      socket = options.socket();
      return socket;
    };
    const connection = { ...options.connection, statement_timeout: String(probe_ms_max) };
    const settings = { ...options, socket: open, max: 1, fetch_types: false, connection, onnotice() {} };
    const client = openClient(settings);
    const limit = setTimeout(() => socket?.destroy(), probe_ms_max);
    try {
      // One that is idle has answered to nobody, and ends when it finds that out. As text: without types, no arrays.
      const rows = await client`
        select pid from pg_stat_activity
        where pid = any(string_to_array(${pids.join()}::text, ',')::int[]) and state is distinct from 'idle'`;
      const living = new Set(rows.map((row) => row["pid"] as number));
      for (const pid of pids) if (!living.has(pid)) abandoned.delete(pid);
    } catch {
      // Not known: they count as living.
    } finally {
      await client.end({ timeout: 0 });
      socket?.destroy();
      clearTimeout(limit);
    }
  }

  return {
    /** Starts to ask, unless it does already. */
    start(): void {
      timer ??= setTimeout(async () => {
        await probe();
        timer = undefined;
        if (abandoned.size > 0 && !is_closed) this.start();
      }, probe_interval_ms);
    },
    close(): void {
      is_closed = true;
      clearTimeout(timer);
    },
  };
}
