// psqlqueue, twice: over plain sockets, as the other benchmarks of this folder ask it, and with its own client.

import { createClient } from "../../../client/src/client.ts";
import { type Connection, connect } from "../../wire.ts";
import { batch, type Client, type OnAcked, type Publish, partsOf, pull } from "../client.ts";

const batch_max = 1000;
const wait_seconds = 1;

function openQueue(place: Record<string, string>) {
  const client = createClient({ url: place["url"] ?? "" });
  const queue = client.queue(place["queue"] ?? "");
  return {
    queue,
    async fill(bodies: string[]) {
      for (const part of partsOf(bodies, batch_max)) await queue.publishBatch(part.map((body) => ({ body })));
    },
    async left() {
      const { ready, delayed, leased, backing_off } = await queue.stats();
      return ready + delayed + leased + backing_off;
    },
  };
}

/** The client that is published with the server: fetch. */
export async function openFetching(place: Record<string, string>): Promise<Client> {
  const { queue, fill, left } = openQueue(place);
  const publish: Publish = async (body) => void (await queue.publish({ body }));
  return {
    publishers: async (count) => Array.from({ length: count }, () => publish),
    fill,
    consume: async (count: number, onAcked: OnAcked) =>
      pull(
        count,
        {
          receive: () => queue.receive({ limit: batch, wait_seconds }),
          bodyOf: ({ body }) => body as string,
          ack: (message) => queue.ack(message),
        },
        onAcked,
      ),
    left,
    close: async () => {},
  };
}

type Answer = { status: number; text: string };
type Asking = (request: Buffer) => Promise<Answer>;

/** A connection with one request at a time. */
async function openAsking(url: URL): Promise<{ ask: Asking; connection: Connection; isLost: () => boolean }> {
  let is_lost = false;
  let onAnswer = (_: Answer) => {};
  let onLost = (_: Error) => {};
  const connection = await connect(url.hostname, Number(url.port), 0, {
    onAnswer: (_, status, text) => onAnswer({ status, text }),
    onLost() {
      is_lost = true;
      onLost(new Error("the server closed a connection"));
    },
  });
  const ask = async (request: Buffer) => {
    const answered = Promise.withResolvers<Answer>();
    onAnswer = answered.resolve;
    onLost = answered.reject;
    connection.send(request);
    const answer = await answered.promise;
    if (answer.status >= 300) throw new Error(`the server answered ${answer.status}`);
    return answer;
  };
  return { ask, connection, isLost: () => is_lost };
}

const message_pattern = /"id":"([^"]+)".*?"body":"([^"]*)"/g;

/** HTTP/1.1 over sockets, a connection for each publisher and each consumer. */
export async function openPlain(place: Record<string, string>): Promise<Client> {
  const url = new URL(place["url"] ?? "");
  const { fill, left } = openQueue(place);
  const path = `/v1/queues/${place["queue"]}/messages`;
  const opened: Record<"publish" | "receive", Awaited<ReturnType<typeof openAsking>>[]> = { publish: [], receive: [] };
  const open = async (kind: keyof typeof opened, count: number) => {
    // The server closes what was idle while others were measured.
    opened[kind] = opened[kind].filter(({ isLost }) => !isLost());
    while (opened[kind].length < count) opened[kind].push(await openAsking(url));
    return opened[kind].slice(0, count);
  };
  const request = (method: string, target: string, headers: string, body = "") =>
    Buffer.from(`${method} ${target} HTTP/1.1\r\nHost: ${url.host}\r\n${headers}\r\n${body}`, "latin1");
  const receive = request("GET", `${path}?limit=${batch}&wait_seconds=${wait_seconds}`, "");
  const type = "Content-Type: application/json\r\n";
  return {
    publishers: async (count) =>
      (await open("publish", count)).map(({ ask }) => async (text) => {
        const body = `{"body":"${text}"}`;
        await ask(request("POST", path, `${type}Content-Length: ${body.length}\r\n`, body));
      }),
    fill,
    async consume(count, onAcked) {
      const asking = await open("receive", count);
      return pull(
        count,
        {
          async receive(consumer) {
            const answer = await asking[consumer]?.ask(receive);
            return [...(answer?.text.matchAll(message_pattern) ?? [])];
          },
          bodyOf: ([, , body = ""]) => body,
          async ack([, id], consumer) {
            await asking[consumer]?.ask(request("PUT", `${path}/${id}/ack`, "Content-Length: 0\r\n"));
          },
        },
        onAcked,
      );
    },
    left,
    async close() {
      for (const { connection } of [...opened.publish, ...opened.receive]) connection.close();
    },
  };
}
