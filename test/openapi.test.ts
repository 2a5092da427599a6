import { expect, setDefaultTimeout, test } from "bun:test";
import { createApp } from "../src/http/app.ts";
import { type Document, inlined, misfits } from "./document.ts";
import { createQueue, serviceForFile } from "./harness.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile();

type Json = { [name: string]: unknown };
type Operation = { name: string; path: string; method: string; own: Json };

const isJson = (value: unknown): value is Json => typeof value === "object" && value !== null && !Array.isArray(value);
const listOf = (value: unknown) => (Array.isArray(value) ? (value as Json[]) : []);

const doc = (await service.call("GET", "/v1/swagger/doc.json")).body as Json & { paths: Record<string, Json> };
const operations: Operation[] = Object.entries(doc.paths).flatMap(([path, item]) =>
  Object.entries(item).map(([method, own]) => ({ name: `${method} ${path}`, path, method, own: own as Json })),
);

/** Calls `look` with every object of the document and where it stands, as `/paths/~/get`. */
function walk(value: unknown, look: (value: Json, place: string) => void, place = ""): void {
  if (Array.isArray(value)) for (const [i, item] of value.entries()) walk(item, look, `${place}/${i}`);
  if (!isJson(value)) return;
  look(value, place);
  for (const [name, item] of Object.entries(value)) walk(item, look, `${place}/${name}`);
}

/** What the document names by `#/a/b`; undefined when nothing is there. */
const resolve = (ref: string) =>
  ref.startsWith("#/")
    ? ref
        .slice(2)
        .split("/")
        .reduce<unknown>((at, name) => (isJson(at) ? at[name] : undefined), doc)
    : undefined;

test("is OpenAPI 3.0, and says whose API it is", () => {
  expect(doc).toMatchObject({
    openapi: expect.stringMatching(/^3\.0\.\d+$/),
    info: { title: "PSQL Queue API", version: "test" },
    servers: [{ url: "/" }],
  });
  expect(Object.keys(doc).sort()).toEqual(["components", "info", "openapi", "paths", "servers"]);
});

test("lists exactly the routes that the service serves", () => {
  const served = service.app.routes
    .map(({ method, path }) => `${method.toLowerCase()} ${path.replaceAll(/:(\w+)/g, "{$1}")}`)
    .filter((route) => !route.includes("/v1/swagger"));
  expect(served.length).toBeGreaterThan(20);
  expect(operations.map(({ name }) => name).sort()).toEqual(served.sort());
});

test("every reference resolves, and none has something beside it", () => {
  const seen: string[] = [];
  walk(doc, (value, place) => {
    if (!("$ref" in value)) return;
    seen.push(place);
    expect([place, Object.keys(value), isJson(resolve(String(value["$ref"])))]).toEqual([place, ["$ref"], true]);
  });
  expect(seen.length).toBeGreaterThan(operations.length);
});

test("every operation has an id of its own, a tag, a summary, and described responses, a success among them", () => {
  const ids = operations.map(({ own }) => own["operationId"]);
  expect(new Set(ids).size).toBe(operations.length);
  for (const { name, own } of operations) {
    expect([name, typeof own["operationId"], typeof own["summary"], listOf(own["tags"]).length]).toEqual([
      name,
      "string",
      "string",
      1,
    ]);
    const responses = Object.entries(own["responses"] as Record<string, Json>);
    for (const [status, response] of responses) {
      expect([name, status]).toEqual([name, expect.stringMatching(/^[1-5]\d\d$/)]);
      expect([name, status, (response["description"] as string)?.length > 0]).toEqual([name, status, true]);
      expect([name, status, "content" in response]).toEqual([name, status, status !== "204"]);
    }
    expect([name, responses.some(([status]) => status.startsWith("2"))]).toEqual([name, true]);
    expect(responses.map(([status]) => status)).toEqual(expect.arrayContaining(["403", "413", "500", "503"]));
  }
});

test("operations and schemas are called what generated code should be called", () => {
  const schemas = Object.keys((doc["components"] as Json)["schemas"] as Json);
  expect(schemas).toEqual(expect.arrayContaining(["Error", "Message", "Queue", "Subscription", "Task", "Topic"]));
  for (const name of schemas) expect(name).toMatch(/^[A-Z][A-Za-z]+$/);
  for (const { own } of operations) expect(own["operationId"]).toMatch(/^[a-z]+[A-Z][A-Za-z]+$/);
  const bodies = operations.flatMap(({ own }) => [own["requestBody"], ...Object.values(own["responses"] as Json)]);
  for (const body of bodies.filter(isJson).filter((own) => "content" in own)) {
    const { schema } = (body["content"] as Record<string, Json>)["application/json"] as { schema: Json };
    expect(Object.keys(schema)).toEqual(["$ref"]);
  }
});

