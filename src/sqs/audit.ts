import { observe } from "../observe.ts";
import { requestId } from "../web/gateway.ts";
import { queuesOf, rights } from "./access.ts";
import type { SqsErrorName } from "./errors.ts";
import type { Action } from "./shapes.ts";

/** What is known of a request while it is answered. */
export type Asking = {
  /** The access key that it names, when there is such a key. */
  key_id?: string;
  asked?: { action: Action; input: unknown } | undefined;
};

const refusals = new Set<SqsErrorName | undefined>([
  "MissingAuthenticationToken",
  "IncompleteSignature",
  "InvalidClientTokenId",
  "SignatureDoesNotMatch",
  "RequestExpired",
  "AccessDenied",
]);

function namesOf(input: unknown): string[] {
  try {
    // What is no name of a queue may be anything, and is told nobody.
    return queuesOf(input as object).filter((name) => /^[\w.-]{1,255}$/.test(name));
  } catch {
    return [];
  }
}

/** Tells what was changed, and what was refused, and by whom: never what a message holds. */
export function audit(
  request: Request,
  path: string,
  { key_id, asked }: Asking,
  status: number,
  error?: SqsErrorName,
): void {
  const right = asked && rights[asked.action];
  if (right !== "manage" && !refusals.has(error)) return;
  observe({
    kind: "audit",
    key_id: key_id ?? null,
    action: right ?? "",
    target: asked === undefined ? `${request.method} ${path}` : [asked.action, ...namesOf(asked.input)].join(" "),
    status,
    request_id: requestId(request),
  });
}
