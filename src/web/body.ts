import { BrokerError } from "../errors.ts";
import { isIncoming } from "./request.ts";

type Limited = Request & { body_bytes_max?: number };

/** Bytes that a body may have whose length was not announced: the gateway cannot refuse it, so its reader must. */
export function limitBody(request: Request, bytes_max: number): void {
  (request as Limited).body_bytes_max = bytes_max;
}

/** Reads a body of unknown length, refusing it as soon as it is too large. */
async function readChunked(request: Request, bytes_max: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let total = 0;
  for await (const chunk of request.body ?? []) {
    total += chunk.length;
    if (total > bytes_max) throw new BrokerError("payload_too_large", `at most ${bytes_max} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** The body's bytes. Throws `payload_too_large` as soon as there are too many. */
export async function readBody(request: Request): Promise<Uint8Array> {
  const bytes_max = (request as Limited).body_bytes_max;
  if (isIncoming(request)) return await request.read(bytes_max ?? Number.POSITIVE_INFINITY);
  // A length that was announced has been checked by the gateway.
  if (request.headers.has("content-length")) return await request.bytes();
  return await readChunked(request, bytes_max ?? 0);
}
