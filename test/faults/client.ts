// HTTP/1.1 on keep-alive connections of our own. `fetch` sends a request again by itself when the connection that it
// had kept was closed, and a publish that arrives twice is just what this suite must tell from one that was stored
// twice.

import { hung, lost, refused } from "./history.ts";

/** Beyond every deadline of the server: its longest is 7 s. */
const answer_ms_max = 30_000;

export type Reply = {
  /** Of the answer, or `lost`, `refused`, `hung`. */
  status: number;
  /** X-Message-Id; empty when there is none. */
  id: string;
  text: string;
  /** It was the first request of its connection. */
  is_first: boolean;
};

export type Client = {
  /** The server of this port is at that address, not on the loopback. */
  locate(port: number, address: string): void;
  /** Sends one request, which asks for an answer with content; `lines` are headers of its own. Never rejects. */
  call(port: number, method: string, target: string, body?: unknown, lines?: string): Promise<Reply>;
  /** What is asked from now on goes over new connections, so that processes which share a port share the load anew. */
  renew(): void;
  /** How many connections there are. */
  count(): number;
  close(): void;
};

type Wire = { write(data: Uint8Array): number; end(): void; terminate(): void };
type Link = {
  port: number;
  wire: Wire;
  got: Buffer;
  settle: ((reply: Reply) => void) | undefined;
  unsent: Uint8Array;
  is_gone: boolean;
  is_used: boolean;
  /** It is not kept. */
  is_old: boolean;
};

const nothing = Buffer.alloc(0);

/** The answer and whether the connection ends with it; undefined while more must come. */
function parse(got: Buffer): { reply: Reply; is_last: boolean } | undefined {
  const head_end = got.indexOf("\r\n\r\n");
  if (head_end < 0) return undefined;
  const head = got.toString("latin1", 0, head_end);
  const length = Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? 0);
  if (got.length < head_end + 4 + length) return undefined;
  const id = /\r\nx-message-id: *(\S+)/i.exec(head)?.[1] ?? "";
  const text = got.toString("utf8", head_end + 4, head_end + 4 + length);
  return {
    reply: { status: Number(head.slice(9, 12)), id, text, is_first: false },
    is_last: /\r\nconnection: *close/i.test(head),
  };
}

/** Connections to ports, of the loopback unless they are located: one request at a time each, kept when they may be. */
export function createClient(): Client {
  const idle = new Map<number, Link[]>();
  const open = new Set<Link>();
  const addresses = new Map<number, string>();

  function drop(link: Link, status: number): void {
    link.is_gone = true;
    open.delete(link);
    const list = idle.get(link.port);
    const at = list?.indexOf(link) ?? -1;
    if (at >= 0) list?.splice(at, 1);
    link.settle?.({ status, id: "", text: "", is_first: !link.is_used });
  }

  /** Closed as clients close that have read what they were sent: a reset would tell the server that they have not. */
  function retire(link: Link): void {
    open.delete(link);
    link.wire.end();
  }

  function receive(link: Link, chunk: Buffer): void {
    // The chunk's memory is used again for the next one.
    link.got = Buffer.concat([link.got, chunk]);
    const parsed = parse(link.got);
    if (parsed === undefined) return;
    link.got = nothing;
    link.is_used = true;
    const { settle } = link;
    link.settle = undefined;
    if (link.is_old) retire(link);
    else if (parsed.is_last) {
      open.delete(link);
      link.wire.terminate();
    } else {
      const list = idle.get(link.port) ?? [];
      list.push(link);
      idle.set(link.port, list);
    }
    settle?.(parsed.reply);
  }

  async function connect(port: number): Promise<Link | undefined> {
    let link: Link | undefined;
    const end = () => link && drop(link, lost);
    try {
      const wire = await Bun.connect({
        hostname: addresses.get(port) ?? "127.0.0.1",
        port,
        socket: {
          data: (_, chunk) => link && receive(link, chunk),
          close: end,
          error: end,
          end,
          drain(own) {
            if (link === undefined || link.unsent.length === 0) return;
            link.unsent = link.unsent.subarray(Math.max(0, own.write(link.unsent)));
          },
        },
      });
      const is_new = { is_gone: false, is_used: false, is_old: false };
      link = { port, wire, got: nothing, settle: undefined, unsent: nothing, ...is_new };
      open.add(link);
      return link;
    } catch {
      return undefined;
    }
  }

  return {
    locate: (port, address) => void addresses.set(port, address),
    async call(port, method, target, body, lines = "Content-Type: application/json\r\n") {
      const link = idle.get(port)?.pop() ?? (await connect(port));
      if (link === undefined || link.is_gone) return { status: refused, id: "", text: "", is_first: true };
      const content = body === undefined ? "" : JSON.stringify(body);
      const type = body === undefined ? "" : lines;
      const head = `${method} ${target} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nPrefer: return=representation\r\n${type}`;
      const request = Buffer.from(`${head}Content-Length: ${Buffer.byteLength(content)}\r\n\r\n${content}`);
      const { promise, resolve } = Promise.withResolvers<Reply>();
      link.settle = resolve;
      const timer = setTimeout(() => {
        link.wire.terminate();
        drop(link, hung);
      }, answer_ms_max);
      const written = Math.max(0, link.wire.write(request));
      if (written < request.length) link.unsent = request.subarray(written);
      const reply = await promise;
      clearTimeout(timer);
      return reply;
    },
    renew() {
      for (const link of open) link.is_old = true;
      for (const link of [...idle.values()].flat()) retire(link);
      idle.clear();
    },
    count: () => open.size,
    close() {
      for (const link of open) link.wire.terminate();
      idle.clear();
    },
  };
}
