import { Kind, type Static, type TObject, type TSchema, Type } from "@sinclair/typebox";
import { TypeCompiler } from "@sinclair/typebox/compiler";
import { BrokerError } from "../errors.ts";
import { readBody } from "../web/body.ts";
import {
  describe,
  isMap,
  isNullable,
  isObject,
  isStrict,
  isText,
  judge,
  judgeAll,
  member,
  type Problems,
} from "./schema.ts";

// Reading requests: bytes to JSON, URL to parameters, both against their schema.

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const malformed = (reason: string) => new BrokerError("malformed_body", reason);

async function readObject(request: Request, is_optional: boolean): Promise<Record<string, unknown>> {
  const bytes = await readBody(request);
  if (bytes.length === 0 && is_optional) return {};
  let value: unknown;
  try {
    value = JSON.parse(decoder.decode(bytes));
  } catch (cause) {
    // The parser's own message quotes the body, which belongs in no log.
    throw malformed(
      cause instanceof SyntaxError ? "not JSON" : cause instanceof RangeError ? "nested too deep" : "not UTF-8",
    );
  }
  if (value === null) return {};
  if (!isMap(value)) throw malformed("not a JSON object");
  return value;
}

/** Decodes one query parameter as a form does; undefined when it is not valid text. */
function decodeForm(raw: string): string | undefined {
  if (!raw.includes("%") && !raw.includes("+")) return isText(raw) ? raw : undefined;
  try {
    const text = decodeURIComponent(raw.replaceAll("+", " "));
    return isText(text) ? text : undefined;
  } catch {
    return undefined;
  }
}

/** A parameter that was given and cannot be read: fails every check. */
const unreadable = Symbol("unreadable");

function readQuery(url: string, schema: TObject): Record<string, unknown> {
  const start = url.indexOf("?");
  const query: Record<string, unknown> = {};
  if (start < 0) return query;
  for (const pair of url
    .slice(start + 1)
    .split("#", 1)[0]
    ?.split("&") ?? []) {
    const equals = pair.indexOf("=");
    const name = decodeForm(equals < 0 ? pair : pair.slice(0, equals));
    const own = name === undefined ? undefined : schema.properties[name];
    if (name === undefined || own === undefined || Object.hasOwn(query, name)) continue;
    const text = equals < 0 ? "" : decodeForm(pair.slice(equals + 1));
    if (text === undefined) query[name] = unreadable;
    else if (own[Kind] === "Integer") query[name] = readDigits(text, own);
    else if (own[Kind] === "Boolean") query[name] = text === "true" ? true : text === "false" ? false : unreadable;
    else query[name] = text;
  }
  return query;
}

function readDigits(text: string, schema: TSchema): number | typeof unreadable {
  if (!/^\d*$/.test(text)) return unreadable;
  const value = Number(text);
  return schema["lowered"] === true ? Math.min(value, schema["maximum"]) : value;
}

function judgeQuery(schema: TObject, query: Record<string, unknown>, problems: Problems): void {
  for (const [name, own] of Object.entries(schema.properties)) {
    const given = query[name];
    const problem = given === unreadable ? "must be in a valid format" : judge(own, false, given);
    if (problem !== undefined && !problems.has(name)) {
      problems.set(name, problem === "malformed" ? "must be in a valid format" : problem);
    }
  }
}

/** The schema as document and type; Elysia does not check it. */
const described = <S extends TObject>(schema: S) => Type.Unsafe<Static<S>>({ ...schema, [Kind]: "Any" });

type Hook = { request: Request; body?: unknown; query: unknown; params?: unknown };
type Check = {
  body?: TObject | undefined;
  query?: TObject | undefined;
  /** A path parameter whose format counts as the member `id`. */
  path_id?: string | undefined;
  /** Rules between members, after each has passed alone. */
  rules?: ((body: never, problems: Problems) => void) | undefined;
  /** When the query says so, only the body's lists are looked at: the handler judges their items (see judgesItem). */
  isLoose?: ((query: never) => boolean) | undefined;
};

const PathId = member.id("");

/** A null member counts as absent, unless null means something. */
function dropNulls(value: Record<string, unknown>, nullable: Set<string>): void {
  for (const name in value) if (value[name] === null && !nullable.has(name)) delete value[name];
}

const no_nullable = new Set<string>();

/** Of the members of a body, only the lists, of anything. */
const listsOf = ({ properties }: TObject) =>
  Type.Object(
    Object.fromEntries(
      Object.entries(properties).flatMap(([name, { minItems, maxItems, [Kind]: kind }]) =>
        kind === "Array" ? [[name, Type.Array(Type.Any(), { minItems, maxItems })]] : [],
      ),
    ),
  );

