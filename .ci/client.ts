// Makes client/dist, what is published of the client: bun .ci/client.ts
import { readdir, rm } from "node:fs/promises";
import path from "node:path";

const root = path.resolve(import.meta.dir, "..");
const dist = path.join(root, "client/dist");

await rm(dist, { recursive: true, force: true });
const compiler = Bun.spawn([path.join(root, "node_modules/.bin/tsc"), "-p", path.join(root, "client/tsconfig.json")], {
  stdout: "inherit",
});
if ((await compiler.exited) !== 0) process.exit(1);

// The compiler names the sources in declarations, and they are not published.
for (const name of await readdir(dist)) {
  if (!name.endsWith(".d.ts")) continue;
  const file = Bun.file(path.join(dist, name));
  await file.write((await file.text()).replaceAll(/((?:from |import\()"\.\/\w+)\.ts"/g, '$1.js"'));
}
