import { DatabaseError, type DatabaseFailure } from "../errors.ts";

/** The connection could not be made at all, so the statement never left. */
const refused = new Set([
  "ECONNREFUSED",
  "ENOENT",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOTFOUND",
  "EAI_AGAIN",
  "CONNECT_TIMEOUT",
  // Ours: a server that takes no writes; more backends than may be left behind.
  "READ_ONLY",
  "BACKENDS_ABANDONED",
  "TLS_NOT_OFFERED",
  "CREDENTIAL_FILE",
  "CHANNEL_BINDING",
]);
/** A certificate that is not trusted (any more): nothing was sent. */
const isAboutCertificates = (code: string) => /CERT|UNABLE_TO_|^ERR_TLS_/.test(code);

/**
 * An error for the notice, if it is one, that a wait for a synchronous standby was given up: the transaction is
 * committed here and will be lost with this server. Known by the function that sends it, since its text is translated.
 */
export function unreplicated(notice: { routine?: string; severity?: string }): Error | undefined {
  if (notice.routine !== "SyncRepWaitForLSN" || notice.severity !== "WARNING") return undefined;
  return Object.assign(new Error("committed, but not replicated"), { code: "NOT_REPLICATED" });
}

const by_code: Record<string, DatabaseFailure> = {
  CONNECTION_CLOSED: "lost",
  CONNECTION_DESTROYED: "lost",
  CONNECTION_ENDED: "unavailable",
  NOT_REPLICATED: "lost",
  ECONNRESET: "lost",
  EPIPE: "lost",
  ETIMEDOUT: "lost",
  ECONNABORTED: "lost",
  // The server ends this session. What ran before is rolled back or committed: unknown.
  "57P01": "lost",
  "57P02": "lost",
  "57P05": "lost",
  // Starting, stopping or out of slots; nothing ran.
  "57P03": "unavailable",
  "53300": "unavailable",
  // Read-only: a standby, or a primary that was demoted.
  "25006": "unavailable",
  "28000": "unavailable",
  "28P01": "unavailable",
  "3D000": "unavailable",
  "57014": "timeout",
  "55P03": "timeout",
  "40001": "conflict",
  "40P01": "conflict",
};

/** Two messages of one id came to a queue at once. The next try sees the first, and gives the other a new id. */
const message_ids = "messages_queue_no_id_pk";

const by_class: Record<string, DatabaseFailure> = {
  "08": "lost",
  "22": "rejected",
  "23": "rejected",
  "54": "rejected",
  // Disk full, out of memory, I/O error: not the caller's fault, and it may pass.
  "53": "timeout",
  "58": "timeout",
};

/** Turns whatever the driver threw into a DatabaseError, without its SQL text and parameters. */
export function classify(statement: string, error: unknown): DatabaseError {
  if (error instanceof DatabaseError) return error;
  // Drizzle wraps the driver's error; Node wraps several failed addresses.
  let cause = error as {
    code?: unknown;
    cause?: unknown;
    errors?: unknown[];
    constraint_name?: unknown;
    message?: unknown;
  };
  while (cause.code === undefined && cause.cause !== undefined) cause = cause.cause as typeof cause;
  if (cause.code === undefined && Array.isArray(cause.errors)) cause = cause.errors[0] as typeof cause;
  const code = typeof cause?.code === "string" ? cause.code : "UNKNOWN";
  const constraint = typeof cause?.constraint_name === "string" ? cause.constraint_name : undefined;
  const failure =
    refused.has(code) || isAboutCertificates(code)
      ? "unavailable"
      : constraint === message_ids
        ? "conflict"
        : (by_code[code] ?? by_class[code.slice(0, 2)] ?? "failed");
  const found = new DatabaseError(failure, code, statement, constraint);
  // Without a code it is no answer of PostgreSQL but a bug: its own stack tells where. The message may hold parameters.
  if (code === "UNKNOWN" && error instanceof Error && error.stack !== undefined) {
    found.stack = `${found.message}\n${error.stack
      .split("\n")
      .filter((line) => /^\s+at /.test(line))
      .join("\n")}`;
  }
  return found;
}
