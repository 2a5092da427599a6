import { sql } from "drizzle-orm";
import { createBatcher } from "../../batcher.ts";
import type { Db, Prepared } from "../../db/db.ts";
import { messages, queues } from "../../db/schema.ts";
import { column, prepare, value } from "../statement.ts";

// Counts what a queue holds, for its quotas.
//
// A statement reads one page, a bounded number of rows, so that it ends long before the statement timeout however much
// is stored, and others get their turn between two pages: the embedded database serves everybody through one
// connection. What was read is remembered as ranges of ids. Consumers take from the front and new messages come at the
// end, so that a later count reads the front, the end and a few of the ranges between, by turns; of the others it
// believes the last reading. Such a range only loses messages, except for what is moved in with its old id: until its
// turn comes it counts too much rather than too little.

/** Rows of one statement at most, for all the queues that it looks at. */
const page_rows_max = 10_000;
const page_rows_min = 250;
/** Fewer rows are read when a page takes longer: a slow machine, or bodies that are not in memory. */
const page_ms_max = 100;
/** Queues of one statement. */
const page_queues_max = 40;
/** Statements that count at the same time, over all queues. */
const lanes = 2;
const waiting_max = 10_000;
const waiting_ms_max = 10_000;
/** Ranges between the front and the end that one count reads again. */
const between_max = 2;
/** Greater than every id: ids are compared byte by byte. */
const no_end = "\u{10FFFF}";

export type Amount = { depth: number; bytes: number };

/** Ids after `after` up to `upto`, and what they held when they were read. */
type Range = Amount & {
  after: string;
  upto: string;
  rows: number;
  /** A message with a smaller id than the last of these may not have been committed yet. */
  is_young: boolean;
  /** undefined: not read yet. Only the last range is. */
  read_at_ms: number | undefined;
};

/** What is known of a queue with a quota. Its depth and bytes are those of all ranges together. */
export type Count = Amount & {
  /** undefined: nothing has been read. */
  queue_no: number | undefined;
  max_depth: number | null;
  max_bytes: number | null;
  ranges: Range[];
};

const unread = (after: string): Range => ({
  after,
  upto: no_end,
  depth: 0,
  bytes: 0,
  rows: 0,
  is_young: false,
  read_at_ms: undefined,
});

/** A count that knows nothing yet. */
export const emptyCount = (): Count => ({
  queue_no: undefined,
  max_depth: null,
  max_bytes: null,
  depth: 0,
  bytes: 0,
  ranges: [unread("")],
});

/** Is the quota used up by what has been counted? What follows need not be counted then. */
export const isOver = ({ max_depth, max_bytes, depth, bytes }: Count): boolean =>
  (max_depth !== null && depth >= max_depth) || (max_bytes !== null && bytes >= max_bytes);

/** Has all of the queue been read, or did the count stop at the quota? */
export const isWhole = ({ ranges }: Count): boolean => ranges.at(-1)?.read_at_ms !== undefined;

type Page = Amount & {
  n: string;
  queue_no: number;
  max_depth: number | null;
  max_bytes: number | null;
  rows: number;
  last_id: string | null;
  is_young: boolean;
};

function preparePages(db: Db): Prepared<Page[]> {
  const counted = db.orm
    .$with("counted", {
      n: column<string>("n"),
      queue_no: column<number>("queue_no"),
      max_depth: column<number | null>("max_depth"),
      max_bytes: column<number | null>("max_bytes"),
      rows: column<number>("rows"),
      last_id: column<string | null>("last_id"),
      depth: column<number>("depth"),
      bytes: column<number>("bytes"),
      is_young: column<boolean>("is_young"),
    })
    .as(sql`
      select given.n, queue.no as queue_no, queue.max_depth::float8 as max_depth, queue.max_bytes::float8 as max_bytes,
        page.rows, page.last_id, page.depth, page.bytes, page.is_young
      from unnest(${value("queue_ids")}::text[], ${value("afters")}::text[], ${value("uptos")}::text[])
        with ordinality as given (queue_id, after, upto, n)
      cross join lateral (
        select no, max_depth, max_bytes from ${queues} as queue where queue.id = given.queue_id limit 1
      ) as queue
      cross join lateral (
        select count(*)::int as rows, max(seen.id) as last_id, (count(*) filter (where seen.is_held))::int as depth,
          coalesce(sum(seen.bytes) filter (where seen.is_held), 0)::float8 as bytes,
          -- Longer than a publish may wait and run.
          coalesce(max(seen.created_at) > now() - interval '15 seconds', false) as is_young
        from (
          select message.id, message.created_at,
            coalesce(message.expires_at > now() or message.lease_expires_at > now(), false) as is_held,
            octet_length(message.body) + coalesce(octet_length(message.label), 0)
              + coalesce(pg_column_size(message.attributes), 0) as bytes
          from ${messages} as message
          where message.queue_no = queue.no and message.id > given.after and message.id <= given.upto
          order by message.id   -- the primary key's order: the limit ends the scan
          limit ${value("limit")}
        ) as seen
      ) as page
      where num_nonnulls(queue.max_depth, queue.max_bytes) > 0`);
  return prepare<Page>(db.orm.with(counted).select().from(counted), "count_for_quotas");
}

type Asked = { queue_id: string; after: string; upto: string };

