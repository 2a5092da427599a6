// HTTP/1.1 over a raw keep-alive connection, one request at a time. A `fetch` would cost more than the server that is
// measured; this reads of an answer only its status, its end, and the text when the caller wants it.

/** Answers of a connection, in the order of its requests. */
export type Answers = {
  /** `text` is the body when the status is 200, else empty. */
  onAnswer(connection: Connection, status: number, text: string): void;
  /** The connection is gone, by the server or by an error; it does not come back. */
  onLost(connection: Connection): void;
};

type Socket = { write(data: Buffer): number; terminate(): void };

/** One connection. The load keeps its own state in the plain members. */
export type Connection = {
  index: number;
  is_busy: boolean;
  /** When the request under way should have been sent, and when it was, in ms of performance.now(). */
  intended_ms: number;
  kind: number;
  /** Messages that the request under way publishes or settles. */
  count: number;
  /** Received and not yet settled, of queue `queue`. */
  ids: string[];
  queue: number;
  published: number;
  send(request: Buffer): void;
  close(): void;
};

const CR = 13;
const LF = 10;

/** Does the text hold the whole answer? The body begins at `from`; undefined when more must come. */
function measure(text: string): { from: number; to: number; is_chunked: boolean } | undefined {
  const head_end = text.indexOf("\r\n\r\n");
  if (head_end < 0) return undefined;
  const head = text.slice(0, head_end);
  const from = head_end + 4;
  const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1];
  if (length !== undefined) {
    const to = from + Number(length);
    return text.length < to ? undefined : { from, to, is_chunked: false };
  }
  if (!/\r\ntransfer-encoding: *chunked/i.test(head)) return { from, to: from, is_chunked: false };
  return text.endsWith("\r\n0\r\n\r\n") || text.startsWith("0\r\n\r\n", from)
    ? { from, to: text.length, is_chunked: true }
    : undefined;
}

function joinChunks(text: string): string {
  let joined = "";
  for (let at = 0; ; ) {
    const line_end = text.indexOf("\r\n", at);
    const length = Number.parseInt(text.slice(at, line_end), 16);
    if (!(length > 0)) return joined;
    joined += text.slice(line_end + 2, line_end + 2 + length);
    at = line_end + 2 + length + 2;
  }
}

const statusOf = (data: Buffer) => ((data[9] ?? 0) - 48) * 100 + ((data[10] ?? 0) - 48) * 10 + ((data[11] ?? 0) - 48);

function endsHead(data: Buffer): boolean {
  const n = data.length;
  return data[n - 1] === LF && data[n - 2] === CR && data[n - 3] === LF && data[n - 4] === CR;
}

/** Opens a connection to `host:port`. Rejects when it is refused. */
export async function connect(host: string, port: number, index: number, answers: Answers): Promise<Connection> {
  let partial: Buffer | undefined;
  // What the kernel did not take at once; requests are small, so this is rare.
  let unsent: Buffer | undefined;
  let is_lost = false;

  const onData = (_: unknown, chunk: Buffer) => {
    const data = partial === undefined ? chunk : Buffer.concat([partial, chunk]);
    const status = statusOf(data);
    if (status === 204 && endsHead(data)) {
      partial = undefined;
      answers.onAnswer(connection, status, "");
      return;
    }
    const text = data.toString("latin1");
    const measured = measure(text);
    if (measured === undefined) {
      // The chunk's memory is the socket's: it is used again for the next one.
      partial = Buffer.from(data);
      return;
    }
    partial = undefined;
    const body = status === 200 ? text.slice(measured.from, measured.to) : "";
    answers.onAnswer(connection, status, measured.is_chunked ? joinChunks(body) : body);
  };
  const onEnd = () => {
    if (is_lost) return;
    is_lost = true;
    answers.onLost(connection);
  };
  const socket: Socket = await Bun.connect({
    hostname: host,
    port,
    socket: {
      data: onData,
      close: onEnd,
      error: onEnd,
      end: onEnd,
      drain(own) {
        if (unsent === undefined) return;
        const written = own.write(unsent);
        unsent = written < unsent.length ? unsent.subarray(written) : undefined;
      },
    },
  });
  const connection: Connection = {
    index,
    is_busy: false,
    intended_ms: 0,
    kind: 0,
    count: 0,
    ids: [],
    queue: 0,
    published: 0,
    send(request) {
      const written = socket.write(request);
      // A copy: the caller uses its buffer again.
      if (written < request.length) unsent = Buffer.from(request.subarray(Math.max(0, written)));
    },
    close() {
      is_lost = true;
      socket.terminate();
    },
  };
  return connection;
}
