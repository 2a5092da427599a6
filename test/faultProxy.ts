// A TCP proxy that breaks connections the ways networks do. It knows no protocol, so it stands before PostgreSQL as
// well as before our own server.

import { connect, createServer, type Server, type Socket } from "node:net";
import { freePort } from "./postgres.ts";

/**
 * pass: forward. latency_ms: forward that much later, in order. reset: RST to every connection, open or new.
 * silent: swallow what is sent, say nothing, not even FIN. refuse: reset open connections, refuse new ones.
 */
export type FaultMode = "pass" | { latency_ms: number } | "reset" | "silent" | "refuse";

export type FaultProxy = {
  port: number;
  /** Applies to open and to new connections from the moment it is called; resolves when `refuse` does (not) listen. */
  setMode(mode: FaultMode): Promise<void>;
  /**
   * For the next `n` chunks a client sends, of those that match: forwards the chunk, and resets the connection in the
   * place of the first byte that comes back, or `hold_ms` later. The server has done the work, or part of it, and the
   * client cannot know.
   */
  cutAfterRequest(n: number, matches?: (chunk: Buffer) => boolean, hold_ms?: number): void;
  /** How many connections `cutAfterRequest` has cut so far. */
  cutCount(): number;
  /** Back to `pass`, with no cuts to come. Connections that lost bytes cannot go on and are reset. */
  heal(): Promise<void>;
  /** Resets all connections and stops listening. May be called twice. */
  close(): Promise<void>;
};

type Link = { client: Socket; server: Socket; is_silent: boolean; is_to_be_cut: boolean; is_cut: boolean };

/** Starts a proxy before `target`, on a free loopback port, in mode pass. */
export async function startFaultProxy(target: { host: string; port: number }): Promise<FaultProxy> {
  const port = await freePort();
  const links = new Set<Link>();
  let mode: FaultMode = "pass";
  let cuts_left = 0;
  let cut_count = 0;
  let cut_hold_ms = 0;
  let isToBeCut = (_chunk: Buffer) => true;
  let listener: Server | undefined;

  function accept(client: Socket) {
    if (mode === "reset") return client.resetAndDestroy();
    const fate = { is_silent: mode === "silent", is_to_be_cut: false, is_cut: false };
    const link = { client, server: connect(target), ...fate };
    links.add(link);
    relay(link, client, link.server);
    relay(link, link.server, client);
  }

  function relay(link: Link, from: Socket, to: Socket) {
    let queue = Promise.resolve();
    const later = (deliver: () => void) => {
      const due = performance.now() + (typeof mode === "object" ? mode.latency_ms : 0);
      queue = queue.then(async () => {
        const wait_ms = due - performance.now();
        if (wait_ms > 0) await Bun.sleep(wait_ms);
        if (!link.is_silent) deliver();
      });
    };
    from.setNoDelay(true);
    from.on("data", (chunk) => later(() => forward(link, from, to, chunk as Buffer)));
    from.on("end", () => later(() => to.end()));
    from.on("error", () => later(() => to.resetAndDestroy()));
    from.on("close", () => {
      if (link.client.destroyed && link.server.destroyed) links.delete(link);
    });
  }

  function forward(link: Link, from: Socket, to: Socket, chunk: Buffer) {
    if (from === link.client && cuts_left > 0 && !link.is_to_be_cut && isToBeCut(chunk)) {
      cuts_left--;
      link.is_to_be_cut = true;
    } else if (from === link.server && link.is_to_be_cut) {
      if (link.is_cut) return;
      link.is_cut = true;
      const cut = () => {
        cut_count++;
        reset(link);
      };
      if (cut_hold_ms > 0) setTimeout(cut, cut_hold_ms);
      else cut();
      return;
    }
    if (to.destroyed || to.write(chunk)) return;
    from.pause();
    to.once("drain", () => from.resume());
  }

  function reset(link: Link) {
    link.client.resetAndDestroy();
    link.server.resetAndDestroy();
    links.delete(link);
  }

  async function listen() {
    if (listener) return;
    const server = createServer({ allowHalfOpen: true }, accept);
    listener = server;
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject).listen(port, "127.0.0.1", resolve);
    });
  }

  async function refuse() {
    const closing = listener;
    listener = undefined;
    for (const link of links) reset(link);
    if (closing) await new Promise((resolve) => closing.close(resolve));
  }

  async function setMode(next: FaultMode) {
    mode = next;
    if (mode === "silent") for (const link of links) link.is_silent = true;
    if (mode === "reset") for (const link of links) reset(link);
    await (mode === "refuse" ? refuse() : listen());
  }

  await listen();
  return {
    port,
    setMode,
    cutAfterRequest(n, matches = () => true, hold_ms = 0) {
      cuts_left = n;
      cut_hold_ms = hold_ms;
      isToBeCut = matches;
    },
    cutCount: () => cut_count,
    heal() {
      cuts_left = 0;
      for (const link of links) if (link.is_silent) reset(link);
      return setMode("pass");
    },
    close: refuse,
  };
}
