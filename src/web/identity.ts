import { BrokerError } from "../errors.ts";

// Who asks, and what it may do. Every edge that speaks HTTP asks here.

/** What a route does to what it names. */
export type Action = "publish" | "consume" | "peek" | "manage";
/**
 * What a route needs of a key. `on`: the queue or topic that its path names; `any`: some right of the kind; `all`: the
 * right to everything; `route`: what it names is in its body, or must be looked up, and the route checks it.
 */
export type Need = { action: Action; on: "queue" | "topic" | "any" | "all" | "route" };
/** By method and path. A name is of something that may be open to all; where it is not, any key will do. */
export type Needs = Record<string, Need | string>;

/** What a right is for. */
export type Resource = "queue" | "topic";

export type Grant = { actions: readonly string[]; queues?: readonly string[]; topics?: readonly string[] };

/** Whose rights, and which. */
export type Rights = { id: string; scopes: readonly Grant[]; namespace: string | null };

/** What a list may show: ids with this beginning that fit one of these patterns of `like`. */
export type Visible = { prefix: string; patterns: string[] };

/** Somebody whose key was known. */
export type Identity = {
  key_id: string;
  /** May it do this, to this queue or topic? Without one: to any at all. */
  may(action: Action, resource?: Resource, id?: string): boolean;
  /** May it call something so that is neither a queue nor a topic? */
  mayName(id: string): boolean;
  /** May it do this to every queue and topic there is, and may be? */
  mayAll(action: Action): boolean;
  visible(action: Action, resource: Resource): Visible;
};

const everything: Visible = { prefix: "", patterns: ["%"] };

/** The root key's owner, who may do everything. */
export const root: Identity = {
  key_id: "root",
  may: () => true,
  mayName: () => true,
  mayAll: () => true,
  visible: () => everything,
};

/** No id is longer; what is, was never looked at before it came here. */
const id_characters_max = 255;

/** `orders*` as a pattern of `like`: a `*` is any run of characters, and everything else is itself. */
const likeOf = (pattern: string): string => pattern.replace(/[\\%_]/g, "\\$&").replace(/\*+/g, "%");

/**
 * Does an id fit a pattern? `parts`: of the pattern, between its `*`. The first place of a part leaves the most room
 * for those after it, so that no other has to be tried: a regular expression would try them all.
 */
function fits(parts: readonly string[], id: string): boolean {
  const [first = "", ...others] = parts;
  const last = others.pop();
  if (last === undefined) return id === first;
  if (first === "" && last === "" && others.length === 0) return true;
  if (id.length > id_characters_max || id.length < first.length + last.length) return false;
  if (!id.startsWith(first) || !id.endsWith(last)) return false;
  let from = first.length;
  for (const part of others) {
    const found = id.indexOf(part, from);
    if (found < 0) return false;
    from = found + part.length;
  }
  return from <= id.length - last.length;
}

const lists: Record<Resource, "queues" | "topics"> = { queue: "queues", topic: "topics" };

/** What a scope says of a kind of resource. With neither list it is about all there is; with one, about that only. */
function patternsOf(scope: Grant, resource: Resource): readonly string[] {
  if (scope.queues === undefined && scope.topics === undefined) return ["*"];
  return scope[lists[resource]] ?? [];
}

/** The rights of a key. */
export function createIdentity({ id: key_id, scopes, namespace }: Rights): Identity {
  const prefix = namespace === null ? "" : `${namespace}.`;
  const granting = (action: Action) =>
    scopes.filter(({ actions }) => actions.includes("*") || actions.includes(action));
  const known = new Map<string, string[][]>();
  const partsFor = (action: Action, resource: Resource): string[][] => {
    const name = `${action} ${resource}`;
    let found = known.get(name);
    if (found === undefined) {
      found = granting(action)
        .flatMap((scope) => patternsOf(scope, resource))
        .map((pattern) => pattern.split(/\*+/));
      known.set(name, found);
    }
    return found;
  };
  return {
    key_id,
    may(action, resource, id) {
      if (resource === undefined || id === undefined) return granting(action).length > 0;
      return id.startsWith(prefix) && partsFor(action, resource).some((parts) => fits(parts, id));
    },
    mayName: (id) => id.startsWith(prefix),
    mayAll: (action) =>
      namespace === null &&
      (["queue", "topic"] as const).every((resource) =>
        granting(action).some((scope) => patternsOf(scope, resource).includes("*")),
      ),
    visible: (action, resource) => ({
      prefix,
      patterns: granting(action).flatMap((scope) => patternsOf(scope, resource).map(likeOf)),
    }),
  };
}

type Marked = { identity?: Identity };

/** Remembers whose request it is. */
export function setIdentity(request: Request, identity: Identity): void {
  (request as Marked).identity = identity;
}

/** Whose request it is; undefined where keys are not asked for. */
export const identityOf = (request: Request): Identity | undefined => (request as Marked).identity;

/** Does the identity have what a route needs? `params`: of its path. */
export function meets(identity: Identity, need: Need | string | undefined, params: Record<string, string>): boolean {
  if (need === undefined) return false;
  if (typeof need === "string") return true;
  const { action, on } = need;
  if (on === "all") return identity.mayAll(action);
  if (on === "queue" || on === "topic") return identity.may(action, on, params[`${on}_id`] ?? "");
  return identity.may(action);
}

/** Throws `forbidden` unless the request may do this to this queue or topic; the same whether there is one or not. */
export function assertMay(request: Request, action: Action, resource: Resource, id: string): void {
  const identity = identityOf(request);
  if (identity === undefined || identity.may(action, resource, id)) return;
  throw new BrokerError("forbidden", `the key does not allow ${action} on this ${resource}`);
}

/** Throws `forbidden` unless the request may make something of this name; the same whether there is one or not. */
export function assertMayName(request: Request, id: string): void {
  if (identityOf(request)?.mayName(id) === false) {
    throw new BrokerError("forbidden", "the key makes only ids that begin with its namespace and a dot");
  }
}

/** Where queues are known: are the ids of all that have this one as their dead-letter queue so? */
type Sources = { everyDeadLetterSource(id: string, isSo: (source: string) => boolean): Promise<boolean> };

/** Throws `forbidden` unless the request may change every queue whose dead-letter queue this one is: they lose it. */
export async function assertMayCutOff(request: Request, sources: Sources, id: string): Promise<void> {
  const identity = identityOf(request);
  if (identity === undefined || identity.mayAll("manage")) return;
  if (await sources.everyDeadLetterSource(id, (source) => identity.may("manage", "queue", source))) return;
  throw new BrokerError("forbidden", "the key does not allow manage on the queues whose dead-letter queue it is");
}

/**
 * What is looked up to see what it is about. Throws `forbidden` when the request may not do this to all of that, and
 * also when there is nothing, unless its key is for everything: else the refusal would tell what there is.
 */
export async function findAllowed<Found>(
  request: Request,
  action: Action,
  looked_up: Promise<Found>,
  about: (found: Found) => [Resource, string][],
): Promise<Found> {
  const identity = identityOf(request);
  if (identity === undefined || identity.mayAll(action)) return await looked_up;
  const found = await looked_up.catch((error) => {
    if (error instanceof BrokerError) return undefined;
    throw error;
  });
  if (found !== undefined && about(found).every(([resource, id]) => identity.may(action, resource, id))) return found;
  throw new BrokerError("forbidden", `the key does not allow ${action} on this`);
}

/** What a list may show to this request. */
export const visibleTo = (request: Request, action: Action, resource: Resource): Visible =>
  identityOf(request)?.visible(action, resource) ?? everything;
