const bar_columns = 24;
const every_ms = 100;

/** How far something is, for people: one line on a terminal that is written over, else nothing. */
export type Progress = { show(done: number, total: number | undefined, more?: string): void; end(): void };

/** Draws on `write`, where that is a terminal. */
export function createProgress(is_terminal: boolean, write: (text: string) => void): Progress {
  let shown_ms = Number.NEGATIVE_INFINITY;
  let is_drawn = false;
  return {
    show(done, total, more = "") {
      const now_ms = performance.now();
      if (!is_terminal || (now_ms - shown_ms < every_ms && done !== total)) return;
      shown_ms = now_ms;
      is_drawn = true;
      const share = total === undefined || total === 0 ? undefined : Math.min(1, done / total);
      const full = Math.round((share ?? 0) * bar_columns);
      const bar = share === undefined ? "" : `[${"#".repeat(full)}${"-".repeat(bar_columns - full)}] `;
      write(`\r\u001b[K${bar}${done}${total === undefined ? "" : ` of ${total}`} ${more}`.trimEnd());
    },
    end() {
      if (is_drawn) write("\r\u001b[K");
      is_drawn = false;
    },
  };
}
