import type { BlockList } from "node:net";
import type { Broker } from "../broker/broker.ts";
import type { BrokerError } from "../errors.ts";
import { observe } from "../observe.ts";
import { whenSent, whenUnsent } from "../web/answer.ts";
import { readBody } from "../web/body.ts";
import { createGateway, type GatewayOptions, has_effect, requestId } from "../web/gateway.ts";
import { mayWait } from "../web/request.ts";
import { textResponse } from "../web/textResponse.ts";
import { asSeenBy, checkAccess } from "./access.ts";
import { createAttempts } from "./attempts.ts";
import { type Asking, audit } from "./audit.ts";
import { SqsError, toSqsError } from "./errors.ts";
import { createFacts } from "./facts.ts";
import { createInFlight } from "./inFlight.ts";
import { parseJson, readJson } from "./json.ts";
import { limitsOf } from "./limits.ts";
import { cancelMessageMoveTask, listMessageMoveTasks, startMessageMoveTask } from "./moves.ts";
import type { Place } from "./names.ts";
import { originOf, withHost } from "./origin.ts";
import { parseForms, readQuery, writeError, writeResponse } from "./query.ts";
import {
  addPermissionTo,
  createQueue,
  deleteQueue,
  getQueueAttributes,
  getQueueUrl,
  listDeadLetterSourceQueues,
  listQueues,
  listQueueTags,
  purgeQueue,
  removePermissionFrom,
  setQueueAttributes,
  tagQueue,
  untagQueue,
} from "./queues.ts";
import { receiveMessage } from "./receive.ts";
import type { Recent } from "./recent.ts";
import { sendMessage, sendMessageBatch } from "./send.ts";
import type { Act, Call, Service } from "./service.ts";
import { changeMessageVisibility, changeMessageVisibilityBatch, deleteMessage, deleteMessageBatch } from "./settle.ts";
import { type Action, inputs, isAction, outputs } from "./shapes.ts";
import { checkSignature, keyIdOf, type SignatureRules } from "./signature.ts";
import { legalXml } from "./xml.ts";

const acts: { [A in Action]: Act<A> } = {
  AddPermission: addPermissionTo,
  CancelMessageMoveTask: cancelMessageMoveTask,
  ChangeMessageVisibility: changeMessageVisibility,
  ChangeMessageVisibilityBatch: changeMessageVisibilityBatch,
  CreateQueue: createQueue,
  DeleteMessage: deleteMessage,
  DeleteMessageBatch: deleteMessageBatch,
  DeleteQueue: deleteQueue,
  GetQueueAttributes: getQueueAttributes,
  GetQueueUrl: getQueueUrl,
  ListDeadLetterSourceQueues: listDeadLetterSourceQueues,
  ListMessageMoveTasks: listMessageMoveTasks,
  ListQueueTags: listQueueTags,
  ListQueues: listQueues,
  PurgeQueue: purgeQueue,
  ReceiveMessage: receiveMessage,
  RemovePermission: removePermissionFrom,
  SendMessage: sendMessage,
  SendMessageBatch: sendMessageBatch,
  SetQueueAttributes: setQueueAttributes,
  StartMessageMoveTask: startMessageMoveTask,
  TagQueue: tagQueue,
  UntagQueue: untagQueue,
};

export type SqsOptions = GatewayOptions & {
  place: Place;
  /** Whose X-Forwarded-Host and X-Forwarded-Proto are believed. */
  trusted_proxies: BlockList;
  is_strict: boolean;
  wait_seconds_max: number;
  has_legacy_handles: boolean;
  /** Queues that were purged, and names that were given up, in the last minute; undefined: nobody minds. */
  purged: Recent | undefined;
  deleted: Recent | undefined;
  /** undefined: signatures are not looked at. */
  signatures: SignatureRules | undefined;
  /** How another edge on the same port refuses what no edge takes. */
  unknown: () => Response;
};

type Protocol = "json" | "query";

const target_prefix = "AmazonSQS.";
const json_type = "application/x-amz-json-1.0";
/** A queue of an account, as in a QueueUrl, and a shorter form. */
const queue_path = /^\/(?:\d{12}|queue)\/([^/]+)\/?$/;
const account_path = /^\/\d{12}\/[^/]+\/?$/;
const root_path = /^\/(?:sqs\/?)?$/;
/** On a path of a queue these are no actions. */
const queueless = new Set<string>(["CreateQueue", "ListQueues"]);

