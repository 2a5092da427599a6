import type { Document, Operation, Schema } from "./document.ts";

// The client's types, made of the document: what three files of `client/src/` must say.

/** `Error` is taken. */
const nameOf = (ref: string) => (ref.endsWith("/Error") ? "ErrorBody" : (ref.split("/").at(-1) ?? ""));

function typeOf(schema: Schema, is_input: boolean): string {
  const { $ref, nullable, items, additionalProperties } = schema;
  if ($ref !== undefined) return nameOf($ref);
  const own = (() => {
    if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" | ");
    if (schema.type === "array") return `(${typeOf(items ?? {}, is_input)})[]`;
    if (additionalProperties) return `Record<string, ${typeOf(additionalProperties, is_input)}>`;
    if (schema.type === "object") return membersOf(schema, is_input);
    return schema.type === "integer" ? "number" : (schema.type ?? "unknown");
  })();
  return nullable ? `${own} | null` : own;
}

function membersOf({ properties = {}, required = [] }: Schema, is_input: boolean): string {
  const lines = Object.entries(properties).flatMap(([name, own]) => {
    // Typed by the server, and then ignored.
    if (is_input && own.readOnly) return [];
    const is_required = required.includes(name);
    const type = `${typeOf(own, is_input)}${is_input && !is_required ? " | undefined" : ""}`;
    const doc = own.description === undefined ? "" : `/** ${own.description} */\n`;
    return [`${doc}${name}${is_required ? "" : "?"}: ${type};`];
  });
  return lines.length === 0 ? "Record<string, never>" : `{\n${lines.join("\n")}\n}`;
}

const head = (what: string) => `// Made of the OpenAPI document by test/clientTypes.test.ts: ${what}.\n\n`;

const isInput = (name: string) => /(Input|Update)$/.test(name);

/**
 * Every named schema as a type: what goes in, or what comes out. Errors of single operations differ in their codes
 * only, and are one.
 */
export function shapesText(doc: Document, is_input: boolean): string {
  const types = Object.entries(doc.components.schemas)
    .filter(([name]) => (name === "Error" || !name.endsWith("Error")) && isInput(name) === is_input)
    .map(([name, schema]) => `export type ${nameOf(`/${name}`)} = ${typeOf(schema, is_input)};\n`);
  return head(is_input ? "what a server takes" : "what a server answers") + types.join("\n");
}

function operationText(operation: Operation): string {
  const queries = (operation.parameters ?? []).filter((parameter) => parameter.in === "query");
  const query = queries.map(({ name, schema }) => `${name}?: ${typeOf(schema, true)} | undefined`).join("; ");
  const body = operation.requestBody?.content?.["application/json"].schema;
  const results = Object.entries(operation.responses).flatMap(([status, { content }]) =>
    status.startsWith("2") ? [content ? typeOf(content["application/json"].schema, false) : "undefined"] : [],
  );
  const members = [
    ...(query === "" ? [] : [`query: { ${query} }`]),
    ...(body === undefined ? [] : [`body: ${typeOf(body, true)}`]),
    `result: ${[...new Set(results)].join(" | ")}`,
  ];
  return `${operation.operationId}: { ${members.join("; ")} };`;
}

/** Every operation: where it is sent, what it takes and what it answers. */
export function operationsText(doc: Document): string {
  const all = Object.entries(doc.paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, operation]) => ({ path, method: method.toUpperCase(), operation })),
  );
  const types = all.map(({ operation }) => `/** ${operation.summary}. */\n${operationText(operation)}`).join("\n");
  const names = Object.keys(doc.components.schemas).map((name) => nameOf(`/${name}`));
  // In the formatter's order.
  names.sort((a, b) => (a.toLowerCase() < b.toLowerCase() ? -1 : 1));
  const imports = (is_input: boolean) =>
    names.filter((name) => isInput(name) === is_input && new RegExp(`\\b${name}\\b`).test(types)).join(", ");
  const table = all
    .map(({ path, method, operation }) => `${operation.operationId}: ${JSON.stringify(`${method} ${path}`)},`)
    .join("\n");
  return `${head("what can be asked of a server")}import type { ${imports(true)} } from "./inputs.ts";
import type { ${imports(false)} } from "./outputs.ts";

/** Method and path of every operation. */
export const operations = {\n${table}\n} as const;

export type OperationName = keyof typeof operations;

/** What an operation takes and answers. */
export type Operations = {\n${types}\n};
`;
}
