// The part of the PostgreSQL wire protocol (version 3) that stands between a socket and the backend: framing and
// handshake.

/** The longest startup packet, as in PostgreSQL. */
export const startup_bytes_max = 10_000;
/** The longest password message. Ours is far shorter. */
export const password_bytes_max = 1_000;
/** The longest message of an authenticated client: one statement with all its parameters. */
const message_bytes_max = 256 * 1024 * 1024;
/** Without a Sync among them, complete messages are executed once they are this many bytes. */
const batch_bytes_max = 1024 * 1024;

const protocol_version = 196_608;
const ssl_request = 80_877_103;
const gss_request = 80_877_104;

/** What the first packet of a client asks for. `bytes` is its length; "incomplete" needs more of them. */
export type Startup =
  | { kind: "encryption" | "session"; bytes: number }
  | { kind: "incomplete" }
  | { kind: "malformed" }
  | { kind: "cancel" }
  | { kind: "unsupported" };

/** Reads the first packet of a client. */
export function readStartup(input: Uint8Array): Startup {
  if (input.length < 4) return { kind: "incomplete" };
  const bytes = int32(input, 0);
  if (bytes < 8 || bytes > startup_bytes_max) return { kind: "malformed" };
  if (input.length < 8) return { kind: "incomplete" };
  const code = int32(input, 4);
  if (code === ssl_request || code === gss_request) {
    return bytes === 8 ? { kind: "encryption", bytes } : { kind: "malformed" };
  }
  // A cancel request is 1234.5678 in the high and low halves, like the two above it.
  if (code === 80_877_102) return { kind: "cancel" };
  if (code !== protocol_version) return { kind: "unsupported" };
  return input.length < bytes ? { kind: "incomplete" } : { kind: "session", bytes };
}

/** The text of a password message: "incomplete" needs more bytes, "malformed" is something else. */
export function readPassword(input: Uint8Array): { password: Uint8Array; bytes: number } | "incomplete" | "malformed" {
  if (input.length < 1) return "incomplete";
  if (input[0] !== code_of.p) return "malformed";
  if (input.length < 5) return "incomplete";
  const length = int32(input, 1);
  if (length < 5 || length > password_bytes_max) return "malformed";
  if (input.length < 1 + length) return "incomplete";
  return { password: input.subarray(5, length), bytes: 1 + length };
}

const code_of = {
  p: 0x70,
  /** Query */ Q: 0x51,
  /** Sync */ S: 0x53,
  /** Flush */ H: 0x48,
  /** FunctionCall */ F: 0x46,
  /** Terminate */ X: 0x58,
};
const frontend_types = new Set(Buffer.from("QPBDECHSFXdcf", "latin1"));

/**
 * The next thing to do with buffered input: execute its first `bytes`; wait until there are `bytes_needed` in all; the
 * client says goodbye; or it does not speak the protocol.
 */
export type Batch =
  | { kind: "execute"; bytes: number; ends_clean: boolean }
  | { kind: "wait"; bytes_needed: number }
  | { kind: "terminate" }
  | { kind: "malformed"; reason: string };

/**
 * Finds the next batch: complete messages up to and including the first that makes PostgreSQL answer. `ends_clean`
 * tells that no half-finished extended query remains behind it.
 */
export function nextBatch(input: Uint8Array): Batch {
  let end = 0;
  while (input.length - end >= 5) {
    const type = input[end]!;
    if (!frontend_types.has(type)) return { kind: "malformed", reason: `invalid frontend message type ${type}` };
    const length = int32(input, end + 1);
    if (length < 4 || length > message_bytes_max) {
      return { kind: "malformed", reason: `invalid message length ${length}` };
    }
    if (input.length - end < 1 + length) {
      return end > 0 && end >= batch_bytes_max
        ? { kind: "execute", bytes: end, ends_clean: false }
        : { kind: "wait", bytes_needed: end + 1 + length };
    }
    // Whatever stands before a Terminate and has not been executed will not be: its client no longer listens.
    if (type === code_of.X) return { kind: "terminate" };
    end += 1 + length;
    if (type === code_of.S || type === code_of.Q || type === code_of.F) {
      return { kind: "execute", bytes: end, ends_clean: true };
    }
    if (type === code_of.H || end >= batch_bytes_max) return { kind: "execute", bytes: end, ends_clean: false };
  }
  return { kind: "wait", bytes_needed: end + 5 };
}

/** AuthenticationCleartextPassword. */
export const ask_password: Uint8Array = Buffer.from([0x52, 0, 0, 0, 8, 0, 0, 0, 3]);
/** The answer to a wish for encryption: no. */
export const no_encryption: Uint8Array = Buffer.from("N", "latin1");

/** A fatal ErrorResponse, after which the server closes the connection. */
export function fatalError(code: string, message: string): Uint8Array {
  const fields = Buffer.from(`SFATAL\0VFATAL\0C${code}\0M${message}\0\0`, "utf8");
  const header = Buffer.alloc(5);
  header.write("E", 0, "latin1");
  header.writeInt32BE(4 + fields.length, 1);
  return Buffer.concat([header, fields]);
}

/** A simple query. */
export function queryMessage(text: string): Uint8Array {
  const message = Buffer.alloc(1 + 4 + Buffer.byteLength(text) + 1);
  message.write("Q", 0, "latin1");
  message.writeInt32BE(message.length - 1, 1);
  message.write(text, 5);
  return message;
}

/** A Parse that must fail, then a Sync: rolls back what an extended query without its Sync left behind. */
export const abort_batch: Uint8Array = Buffer.concat([
  Buffer.from([0x50, 0, 0, 0, 0]),
  Buffer.from("\0not a statement\0\0\0", "latin1"),
  Buffer.from([0x53, 0, 0, 0, 4]),
]);
Buffer.from(abort_batch.buffer, abort_batch.byteOffset).writeInt32BE(abort_batch.length - 6, 1);

/** Whether an answer holds an ErrorResponse. Reads the message headers only. */
export function holdsError(answer: Uint8Array): boolean {
  for (let at = 0; at + 5 <= answer.length; at += 1 + int32(answer, at + 1)) if (answer[at] === 0x45) return true;
  return false;
}

function int32(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!;
}
