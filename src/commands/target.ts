import { closeSync, createWriteStream, existsSync, openSync, renameSync, rmSync } from "node:fs";
import { PassThrough, type Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGzip } from "node:zlib";
import { CommandError } from "./context.ts";

/** Where a command writes to. `discard` leaves nothing behind. */
export type Target = {
  write(chunk: string | Uint8Array): Promise<void>;
  /** Resolves when all is written, and on the disk. */
  close(): Promise<void>;
  discard(): void;
};

const writesTo = (out: Writable) => (chunk: string | Uint8Array) =>
  new Promise<void>((resolve, reject) => {
    out.write(chunk, (error) => (error ? reject(error) : resolve()));
  });

/** Is standard input, or output, meant? */
export const isStandard = (file: string | undefined): file is undefined | "-" => file === undefined || file === "-";

/**
 * Opens a file for what a command writes, `-` or nothing for standard output. It has its name only when it is whole.
 * Throws when it exists. `is_packed`: what is written is packed on the way.
 */
export function openTarget(file: string | undefined, { is_packed }: { is_packed: boolean }): Target {
  if (isStandard(file)) {
    return { write: writesTo(process.stdout), async close() {}, discard() {} };
  }
  if (existsSync(file)) throw new CommandError(`${file} exists already; move it away, or give another name`);
  const partial = `${file}.partial`;
  try {
    // Said now, and of the file: a stream fails at its first write, with words about streams.
    closeSync(openSync(partial, "w"));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new CommandError(
      `${file} cannot be written (${code}): name a file in a directory that is there and is yours`,
    );
  }
  const out: Writable = is_packed ? createGzip() : new PassThrough();
  const written = pipeline(out as PassThrough, createWriteStream(partial, { flush: true }));
  written.catch(() => {});
  return {
    write: writesTo(out),
    async close() {
      out.end();
      await written;
      renameSync(partial, file);
    },
    discard() {
      out.destroy();
      rmSync(partial, { force: true });
    },
  };
}
