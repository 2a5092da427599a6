import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { brotliDecompressSync } from "node:zlib";

/** Gzipped files by name. Only names of ours are asked for, so it does not grow. */
const packed = new Map<string, Uint8Array<ArrayBuffer>>();

/** In the binary from its build, in a checkout from its package when it is first asked for. */
function pack(name: string, source: string): Uint8Array<ArrayBuffer> {
  // The bundle lies at the root of the binary's files, whatever folder this module is in.
  if (Bun.isStandaloneExecutable) return new Uint8Array(readFileSync(path.join(import.meta.dir, "docs", `${name}.gz`)));
  return Bun.gzipSync(readFileSync(fileURLToPath(import.meta.resolve(source))));
}

const takes = (request: Request, coding: string) =>
  new RegExp(`\\b${coding}\\b(?!;\\s*q=0(\\.0*)?(,|$))`).test(request.headers.get("accept-encoding") ?? "");

/** A file of the page, gzipped when the client takes that. `source`: its package and path. */
export function packedAsset(request: Request, name: string, source: string) {
  const bytes = packed.get(name) ?? pack(name, source);
  packed.set(name, bytes);
  const takes_gzip = takes(request, "gzip");
  const headers: Record<string, string> = {
    vary: "accept-encoding",
    ...(takes_gzip && { "content-encoding": "gzip" }),
  };
  return { content: takes_gzip ? bytes : Bun.gunzipSync(bytes), headers };
}

/** A file as it is kept: packed twice, once for each coding that clients take. */
export type Twice = { type: string; gzip: Uint8Array<ArrayBuffer>; brotli: Uint8Array<ArrayBuffer> };

/**
 * The file as the client takes it best; 304 when the client has it. The tag names the content and not the coding: a
 * weak one.
 */
export function answerFile(request: Request, file: Twice, tag: string, headers: Record<string, string>): Response {
  const etag = `W/"${tag}"`;
  const shared = { ...headers, etag, vary: "accept-encoding" };
  const known = request.headers.get("if-none-match");
  if (known?.split(",").some((own) => own.trim() === etag || own.trim() === "*")) {
    return new Response(null, { status: 304, headers: shared });
  }
  const [coding, content] = takes(request, "br")
    ? ["br", file.brotli]
    : takes(request, "gzip")
      ? ["gzip", file.gzip]
      : [undefined, new Uint8Array(brotliDecompressSync(file.brotli))];
  return new Response(content, {
    headers: {
      ...shared,
      "content-type": file.type,
      "content-length": String(content.byteLength),
      ...(coding !== undefined && { "content-encoding": coding }),
    },
  });
}
