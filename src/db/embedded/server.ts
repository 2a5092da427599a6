// The private socket in front of the backend. Lives in the Worker, so that a statement crosses no thread on its way.
//
// The socket's directory is closed to other users. Whoever gets through has two seconds and a few kilobytes to name the
// secret of this start, and nothing that happens before that touches the backend. One authenticated client at a time:
// there is one backend, and what a client leaves behind (transaction, settings, prepared statements) is swept before
// the next one.
import { timingSafeEqual } from "node:crypto";
import type { Socket, UnixSocketListener } from "bun";
import { type Backend, BackendFailure, ResultTooLarge } from "./backend.ts";
import {
  abort_batch,
  ask_password,
  fatalError,
  holdsError,
  nextBatch,
  no_encryption,
  password_bytes_max,
  queryMessage,
  readPassword,
  readStartup,
  startup_bytes_max,
} from "./wire.ts";

/** How many clients may be in their handshake at once; one more pushes out the oldest. */
export const strangers_max = 16;
/**
 * How many turns of the clock (250 ms each) a handshake may take. Turns, not time: a long statement stops the clock
 * too.
 */
const handshake_ticks_max = 8;
/** How many turns an authenticated client waits for the one before it to be gone. */
const handover_ticks_max = 2;
/** Milliseconds between two turns of the clock. */
export const tick_ms = 250;

const nothing = new Uint8Array(0);

type Stage = "startup" | "password" | "waiting" | "open" | "closed";
type Client = {
  stage: Stage;
  ticks: number;
  encryption_requests: number;
  /** Received, not yet executed: `received[start, end)`. */
  received: Uint8Array;
  start: number;
  end: number;
  /** Bytes the backend left unfinished: an extended query without its Sync. */
  is_mid_query: boolean;
  /** Not yet accepted by the kernel. While there are any, nothing more is executed. */
  unsent: Uint8Array;
};
type ClientSocket = Socket<Client>;

/** Why a client was turned away. */
export type Refusal = "timeout" | "crowd" | "malformed" | "cancel" | "password" | "busy" | "error";
export type WireServer = { close(): void };
export type WireServerOptions = {
  path: string;
  secret: string;
  onRefusal: (refusal: Refusal) => void;
  /** The backend is gone. Called once, after the client was told. */
  onFailure: (failure: Error) => void;
};