/** `is_full`: there may be more in the range. undefined: the queue has no quota any more, or is gone. */
type Answer = (Page & { is_full: boolean }) | undefined;

/**
 * Counts again what one queue holds: changes `count`, page by page, and calls `onPage` after each. Resolves to false
 * when the queue has no quota. Rejects with BrokerError or DatabaseError; what was read by then stays, and the next
 * call goes on from there. Not concurrently for one count; calls for several share statements.
 */
export type Recount = (queue_id: string, count: Count, onPage: () => void) => Promise<boolean>;

/** Counting on one database. */
export function createCounting(db: Db): Recount {
  const statement = preparePages(db);
  let page_rows = page_rows_max;

  async function readPages(all: Asked[]): Promise<Answer[]> {
    const limit = Math.max(page_rows_min, Math.floor(page_rows / all.length));
    const values = {
      queue_ids: all.map(({ queue_id }) => queue_id),
      afters: all.map(({ after }) => after),
      uptos: all.map(({ upto }) => upto),
      limit,
    };
    const started_ms = performance.now();
    let rows: Page[];
    try {
      rows = await db.run("count_for_quotas", () => statement.execute(values), true);
    } catch (error) {
      page_rows = Math.max(page_rows_min, page_rows / 4);
      throw error;
    }
    const read = rows.reduce((sum, page) => sum + page.rows, 0);
    if (performance.now() - started_ms > page_ms_max) page_rows = Math.max(page_rows_min, page_rows / 2);
    else if (read > page_rows / 2) page_rows = Math.min(page_rows_max, page_rows * 1.5);
    const answers: Answer[] = all.map(() => undefined);
    for (const page of rows) answers[Number(page.n) - 1] = { ...page, is_full: page.rows === limit };
    return answers;
  }

  const pages = createBatcher<Asked, Answer>({
    name: "count_for_quotas",
    flush: readPages,
    lanes,
    items_max: page_queues_max,
    weight: () => 1,
    weight_max: page_queues_max,
    waiting_max,
    waiting_ms_max,
  });

  async function recount(queue_id: string, count: Count, onPage: () => void): Promise<boolean> {
    const todo = count.ranges.toReversed();
    const done: Range[] = [];
    const due = betweenOf(count.ranges);
    let front_rows = 0;
    try {
      for (let range = todo.at(-1); range !== undefined; range = todo.at(-1)) {
        // Unread: only as far as the quota goes. Consumers may leave some of the front, so its rows are counted.
        const is_end = range.is_young || range.upto === no_end;
        const is_read = range.read_at_ms !== undefined;
        if (is_read ? !is_end && !due.has(range) && front_rows >= page_rows_max : isOver(count)) {
          done.push(range);
          todo.pop();
          continue;
        }
        const page = await pages.call({ queue_id, after: range.after, upto: range.upto });
        if (page === undefined) return false;
        if (count.queue_no !== undefined && count.queue_no !== page.queue_no) {
          // Another queue with this name.
          done.length = 0;
          todo.splice(0, todo.length, unread(""));
          Object.assign(count, emptyCount());
          continue;
        }
        const { queue_no, max_depth, max_bytes } = page;
        Object.assign(count, { queue_no, max_depth, max_bytes });
        front_rows += page.rows;
        todo.pop();
        const rest = restOf(range, page);
        if (rest !== undefined) {
          todo.push(rest);
          due.add(rest);
        }
        count.depth += page.depth + (rest?.depth ?? 0) - range.depth;
        count.bytes += page.bytes + (rest?.bytes ?? 0) - range.bytes;
        append(done, {
          after: range.after,
          upto: rest?.after ?? range.upto,
          depth: page.depth,
          bytes: page.bytes,
          rows: page.rows,
          is_young: page.is_young,
          read_at_ms: performance.now(),
        });
        onPage();
      }
      return true;
    } finally {
      count.ranges = [...done, ...todo.toReversed()];
    }
  }

  return recount;
}

/** The ranges that have not been read for the longest time. */
function betweenOf(ranges: Range[]): Set<Range> {
  const read = ranges.filter(({ read_at_ms }) => read_at_ms !== undefined);
  return new Set(read.sort((a, b) => (a.read_at_ms ?? 0) - (b.read_at_ms ?? 0)).slice(0, between_max));
}

/** What of a range a page has not read. */
function restOf(range: Range, page: Page & { is_full: boolean }): Range | undefined {
  if (!page.is_full || page.last_id === null || page.last_id === range.upto) return undefined;
  if (range.upto === no_end) return unread(page.last_id);
  return {
    ...range,
    after: page.last_id,
    depth: Math.max(0, range.depth - page.depth),
    bytes: Math.max(0, range.bytes - page.bytes),
    rows: Math.max(0, range.rows - page.rows),
  };
}

/** Ranges that have become small are joined, so that there is one for each page of rows. */
function append(done: Range[], range: Range): void {
  const last = done.at(-1);
  if (last === undefined || last.rows + range.rows > page_rows_max) {
    done.push(range);
    return;
  }
  done[done.length - 1] = {
    after: last.after,
    upto: range.upto,
    depth: last.depth + range.depth,
    bytes: last.bytes + range.bytes,
    rows: last.rows + range.rows,
    is_young: last.is_young || range.is_young,
    read_at_ms: Math.min(last.read_at_ms ?? 0, range.read_at_ms ?? 0),
  };
}
