// The service's own document, as its users read it: what the tests that follow it share.

export type Schema = {
  type?: string;
  nullable?: boolean;
  format?: string;
  pattern?: string;
  minLength?: number;
  maxLength?: number;
  minimum?: number;
  maximum?: number;
  readOnly?: boolean;
  enum?: unknown[];
  items?: Schema;
  minItems?: number;
  properties?: Record<string, Schema>;
  required?: string[];
  additionalProperties?: Schema;
  $ref?: string;
  example?: unknown;
  description?: string;
};
type Content = { content?: { "application/json": { schema: Schema; example?: unknown } } };
export type Operation = {
  operationId: string;
  summary: string;
  parameters?: { name: string; in: "path" | "query"; schema: Schema }[];
  requestBody?: Content & { required: boolean };
  responses: Record<string, Content>;
};
export type Document = {
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, Schema> };
};

/** The same document with what it names in place of every reference. */
export function inlined(doc: Document): Document {
  const inline = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(inline);
    if (typeof value !== "object" || value === null) return value;
    const ref = (value as Schema).$ref;
    if (ref !== undefined) return inline(doc.components.schemas[ref.split("/").at(-1) ?? ""]);
    return Object.fromEntries(Object.entries(value).map(([name, own]) => [name, inline(own)]));
  };
  return inline(doc) as Document;
}

/**
 * What the value breaks of the schema, with its place; empty when it fits. Members that the schema does not name are
 * wrong.
 */
export function misfits(schema: Schema, value: unknown, place = "$"): string[] {
  if (value === null) return schema.nullable ? [] : [`${place} is null`];
  const actual = Array.isArray(value) ? "array" : typeof value;
  const type = schema.type === "integer" ? "number" : schema.type;
  if (actual !== type) return [`${place} is ${actual}, not ${type}`];
  if (schema.type === "integer" && !Number.isInteger(value)) return [`${place} is no integer`];
  if (schema.enum !== undefined && !schema.enum.includes(value)) return [`${place} is none of ${schema.enum}`];
  if (typeof value === "number") {
    return value >= (schema.minimum ?? value) && value <= (schema.maximum ?? value)
      ? []
      : [`${place} is out of bounds`];
  }
  if (schema.format === "date-time" && !/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/.test(String(value))) {
    return [`${place} is no timestamp of ours: ${value}`];
  }
  if (Array.isArray(value)) return value.flatMap((item, i) => misfits(schema.items ?? {}, item, `${place}[${i}]`));
  if (typeof value !== "object") return [];
  const missing = (schema.required ?? []).filter((name) => !Object.hasOwn(value, name));
  return [
    ...missing.map((name) => `${place}.${name} is missing`),
    ...Object.entries(value).flatMap(([name, item]) => {
      const own = schema.properties?.[name] ?? schema.additionalProperties;
      return own === undefined ? [`${place}.${name} is not documented`] : misfits(own, item, `${place}.${name}`);
    }),
  ];
}
