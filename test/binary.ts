import path from "node:path";

const root = path.resolve(import.meta.dir, "..");
let built: Promise<string> | undefined;

/** Builds the standalone binary, once per run, and answers its path. */
export function buildBinary(): Promise<string> {
  built ??= (async () => {
    const child = Bun.spawn([process.execPath, "run", "build"], { cwd: root, stdout: "ignore", stderr: "inherit" });
    if ((await child.exited) !== 0) throw new Error("bun run build failed");
    return path.join(root, "dist/psqlqueue");
  })();
  return built;
}
