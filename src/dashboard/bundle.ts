import path from "node:path";
import { brotliCompressSync, constants } from "node:zlib";

const sources = path.join(import.meta.dir, "ui");

export type Bundled = { name: string; gzip: Uint8Array<ArrayBuffer>; brotli: Uint8Array<ArrayBuffer> };

/**
 * Makes the files of the page from their sources: a script, a small one that runs before anything is painted, and a
 * style sheet, each named by its content. For the build of the binary, and for a server that runs from a checkout.
 */
export async function bundleDashboard(is_final: boolean): Promise<Bundled[]> {
  const built = await Bun.build({
    entrypoints: ["main.tsx", "theme.ts", "style.css"].map((name) => path.join(sources, name)),
    target: "browser",
    minify: true,
    naming: "[name]-[hash].[ext]",
    define: { "process.env.NODE_ENV": '"production"' },
  });
  const quality = is_final ? constants.BROTLI_MAX_QUALITY : 5;
  return await Promise.all(
    built.outputs.map(async (output) => {
      const bytes = new Uint8Array(await output.arrayBuffer());
      const params = { [constants.BROTLI_PARAM_QUALITY]: quality };
      return {
        name: path.basename(output.path),
        gzip: Bun.gzipSync(bytes, { level: 9 }),
        brotli: new Uint8Array(brotliCompressSync(bytes, { params })),
      };
    }),
  );
}
