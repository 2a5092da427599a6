import { readFileSync } from "node:fs";
import path from "node:path";
import { brotliCompressSync } from "node:zlib";
import { Elysia } from "elysia";
import { BrokerError } from "../errors.ts";
import { answerFile, type Twice } from "../web/assets.ts";
import { is_page } from "../web/gateway.ts";
import { type Bundled, bundleDashboard } from "./bundle.ts";

type Files = { assets: Map<string, Twice>; page(prefix: string): Twice & { tag: string } };

// Nothing on this page may come from elsewhere, run inline, or be shown in a frame of somebody else.
const page_headers = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
};

const types: Record<string, string> = {
  js: "text/javascript; charset=utf-8",
  css: "text/css; charset=utf-8",
};

/** `prefix` leads from the page that is shown to the directory of the dashboard. */
const markup = (prefix: string, names: string[]) => {
  const of = (start: string) => `${prefix}assets/${names.find((name) => name.startsWith(start))}`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>psqlqueue</title>
<link rel="icon" href="data:,">
<script src="${of("theme-")}"></script>
<link rel="stylesheet" href="${of("style-")}">
<script type="module" src="${of("main-")}"></script>
</head>
<body>
<div id="app"></div>
<noscript>This page needs JavaScript. The API and its documents do not.</noscript>
</body>
</html>
`;
};

/** In the binary from its build; in a checkout they are made when somebody first asks. */
async function bundled(): Promise<Bundled[]> {
  if (!Bun.isStandaloneExecutable) return await bundleDashboard(false);
  // The bundle lies at the root of the binary's files, whatever folder this module is in.
  const read = (name: string) => new Uint8Array(readFileSync(path.join(import.meta.dir, "ui", name)));
  const names = JSON.parse(new TextDecoder().decode(read("names.json"))) as string[];
  return names.map((name) => ({ name, gzip: read(`${name}.gz`), brotli: read(`${name}.br`) }));
}

async function loadFiles(): Promise<Files> {
  const all = await bundled();
  const names = all.map(({ name }) => name);
  const assets = new Map(
    all.map(({ name, ...own }) => [name, { ...own, type: types[name.split(".").at(-1) ?? ""] ?? "" }]),
  );
  return {
    assets,
    page(prefix) {
      const text = markup(prefix, names);
      return {
        type: "text/html; charset=utf-8",
        gzip: Bun.gzipSync(text),
        brotli: new Uint8Array(brotliCompressSync(text)),
        tag: Bun.hash(text).toString(36),
      };
    },
  };
}

/** From the page's path to `/ui/`, relative: the dashboard may be served below another path by a proxy. */
function prefixOf(url: string): string {
  const { pathname } = new URL(url);
  const below = pathname.split("/").slice(2);
  return below.length === 0 ? "ui/" : "../".repeat(below.length - 1);
}

/** `/ui`: one page for every view, and its files. Speaks only the public API. */
export function dashboardRoutes() {
  let loading: Promise<Files> | undefined;
  const load = (): Promise<Files> => {
    loading ??= loadFiles().catch((cause) => {
      loading = undefined;
      throw new Error("the dashboard could not be built", { cause });
    });
    return loading;
  };
  const page = async (request: Request) => {
    const { tag, ...file } = (await load()).page(prefixOf(request.url));
    return answerFile(request, file, tag, { ...page_headers, "cache-control": "no-cache" });
  };

  return new Elysia({ prefix: "/ui", normalize: false })
    .get("", ({ request }) => page(request), { detail: is_page })
    .get(
      "/assets/:name",
      async ({ request, params }) => {
        const file = (await load()).assets.get(params.name);
        if (file === undefined) throw new BrokerError("route_not_found");
        const headers = { ...page_headers, "cache-control": "public, max-age=31536000, immutable" };
        return answerFile(request, file, params.name, headers);
      },
      { detail: is_page },
    )
    .get("/*", ({ request }) => page(request), { detail: is_page });
}
