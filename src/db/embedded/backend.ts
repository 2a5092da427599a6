// One PostgreSQL backend in wasm, driven by wire protocol bytes.
//
// This drives PGlite's module directly instead of `execProtocolRaw`, which parses every answer once more, keeps all of
// them in a list that never empties, and swallows exceptions it does not know: after a panic it would go on, or spin
// for ever.
import type { PGlite } from "@electric-sql/pglite";

/** The most bytes one batch may answer; past it the batch fails and its connection is dropped. */
const result_bytes_max = 512 * 1024 * 1024;

const output_bytes_start = 64 * 1024;
// A larger buffer than this is not kept for the next answer.
const output_bytes_kept_max = 1024 * 1024;
/** What PGlite's C code throws where PostgreSQL would jump back into its main loop after an ERROR. */
const longjmp_status = 100;

type Module = {
  HEAPU8: Uint8Array;
  addFunction(callback: (pointer: number, length: number) => number, signature: string): number;
  stackSave(): number;
  stackRestore(pointer: number): void;
  _pgl_set_rw_cbs(read: number, write: number): void;
  _PostgresMainLoopOnce(): void;
  _PostgresMainLongJmp(): void;
  _PostgresSendReadyForQueryIfNecessary(): void;
  _pgl_pq_flush(): void;
  _pgl_sendConnData(): void;
  _pq_buffer_remaining_data(): number;
  _IsTransactionBlock(): number;
};

/**
 * PostgreSQL itself gave up (panic, exit, wasm trap). Nothing may be executed after it; the process has to start anew.
 */
export class BackendFailure extends Error {
  override name = "BackendFailure";
}

/** The answer of one batch was longer than `result_bytes_max`. What the batch did is done. */
export class ResultTooLarge extends Error {
  override name = "ResultTooLarge";
}

/** Executes protocol batches one after the other, blocking its thread. */
export type Backend = {
  /**
   * Executes complete frontend messages and returns all that PostgreSQL answers. The bytes belong to the caller until
   * the next call. Throws `BackendFailure`, `ResultTooLarge`.
   */
  exec(messages: Uint8Array): Uint8Array;
  /** The bytes a server sends after a successful authentication, up to and including the first ReadyForQuery. */
  greet(): Uint8Array;
  /** Gives the bytes of the last answer away for good, so that they stay valid while they wait for a slow reader. */
  detach(): void;
  is_in_transaction(): boolean;
};

// CopyFail. COPY FROM STDIN would have to read on in the middle of a batch, but bytes arrive on this very thread.
const copy_fail = frontendMessage("f", "COPY FROM STDIN is not supported by the embedded database");

function frontendMessage(type: string, text: string): Uint8Array {
  const message = Buffer.alloc(1 + 4 + Buffer.byteLength(text) + 1);
  message.write(type, 0, "latin1");
  message.writeInt32BE(message.length - 1, 1);
  message.write(text, 5);
  return message;
}

/**
 * Takes over the backend of an opened PGlite. From then on PGlite's own query functions must not be used, except
 * `close`.
 */
export function takeBackend(pg: PGlite): Backend {
  const module = pg.Module as unknown as Module;
  let input: Uint8Array = new Uint8Array(0);
  let input_offset = 0;
  let output = new Uint8Array(output_bytes_start);
  let output_bytes = 0;
  let is_overflowing = false;
  let failure: BackendFailure | null = null;

  function read(pointer: number, length_max: number): number {
    if (input_offset === input.length) {
      input = copy_fail;
      input_offset = 0;
    }
    const part = input.subarray(input_offset, input_offset + length_max);
    module.HEAPU8.set(part, pointer);
    input_offset += part.length;
    return part.length;
  }

  function write(pointer: number, length: number): number {
    const needed = output_bytes + length;
    if (is_overflowing || needed > result_bytes_max) {
      // PostgreSQL has to believe that it was sent: it cannot be interrupted in here.
      is_overflowing = true;
      return length;
    }
    if (needed > output.length) {
      const larger = new Uint8Array(Math.max(needed, Math.min(output.length * 2, result_bytes_max)));
      larger.set(output.subarray(0, output_bytes));
      output = larger;
    }
    output.set(module.HEAPU8.subarray(pointer, pointer + length), output_bytes);
    output_bytes = needed;
    return length;
  }

  function begin(): void {
    if (failure !== null) throw failure;
    if (output.length > output_bytes_kept_max) output = new Uint8Array(output_bytes_start);
    output_bytes = 0;
    is_overflowing = false;
  }

  function runOnce(): void {
    const stack = module.stackSave();
    try {
      module._PostgresMainLoopOnce();
    } catch (cause) {
      module.stackRestore(stack);
      if ((cause as { status?: unknown }).status !== longjmp_status) throw cause;
      module._PostgresMainLongJmp();
    }
  }

  function guard(run: () => void): Uint8Array {
    begin();
    try {
      run();
      module._pgl_pq_flush();
    } catch (cause) {
      failure = new BackendFailure("the embedded PostgreSQL stopped", { cause });
      throw failure;
    }
    if (is_overflowing) throw new ResultTooLarge(`the result is larger than ${result_bytes_max} bytes`);
    return output.subarray(0, output_bytes);
  }

  module._pgl_set_rw_cbs(module.addFunction(read, "ipi"), module.addFunction(write, "ipi"));
  return {
    exec: (messages) =>
      guard(() => {
        input = messages;
        input_offset = 0;
        while (input_offset < input.length || module._pq_buffer_remaining_data() > 0) runOnce();
        module._PostgresSendReadyForQueryIfNecessary();
        input = copy_fail.subarray(0, 0);
      }),
    greet: () => guard(() => module._pgl_sendConnData()),
    detach() {
      output = new Uint8Array(output_bytes_start);
    },
    is_in_transaction: () => module._IsTransactionBlock() !== 0,
  };
}
