import { exportLines } from "../src/db/transfer/exporting.ts";
import { type Imported, importLines } from "../src/db/transfer/importing.ts";
import type { Service } from "./harness.ts";

/** What a service's database has, as an export; without `queue_ids` all of it. */
export async function exportText({ sql }: Service, queue_ids?: string[]): Promise<string> {
  let text = "";
  await exportLines(sql, { has_messages: true, queue_ids, version: "test" }, async (lines) => {
    text += lines;
  });
  return text;
}

/** Imports it beside what is there. */
export async function importText({ sql }: Service, text: string): Promise<Imported> {
  async function* lines() {
    yield* text.split("\n");
  }
  return await importLines(sql, lines(), { on_conflict: "skip", source: "test" });
}
