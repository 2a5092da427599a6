// The files of the dashboard, as they are served: packed, named by their content, without a request to anybody else.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { brotliDecompressSync, gunzipSync } from "node:zlib";
import { startServer } from "../src/commands/server.ts";
import { readConfig } from "../src/config.ts";
import { dashboardRoutes } from "../src/dashboard/dashboard.ts";
import { migrateDatabase } from "../src/db/migrate.ts";
import { serviceForFile } from "./harness.ts";
import { sharedCluster } from "./postgres.ts";
import { refused } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ beside: [dashboardRoutes()], home: "/ui" });
const plain = await serviceForFile();

const ask = (path: string, headers: Record<string, string> = {}) =>
  service.app.handle(new Request(`http://localhost${path}`, { headers }));

/** The page of a view, and the files that it names. */
async function pageOf(path: string) {
  const response = await ask(path);
  const text = await response.text();
  const names = [...text.matchAll(/(?:src|href)="([^"]*)"/g)].map(([, name]) => name ?? "");
  const files = names
    .filter((name) => !name.startsWith("data:"))
    .map((name) => new URL(name, `http://localhost${path}`));
  return { response, text, files };
}

describe("the dashboard", () => {
  test("is one page for every view, whose files are found from wherever it is shown", async () => {
    const views = ["/ui", "/ui/", "/ui/queues/a.js", "/ui/queues/x/messages/01JZ", "/ui/topics", "/ui/a/b/c/d"];
    const named = new Set<string>();
    for (const view of views) {
      const { response, files } = await pageOf(view);
      expect([view, response.status, response.headers.get("content-type")]).toEqual([
        view,
        200,
        "text/html; charset=utf-8",
      ]);
      expect(files).toHaveLength(3);
      named.add(files.map(({ pathname }) => pathname).join());
    }
    expect([...named]).toEqual([
      expect.stringMatching(/^\/ui\/assets\/theme-\w+\.js,\/ui\/assets\/style-\w+\.css,\/ui\/assets\/main-\w+\.js$/),
    ]);
  });

  test("may run nothing inline, ask nobody else, and be framed by nobody", async () => {
    const { response, text } = await pageOf("/ui");
    const policy = response.headers.get("content-security-policy") ?? "";
    expect(policy).toContain("default-src 'none'; script-src 'self'; style-src 'self'");
    expect(policy).toContain("frame-ancestors 'none'; base-uri 'none'; form-action 'none'");
    expect(policy).not.toContain("unsafe");
    expect(text).not.toMatch(/<script(?![^>]*src=)|<style| on\w+=| style=/);
    expect(response.headers.get("x-content-type-options")).toBe("nosniff");
  });

  test("is asked for again only when it has changed: the page by its tag, its files never", async () => {
    const { response, files } = await pageOf("/ui/tasks");
    expect(response.headers.get("cache-control")).toBe("no-cache");
    const tag = response.headers.get("etag") ?? "";
    const again = await ask("/ui/tasks", { "if-none-match": tag });
    expect([again.status, await again.text(), again.headers.get("etag")]).toEqual([304, "", tag]);
    expect((await ask("/ui/tasks", { "if-none-match": 'W/"other"' })).status).toBe(200);
    for (const { pathname } of files) {
      const file = await ask(pathname);
      expect([file.status, file.headers.get("cache-control")]).toEqual([200, "public, max-age=31536000, immutable"]);
    }
  });

  test("is packed as the client takes it", async () => {
    const { files } = await pageOf("/ui");
    let bytes = 0;
    for (const { pathname } of files) {
      const codings = ["gzip, deflate, br, zstd", "gzip", "br;q=0, gzip", "identity", ""];
      const answers = await Promise.all(codings.map((coding) => ask(pathname, { "accept-encoding": coding })));
      expect(answers.map((answer) => answer.headers.get("content-encoding"))).toEqual([
        "br",
        "gzip",
        "gzip",
        null,
        null,
      ]);
      const [brotli, gzip, second, ...identity] = await Promise.all(answers.map((answer) => answer.bytes()));
      if (brotli === undefined || gzip === undefined) throw new Error("not answered");
      const text = brotliDecompressSync(brotli);
      for (const own of [gunzipSync(gzip), gunzipSync(second ?? gzip), ...identity]) {
        expect(text.equals(own)).toBe(true);
      }
      expect(answers[0]?.headers.get("content-length")).toBe(String(brotli.length));
      expect(answers[0]?.headers.get("vary")).toBe("accept-encoding");
      bytes += gzip.length;
    }
    expect(bytes).toBeWithin(10_000, 150_000);
  });

  test("may be come to by a link on another site; the API may not be asked so", async () => {
    const link = { "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document" };
    for (const page of ["/ui", "/ui/queues/x", "/v1/swagger/index.html", "/v1/swagger"]) {
      expect([page, (await ask(page, link)).status]).toEqual([page, 200]);
    }
    for (const path of ["/v1/queues", "/v1/queues/x/messages", "/v1/swagger/doc.json"]) {
      expect([path, (await ask(path, link)).status]).toEqual([path, 403]);
    }
  });

  test("has no other files, and is not there at all when it is switched off", async () => {
    const none = refused(23, "route not found");
    for (const name of ["nothing.js", "../dashboard.ts", "%2e%2e/package.json", "names.json"]) {
      const answer = await service.call("GET", `/ui/assets/${name}`);
      expect([name, answer.status === 404 || answer.text.includes('<div id="app">')]).toEqual([name, true]);
      expect(answer.text).not.toContain("import ");
    }
    expect(await service.call("GET", "/ui/assets/nothing.js")).toMatchObject({ status: 404, body: none });
    expect(await plain.call("GET", "/ui")).toMatchObject({ status: 404, body: none });
    const start = await plain.call("GET", "/", undefined, { accept: "text/html" });
    expect([start.status, start.headers.get("location")]).toEqual([302, "/v1/swagger/index.html"]);
  });

  test("is not served by a server that was told so, whose start leads to the documents", async () => {
    const settings = { PSQLQUEUE_SERVER_PORT: "0", PSQLQUEUE_METRICS_PORT: "0", PSQLQUEUE_SERVER_HOST: "127.0.0.1" };
    const lines: Record<string, unknown>[] = [];
    const database_url = await (await sharedCluster()).createDatabase();
    await migrateDatabase(database_url);
    const server = await startServer(
      readConfig({ ...settings, PSQLQUEUE_DATABASE_URL: database_url, PSQLQUEUE_UI: "off" }),
      (_, message, details) => lines.push({ message, ...details }),
    );
    const get = (path: string) =>
      fetch(`http://127.0.0.1:${server.port}${path}`, { redirect: "manual", headers: { accept: "text/html" } });
    expect([(await get("/ui")).status, (await get("/")).headers.get("location")]).toEqual([
      404,
      "/v1/swagger/index.html",
    ]);
    expect(lines.find(({ message }) => message === "http server starting")).not.toHaveProperty("ui");
    await server.stop();
  });

  test("and the page of the documents have the same header", async () => {
    const [docs, without] = [
      await service.call("GET", "/v1/swagger/index.html"),
      await plain.call("GET", "/v1/swagger/index.html"),
    ];
    for (const name of ["Queues", "Topics", "Tasks", "Keys"]) {
      expect([name, docs.text.includes(`>${name}</a>`), without.text.includes(`>${name}</a>`)]).toEqual([
        name,
        true,
        false,
      ]);
    }
    expect(without.text).toContain("psqlqueue");
  });
});
