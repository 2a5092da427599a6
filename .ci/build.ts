// Makes the standalone binary: bun run build [--all]
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { copyFile, mkdir, readdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { bundleDashboard } from "../src/dashboard/bundle.ts";

const root = path.resolve(import.meta.dir, "..");
const dist = path.join(root, "dist");

const targets = [
  "linux-x64",
  "linux-arm64",
  "linux-x64-musl",
  "linux-arm64-musl",
  "darwin-x64",
  "darwin-arm64",
  "windows-x64",
] as const;

async function run(command: string[]): Promise<string> {
  const child = Bun.spawn(command, { cwd: root, stdout: "pipe", stderr: "inherit" });
  const output = await new Response(child.stdout).text();
  if ((await child.exited) !== 0) throw new Error(`failed: ${command.join(" ")}\n${output}`);
  return output;
}

async function commit(): Promise<string> {
  // A release from an archive has no history; whoever builds it names the commit.
  const named = process.env["PSQLQUEUE_COMMIT"];
  if (named) return named;
  return (await run(["git", "rev-parse", "--short=12", "HEAD"]).catch(() => "unknown")).trim();
}

/** One binary. Never minified: Elysia reads the source of handlers at run time, and minified source breaks it. */
async function build(outfile: string, target?: string): Promise<void> {
  await run([
    process.execPath,
    "build",
    "--compile",
    "--sourcemap",
    // Parsed at build time: half the time to the first answer. Without the format it breaks workers.
    "--bytecode",
    "--format=esm",
    // The working directory of a user is not ours to configure us from.
    "--no-compile-autoload-bunfig",
    "--no-compile-autoload-dotenv",
    "--define",
    'process.env.NODE_ENV="production"',
    "--define",
    `PSQLQUEUE_COMMIT=${JSON.stringify(await commit())}`,
    "--asset",
    "./dist/drizzle",
    "--asset",
    "./dist/docs",
    "--asset",
    "./dist/ui",
    ...(target === undefined ? [] : [`--target=bun-${target}`]),
    "src/main.ts",
    "src/db/embedded/worker.ts",
    "--outfile",
    outfile,
  ]);
}

/** The migrations as the migrator reads them: without the snapshots that only make new ones. */
async function packMigrations(): Promise<void> {
  const target = path.join(dist, "drizzle");
  await rm(target, { recursive: true, force: true });
  await mkdir(path.join(target, "meta"), { recursive: true });
  const names = (await readdir(path.join(root, "drizzle"))).filter((name) => name.endsWith(".sql"));
  for (const name of [...names, "meta/_journal.json"]) {
    await copyFile(path.join(root, "drizzle", name), path.join(target, name));
  }
}

/** Swagger UI's files as the server sends them: compressed they are a quarter. */
async function packDocs(): Promise<void> {
  await mkdir(path.join(dist, "docs"), { recursive: true });
  for (const name of ["swagger-ui-bundle.js", "swagger-ui.css"]) {
    const file = await Bun.file(path.join(root, "node_modules/swagger-ui-dist", name)).bytes();
    await writeFile(path.join(dist, "docs", `${name}.gz`), Bun.gzipSync(file, { level: 9 }));
  }
}

/** The dashboard's files, packed as the server sends them. */
async function packDashboard(): Promise<void> {
  const target = path.join(dist, "ui");
  await rm(target, { recursive: true, force: true });
  await mkdir(target, { recursive: true });
  const files = await bundleDashboard(true);
  for (const { name, gzip, brotli } of files) {
    await writeFile(path.join(target, `${name}.gz`), gzip);
    await writeFile(path.join(target, `${name}.br`), brotli);
  }
  await writeFile(path.join(target, "names.json"), JSON.stringify(files.map(({ name }) => name)));
}

async function sha256(file: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(file)) hash.update(chunk as Uint8Array);
  return hash.digest("hex");
}

async function buildAll(): Promise<void> {
  const names: string[] = [];
  for (const target of targets) {
    const name = `psqlqueue-${target}${target.startsWith("windows") ? ".exe" : ""}`;
    await build(path.join(dist, name), target);
    names.push(name);
    console.log(path.join("dist", name));
  }
  const sums = await Promise.all(names.map(async (name) => `${await sha256(path.join(dist, name))}  ${name}`));
  await writeFile(path.join(dist, "SHA256SUMS"), `${sums.join("\n")}\n`);
}

const options = Bun.argv.slice(2);
if (options.some((option) => option !== "--all")) {
  console.error("usage: bun run build [--all]");
  process.exit(2);
}
await packDocs();
await packDashboard();
await packMigrations();
if (options.includes("--all")) {
  await buildAll();
} else {
  const outfile = path.join(dist, process.platform === "win32" ? "psqlqueue.exe" : "psqlqueue");
  await rm(outfile, { force: true });
  await build(outfile);
  console.log(path.relative(root, outfile));
}
