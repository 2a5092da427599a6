import type postgres from "postgres";
import { type Counts, describeCounts, format, type Kind, kinds, noCounts, TransferError } from "./lines.ts";
import { prepareMessages, quoted } from "./storeMessages.ts";

const rows_max = 500;
const bytes_max = 4 * 1024 * 1024;

export type ImportOptions = {
  /** What is done about an id that is there already: it is never overwritten. */
  on_conflict: "skip" | "fail";
  /** For refusals: what is read. */
  source: string;
};

export type Imported = { imported: Counts; skipped: Counts };

type Line = { text: string; n: number; kind: Kind; id: string; of: string };

const sameness = ["created_at", "updated_at", "kind"];

function readLine(text: string, n: number, source: string): Line | "export" | "end" {
  const refuse = (what: string) => new TransferError(`${source}, line ${n}: ${what}`);
  let given: Record<string, unknown>;
  try {
    given = JSON.parse(text);
  } catch (error) {
    throw refuse(`no JSON (${(error as Error).message}); is it an export of psqlqueue, and whole?`);
  }
  const { kind, id, queue_id, topic_id } = given ?? {};
  if (kind === "export" || kind === "end") {
    if (kind === "export" && given["format"] !== format)
      throw refuse(
        `format ${JSON.stringify(given["format"])}, and this program reads ${format}: use a newer psqlqueue`,
      );
    return kind;
  }
  const known = kinds.find((own) => own === kind);
  if (known === undefined) throw refuse(`a line about ${JSON.stringify(kind)}; there are ${kinds.join(", ")}`);
  if (typeof id !== "string" || id === "") throw refuse(`a ${known} without an id`);
  const of = known === "message" ? queue_id : known === "subscription" ? topic_id : "";
  if (typeof of !== "string") throw refuse(`${known} ${id} does not say of which queue or topic it is`);
  return { text, n, kind: known, id, of };
}

async function columnsOf(client: postgres.Sql, table: string): Promise<string[]> {
  const rows = await client`
    select attribute.attname as name
    from pg_attribute as attribute
    where attribute.attrelid = ${`psqlqueue.${table}`}::text::regclass and attribute.attnum > 0 and not attribute.attisdropped
      and attribute.attgenerated = ''
    order by attribute.attnum`;
  return rows.map((row) => row["name"] as string);
}

/** Members that a line of ours has and this database has no column for would be lost. */
function checkMembers(line: Line, columns: readonly string[], others: string[], source: string): string[] {
  const names = Object.keys(JSON.parse(line.text));
  const unknown = names.find((name) => !columns.includes(name) && !others.includes(name) && name !== "kind");
  if (unknown !== undefined) {
    throw new TransferError(
      `${source}, line ${line.n}: ${line.kind} ${line.id} has ${JSON.stringify(unknown)}, which this version does not know: ` +
        "use the version that exported it, or a newer one",
    );
  }
  return names.filter((name) => columns.includes(name));
}

/** Two descriptions of the same thing, but for when it was made. */
function differences(given: Record<string, unknown>, present: Record<string, unknown>): string[] {
  const names = Object.keys(given).filter((name) => !sameness.includes(name));
  return names.filter((name) => !Bun.deepEquals(given[name] ?? null, present[name] ?? null));
}

type Table = { name: string; columns: string[] };

/**
 * Writes the lines of an export: definitions one by one, messages in statements of many, each committed by itself.
 * Repeatable with `skip`. Throws TransferError that says what was imported before; may run beside servers.
 */
