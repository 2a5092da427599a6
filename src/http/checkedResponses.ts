import { Kind, type TSchema } from "@sinclair/typebox";
import { TypeCompiler } from "@sinclair/typebox/compiler";
import { Elysia } from "elysia";

/** A route as Elysia lists it. */
export type Route = { method: string; path: string; hooks?: unknown };
type Described = { detail?: { responses?: Record<string, { content?: Record<string, { schema: unknown }> }> } };
type Check = { Check(value: unknown): boolean; Errors(value: unknown): Iterable<{ path: string; message: string }> };

/** The same schema, to which members that it does not name are wrong. */
function closed(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(closed);
  if (typeof schema !== "object" || schema === null) return schema;
  const own: Record<string | symbol, unknown> = { ...schema };
  for (const name of Object.keys(own)) own[name] = closed(own[name]);
  return own[Kind] === "Object" && own["additionalProperties"] === undefined
    ? { ...own, additionalProperties: false }
    : own;
}

/** The checks of every answer that a document describes: `GET /v1/queues 200` → its check. */
function checksOf(routes: Route[]): Map<string, Check> {
  const checks = new Map<string, Check>();
  for (const { method, path, hooks } of routes) {
    for (const [status, { content }] of Object.entries((hooks as Described | undefined)?.detail?.responses ?? {})) {
      const schema = content?.["application/json"]?.schema as TSchema | undefined;
      // Errors are a reference, and all made in one place.
      if (schema === undefined || schema[Kind] === undefined) continue;
      checks.set(`${method} ${path} ${status}`, TypeCompiler.Compile(closed(schema) as TSchema));
    }
  }
  return checks;
}

/**
 * Compares answers with what the document says of them: for tests and development, where an answer that is not as
 * described is a bug of ours, and an internal error. Streams are let through: they have no end yet.
 */
export function checksResponses(routes: () => Route[]) {
  let checks: Map<string, Check> | undefined;
  return new Elysia().onAfterHandle({ as: "global" }, async ({ request, response, route }) => {
    if (!(response instanceof Response) || !response.headers.has("content-length")) return;
    checks ??= checksOf(routes());
    const check = checks.get(`${request.method} ${route} ${response.status}`);
    if (check === undefined) return;
    const value: unknown = await response.clone().json();
    if (check.Check(value)) return;
    const [error] = check.Errors(value);
    throw new Error(`${route} answered ${response.status} not as documented: ${error?.path} ${error?.message}`);
  });
}
