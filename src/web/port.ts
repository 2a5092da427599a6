import { isIP } from "node:net";

/** PEM texts. With `client_ca` only clients are let in that have a certificate of it. */
export type Certificates = { cert: string; key: string; client_ca?: string | undefined };

/** One end of a connection, with TLS or without. */
export type Wire = {
  /** The other end's address; empty when it is not known. */
  readonly remote_address: string;
  readonly is_encrypted: boolean;
  /** Sends in order, text as UTF-8; what the system does not take at once is kept. Does nothing on a closed one. */
  write(data: string | Uint8Array): void;
  /** Bytes that were written and that the system has not taken yet. */
  readonly unsent_bytes: number;
  /** Ends our side after what was written. */
  end(): void;
  /** Closes it now, both ways; `onClose` follows. */
  destroy(): void;
  /** Reads nothing until `resume`. */
  pause(): void;
  resume(): void;
};

/** What happens on a connection. */
export type WireEvents = {
  /** The bytes are valid during the call only. */
  onData(bytes: Buffer): void;
  /** The client took some of what was kept. */
  onDrain(): void;
  /** The client has ended its side; ours is open. */
  onEnd(): void;
  /** Nothing follows. */
  onClose(): void;
  /** One of the others threw this, and the connection is closed for it. */
  onError(error: unknown): void;
};

export type Port = {
  port: number;
  /** Accepts nothing more; connections stay. Repeatable. */
  close(): void;
};

type PortOptions = {
  hostname: string;
  port: number;
  /** Other processes, or a later port of this one, listen on it too: the system spreads connections over all. */
  is_shared: boolean;
  certificates: Certificates | undefined;
};

/** TLS 1.2, as the protocol numbers it. */
const tls_version_min = 0x0303;

type Socket = Bun.Socket<WireEvents>;

const bytesOf = (data: string | Uint8Array) => (typeof data === "string" ? Buffer.from(data) : data);

class SocketWire implements Wire {
  readonly is_encrypted: boolean;
  readonly #socket: Socket;
  /** What the system has not taken yet. */
  readonly #unsent: Uint8Array[] = [];
  unsent_bytes = 0;
  #is_ending = false;
  #is_closed = false;

  constructor(socket: Socket, is_encrypted: boolean) {
    this.#socket = socket;
    this.is_encrypted = is_encrypted;
  }

  get remote_address(): string {
    const address = this.#socket.remoteAddress ?? "";
    // As of a client of IPv4, to a server that listens on both.
    const bare = address.startsWith("::ffff:") ? address.slice(7) : address;
    return isIP(bare) === 4 ? bare : address;
  }

  write(data: string | Uint8Array): void {
    if (this.#is_closed || data.length === 0) return;
    if (this.#unsent.length > 0) {
      this.#keep(bytesOf(data));
      return;
    }
    const length = typeof data === "string" ? Buffer.byteLength(data) : data.length;
    const written = Math.max(0, this.#socket.write(data));
    if (written >= length) return;
    this.#keep(bytesOf(data).subarray(written));
  }

  #keep(bytes: Uint8Array): void {
    this.#unsent.push(bytes);
    this.unsent_bytes += bytes.length;
  }

  end(): void {
    this.#is_ending = true;
    if (!this.#is_closed && this.unsent_bytes === 0) this.#socket.end();
  }

  destroy(): void {
    if (!this.#is_closed) this.#socket.terminate();
  }

  pause(): void {
    if (!this.#is_closed) this.#socket.pause();
  }

  resume(): void {
    if (!this.#is_closed) this.#socket.resume();
  }

  /** Sends on, now that there is room. */
  flush(): void {
    while (this.#unsent.length > 0) {
      const [next] = this.#unsent as [Uint8Array];
      const written = Math.max(0, this.#socket.write(next));
      this.unsent_bytes -= written;
      if (written < next.length) {
        this.#unsent[0] = next.subarray(written);
        return;
      }
      this.#unsent.shift();
    }
    if (this.#is_ending) this.#socket.end();
  }

  markClosed(): void {
    this.#is_closed = true;
    this.#unsent.length = 0;
    this.unsent_bytes = 0;
  }
}

function tlsOptions({ cert, key, client_ca }: Certificates): Bun.TLSOptions {
  const own = { cert, key, minVersion: tls_version_min };
  return client_ca === undefined ? own : { ...own, ca: client_ca, requestCert: true, rejectUnauthorized: true };
}

/** Listens. Throws what the system says when it cannot. `accept` is called for each connection, with TLS or without. */
export function openPort(options: PortOptions, accept: (wire: Wire) => WireEvents): Port {
  const { hostname, port, is_shared, certificates } = options;
  const hold = (socket: Socket): void => {
    const wire = new SocketWire(socket, certificates !== undefined);
    const events = accept(wire);
    socket.data = {
      onData: events.onData,
      onEnd: events.onEnd,
      onError: events.onError,
      onDrain() {
        wire.flush();
        events.onDrain();
      },
      onClose() {
        wire.markClosed();
        events.onClose();
      },
    };
  };
  const shared = { reusePort: is_shared };
  const server = Bun.listen<WireEvents>({
    hostname,
    port,
    ...shared,
    allowHalfOpen: true,
    ...(certificates !== undefined && { tls: tlsOptions(certificates) }),
    socket: {
      open: hold,
      // Where this is left out a connection is told of only after its handshake, which may never come.
      handshake(socket, is_done) {
        if (!is_done) socket.terminate();
      },
      data: (socket, bytes) => socket.data.onData(bytes),
      drain: (socket) => socket.data.onDrain(),
      end: (socket) => socket.data.onEnd(),
      close: (socket) => socket.data.onClose(),
      // What one of the events threw. That the connection failed is told by its end.
      error(socket, error) {
        socket.data.onError(error);
        socket.terminate();
      },
    },
  });
  return { port: server.port, close: () => server.stop(false) };
}
