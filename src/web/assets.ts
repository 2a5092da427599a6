import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

/** Gzipped files by name. Only names of ours are asked for, so it does not grow. */
const packed = new Map<string, Uint8Array<ArrayBuffer>>();

/** In the binary from its build, in a checkout from its package when it is first asked for. */
function pack(name: string, source: string): Uint8Array<ArrayBuffer> {
  // The bundle lies at the root of the binary's files, whatever folder this module is in.
  if (Bun.isStandaloneExecutable) return new Uint8Array(readFileSync(path.join(import.meta.dir, "docs", `${name}.gz`)));
  return Bun.gzipSync(readFileSync(fileURLToPath(import.meta.resolve(source))));
}

/** A file of the page, gzipped when the client takes that. `source`: its package and path. */
export function packedAsset(request: Request, name: string, source: string) {
  const bytes = packed.get(name) ?? pack(name, source);
  packed.set(name, bytes);
  const takes_gzip = /\bgzip\b/.test(request.headers.get("accept-encoding") ?? "");
  const headers: Record<string, string> = {
    vary: "accept-encoding",
    ...(takes_gzip && { "content-encoding": "gzip" }),
  };
  return { content: takes_gzip ? bytes : Bun.gunzipSync(bytes), headers };
}
