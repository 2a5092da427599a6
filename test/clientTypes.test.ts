import { expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { operationsText, shapesText } from "./clientTypes.ts";
import type { Document } from "./document.ts";
import { serviceForFile } from "./harness.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile();
const root = path.resolve(import.meta.dir, "..");
const doc = (await service.call("GET", "/v1/swagger/doc.json")).body as Document;

/** As the formatter leaves it. */
function formatted(name: string, text: string): string {
  const command = [process.execPath, "x", "biome", "format", `--stdin-file-path=client/src/${name}`];
  const { stdout, stderr, exitCode } = Bun.spawnSync(command, { cwd: root, stdin: Buffer.from(text) });
  if (exitCode !== 0) throw new Error(stderr.toString());
  return stdout.toString();
}

// UPDATE_CLIENT=1 writes them.
test.each([
  ["inputs.ts", shapesText(doc, true)],
  ["outputs.ts", shapesText(doc, false)],
  ["operations.ts", operationsText(doc)],
])("the client's %s is what the document says", (name, text) => {
  const file = path.join(root, "client/src", name);
  const wanted = formatted(name, text);
  if (process.env["UPDATE_CLIENT"] === "1") writeFileSync(file, wanted);
  expect(readFileSync(file, "utf8")).toBe(wanted);
});
