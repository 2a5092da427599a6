import { type AnyElysia, Elysia } from "elysia";
import { packedAsset } from "../web/assets.ts";

const title = "PSQL Queue API";

const page = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="swagger-ui.css">
</head>
<body>
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
  const { maxBytes, lowered, patternProperties, ...rest } = value;
  const options = Array.isArray(rest["anyOf"]) ? (rest["anyOf"] as Json[]) : undefined;
  const solid = options?.filter((option) => option["type"] !== "null");
  if (options !== undefined && solid?.length === 1 && solid.length < options.length) {
    const { anyOf, ...beside } = rest;
    return cleanSchema({ ...solid[0], ...beside, nullable: true });
  }
  const clean = Object.fromEntries(Object.entries(rest).map(([name, own]) => [name, cleanSchema(own)]));
  if (isJson(patternProperties)) clean["additionalProperties"] = cleanSchema(Object.values(patternProperties)[0]);
  if (clean["format"] === "text" || clean["format"] === "label" || clean["format"] === "ordering_key")
    delete clean["format"];
  if (clean["enum"] !== undefined) delete clean["pattern"];
  if (typeof maxBytes === "number") clean["maxLength"] = maxBytes;
  return clean;
}

/** What the plugin gets wrong: bodies under three content types, members of the query as it pleases, operation ids. */
function cleanOperation(operation: Json): Json {
  const body = operation["requestBody"];
  const parameters = Array.isArray(operation["parameters"]) ? (operation["parameters"] as Json[]) : [];
  const schema =
    isJson(body) && isJson(body["content"]) ? (Object.values(body["content"])[0] as Json)["schema"] : undefined;
  const is_optional = isJson(schema) && !Array.isArray(schema["required"]);
  return {
    ...operation,
    ...(parameters.length > 0 && {
      parameters: parameters.map((parameter) => ({
        ...parameter,
        required: parameter["in"] === "path",
        schema: cleanSchema(parameter["in"] === "path" ? { type: "string" } : parameter["schema"]),
      })),
    }),
    ...(schema !== undefined && {
      requestBody: { required: !is_optional, content: { "application/json": { schema: cleanSchema(schema) } } },
    }),
    responses: cleanSchema(operation["responses"]),
  };
}

const error_schema = {
  type: "object",
  required: ["code", "message"],
  properties: {
    code: { type: "integer", description: "What clients compare" },
    message: { type: "string" },
    details: { type: "string", description: "For people" },
  },
};

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
  return JSON.stringify({
    openapi: "3.0.3",
    info: {
      title,
      version,
      description:
        "A durable message queue over HTTP. Bodies are JSON whatever the content type says; timestamps are RFC 3339 in UTC.",
    },
    servers: [{ url: "/" }],
    paths: Object.fromEntries(paths),
    components: { schemas: { Error: error_schema } },
  });
}

/** `/v1/swagger`: the OpenAPI 3 document and a page that shows it, without a request to anywhere else. */
export function docsRoutes(resources: () => AnyElysia, version: string) {
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
      { detail: { hide: true } },
    )
    .get("/index.html", () => asset("text/html; charset=utf-8", page), { detail: { hide: true } })
    .get("/start.js", () => asset("text/javascript; charset=utf-8", start_script), { detail: { hide: true } })
    .get(
      "/swagger-ui-bundle.js",
      ({ request }) => file(request, "swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
      { detail: { hide: true } },
    )
    .get("/swagger-ui.css", ({ request }) => file(request, "swagger-ui.css", "text/css; charset=utf-8"), {
      detail: { hide: true },
    });
}
