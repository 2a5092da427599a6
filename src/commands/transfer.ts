import { createReadStream, existsSync } from "node:fs";
import path from "node:path";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip } from "node:zlib";
import { holdsCluster } from "../db/embedded/layout.ts";
import { checkMigrated, connectOnce, migrateDatabase } from "../db/migrate.ts";
import { exportLines } from "../db/transfer/exporting.ts";
import { importLines } from "../db/transfer/importing.ts";
import { type Counts, describeCounts } from "../db/transfer/lines.ts";
import { progressForPeople } from "../terminal/progress.ts";
import { version } from "../version.ts";
import { CommandError, type Context, type Runner } from "./context.ts";
import { readOwnSettings } from "./ownSettings.ts";
import { openStore } from "./store.ts";
import { isStandard, openTarget } from "./target.ts";

// They work on the database of the settings and not through a server: what is moved keeps its ids, attempts and times.

type Connection = Awaited<ReturnType<typeof connectOnce>>;

async function onDatabase<Result>(is_written: boolean, work: (client: Connection) => Promise<Result>): Promise<Result> {
  const config = readOwnSettings();
  const data_dir = path.resolve(config.PSQLQUEUE_DATA_DIR);
  if (config.database_url === "" && !is_written && !holdsCluster(data_dir)) {
    throw new CommandError(
      `there is no database: PSQLQUEUE_DATABASE_URL is not set, and ${data_dir} holds none; set it, or PSQLQUEUE_DATA_DIR`,
    );
  }
  const store = await openStore(config);
  try {
    if (store.is_embedded) await migrateDatabase(store.server);
    else await checkMigrated(store.server);
    const client = await connectOnce(store.server);
    try {
      return await work(client);
    } finally {
      await client.end({ timeout: 5 });
    }
  } finally {
    await store.close();
  }
}

const isPacked = (file: string) => file.endsWith(".gz");

type ExportOptions = { file?: string; messages?: boolean; queue?: string };

/** `export` */
export const exporting: Runner = {
  async run({ out: output, signals }: Context, _: string[], { file, messages = false, queue }: ExportOptions) {
    const { stopping } = signals();
    const target = openTarget(file, { is_packed: file !== undefined && isPacked(file) });
    const progress = progressForPeople();
    try {
      const counts = await onDatabase(false, (client) =>
        exportLines(
          client,
          { has_messages: messages, queue_ids: queue?.split(",").map((id) => id.trim()), version },
          async (text, so_far) => {
            stopping.throwIfAborted();
            progress.show(undefined, describeCounts(so_far));
            await target.write(text);
          },
        ),
      );
      await target.close();
      progress.end();
      output.note(`exported ${describeCounts(counts)}`);
    } catch (error) {
      progress.end();
      target.discard();
      throw error;
    }
    return 0;
  },
};

/** Ends of lines are `\n` and nothing else: other ends of lines may be in a text. */
async function* linesOf(source: Readable): AsyncIterable<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let parts: string[] = [];
  for await (const chunk of source) {
    const text = decoder.decode(chunk, { stream: true });
    let from = 0;
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n", from)) {
      parts.push(text.slice(from, end));
      yield parts.join("");
      parts = [];
      from = end + 1;
    }
    parts.push(text.slice(from));
  }
  const rest = parts.join("") + decoder.decode();
  if (rest !== "") yield rest;
}

function openSource(file: string | undefined): Readable {
  if (isStandard(file)) return process.stdin;
  if (!existsSync(file)) throw new CommandError(`${file} does not exist`, 2);
  const source = createReadStream(file);
  if (!isPacked(file)) return source;
  const unpacked = createGunzip();
  pipeline(source, unpacked).catch((error) => unpacked.destroy(error));
  return unpacked;
}

type ImportOptions = { file?: string; on_conflict?: "skip" | "fail" };

/** `import` */
export const importing: Runner = {
  async run({ out: output, signals }: Context, _: string[], { file, on_conflict = "fail" }: ImportOptions) {
    const { stopping } = signals();
    const lines = linesOf(openSource(file));
    const progress = progressForPeople();
    const source = isStandard(file) ? "standard input" : file;
    const onProgress = (counts: Counts) => {
      stopping.throwIfAborted();
      progress.show(undefined, describeCounts(counts));
    };
    try {
      const { imported, skipped } = await onDatabase(true, (client) =>
        importLines(client, lines, { on_conflict, source }, onProgress),
      );
      progress.end();
      const left = describeCounts(skipped);
      const rest = left === "nothing" ? "" : `; left as they are: ${left}`;
      await output.done(`imported ${describeCounts(imported)}${rest}`, { imported, skipped });
    } finally {
      progress.end();
    }
    return 0;
  },
};