test("every refusal names the codes of its operation, those of its status among them", () => {
  for (const { own } of operations) {
    const id = String(own["operationId"]);
    const name = `#/components/schemas/${id[0]?.toUpperCase()}${id.slice(1)}Error`;
    const { properties } = resolve(name) as { properties: { code: { enum: number[] } } };
    const codes = Object.entries(own["responses"] as Record<string, Json>).flatMap(([status, response]) => {
      if (status.startsWith("2")) return [];
      const content = (response["content"] as Json)["application/json"] as { schema: Json; example: Json };
      expect({ id, schema: content.schema }).toEqual({ id, schema: { $ref: name } });
      const named = String(response["description"])
        .split("; ")
        .map((text) => Number.parseInt(text, 10));
      expect(named).toContain(content.example["code"] as number);
      return named;
    });
    expect({ id, codes: codes.sort() }).toEqual({ id, codes: properties.code.enum.sort() });
  }
});

test("what goes in and what comes out has an example, which is as the schema says", () => {
  const { paths } = inlined(doc as unknown as Document);
  let count = 0;
  for (const operation of Object.values(paths).flatMap((item) => Object.values(item))) {
    for (const { content } of [operation.requestBody, ...Object.values(operation.responses)].flatMap(
      (own) => own ?? [],
    )) {
      if (content === undefined) continue;
      const { schema, example = schema.example } = content["application/json"];
      count += 1;
      expect([operation.operationId, example, misfits(schema, example)]).toEqual([operation.operationId, example, []]);
      expect([operation.operationId, typeof example]).toEqual([operation.operationId, "object"]);
    }
  }
  expect(count).toBeGreaterThan(100);
});

test("path parameters are declared, required, and stand in the path; the others are optional and named once", () => {
  for (const { name, path, own } of operations) {
    const parameters = listOf(own["parameters"]);
    const places = parameters.map((parameter) => `${parameter["in"]} ${parameter["name"]}`);
    expect(new Set(places).size).toBe(places.length);
    const in_path = [...path.matchAll(/\{(\w+)\}/g)].map(([, parameter]) => `path ${parameter}`);
    expect([name, ...places.filter((place) => place.startsWith("path "))]).toEqual([name, ...in_path]);
    for (const parameter of parameters) {
      expect([name, parameter["name"], parameter["required"]]).toEqual([
        name,
        parameter["name"],
        parameter["in"] === "path",
      ]);
      expect(["path", "query", "header"]).toContain(String(parameter["in"]));
      expect(isJson(parameter["schema"])).toBe(true);
    }
  }
});

test("bodies go in with POST and PUT only, and everything is JSON", () => {
  for (const { name, method, own } of operations) {
    const body = own["requestBody"];
    if (body !== undefined) expect([name, ["post", "put"].includes(method)]).toEqual([name, true]);
    if (isJson(body)) expect([name, typeof body["required"]]).toEqual([name, "boolean"]);
  }
  walk(doc.paths, (value, place) => {
    if (!isJson(value["content"])) return;
    expect([place, Object.keys(value["content"])]).toEqual([place, ["application/json"]]);
  });
});

test("its schemas speak OpenAPI 3.0: plain types, `nullable`, nothing of the tool that made them", () => {
  const known = new Set([
    ...[
      "type",
      "description",
      "example",
      "format",
      "pattern",
      "minLength",
      "maxLength",
      "minimum",
      "maximum",
      "enum",
      "default",
    ],
    ...[
      "items",
      "minItems",
      "maxItems",
      "properties",
      "required",
      "additionalProperties",
      "nullable",
      "readOnly",
      "$ref",
      "example",
    ],
  ]);
  const types = new Set(["object", "array", "string", "integer", "number", "boolean"]);
  let count = 0;
  const check = (schema: Json, place: string): void => {
    count += 1;
    if (!("$ref" in schema)) expect([place, types.has(String(schema["type"]))]).toEqual([place, true]);
    expect([place, Object.keys(schema).filter((name) => !known.has(name))]).toEqual([place, []]);
    const { properties, items, additionalProperties, required } = schema;
    if (isJson(properties))
      for (const [name, own] of Object.entries(properties)) check(own as Json, `${place}/${name}`);
    for (const name of listOf(required)) expect(isJson(properties) && String(name) in properties).toBe(true);
    if (schema["type"] === "array") check(items as Json, `${place}/items`);
    if (isJson(additionalProperties)) check(additionalProperties, `${place}/additionalProperties`);
    if (typeof schema["pattern"] === "string") expect(new RegExp(schema["pattern"], "u")).toBeDefined();
  };
  walk(doc, (value, place) => {
    if (isJson(value["schema"]) && !place.includes("/properties")) check(value["schema"], `${place}/schema`);
  });
  for (const [name, schema] of Object.entries((doc["components"] as Json)["schemas"] as Json))
    check(schema as Json, name);
  expect(count).toBeGreaterThan(100);
});

