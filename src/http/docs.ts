import { type AnyElysia, Elysia } from "elysia";
import { packedAsset } from "../web/assets.ts";
import { is_page } from "../web/gateway.ts";
import header_css from "../web/header.css" with { type: "text" };
import { headerMarkup } from "../web/header.ts";
import { type RequestHeader, request_headers } from "./headers.ts";

const title = "PSQL Queue API";

const pageOf = (home: string | undefined) => `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title>
<link rel="icon" href="data:,">
<script src="swagger-theme.js"></script>
<link rel="stylesheet" href="swagger-ui.css">
<link rel="stylesheet" href="swagger-header.css">
</head>
<body>
${headerMarkup(home)}
<div id="swagger-ui"></div>
<script src="swagger-ui-bundle.js"></script>
<script src="start.js"></script>
</body>
</html>
`;

// The document lies beside the script, wherever the page is shown from.
const start_script = `const url = new URL("doc.json", document.currentScript.src).href;
SwaggerUIBundle({ url, dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null });
`;

// Before anything is painted: Swagger UI knows dark only by this class, and the dashboard keeps what was chosen there.
const theme_script = `const chosen = localStorage.getItem("psqlqueue.theme");
const is_dark = chosen === "dark" || (chosen !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
document.documentElement.dataset.theme = is_dark ? "dark" : "light";
document.documentElement.classList.toggle("dark-mode", is_dark);
`;

// Nothing on this page may come from elsewhere. Swagger UI sets styles inline and draws its arrows from data URLs.
const page_headers = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
    "font-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
};

type Json = { [name: string]: unknown };

const isJson = (value: unknown): value is Json => typeof value === "object" && value !== null && !Array.isArray(value);

/** TypeBox's schema as OpenAPI 3.0 knows it: `nullable` instead of a union with null, none of our own words. */
function cleanSchema(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(cleanSchema);
  if (!isJson(value)) return value;
  const { maxBytes, lowered, patternProperties, optionalBody, ...rest } = value;
  // What is above is taken as the maximum.
  if (lowered === true) delete rest["maximum"];
  const options = Array.isArray(rest["anyOf"]) ? (rest["anyOf"] as Json[]) : undefined;
  const solid = options?.filter((option) => option["type"] !== "null");
  if (options !== undefined && solid?.length === 1 && solid.length < options.length) {
    const { anyOf, ...beside } = rest;
    // Not the named schema any more: in OpenAPI 3.0 nothing stands beside a reference.
    const { title, ...own } = solid[0] ?? {};
    return cleanSchema({ ...own, ...beside, nullable: true });
  }
  const clean = Object.fromEntries(Object.entries(rest).map(([name, own]) => [name, cleanSchema(own)]));
  if (isJson(patternProperties)) clean["additionalProperties"] = cleanSchema(Object.values(patternProperties)[0]);
  if (clean["format"] === "text" || clean["format"] === "label" || clean["format"] === "ordering_key") {
    delete clean["format"];
    clean["pattern"] = Number(clean["minLength"] ?? 0) > 0 ? text_pattern.replace("*", "+") : text_pattern;
  }
  if (clean["enum"] !== undefined) delete clean["pattern"];
  if (typeof maxBytes === "number") clean["maxLength"] = maxBytes;
  return clean;
}

/** What JSON can say and a text cannot hold: NUL, and halves of characters. */
const text_pattern = "^[^\\u0000\\ud800-\\udfff]*$";

/** What a member holds; in what knows all its members, a null is refused. */
const nullableWithin = (schema: unknown): unknown =>
  isJson(schema) && schema["additionalProperties"] === false ? schema : nullableMembers(schema);

/** A member that is null is as if it were not there. */
function nullableMembers(schema: unknown): unknown {
  if (!isJson(schema) || !isJson(schema["properties"])) return schema;
  const required = Array.isArray(schema["required"]) ? schema["required"] : [];
  const properties = Object.entries(schema["properties"]).map(([name, own]) => {
    if (!isJson(own)) return [name, own];
    const inner = isJson(own["items"]) ? { ...own, items: nullableWithin(own["items"]) } : nullableWithin(own);
    return [name, required.includes(name) ? inner : { ...(inner as Json), nullable: true }];
  });
  return { ...schema, properties: Object.fromEntries(properties) };
}

/** The names of a first walk: create, publish, receive, ack. */
const path_examples: Record<string, string> = {
  queue_id: "my-first-queue",
  topic_id: "my-first-topic",
  subscription_id: "my-first-subscription",
};

type Notes = { takes?: RequestHeader[]; example?: unknown };

const headerParameter = (name: RequestHeader): Json => ({
  name,
  in: "header",
  required: false,
  ...request_headers[name],
});

/** What the plugin gets wrong: bodies under three content types, members of the query as it pleases. */
function cleanOperation(operation: Json): Json {
  const body = operation["requestBody"];
  const parameters = Array.isArray(operation["parameters"]) ? (operation["parameters"] as Json[]) : [];
  const schema =
    isJson(body) && isJson(body["content"]) ? (Object.values(body["content"])[0] as Json)["schema"] : undefined;
  const is_optional = isJson(schema) && schema["optionalBody"] === true;
  const { "x-notes": notes, ...described } = operation;
  const { takes = [], example } = (notes ?? {}) as Notes;
  const own_schema = nullableMembers(cleanSchema(schema)) as Json | undefined;
  return {
    ...described,
    parameters: [
      ...parameters.map((parameter) => ({
        ...parameter,
        required: parameter["in"] === "path",
        schema: cleanSchema(parameter["in"] === "path" ? { type: "string" } : parameter["schema"]),
        ...(parameter["in"] === "path" && { example: path_examples[String(parameter["name"])] }),
      })),
      ...[...takes, "X-Request-Id" as const].map(headerParameter),
    ],
    ...(schema !== undefined && {
      requestBody: {
        required: !is_optional,
        content: { "application/json": { schema: own_schema, example: example ?? own_schema?.["example"] ?? {} } },
      },
    }),
    responses: cleanSchema(operation["responses"]),
  };
}