function checker({ body, query, path_id, rules, isLoose }: Check) {
  const isBody = body && TypeCompiler.Compile(body);
  const isLooseBody = body && isLoose && TypeCompiler.Compile(listsOf(body));
  const isQuery = query && TypeCompiler.Compile(query);
  const members = Object.entries<TSchema>(body?.properties ?? {});
  const nullable = new Set(members.flatMap(([name, own]) => (isNullable(own) ? [name] : [])));
  // In what is strict a null is refused.
  const lists = members.flatMap(([name, own]) => (own[Kind] === "Array" && !isStrict(own["items"]) ? [name] : []));
  const objects = members.flatMap(([name, own]) => (isObject(own) && !isStrict(own) ? [name] : []));

  function refuse(given: Record<string, unknown>, parameters: unknown, problems: Problems): void {
    if (body && judgeAll(body, given, problems) === "malformed") throw malformed("a member of the wrong type");
    if (query) judgeQuery(query, parameters as Record<string, unknown>, problems);
    // Both are made of the same schema; should they ever disagree, the request is refused and not stored.
    if (problems.size === 0) throw malformed("not as the schema says");
  }

  // The context itself goes nowhere: Elysia reads this source, and for one that is passed on parses cookies and all
  // headers.
  return (context: Hook): void => {
    const given = context.body as Record<string, unknown>;
    if (isBody) dropNulls(given, nullable);
    for (const name of objects) if (isMap(given[name])) dropNulls(given[name], no_nullable);
    for (const name of lists) {
      if (Array.isArray(given[name])) for (const item of given[name]) if (isMap(item)) dropNulls(item, no_nullable);
    }
    if (query) context.query = readQuery(context.request.url, query);
    const problems: Problems = new Map();
    const id_problem = path_id === undefined ? undefined : judge(PathId, true, idOf(context.params, path_id));
    if (id_problem !== undefined) problems.set("id", id_problem);
    const is_loose = isLooseBody?.Check(given) === true && isLoose?.(context.query as never) === true;
    const is_valid = (!isBody || is_loose || isBody.Check(given)) && (!isQuery || isQuery.Check(context.query));
    if (!is_valid || problems.size > 0) refuse(given, context.query, problems);
    else if (!is_loose) rules?.(given as never, problems);
    if (problems.size > 0) throw new BrokerError("validation_failed", describe(problems));
  };
}

const idOf = (params: unknown, name: string) => (params as Record<string, string> | undefined)?.[name];

const parser =
  (is_optional: boolean, before?: (body: Record<string, unknown>) => Promise<void> | undefined) =>
  async (context: { request: Request }) => {
    const body = await readObject(context.request, is_optional);
    const isReady = before?.(body);
    if (isReady !== undefined) await isReady;
    return body;
  };

/** Judges one item of a list that the handler takes apart: undefined, or why it is refused. */
export function judgesItem<T extends TObject>(item: T, rules: (item: Static<T>, problems: Problems) => void) {
  const isItem = TypeCompiler.Compile(item);
  return (given: unknown): BrokerError | undefined => {
    const problems: Problems = new Map();
    if (isItem.Check(given)) rules(given, problems);
    else if (!isMap(given) || judgeAll(item, given, problems) === "malformed" || problems.size === 0) {
      return malformed("an item of the wrong type");
    }
    return problems.size === 0 ? undefined : new BrokerError("validation_failed", describe(problems));
  };
}

type BodyOptions<B extends TObject, Q extends TObject> = {
  query?: Q;
  isLoose?: (query: Static<Q>) => boolean;
  path_id?: string;
  rules?: (body: Static<B>, problems: Problems) => void;
  /** What the rules wait for, when they need it for this body. Its members are not checked yet. */
  before?: (body: Record<string, unknown>) => Promise<void> | undefined;
};

// biome-ignore lint/complexity/noBannedTypes: no query parameters
type NoQuery = TObject<{}>;

/** Route options for a JSON body that must be there. Any content type is read as JSON. */
export function readsBody<B extends TObject, Q extends TObject = NoQuery>(body: B, options: BodyOptions<B, Q> = {}) {
  const check = checker({ body, ...options });
  const query = described(options.query ?? (Type.Object({}) as unknown as Q));
  return { parse: parser(false, options.before), transform: check, body: described(body), query };
}

/** Route options for query parameters. */
export function readsQuery<Q extends TObject>(query: Q) {
  return { transform: checker({ query }), query: described(query) };
}

/** Route options for a JSON body that may be absent, and query parameters. */
export function readsOptionalBody<B extends TObject, Q extends TObject>(body: B, query: Q) {
  const optional = { ...described(body), optionalBody: true } as ReturnType<typeof described<B>>;
  return { parse: parser(true), transform: checker({ body, query }), body: optional, query: described(query) };
}