export async function importLines(
  client: postgres.Sql,
  lines: AsyncIterable<string>,
  { on_conflict, source }: ImportOptions,
  onProgress: (imported: Counts) => void = () => {},
): Promise<Imported> {
  const imported = noCounts();
  const skipped = noCounts();
  const tables = new Map<Kind, Table>();
  for (const kind of kinds) {
    const name = `${kind}s`;
    tables.set(kind, { name, columns: await columnsOf(client, name) });
  }
  const tableOf = (kind: Kind) => tables.get(kind) as Table;

  async function define(line: Line): Promise<void> {
    const { name, columns } = tableOf(line.kind);
    const given = JSON.parse(line.text) as Record<string, unknown>;
    const links = { queue: "dead_queue_id", subscription: "queue_id", topic: "", message: "" }[line.kind];
    const own = checkMembers(line, columns, [links], source);
    const linked = line.kind === "queue" ? "dead_queue_no" : "queue_no";
    const target = links === "" ? null : (given[links] ?? null);
    const [link] = target === null ? [] : await client`select no from psqlqueue.queues where id = ${target as string}`;
    if (target !== null && link === undefined)
      throw new TransferError(
        `${source}, line ${line.n}: ${line.kind} ${line.id} needs queue ${target}, which does not exist`,
      );
    const linked_id = `(select queue.id from psqlqueue.queues as queue where queue.no = own.${linked})
      as ${links},`;
    const present = `
      select ${links === "" ? "" : linked_id} to_jsonb(own) as own
      from psqlqueue.${name} as own
      where own.id = $1`;
    const [before] = await client.unsafe(present, [line.id]);
    if (before !== undefined) {
      const differing = differences(given, { ...before["own"], [links]: before[links] });
      if (differing.length > 0 && on_conflict === "fail") {
        throw new TransferError(
          `${source}, line ${line.n}: ${line.kind} ${line.id} exists already, with another ${differing.join(", ")}; ` +
            "--on-conflict skip leaves it as it is",
        );
      }
      skipped[line.kind] += 1;
      return;
    }
    const names = [...own, ...(links === "" ? [] : [linked])].map(quoted).join(", ");
    const values = [...own.map((column) => `given.${quoted(column)}`), ...(links === "" ? [] : ["$2::int"])].join(", ");
    const insert = `insert into psqlqueue.${name} (${names})
      select ${values} from jsonb_populate_record(null::psqlqueue.${name}, $1::text::jsonb) as given`;
    const given_values = links === "" ? [line.text] : [line.text, (link?.["no"] as number | undefined) ?? null];
    // What is there already may not go together with it.
    await client.unsafe(insert, given_values).catch((cause: Error) => {
      throw new TransferError(`${source}, line ${line.n}: ${line.kind} ${line.id}: ${cause.message}`, { cause });
    });
    imported[line.kind] += 1;
  }

  const put = prepareMessages(tableOf("message").columns);
  async function store(batch: Line[]): Promise<void> {
    for (const line of batch) {
      checkMembers(line, tableOf("message").columns, ["queue_id", "state", "is_blocking"], source);
    }
    const stored = await client.begin(async (transaction) => {
      const rows = await put(transaction, batch);
      const missing = batch.filter(({ id, of }) => !rows.has(`${of}/${id}`));
      if (missing.length > 0) {
        const queues = await transaction`
          select id from psqlqueue.queues where id = any (${[...new Set(missing.map(({ of }) => of))]}::text[])`;
        const homeless = missing.find(({ of }) => !queues.some((queue) => queue["id"] === of));
        if (homeless !== undefined) {
          throw new TransferError(
            `${source}, line ${homeless.n}: message ${homeless.id} is of queue ${homeless.of}, which does not exist`,
          );
        }
        const [first] = missing;
        if (on_conflict === "fail") {
          throw new TransferError(
            `${source}, line ${first?.n}: queue ${first?.of} has message ${first?.id} already; ` +
              "--on-conflict skip leaves it as it is",
          );
        }
      }
      return rows.size;
    });
    imported.message += stored;
    skipped.message += batch.length - stored;
  }

  /** A statement that PostgreSQL refuses: line by line, to name the one. */
  async function storeOrName(batch: Line[]): Promise<void> {
    try {
      await store(batch);
    } catch (error) {
      if (error instanceof TransferError) throw error;
      const [first] = batch;
      if (batch.length === 1)
        throw new TransferError(
          `${source}, line ${first?.n}: ${first?.kind} ${first?.id}: ${(error as Error).message}`,
        );
      for (const line of batch) await storeOrName([line]);
    }
  }

  let batch: Line[] = [];
  let bytes = 0;
  const flush = async () => {
    if (batch.length > 0) await storeOrName(batch);
    batch = [];
    bytes = 0;
    onProgress(imported);
  };
  let n = 0;
  let state: "before" | "within" | "ended" = "before";
  try {
    for await (const text of lines) {
      n += 1;
      if (text === "") continue;
      const line = readLine(text, n, source);
      if ((state === "before") !== (line === "export"))
        throw new TransferError(`${source}, line ${n}: an export begins with its one line about itself`);
      if (state === "ended") throw new TransferError(`${source}, line ${n}: there is more after the end`);
      if (line === "export") state = "within";
      else if (line === "end") state = "ended";
      else if (line.kind === "message") {
        batch.push(line);
        bytes += text.length;
        if (batch.length >= rows_max || bytes >= bytes_max) await flush();
      } else await define(line);
    }
    await flush();
    if (state !== "ended") {
      throw new TransferError(
        state === "before" ? `${source} is empty` : `${source} is cut off after line ${n}: it has no last line`,
      );
    }
  } catch (error) {
    const done = describeCounts(imported);
    if (!(error instanceof TransferError) || done === "nothing") throw error;
    throw new TransferError(`${error.message}. Imported before that: ${done}; --on-conflict skip goes on from there`);
  }
  return { imported, skipped };
}
