// Does the document say what the server does? Bodies and queries made of its schemas are taken, and those that break
// them are refused, apart from what a schema cannot say.

import { expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { createQueue, serviceForFile } from "./harness.ts";

setDefaultTimeout(90_000);

type Json = { [name: string]: unknown };
type Schema = Json & { type?: string; properties?: Record<string, Schema>; items?: Schema; required?: string[] };

const service = await serviceForFile();
const doc = (await service.call("GET", "/v1/swagger/doc.json")).body as {
  paths: Record<string, Record<string, Json>>;
  components: { schemas: Record<string, Schema> };
};

/** A schema, or the one that it is a name of. */
const named = (schema: Schema): Schema => {
  const name = /^#\/components\/schemas\/(.+)$/.exec(String(schema["$ref"] ?? ""))?.[1];
  return name === undefined ? schema : (doc.components.schemas[name] ?? {});
};
const seed = Number(process.env["PSQLQUEUE_TEST_SEED"] ?? 1);
const runs = Number(process.env["PSQLQUEUE_TEST_OPENAPI_RUNS"] ?? 60);

/** What a schema cannot say: rules between members, the database's clock, bytes, texts that PostgreSQL cannot hold. */
const unsayable = [
  /must be given together with/,
  /is not enabled for this queue/,
  /is not enabled for this server/,
  /must not be given together with/,
  /must be in the future/,
  /must be no (less|greater) than .*(T|\d)/,
  /must not (be the queue itself|lead back)/,
  /label: the length must be no more than 255/,
  /(attributes|message_filters)(\S*): must be in a valid format/,
  /items\[\d+\]\.ack_deadline_seconds: cannot be blank/,
  /limit: must be/,
  /^lease_token: cannot be blank/,
];

function textOf(schema: Schema): fc.Arbitrary<unknown> {
  if (Array.isArray(schema["enum"])) return fc.constantFrom(...(schema["enum"] as unknown[]));
  if (schema["format"] === "date-time") {
    const from = new Date("2020-01-01T00:00:00Z");
    return fc
      .date({ min: from, max: new Date("2099-01-01T00:00:00Z"), noInvalidDate: true })
      .map((d) => d.toISOString());
  }
  const [min, max] = [Number(schema["minLength"] ?? 0), Math.min(Number(schema["maxLength"] ?? 60), 60)];
  const pattern = schema["pattern"] as string | undefined;
  if (pattern === undefined || pattern.includes("ud800")) {
    return fc.string({ unit: "binary", minLength: min, maxLength: max }).filter((text) => !text.includes("\0"));
  }
  return fc.stringMatching(new RegExp(pattern), { maxLength: max }).filter((text) => text.length >= min);
}

function valid(given: Schema): fc.Arbitrary<unknown> {
  const schema = named(given);
  const made = validOf(schema);
  return schema["nullable"] === true ? fc.option(made, { freq: 8 }) : made;
}

function validOf(schema: Schema): fc.Arbitrary<unknown> {
  switch (schema.type) {
    case "integer":
      return fc.integer({ min: Number(schema["minimum"] ?? 0), max: Math.min(Number(schema["maximum"] ?? 1e9), 2e9) });
    case "number":
      return fc.double({ min: Number(schema["minimum"]), max: Number(schema["maximum"]), noNaN: true });
    case "boolean":
      return fc.boolean();
    case "array":
      return fc.array(valid(schema.items ?? {}), { minLength: Number(schema["minItems"] ?? 0), maxLength: 3 });
    case "object": {
      const { properties, required = [] } = schema;
      if (properties === undefined) {
        const name = fc.string({ maxLength: 8 });
        return fc.dictionary(name, valid((schema["additionalProperties"] ?? { type: "string" }) as Schema), {
          maxKeys: 3,
        });
      }
      const members = Object.fromEntries(Object.entries(properties).map(([key, one]) => [key, valid(one)]));
      return fc.record(members, { requiredKeys: required as never[] });
    }
    default:
      return textOf(schema);
  }
}

/** Values that the schema of one member forbids. */
function broken(given: Schema): unknown[] {
  const schema = named(given);
  const others: Record<string, unknown[]> = {
    string: [1, true, [], {}],
    integer: ["1", 1.5, true, -1, [], {}],
    number: ["1", true, [], {}],
    boolean: ["true", 1, 0, [], {}],
    array: ["", {}, 1],
    object: ["", [], 1, true],
  };
  const found = (others[schema.type ?? "string"] ?? []).filter(
    (value) => value !== -1 || Number(schema["minimum"] ?? 0) > -1,
  );
  if (schema["nullable"] !== true) found.push(null);
  if (typeof schema["maximum"] === "number" && schema["maximum"] < Number.MAX_SAFE_INTEGER)
    found.push(schema["maximum"] + 1);
  if (typeof schema["minimum"] === "number") found.push(schema["minimum"] - 1);
  if (typeof schema["maxLength"] === "number") found.push("x".repeat(schema["maxLength"] + 1));
  if (Number(schema["minLength"] ?? 0) > 0) found.push("");
  if (String(schema["pattern"] ?? "").includes("ud800")) found.push("a\0b", "\ud800");
  if (Array.isArray(schema["enum"])) found.push("none of them");
  if (schema["format"] === "date-time") found.push("yesterday", "2020-13-01T00:00:00Z");
  if (Number(schema["minItems"] ?? 0) > 0) found.push([]);
  return found;
}

const resources: Record<string, string> = {};
async function pathOf(path: string): Promise<string> {
  resources["queue_id"] ??= await createQueue(service);
  return path.replace(/\{(\w+)\}/g, (_, name: string) => resources[name] ?? "01ARZ3NDEKTSV4RRFFQ69G5FAV");
}

type Case = { method: string; path: string; body: unknown };
async function ask({ method, path, body }: Case) {
  const answer = await service.call(
    method.toUpperCase(),
    await pathOf(path),
    body === undefined ? undefined : JSON.stringify(body),
  );
  const is_refused = answer.status === 400 && [2, 3].includes(answer.body?.code);
  return { status: answer.status, is_refused, details: String(answer.body?.details ?? "") };
}

const operations = Object.entries(doc.paths).flatMap(([path, item]) =>
  Object.entries(item).map(([method, own]) => ({ name: `${method} ${path}`, method, path, own })),
);
const bodyOf = (operation: Json) => {
  const body = operation["requestBody"] as
    | { content: Record<string, { schema: Schema; example?: unknown }> }
    | undefined;
  return body?.content["application/json"];
};
const withBody = operations.filter(({ own }) => bodyOf(own) !== undefined);

test("bodies that the schemas allow are not refused for what they are", async () => {
  const refused: unknown[] = [];
  for (const { name, method, path, own } of withBody) {
    const body = bodyOf(own);
    for (const value of fc.sample(valid(body?.schema ?? {}), { numRuns: runs, seed })) {
      const { status, is_refused, details } = await ask({ method, path, body: value });
      if (status >= 500) refused.push([name, status, value]);
      if (is_refused && !unsayable.some((rule) => rule.test(details))) refused.push([name, details, value]);
    }
  }
  expect(refused).toEqual([]);
}, 120_000);

test("bodies that the schemas forbid are refused", async () => {
  const taken: unknown[] = [];
  for (const { name, method, path, own } of withBody) {
    const schema = named(bodyOf(own)?.schema ?? {});
    // Taken as it stands, so that only what is changed can be why it is refused.
    const base = bodyOf(own)?.example as Json;
    for (const [member, one] of Object.entries(schema.properties ?? {})) {
      for (const value of broken(one)) {
        const { status, is_refused } = await ask({ method, path, body: { ...base, [member]: value } });
        if (!is_refused) taken.push([name, member, value, status]);
      }
      if (schema.required?.includes(member)) {
        const { [member]: _, ...rest } = base;
        const { is_refused, status } = await ask({ method, path, body: rest });
        if (!is_refused) taken.push([name, member, "left out", status]);
      }
    }
  }
  expect(taken).toEqual([]);
}, 120_000);

test("queries as the document has them are taken, others refused", async () => {
  const wrong: unknown[] = [];
  for (const { name, method, path, own } of operations) {
    const body = bodyOf(own)?.example;
    for (const parameter of (own["parameters"] ?? []) as (Json & { schema: Schema })[]) {
      if (parameter["in"] !== "query") continue;
      const key = encodeURIComponent(String(parameter["name"]));
      for (const value of fc.sample(valid(parameter.schema), { numRuns: 10, seed })) {
        const query = `${path}?${key}=${encodeURIComponent(String(value))}`;
        const { status, is_refused, details } = await ask({ method, path: query, body });
        if (status >= 500 || (is_refused && details.startsWith(`${key}:`))) wrong.push([name, key, value, details]);
      }
      for (const value of broken(parameter.schema)) {
        // In a query everything is text, and nothing is a number's 0.
        if (value === null || value === "" || typeof value === "object") continue;
        if (String(valid(parameter.schema)) === String(value)) continue;
        if (parameter.schema.type !== "integer" && parameter.schema.type !== "boolean") continue;
        if (/^(\d+|true|false)$/.test(String(value))) continue;
        const query = `${path}?${key}=${encodeURIComponent(String(value))}`;
        const { is_refused, status } = await ask({ method, path: query, body });
        if (!is_refused) wrong.push([name, key, value, status, "taken"]);
      }
    }
  }
  expect(wrong).toEqual([]);
}, 120_000);

test("the examples work as they stand, in the order of a first walk", async () => {
  const order = ["/v1/queues", "/v1/topics", "/v1/subscriptions", "/v1/queues/{queue_id}/messages"];
  const rank = ({ method, path }: { method: string; path: string }) => {
    const at = order.indexOf(path);
    return method === "post" && at >= 0 ? at : order.length;
  };
  const failed: unknown[] = [];
  for (const { name, method, path, own } of withBody.toSorted((a, b) => rank(a) - rank(b))) {
    const walk = path.replace(/\{(\w+)_id\}/g, (whole, kind) => (kind === "message" ? whole : `my-first-${kind}`));
    let message_id = "";
    if (walk.includes("{message_id}")) {
      const published = await service.call("POST", "/v1/queues/my-first-queue/messages", { body: "x" });
      message_id = published.headers.get("x-message-id") ?? "";
      if (/ack|extend/.test(walk)) {
        await service.call("PUT", "/v1/queues/my-first-queue/resume");
        const { body } = await service.call("GET", "/v1/queues/my-first-queue/messages?limit=1000");
        message_id = body.data.find(({ id }: { id: string }) => id === message_id)?.id ?? body.data[0]?.id;
      }
    }
    const target = walk.replace("{message_id}", message_id);
    // An extension needs the token of its delivery, which no document can know.
    const { status } = await ask({ method, path: target, body: bodyOf(own)?.example });
    const is_fine = status < 300 || name === "put /v1/queues/{queue_id}/messages/{message_id}/extend";
    if (!is_fine) failed.push([name, target, status]);
  }
  expect(failed).toEqual([]);
});