/** Path and query of a request's URL. */
function splitUrl({ url }: Request): { path: string; query: string } {
  const start = url.indexOf("/", url.indexOf("//") + 2);
  const mark = url.indexOf("?", start);
  const path = start < 0 ? "/" : url.slice(start, mark < 0 ? undefined : mark);
  return { path, query: mark < 0 ? "" : url.slice(mark + 1) };
}

const typeOf = (request: Request) => request.headers.get("content-type") ?? "";

const protocolOf = (request: Request): Protocol =>
  request.headers.get("x-amz-target")?.startsWith(target_prefix) || typeOf(request).startsWith(json_type)
    ? "json"
    : "query";

const hasAction = (query: string) => /(?:^|&)Action=/.test(query);
const isForm = (request: Request) => typeOf(request).startsWith("application/x-www-form-urlencoded");

/** Is the request one for Amazon SQS? Told by its path and headers, before its body is read. */
export function isSqs(request: Request): boolean {
  const { path, query } = splitUrl(request);
  if (account_path.test(path)) return true;
  if (!queue_path.test(path) && !root_path.test(path)) return false;
  return protocolOf(request) === "json" || hasAction(query) || (request.method === "POST" && isForm(request));
}

const uuid = /^[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}$/;

/** The request's id as Amazon's clients expect it: a UUID. */
const answerId = (request: Request): string => {
  const id = requestId(request);
  return uuid.test(id) ? id : crypto.randomUUID();
};

function respond(protocol: Protocol, status: number, text: string, id: string): Response {
  const headers = {
    "content-type": protocol === "json" ? json_type : "text/xml",
    "x-amzn-requestid": id,
    "cache-control": "no-store",
  };
  return textResponse(status, text, headers);
}

function refuse(request: Request, error: SqsError): Response {
  const protocol = protocolOf(request);
  const id = answerId(request);
  const message = error.messageIn(protocol);
  const status = error.statusIn(protocol);
  const text =
    protocol === "json"
      ? JSON.stringify({ __type: `com.amazonaws.sqs#${error.error}`, message })
      : writeError({ code: error.code, message, fault: error.fault }, id);
  const response = respond(protocol, status, text, id);
  if (protocol === "json") response.headers.set("x-amzn-query-error", `${error.code};${error.fault}`);
  if (status === 503) response.headers.set("retry-after", "1");
  return response;
}

function unknownAction(protocol: Protocol, action: string): SqsError {
  const message =
    protocol === "json"
      ? `The operation ${action} is not known.`
      : `The action ${action} is not valid for this endpoint.`;
  return new SqsError("UnknownOperationException", message);
}

/** What a GET of a queue's address without an action is answered. */
const noOperation = (id: string) => respond("query", 404, "<UnknownOperationException/>", id);

/** What is asked for. undefined: nothing that this edge knows. Throws SqsError. */
function readAsked(request: Request, protocol: Protocol, path: string, query: string, bytes: Uint8Array) {
  const path_queue = path === "/" ? undefined : queue_path.exec(path)?.[1];
  if (protocol === "json") {
    const action = request.headers.get("x-amz-target")?.slice(target_prefix.length) ?? "";
    if (!isAction(action)) throw unknownAction("json", action);
    return { action, input: readJson(inputs[action], parseJson(bytes), "") };
  }
  const parameters = parseForms(query, isForm(request) ? Buffer.from(bytes).toString("utf8") : "");
  const action = parameters.byName.get("Action");
  if (action === undefined) return undefined;
  if (!isAction(action) || (path_queue !== undefined && queueless.has(action))) throw unknownAction("query", action);
  const input = readQuery(inputs[action], parameters.tree, "") as { QueueUrl?: string };
  if (path_queue !== undefined) input.QueueUrl ??= path_queue;
  return { action, input };
}

const guessed_bytes_max = 16_384;

/** The same for the log, of a request that is refused: it costs its reader little, and fails for nothing. */
function guessAsked(...given: Parameters<typeof readAsked>): ReturnType<typeof readAsked> {
  if (given[4].length > guessed_bytes_max) return undefined;
  try {
    return readAsked(...given);
  } catch {
    return undefined;
  }
}

