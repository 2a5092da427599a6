/** What is gathered of pieces smaller than this goes into blocks, which double up to the maximum. */
const block_bytes_min = 4096;
const block_bytes_max = 262_144;

/**
 * Bytes that arrive in pieces of any size, kept in few buffers: a sender of single bytes costs little more than the
 * bytes.
 */
export class Gathered {
  length = 0;
  readonly #buffers: Uint8Array[] = [];
  /** The last of the buffers, where it has room for more; `#used` of it are. */
  #block: Buffer | undefined;
  #used = 0;

  /** The bytes are copied. */
  push(bytes: Uint8Array): void {
    this.length += bytes.length;
    // Most bodies are one piece.
    if (this.#buffers.length === 0 && this.#block === undefined) this.#buffers.push(Buffer.from(bytes));
    else this.#append(bytes);
  }

  /** All of it, in one piece. Nothing is kept. */
  take(): Uint8Array {
    this.#closeBlock();
    const [first] = this.#buffers;
    const bytes = this.#buffers.length === 1 && first !== undefined ? first : Buffer.concat(this.#buffers);
    this.clear();
    return bytes;
  }

  clear(): void {
    this.#buffers.length = 0;
    this.#block = undefined;
    this.#used = 0;
    this.length = 0;
  }

  #append(bytes: Uint8Array): void {
    let rest = bytes;
    while (rest.length > 0) {
      this.#block ??= Buffer.allocUnsafeSlow(Math.min(block_bytes_max, Math.max(block_bytes_min, this.length)));
      const part = rest.subarray(0, this.#block.length - this.#used);
      this.#block.set(part, this.#used);
      this.#used += part.length;
      if (this.#used === this.#block.length) this.#closeBlock();
      rest = rest.subarray(part.length);
    }
  }

  #closeBlock(): void {
    if (this.#block === undefined) return;
    this.#buffers.push(this.#block.subarray(0, this.#used));
    this.#block = undefined;
    this.#used = 0;
  }
}
