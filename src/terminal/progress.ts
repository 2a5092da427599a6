const bar_columns = 24;
const every_ms = 100;

/** How far something is, for people: one line on a terminal that is written over, else nothing. */
export type Progress = {
  /** `share`: from 0 to 1, where that is known. */
  show(share: number | undefined, text: string): void;
  end(): void;
};

/** Draws on `write`, where that is a terminal. */
function createProgress(is_terminal: boolean, write: (text: string) => void): Progress {
  let shown_ms = Number.NEGATIVE_INFINITY;
  let is_drawn = false;
  return {
    show(share, text) {
      const now_ms = performance.now();
      if (!is_terminal || now_ms - shown_ms < every_ms) return;
      shown_ms = now_ms;
      is_drawn = true;
      const full = Math.round(Math.min(1, share ?? 0) * bar_columns);
      const bar = share === undefined ? "" : `[${"#".repeat(full)}${"-".repeat(bar_columns - full)}] `;
      write(`\r\u001b[K${bar}${text}`);
    },
    end() {
      if (is_drawn) write("\r\u001b[K");
      is_drawn = false;
    },
  };
}

/** Draws on standard error, where that is a terminal. */
export const progressForPeople = (): Progress =>
  createProgress(process.stderr.isTTY === true, (text) => process.stderr.write(text));