/**
 * The endpoint for clients of Amazon SQS. `fetch` answers a request on a port of its own, or one that `isSqs` says is
 * for it. Never rejects.
 */
export function createSqs(broker: Broker, options: SqsOptions) {
  const limits = limitsOf(options.is_strict, options);
  const service: Service = {
    broker,
    lists: broker,
    place: options.place,
    limits,
    in_flight: createInFlight(broker, limits.in_flight),
    facts: createFacts(broker),
    attempts: createAttempts(),
    wait_seconds_max: options.wait_seconds_max,
    has_legacy_handles: options.has_legacy_handles,
    purged: options.purged,
    deleted: options.deleted,
  };

  async function act(request: Request, asking: Asking): Promise<Response> {
    const bytes = await readBody(request);
    const { path, query } = splitUrl(request);
    const { headers } = request;
    const protocol = protocolOf(request);
    const origin = originOf(request, options.trusted_proxies);
    const signed = { method: request.method, path, query, headers: withHost(headers, origin.host), body: bytes };
    const key =
      options.signatures &&
      (await checkSignature(signed, options.signatures, (id) => {
        asking.key_id = id;
      }).catch((error) => {
        asking.asked = guessAsked(request, protocol, path, query, bytes);
        throw error;
      }));
    const asked = readAsked(request, protocol, path, query, bytes);
    asking.asked = asked;
    if (asked === undefined) return account_path.test(path) ? noOperation(answerId(request)) : options.unknown();
    let onUnsent: (() => void) | undefined;
    let onSent: (() => void) | undefined;
    const call: Call = {
      origin,
      sender: asking.key_id ?? keyIdOf(headers, query),
      trace: headers.get("x-amzn-trace-id") ?? undefined,
      // Made when it is asked for, which few actions do.
      get signal() {
        return request.signal;
      },
      asShown: protocol === "json" ? (text) => text : legalXml,
      mayWait: (ms) => mayWait(request, ms),
      whenUnsent: (undo) => {
        onUnsent = undo;
      },
      whenSent: (end) => {
        onSent = end;
      },
    };
    const { action } = asked;
    const identity = key?.identity;
    if (identity !== undefined) await checkAccess(identity, action, asked.input as object, broker);
    const own = identity === undefined ? service : { ...service, lists: asSeenBy(broker, identity) };
    try {
      const output = await acts[action](own, asked.input as never, call);
      const id = answerId(request);
      const text = protocol === "json" ? JSON.stringify(output) : writeResponse(action, outputs[action], output, id);
      const response = respond(protocol, 200, text, id);
      if (onSent !== undefined) whenSent(request, response, onSent);
      return onUnsent === undefined ? response : whenUnsent(response, onUnsent);
    } catch (thrown) {
      onSent?.();
      throw thrown;
    }
  }

  // Where nobody must say who they are, there is nobody to tell of.
  function tell(request: Request, asking: Asking, response: Response, error?: SqsError): Response {
    if (options.signatures !== undefined) audit(request, splitUrl(request).path, asking, response.status, error?.error);
    return response;
  }

  async function answer(request: Request): Promise<Response> {
    const asking: Asking = {};
    try {
      return tell(request, asking, await act(request, asking));
    } catch (thrown) {
      const error = toSqsError(thrown, "sqs", requestId(request));
      if (error.error === "SerializationException") {
        observe({ kind: "malformed_request", reason: error.message, request_id: requestId(request) });
      }
      return tell(request, asking, refuse(request, error), error);
    }
  }

  const gateway = createGateway(options, {
    refusal: (error: BrokerError, headers, request) => {
      const refused = toSqsError(error, "sqs");
      const response = tell(request, {}, refuse(request, refused), refused);
      for (const [name, value] of Object.entries(headers)) response.headers.set(name, value);
      return response;
    },
    start: () => undefined,
    // Who asks is told by signatures, which each action checks.
    failure: (error, request) => refuse(request, toSqsError(error, "sqs", requestId(request))),
    needs: {},
    is_open: options.signatures === undefined,
  });
  const hooks = { detail: has_effect };
  gateway.open({
    routes: ["/", "/sqs", "/:account/:queue"].flatMap((path) => [
      { method: "POST", path },
      { method: "GET", path, hooks },
    ]),
  });

  return { fetch: (request: Request): Promise<Response> => gateway.enter(answer, request) };
}
