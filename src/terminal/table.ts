/** Text on a terminal: no character of it moves the cursor, or hides what follows. */
export const printable = (text: string): string =>
  text.replaceAll(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, (character) => {
    const short = { "\n": "\\n", "\r": "\\r", "\t": "\\t" }[character];
    return short ?? `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });

/** One cell: what is not there is a dash, what is no text is JSON. */
export function cell(value: unknown): string {
  if (value === null || value === undefined) return "-";
  if (typeof value === "string") return printable(value);
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  return printable(JSON.stringify(value));
}

const gap = "  ";

/** Cut to so many columns of the terminal. */
export function cut(text: string, columns: number): string {
  if (Bun.stringWidth(text) <= columns) return text;
  let kept = "";
  for (const character of text) {
    if (Bun.stringWidth(kept + character) >= columns) break;
    kept += character;
  }
  return `${kept}…`;
}

/**
 * Rows under their headings, each column as wide as its widest cell. Only the last column is cut, and only where the
 * width is given: somewhere else than on a terminal nothing may be lost.
 */
export function table(headings: readonly string[], rows: readonly (readonly unknown[])[], columns?: number): string[] {
  const cells = [headings, ...rows].map((row) => row.map(cell));
  const widths = headings.map((_, i) => Math.max(...cells.map((row) => Bun.stringWidth(row[i] ?? ""))));
  const is_number = headings.map((_, i) => rows.length > 0 && rows.every((row) => typeof row[i] === "number"));
  const pad = (text: string, i: number) => {
    const blanks = " ".repeat(Math.max(0, (widths[i] ?? 0) - Bun.stringWidth(text)));
    return is_number[i] ? blanks + text : text + blanks;
  };
  return cells.map((row) => {
    const line = row.map(pad).join(gap).trimEnd();
    return columns === undefined ? line : cut(line, columns);
  });
}

/** A record as lines of name and value. */
export function record(value: object): string[] {
  const entries = Object.entries(value).filter(([, own]) => own !== undefined);
  const width = Math.max(0, ...entries.map(([name]) => name.length));
  return entries.map(([name, own]) => `${name.padEnd(width)}${gap}${cell(own)}`.trimEnd());
}
