// A pooler in transaction mode that knows no prepared statements, as PgBouncer before 1.21: each transaction gets the
// session that was used last, and is not told what its client has prepared elsewhere.

import { connect, createServer, type Server, type Socket } from "node:net";

type Session = { socket: Socket; client: Socket | undefined; asked: number };

/** Calls `take` with every whole message; `of` says how a message that has come whole begins. */
function readMessages(take: (message: Buffer) => void): (chunk: Buffer) => void {
  let got: Buffer = Buffer.alloc(0);
  return (chunk) => {
    got = Buffer.concat([got, chunk]);
    while (got.length >= 5 && got.length >= 1 + got.readUInt32BE(1)) {
      const end = 1 + got.readUInt32BE(1);
      take(got.subarray(0, end));
      got = got.subarray(end);
    }
  };
}

const typeOf = (message: Buffer) => String.fromCharCode(message[0] ?? 0);

/** Starts one before the PostgreSQL of `url`, for one user and database; `close` ends its sessions. */
export async function startTransactionPooler(url: string): Promise<{ url: string; close(): void }> {
  const { hostname, port, username, pathname } = new URL(url);
  const free: Session[] = [];
  const sockets = new Set<Socket>();

  /** A new session, and what a client is greeted with. */
  async function open(): Promise<{ session: Session; greeting: Buffer }> {
    const socket = connect(Number(port), hostname);
    sockets.add(socket);
    const session: Session = { socket, client: undefined, asked: 1 };
    const pairs = Buffer.from(`user\0${username}\0database\0${pathname.slice(1)}\0\0`);
    const head = Buffer.alloc(8);
    head.writeUInt32BE(8 + pairs.length, 0);
    head.writeUInt32BE(196_608, 4);
    socket.write(Buffer.concat([head, pairs]));
    const greetings: Buffer[] = [];
    return await new Promise((resolve, reject) => {
      socket.on("error", reject);
      socket.on(
        "data",
        readMessages((message) => {
          if (session.client === undefined) greetings.push(Buffer.from(message));
          else session.client.write(message);
          if (typeOf(message) !== "Z") return;
          session.asked--;
          const is_free = session.asked === 0 && message.toString("latin1", 5, 6) === "I";
          if (session.client === undefined) resolve({ session, greeting: Buffer.concat(greetings) });
          if (!is_free) return;
          session.client = undefined;
          free.push(session);
        }),
      );
    });
  }

  /** Of the first session; the others would say the same. */
  let greeting: Promise<Buffer> | undefined;

  function serve(client: Socket): void {
    let own: Session | undefined;
    let turn = Promise.resolve();
    sockets.add(client);
    client.on("error", () => {});
    const forward = async (message: Buffer) => {
      if (own?.client !== client) {
        own = free.pop() ?? (await open().then(({ session }) => free.splice(free.indexOf(session), 1)[0]));
      }
      if (own === undefined) return;
      own.client = client;
      if (["S", "Q"].includes(typeOf(message))) own.asked++;
      own.socket.write(message);
    };
    const read = readMessages((message) => {
      const copy = Buffer.from(message);
      if (typeOf(copy) !== "X") turn = turn.then(() => forward(copy));
    });
    client.once("data", () => {
      turn = turn.then(async () => {
        greeting ??= open().then((opened) => opened.greeting);
        client.write(await greeting);
      });
      client.on("data", read);
    });
  }

  const listener: Server = createServer(serve);
  await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
  const pooled = new URL(url);
  pooled.port = String((listener.address() as { port: number }).port);
  return {
    url: pooled.href,
    close() {
      for (const socket of sockets) socket.destroy();
      listener.close();
    },
  };
}
