import { record, table } from "./table.ts";

/** How a command prints. */
export type Output = {
  is_json: boolean;
  /** What was done. With JSON the value, if there is one. */
  done(sentence: string, value?: unknown): Promise<void>;
  /** One thing with its members. */
  record(value: object): Promise<void>;
  /** A whole list. As text an empty one says so on standard error: a pipe gets nothing. */
  rows(values: readonly object[], headings: readonly string[]): Promise<void>;
  /** One of a stream of things: `line` as text, the value as JSON. */
  item(line: string, value: unknown): Promise<void>;
  /** A text for another program, as it is. */
  text(content: string): Promise<void>;
  /** For people only, on standard error. */
  note(sentence: string): void;
};

type Streams = {
  is_json: boolean;
  is_quiet: boolean;
  /** Of the terminal, if there is one. */
  columns: number | undefined;
  /** Rejects when nobody reads any more. */
  write(text: string): Promise<void>;
  writeError(text: string): void;
};

/** Prints text, JSON, or nothing. */
export function createOutput({ is_json, is_quiet, columns, write, writeError }: Streams): Output {
  const lines = (own: readonly string[]) => write(own.map((line) => `${line}\n`).join(""));
  const json = (value: unknown) => write(`${JSON.stringify(value)}\n`);
  const memberOf = (value: object, name: string): unknown => (value as Record<string, unknown>)[name];
  return {
    is_json,
    async done(sentence, value) {
      if (is_quiet) return;
      if (!is_json) await lines([sentence]);
      else if (value !== undefined) await json(value);
    },
    async record(value) {
      if (!is_quiet) await (is_json ? json(value) : lines(record(value)));
    },
    async rows(values, headings) {
      if (is_quiet) return;
      if (is_json) return await json(values);
      if (values.length === 0) return writeError("none\n");
      const rows = values.map((value) => headings.map((name) => memberOf(value, name)));
      await lines(table(headings, rows, columns));
    },
    async item(line, value) {
      if (!is_quiet) await (is_json ? json(value) : lines([line]));
    },
    text: write,
    note(sentence) {
      if (!is_quiet) writeError(`${sentence}\n`);
    },
  };
}
