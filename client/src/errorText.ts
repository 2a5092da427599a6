/** What a server keeps of the reason of a nack. */
const error_bytes_max = 2048;

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/**
 * A text as a server takes it as the reason of a nack: no NUL, no half of a character, and no longer than is kept of
 * it.
 */
export function cleanError(text: string): string {
  // No character is shorter than a byte. Halves of characters, also one made here, become U+FFFD.
  const short = text.slice(0, error_bytes_max).replaceAll("\0", "\ufffd");
  const bytes = new Uint8Array(error_bytes_max);
  return decoder.decode(bytes.subarray(0, encoder.encodeInto(short, bytes).written));
}

/** The text of whatever was thrown. Never throws itself. */
export function textOf(error: unknown): string {
  try {
    return error instanceof Error ? String(error.message || error.name) : String(error);
  } catch {
    return "an error that has no text";
  }
}

/** The same options, with a reason that a server takes. */
export const withCleanError = <Options extends { error?: string | null | undefined }>(options: Options): Options =>
  typeof options.error === "string" ? { ...options, error: cleanError(options.error) } : options;
