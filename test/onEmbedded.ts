import { beforeAll, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { embeddedTemplate } from "./harness.ts";

// The whole suite runs on both databases: the files that speak to a service run once more, in a process of their own,
// on the embedded one. Those that need a server of their own (to stop it, to race on it) say so by starting a cluster.
// What is about the wire, the client or the command line is the same on both.
const same_on_both = new Set(
  [
    ..."apply batchCosts batcher browsers cli client clientPackage clientTypes clients connection consume".split(" "),
    ..."consumeIdle docsPage follow log openapi openapiExact owaspSurface pages pipelining tls top".split(" "),
  ].map((name) => `${name}.test.ts`),
);
/** Another file does the same: the start of an embedded database takes longer than its tests, or the binary runs it. */
const brought_along = new Set(["sealingEntry.test.ts", "golden.test.ts"]);
const files = readdirSync(import.meta.dir)
  .toSorted()
  .filter((name) => {
    if (!name.endsWith(".test.ts") || same_on_both.has(name) || brought_along.has(name)) return false;
    const source = readFileSync(path.join(import.meta.dir, name), "utf8");
    return source.includes('from "./harness.ts"') && !/startCluster|sharedCluster|createMigratedDatabase/.test(source);
  });

/** Runs every file of which the place in the list is this one of so many, so that two can run at the same time. */
export function onEmbedded(part: number, parts: number): void {
  const own = files.filter((_, i) => i % parts === part);
  describe.if(process.env["PSQLQUEUE_TEST_STORE"] !== "embedded")("on the embedded database", () => {
    let template: string;
    beforeAll(async () => {
      template = await embeddedTemplate();
    }, 60_000);
    test.each(own)(
      "%s",
      async (name) => {
        const child = Bun.spawn([process.execPath, "test", `./test/${name}`], {
          cwd: path.resolve(import.meta.dir, ".."),
          env: { ...process.env, PSQLQUEUE_TEST_STORE: "embedded", PSQLQUEUE_TEST_TEMPLATE: template },
          stdout: "pipe",
          stderr: "pipe",
        });
        const output = await new Response(child.stderr).text();
        if ((await child.exited) !== 0) console.error(output);
        expect(child.exitCode).toBe(0);
      },
      180_000,
    );
  });
}
