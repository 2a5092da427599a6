import type postgres from "postgres";
import { MigrationError } from "../errors.ts";
import type { DatabaseServer } from "./hosts.ts";
import { connectOnce } from "./migrate.ts";

// What is carried, parents first. Rows of a table are read in pages along its key.
const tables = [
  { name: "queues", key: ["no"] },
  { name: "topics", key: ["id"] },
  { name: "subscriptions", key: ["id"] },
  { name: "messages", key: ["queue_no", "id"] },
  { name: "ordering_keys", key: ["queue_no", "ordering_group"] },
  { name: "stale_keys", key: ["seq"] },
  { name: "archived_messages", key: ["queue_no", "id"] },
  { name: "deduplications", key: ["queue_no", "key"] },
  { name: "topic_deduplications", key: ["topic_id", "key"] },
  { name: "outbox", key: ["seq"] },
  { name: "tasks", key: ["id"] },
];
const page_rows = 500;
/** A page ends early at this many bytes; one row may be larger. */
const page_bytes = 4 * 1024 * 1024;

type Column = { name: string; type: string };
type Row = Record<string, string | null>;

const quoted = (name: string) => `"${name.replaceAll('"', '""')}"`;

async function columnsOf(sql: postgres.ISql, table: string): Promise<Column[]> {
  const rows = await sql`
    select attribute.attname as name, format_type(attribute.atttypid, attribute.atttypmod) as type
    from pg_attribute as attribute
    where attribute.attrelid = ${`psqlqueue.${table}`}::text::regclass and attribute.attnum > 0 and not attribute.attisdropped
      and attribute.attgenerated = ''
    order by attribute.attnum`;
  return rows.map((row) => ({ name: row["name"] as string, type: row["type"] as string }));
}

/** One page of rows after `after`, every value as PostgreSQL's text. */
async function readPage(source: postgres.Sql, table: string, key: string[], columns: Column[], after: Row | undefined) {
  const from = key.map((name) => `from_row.${quoted(name)}`).join(", ");
  const typeOf = (name: string) => columns.find((column) => column.name === name)?.type ?? "text";
  const start =
    after === undefined ? "" : `where (${from}) > (${key.map((name, i) => `$${i + 1}::text::${typeOf(name)}`)})`;
  // A queue that is being deleted has no row any more; its messages stay behind.
  const is_owned = key[0] === "queue_no" ? "join psqlqueue.queues as queue on queue.no = from_row.queue_no" : "";
  const size = columns.some((column) => column.name === "body") ? "octet_length(from_row.body)" : "0";
  const text = `
    select ${columns.map(({ name }) => `page.${quoted(name)}::text as ${quoted(name)}`).join(", ")}
    from (
      select from_row.*, sum(${size}) over (order by ${from}) - ${size} as bytes_before
      from psqlqueue.${quoted(table)} as from_row ${is_owned} ${start}
      order by ${from}
      limit ${page_rows}
    ) as page
    where page.bytes_before < ${page_bytes}
    order by ${key.map((name) => `page.${quoted(name)}`).join(", ")}`;
  const values = after === undefined ? [] : key.map((name) => after[name] ?? null);
  return (await source.unsafe(text, values)) as unknown as Row[];
}

async function writePage(
  target: postgres.TransactionSql,
  table: string,
  columns: Column[],
  rows: Row[],
): Promise<void> {
  const names = columns.map(({ name }) => quoted(name));
  const text = `
    insert into psqlqueue.${quoted(table)} (${names.join(", ")}) overriding system value
    select ${columns.map(({ name, type }) => `given.${quoted(name)}::${type}`).join(", ")}
    from unnest(${columns.map((_, i) => `$${i + 1}::text[]`).join(", ")}) as given (${names.join(", ")})`;
  await target.unsafe(
    text,
    columns.map(({ name }) => rows.map((row) => row[name] ?? null)),
  );
}

/**
 * Copies everything from one database at this program's version to another, in one transaction: queues, topics,
 * subscriptions, messages with their state, the archive. Answers the number of rows by table. Throws MigrationError,
 * with nothing changed, unless the target holds no queue and no topic. The source is only read.
 */
export async function carryOver(from: DatabaseServer, to: DatabaseServer): Promise<Record<string, number>> {
  const source = await connectOnce(from);
  const target = await connectOnce(to).catch(async (error) => {
    await source.end({ timeout: 5 });
    throw error;
  });
  try {
    return await target.begin(async (transaction) => {
      await transaction`lock table psqlqueue.queues, psqlqueue.topics in exclusive mode`;
      const [found] = await transaction`
        select (select count(*) from psqlqueue.queues)::int as queues, (select count(*) from psqlqueue.topics)::int as topics`;
      if (found?.["queues"] !== 0 || found?.["topics"] !== 0) {
        throw new MigrationError(
          `the target database holds ${found?.["queues"]} queues and ${found?.["topics"]} topics already: carry over into an ` +
            "empty one, or delete them first; nothing has been changed",
        );
      }
      // A queue may come before its dead-letter queue.
      const constraint = "alter table psqlqueue.queues alter constraint queues_dead_queue_no_queues_no_fk";
      await transaction.unsafe(`${constraint} deferrable initially deferred`);
      const counts: Record<string, number> = {};
      for (const { name, key } of tables) counts[name] = await carryTable(source, transaction, name, key);
      await transaction`set constraints all immediate`;
      await transaction.unsafe(`${constraint} not deferrable`);
      await transaction`
        select setval(pg_get_serial_sequence('psqlqueue.queues', 'no'), greatest(1, max(no)), max(no) is not null)
        from psqlqueue.queues`;
      await transaction`
        select setval(pg_get_serial_sequence('psqlqueue.outbox', 'seq'), greatest(1, max(seq)), max(seq) is not null)
        from psqlqueue.outbox`;
      await transaction`
        select setval(pg_get_serial_sequence('psqlqueue.stale_keys', 'seq'), greatest(1, max(seq)), max(seq) is not null)
        from psqlqueue.stale_keys`;
      // What is published from here on comes after all that there is.
      await transaction`
        select setval('psqlqueue.ordering_seq', greatest(1, (select max(message.ordering_seq) from psqlqueue.messages as message),
          (select max(key.floor_seq) from psqlqueue.ordering_keys as key)))`;
      return counts;
    });
  } finally {
    await Promise.all([source.end({ timeout: 5 }), target.end({ timeout: 5 })]);
  }
}

async function carryTable(
  source: postgres.Sql,
  target: postgres.TransactionSql,
  table: string,
  key: string[],
): Promise<number> {
  const columns = await columnsOf(source, table);
  let count = 0;
  for (let after: Row | undefined; ; ) {
    const rows = await readPage(source, table, key, columns, after);
    if (rows.length === 0) return count;
    await writePage(target, table, columns, rows);
    count += rows.length;
    after = rows.at(-1);
  }
}
