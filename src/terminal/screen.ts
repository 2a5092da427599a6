import type { ReadStream, WriteStream } from "node:tty";

/** A terminal that is drawn on as a whole, and whose keys are heard one by one. */
export type Screen = {
  columns(): number;
  rows(): number;
  /** From here on it is ours: what was on it comes back with `close`. */
  open(): void;
  show(lines: readonly string[]): void;
  onKey(hear: (key: string) => void): void;
  onResize(hear: () => void): void;
  /** Repeatable, and fine without `open`. */
  close(): void;
};

const other_screen = "\u001b[?1049h\u001b[?25l";
const own_screen = "\u001b[?25h\u001b[?1049l";

/** The terminal of these streams. */
export function createScreen(input: ReadStream, output: WriteStream): Screen {
  let is_open = false;
  let onKey: ((key: string) => void) | undefined;
  let onResize: (() => void) | undefined;
  const hear = (bytes: Buffer) => {
    for (const key of bytes.toString("utf8")) onKey?.(key);
  };
  const resize = () => onResize?.();
  return {
    columns: () => output.columns || 80,
    rows: () => output.rows || 24,
    open() {
      is_open = true;
      output.write(other_screen);
      output.on("resize", resize);
      input.setRawMode(true);
      input.on("data", hear);
      input.resume();
    },
    show(lines) {
      if (!is_open) return;
      // Written over line by line: a screen that is emptied first flickers.
      output.write(`\u001b[H${lines.map((line) => `${line}\u001b[K`).join("\r\n")}\u001b[J`);
    },
    onKey(listener) {
      onKey = listener;
    },
    onResize(listener) {
      onResize = listener;
    },
    close() {
      if (!is_open) return;
      is_open = false;
      output.off("resize", resize);
      input.off("data", hear);
      input.setRawMode(false);
      input.pause();
      output.write(own_screen);
    },
  };
}