test("the docs page and everything it names comes from this server, with the right type", async () => {
  const types: Record<string, string> = {
    html: "text/html; charset=utf-8",
    js: "text/javascript; charset=utf-8",
    css: "text/css; charset=utf-8",
    json: "application/json; charset=utf-8",
  };
  for (const at of ["/v1/swagger/index.html", "/v1/swagger", "/v1/swagger/"]) {
    const page = await service.call("GET", at);
    expect([at, page.status, page.headers.get("content-type")]).toEqual([at, 200, types["html"]!]);
    expect(page.headers.get("content-security-policy")).toContain("default-src 'none'; script-src 'self'");
    expect(page.text).toContain("<title>PSQL Queue API</title>");
    const base = new URL(at, "http://localhost/");
    const names = [...page.text.matchAll(/(?:src|href)="([^"]*)"/g)].map(([, name]) => name ?? "");
    const files = names.filter((name) => !name.startsWith("data:")).map((name) => new URL(name, base));
    expect(files.length).toBeGreaterThanOrEqual(3);
    for (const file of files) {
      const answer = await service.call("GET", file.pathname);
      const type = types[file.pathname.split(".").at(-1) ?? ""];
      expect([file.host, file.pathname, answer.status, answer.headers.get("content-type")]).toEqual([
        "localhost",
        file.pathname,
        200,
        type!,
      ]);
      expect(answer.text.length).toBeGreaterThan(20);
    }
    const script_file = files.find(({ pathname }) => pathname.endsWith("start.js"));
    const script = await service.call("GET", script_file?.pathname ?? "");
    let document = "";
    const run = new Function("SwaggerUIBundle", "document", script.text);
    run(
      ({ url }: { url: string }) => {
        document = url;
      },
      { currentScript: { src: script_file?.href } },
    );
    const answer = await service.call("GET", new URL(document, base).pathname);
    expect([at, answer.status, answer.headers.get("content-type")]).toEqual([at, 200, types["json"]!]);
  }
});

test("nothing on the docs page makes a browser ask anybody else", async () => {
  const texts = ["index.html", "start.js", "swagger-ui.css"].map(
    async (name) => (await service.call("GET", `/v1/swagger/${name}`)).text,
  );
  const foreign = (await Promise.all(texts)).flatMap((text) => [
    ...text.matchAll(/(?:src|href|action)="(?:https?:)?\/\/[^"]*|url\(["']?(?:https?:)?\/\/[^)]*|@import[^;]*/g),
  ]);
  expect(foreign.map(([found]) => found)).toEqual([]);
});

test("the document is not there for other methods, and unknown files are unknown", async () => {
  expect((await service.call("POST", "/v1/swagger/doc.json", {})).status).toBe(405);
  for (const name of ["nothing.js", "../../package.json", "%2e%2e/index.html", "swagger-ui-bundle.js.map"]) {
    expect([name, (await service.call("GET", `/v1/swagger/${name}`)).status]).toEqual([name, 404]);
  }
});

test("an answer that is not as documented is a 500 where answers are checked, and nowhere else", async () => {
  const queue = await createQueue(service);
  const known = await service.broker.getQueue(queue);
  const { strict_leases: _, ...incomplete } = known;
  for (const answered of [incomplete, { ...known, secret: 1 }, { ...known, id: 7 }]) {
    const broker = { ...service.broker, getQueue: () => Promise.resolve(answered as typeof known) };
    const statusOf = async (checks_responses: boolean) => {
      const limits = { receive_limit_max: 10, wait_seconds_max: 20, body_bytes_max: 1000 };
      const app = createApp(broker, { ...limits, cors_origins: [], version: "test", checks_responses });
      return (await app.handle(new Request(`http://localhost/v1/queues/${queue}`))).status;
    };
    expect([await statusOf(true), await statusOf(false)]).toEqual([500, 200]);
  }
});