/** Serves the backend on a unix socket at `path`. Throws when it cannot listen there. */
export function serveBackend(backend: Backend, options: WireServerOptions): WireServer {
  const secret = Buffer.from(options.secret);
  const strangers = new Set<ClientSocket>();
  /** Told to go, but perhaps holding on to their end. */
  const leaving = new Set<ClientSocket>();
  let owner: ClientSocket | null = null;
  let is_failed = false;

  function fail(cause: unknown) {
    if (is_failed) return;
    is_failed = true;
    const failure = cause instanceof Error ? cause : new Error(String(cause));
    options.onFailure(failure);
  }

  /** Says why, when there is something to say, and closes. */
  function dismiss(socket: ClientSocket, last_words?: Uint8Array) {
    if (socket.data.stage === "closed") return;
    const was_owner = socket === owner;
    socket.data.stage = "closed";
    strangers.delete(socket);
    if (last_words !== undefined && socket.data.unsent.length === 0) socket.write(last_words);
    socket.end();
    leaving.add(socket);
    if (was_owner) releaseSession(socket.data);
  }

  function refuse(socket: ClientSocket, refusal: Refusal, last_words?: Uint8Array) {
    if (socket.data.stage === "closed") return;
    options.onRefusal(refusal);
    dismiss(socket, last_words);
  }

  /** Undoes whatever the last client left open, then lets in the next one. */
  function releaseSession(client: Client) {
    owner = null;
    client.received = client.unsent = nothing;
    if (is_failed) return;
    try {
      if (client.is_mid_query) backend.exec(abort_batch);
      if (backend.is_in_transaction()) backend.exec(queryMessage("rollback"));
      if (holdsError(backend.exec(queryMessage("discard all")))) throw new Error("the session could not be cleaned");
    } catch (cause) {
      fail(cause);
      return;
    }
    for (const socket of strangers) if (socket.data.stage === "waiting") return openSession(socket);
  }

  function openSession(socket: ClientSocket) {
    const client = socket.data;
    strangers.delete(socket);
    owner = socket;
    client.stage = "open";
    try {
      send(socket, backend.greet());
    } catch (cause) {
      fail(cause);
      return;
    }
    executeReceived(socket);
  }

  function shakeHands(socket: ClientSocket) {
    const client = socket.data;
    while (client.stage === "startup") {
      const startup = readStartup(client.received.subarray(client.start, client.end));
      if (startup.kind === "incomplete") return;
      if (startup.kind === "cancel") return refuse(socket, "cancel");
      if (startup.kind === "unsupported") {
        return refuse(socket, "malformed", fatalError("0A000", "unsupported frontend protocol"));
      }
      if (startup.kind === "malformed") return refuse(socket, "malformed");
      client.start += startup.bytes;
      if (startup.kind === "encryption") {
        if (++client.encryption_requests > 2) return refuse(socket, "malformed");
        socket.write(no_encryption);
        continue;
      }
      client.stage = "password";
      socket.write(ask_password);
    }
    const answer = readPassword(client.received.subarray(client.start, client.end));
    if (answer === "incomplete") return;
    if (answer === "malformed") return refuse(socket, "malformed");
    client.start += answer.bytes;
    if (answer.password.length !== secret.length || !timingSafeEqual(answer.password, secret)) {
      return refuse(socket, "password", fatalError("28P01", "password authentication failed"));
    }
    client.ticks = 0;
    client.stage = "waiting";
    // A client that reconnects can arrive before the end of its former connection does.
    if (owner === null) openSession(socket);
  }

  function executeReceived(socket: ClientSocket) {
    const client = socket.data;
    while (client.stage === "open" && client.unsent.length === 0 && !is_failed) {
      const input = client.received.subarray(client.start, client.end);
      const batch = nextBatch(input);
      if (batch.kind === "wait") return reserve(client, batch.bytes_needed);
      if (batch.kind === "terminate") return dismiss(socket);
      if (batch.kind === "malformed") return refuse(socket, "malformed", fatalError("08P01", batch.reason));
      client.start += batch.bytes;
      client.is_mid_query = !batch.ends_clean;
      try {
        send(socket, backend.exec(input.subarray(0, batch.bytes)));
      } catch (cause) {
        if (cause instanceof ResultTooLarge) return dismiss(socket, fatalError("54000", cause.message));
        if (cause instanceof BackendFailure) dismiss(socket, fatalError("57P02", cause.message));
        return fail(cause);
      }
    }
    if (client.unsent.length > 0) socket.pause();
  }

  function send(socket: ClientSocket, answer: Uint8Array) {
    const sent = socket.write(answer);
    if (sent < 0) return vanish(socket);
    if (sent === answer.length) return;
    backend.detach();
    socket.data.unsent = answer.subarray(sent);
  }

  /** The other end is gone. A paused socket would not get to hear of it. */
  function vanish(socket: ClientSocket) {
    dismiss(socket);
    socket.terminate();
  }

  const tick = setInterval(() => {
    for (const socket of leaving) socket.terminate();
    leaving.clear();
    for (const socket of strangers) {
      const client = socket.data;
      client.ticks += 1;
      if (client.stage === "waiting" && client.ticks > handover_ticks_max) {
        refuse(socket, "busy", fatalError("53300", "the embedded database already has its one client"));
      } else if (client.ticks > handshake_ticks_max) refuse(socket, "timeout");
    }
  }, tick_ms);

  const listener: UnixSocketListener<Client> = Bun.listen<Client>({
    unix: options.path,
    socket: {
      open(socket) {
        socket.data = newClient();
        strangers.add(socket);
        const [oldest] = strangers;
        if (strangers.size > strangers_max && oldest !== undefined) refuse(oldest, "crowd");
      },
      data(socket, chunk) {
        const client = socket.data;
        if (client.stage === "closed") return;
        const is_handshake = client.stage !== "open";
        append(client, chunk);
        if (!is_handshake) return executeReceived(socket);
        if (client.stage !== "waiting") shakeHands(socket);
        const held = client.end - client.start;
        // Read again: the handshake may have ended just now, and then the client may send as much as it likes.
        if ((client.stage as Stage) !== "open" && held > startup_bytes_max + password_bytes_max)
          refuse(socket, "malformed");
      },
      drain(socket) {
        const client = socket.data;
        if (client.unsent.length === 0) return;
        const sent = socket.write(client.unsent);
        if (sent < 0) return vanish(socket);
        client.unsent = client.unsent.subarray(sent);
        if (client.unsent.length > 0) return;
        client.unsent = nothing;
        socket.resume();
        if (client.stage === "open") executeReceived(socket);
      },
      end: (socket) => dismiss(socket),
      close(socket) {
        dismiss(socket);
        leaving.delete(socket);
      },
      error: (socket) => refuse(socket, "error"),
    },
  });

  return {
    close() {
      clearInterval(tick);
      listener.stop(true);
      for (const socket of strangers) dismiss(socket);
      if (owner !== null) dismiss(owner);
    },
  };
}

function newClient(): Client {
  return {
    stage: "startup",
    ticks: 0,
    encryption_requests: 0,
    received: nothing,
    start: 0,
    end: 0,
    is_mid_query: false,
    unsent: nothing,
  };
}

function append(client: Client, chunk: Uint8Array): void {
  if (client.start === client.end) {
    // The usual case: everything before is done, and the chunk is whole batches. No copy.
    client.received = chunk;
    client.start = 0;
    client.end = chunk.length;
    return;
  }
  reserve(client, client.end - client.start + chunk.length);
  client.received.set(chunk, client.end);
  client.end += chunk.length;
}

/** Makes room for `bytes` from `start` on, at once for a long message, so that it is not copied over and over. */
function reserve(client: Client, bytes: number): void {
  const held = client.end - client.start;
  if (held === 0) client.received = nothing;
  if (held === 0 || client.start + bytes <= client.received.length) return;
  const larger = new Uint8Array(Math.max(bytes, 2 * held));
  larger.set(client.received.subarray(client.start, client.end));
  client.received = larger;
  client.start = 0;
  client.end = held;
}
