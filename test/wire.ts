// HTTP as bytes: what `fetch` would mend on the way (paths, hosts, framing) arrives as it was written.

import { connect } from "node:net";

export type RawAnswer = {
  /** 0: the connection was closed without an answer. */
  status: number;
  headers: Headers;
  text: string;
  /** Parsed, where the body is JSON. */
  // biome-ignore lint/suspicious/noExplicitAny: tests look into bodies of every shape
  body: any;
};

const answer_ms_max = 10_000;

/** What has arrived as an answer; undefined while it is not complete and more may come. */
function parseAnswer(bytes: Buffer, is_all: boolean): RawAnswer | undefined {
  const end = bytes.indexOf("\r\n\r\n");
  if (end < 0) return is_all ? { status: 0, headers: new Headers(), text: "", body: undefined } : undefined;
  const [status_line = "", ...lines] = bytes.subarray(0, end).toString("latin1").split("\r\n");
  const content = bytes.subarray(end + 4);
  const status = Number(status_line.split(" ")[1]);
  if (status === 100) return parseAnswer(content, is_all);
  const headers = new Headers(
    lines.map((line) => [line.split(":", 1)[0] ?? "", line.slice(line.indexOf(":") + 1).trim()]),
  );
  if (!is_all && content.length < Number(headers.get("content-length") ?? 0)) return undefined;
  const text = content.toString("utf8");
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    body = undefined;
  }
  return { status, headers, text, body };
}

/** Sends bytes on a connection of their own and reads one answer: until its length, or until the server closes. */
export async function exchange(port: number, bytes: Buffer): Promise<RawAnswer> {
  return await new Promise((resolve, reject) => {
    const socket = connect({ port, host: "127.0.0.1" });
    let got: Buffer = Buffer.alloc(0);
    const finish = (is_all: boolean) => {
      const answer = parseAnswer(got, is_all);
      if (answer === undefined) return;
      resolve(answer);
      socket.destroy();
    };
    socket.setTimeout(answer_ms_max, () => {
      reject(new Error(`no answer within ${answer_ms_max} ms to ${bytes.toString("latin1", 0, 200)}`));
      socket.destroy();
    });
    const is_head = bytes.toString("latin1", 0, 5) === "HEAD ";
    socket.on("data", (chunk) => {
      got = Buffer.concat([got, chunk as Buffer]);
      // An answer to HEAD announces a length and sends nothing.
      if (!is_head) finish(false);
    });
    // The server may close while we still send: what it said before that counts.
    socket.on("error", () => {});
    socket.on("close", () => finish(true));
    socket.write(bytes);
  });
}

/** A request as bytes: the target exactly as given; a body has its length announced. */
export function request(
  method: string,
  target: string,
  options: { headers?: string[]; body?: string | Buffer } = {},
): Buffer {
  const body = Buffer.from(options.body ?? "");
  const headers = options.headers ?? ["Host: localhost"];
  const length = options.body === undefined ? [] : [`Content-Length: ${body.length}`];
  const head = [`${method} ${target} HTTP/1.1`, ...headers, ...length, "Connection: close", "", ""].join("\r\n");
  return Buffer.concat([Buffer.from(head, "latin1"), body]);
}

/** A request whose body's length is not announced. */
export function chunked(method: string, target: string, chunks: string[]): Buffer {
  const head = `${method} ${target} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n`;
  const framed = chunks.map((chunk) => `${Buffer.byteLength(chunk).toString(16)}\r\n${chunk}\r\n`);
  return Buffer.from(`${head}${framed.join("")}0\r\n\r\n`);
}