const error_schema = {
  type: "object",
  description: "Of every refusal; each operation names the codes of its own",
  required: ["code", "message"],
  properties: {
    code: { type: "integer", description: "What clients compare" },
    message: { type: "string" },
    details: { type: "string", description: "For people" },
  },
  example: { code: 5, message: "queue not found" },
};

/** Puts every schema with a title into `components`, and a reference in its place. */
function nameSchemas(value: unknown, components: Json): unknown {
  if (Array.isArray(value)) return value.map((item) => nameSchemas(item, components));
  if (!isJson(value)) return value;
  const own = Object.fromEntries(Object.entries(value).map(([name, item]) => [name, nameSchemas(item, components)]));
  const { title: name, ...schema } = own;
  if (typeof name !== "string") return own;
  const known = components[name];
  if (known !== undefined && JSON.stringify(known) !== JSON.stringify(schema)) {
    throw new Error(`two schemas of the document are called ${name}`);
  }
  components[name] = schema;
  return { $ref: `#/components/schemas/${name}` };
}

async function buildDocument(resources: AnyElysia, version: string): Promise<string> {
  // Only now: the plugin takes longer to load than the rest of a request.
  const { swagger } = await import("@elysiajs/swagger");
  const app = new Elysia()
    .use(swagger({ path: "/page", specPath: "/raw", documentation: { info: { title, version } } }))
    .use(resources);
  const raw = (await (await app.handle(new Request("http://localhost/raw"))).json()) as Json;
  const paths = Object.entries(raw["paths"] as Json).map(([path, item]) => {
    const operations = Object.entries(item as Json).map(([method, own]) => [method, cleanOperation(own as Json)]);
    return [path.length > 1 ? path.replace(/\/$/, "") : path, Object.fromEntries(operations)];
  });
  const components: Json = {};
  const named = nameSchemas(Object.fromEntries(paths), components);
  const schemas = Object.entries({ ...components, Error: error_schema }).sort(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify({
    openapi: "3.0.3",
    info: {
      title,
      version,
      description:
        "A durable message queue over HTTP. Bodies are JSON whatever the content type says; timestamps are RFC 3339 in " +
        "UTC. What a schema cannot say: message_max_deliveries and dead_queue_id of a new queue go together, as one of " +
        "delay_seconds and deliver_at, and one of ttl_seconds and expires_at does; retry_policy.max_seconds is not below " +
        "min_seconds; times are judged by the database's clock; a label has at most 255 bytes; names of attributes hold " +
        "neither NUL nor halves of characters; an empty number in a query is 0.",
    },
    servers: [{ url: "/" }],
    paths: named,
    components: { schemas: Object.fromEntries(schemas) },
  });
}

/** `/v1/swagger`: the OpenAPI 3 document and a page that shows it, without a request to anywhere else. */
export function docsRoutes(
  resources: () => AnyElysia,
  { version, home }: { version: string; home?: string | undefined },
) {
  const page = pageOf(home);
  // Made when somebody first asks: most servers never show it.
  let document: Promise<string> | undefined;
  const asset = (type: string, content: string | Uint8Array<ArrayBuffer>, headers?: Record<string, string>) =>
    new Response(content, { headers: { ...page_headers, "content-type": type, ...headers } });
  const file = (request: Request, name: string, type: string) => {
    const { content, headers } = packedAsset(request, name, `swagger-ui-dist/${name}`);
    return asset(type, content, headers);
  };

  return new Elysia({ prefix: "/v1/swagger", normalize: false })
    .get(
      "/doc.json",
      async () => {
        document ??= buildDocument(resources(), version);
        return asset("application/json; charset=utf-8", await document);
      },
      { detail: { hide: true } },
    )
    .get(
      "",
      ({ request }) => {
        // Relative to `/v1/swagger` the files are one step further down than to `/v1/swagger/`.
        const below = new URL(request.url).pathname.endsWith("/") ? "" : "swagger/";
        return asset("text/html; charset=utf-8", page.replaceAll(/(href|src)="(swagger|start)/g, `$1="${below}$2`));
      },
      { detail: is_page },
    )
    .get("/index.html", () => asset("text/html; charset=utf-8", page), { detail: is_page })
    .get("/start.js", () => asset("text/javascript; charset=utf-8", start_script), { detail: { hide: true } })
    .get(
      "/swagger-ui-bundle.js",
      ({ request }) => file(request, "swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
      { detail: { hide: true } },
    )
    .get("/swagger-theme.js", () => asset("text/javascript; charset=utf-8", theme_script), { detail: { hide: true } })
    .get("/swagger-header.css", () => asset("text/css; charset=utf-8", header_css), { detail: { hide: true } })
    .get("/swagger-ui.css", ({ request }) => file(request, "swagger-ui.css", "text/css; charset=utf-8"), {
      detail: { hide: true },
    });
}
