import { type SQL, sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { messages, queues } from "../../db/schema.ts";
import { BrokerError } from "../../errors.ts";
import { createPages } from "../pages.ts";
import { column, prepare, rfc3339, value } from "../statement.ts";
import { errorGroup, type Filter, foldError, isNamed, matches } from "./filter.ts";
import { live_rows, past_rows, type State } from "./seen.ts";

// Numbers about what matches a filter. Each call looks at a bounded number of rows and says where to go on: whoever
// wants more adds the answers up.

/** Rows that one count looks at; fewer where it must read bodies or fold errors. */
const counted_rows_max = 20_000;
const searched_rows_max = 2000;
/** Dead letters that one grouping looks at, and groups that it answers. */
const grouped_rows_max = 10_000;
const groups_max = 500;

export type CountQuery = Filter & { state: State | "dead" | "all"; after: string };
export type Count = { count: number; next?: string };

export type ErrorGroup = {
  error_group: string;
  /** With numbers and ids folded; empty where no consumer said anything. */
  error: string;
  count: number;
  first_seen: string;
  last_seen: string;
  reasons: string[];
  source_queue_ids: string[];
  sample: { id: string; error: string | null };
};

const queue_no = sql`(select queue.no from ${queues} as queue where queue.id = ${value("queue_id")})`;

function prepareCount(db: Db, name: string, rows: SQL, owner: SQL, key: SQL) {
  const counted = db.orm
    .$with("counted", {
      known_queue: column<string | null>("known_queue"),
      count: column<number>("count"),
      last_id: column<string | null>("last_id"),
    })
    .as(sql`
      with scanned as materialized (
        ${rows}
        where ${key} > ${value("after")} and ${isNamed(key, sql`${value("message_id")}::text`)} and ${owner} = ${queue_no}
        order by ${key}
        limit ${value("rows_max")}
      )
      select (select queue.id from ${queues} as queue where queue.id = ${value("queue_id")}) as known_queue,
        (count(*) filter (where (
            ${value("state")}::text = 'all'
            or ${value("state")}::text = 'dead' and scanned.dead is not null
            or scanned.state = ${value("state")}::text
          ) and ${matches(sql`scanned`, (member) => sql`${value(member)}::text`)}))::int as count,
        case when count(*) = ${value("rows_max")} then max(scanned.id) end as last_id
      from scanned`);
  type Row = { known_queue: string | null; count: number; last_id: string | null };
  return prepare<Row>(db.orm.with(counted).select().from(counted), name);
}

type GroupRow = Omit<ErrorGroup, "reasons" | "source_queue_ids" | "sample"> & {
  reasons: string;
  source_queue_ids: string;
  sample_id: string;
  sample_error: string | null;
  last_id: string | null;
};

function prepareGroups(db: Db) {
  const folded = foldError(sql`scanned.last_error`);
  const grouped = db.orm
    .$with("grouped", {
      error_group: column<string | null>("error_group"),
      error: column<string>("error"),
      count: column<number>("count"),
      first_seen: column<string>("first_seen"),
      last_seen: column<string>("last_seen"),
      reasons: column<string>("reasons"),
      source_queue_ids: column<string>("source_queue_ids"),
      sample_id: column<string>("sample_id"),
      sample_error: column<string | null>("sample_error"),
      known_queue: column<string | null>("known_queue"),
      last_id: column<string | null>("last_id"),
    })
    .as(sql`
      with scanned as materialized (
        select message.id, message.last_error, message.dead, (message.dead ->> 'dead_at')::timestamptz as dead_at
        from ${messages} as message
        where message.id > ${value("after")} and message.queue_no = ${queue_no}
        order by message.id
        limit ${value("rows_max")}
      ), own as (
        select ${errorGroup(sql`scanned.last_error`)} as error_group, min(${folded}) as error, count(*)::int as count,
          min(scanned.dead_at) as first_seen, max(scanned.dead_at) as last_seen,
          array_to_string(array_agg(distinct scanned.dead ->> 'reason'), ',') as reasons,
          array_to_string((array_agg(distinct scanned.dead ->> 'source_queue_id'))[1:10], ',') as source_queue_ids,
          (array_agg(scanned.id order by scanned.dead_at desc, scanned.id desc))[1] as sample_id,
          (array_agg(scanned.last_error order by scanned.dead_at desc, scanned.id desc))[1] as sample_error
        from scanned
        where scanned.dead is not null
        group by 1
        order by count(*) desc, max(scanned.dead_at) desc
        limit ${groups_max}
      )
      select own.*, edge.last_id,
        (select queue.id from ${queues} as queue where queue.id = ${value("queue_id")}) as known_queue
      from (
        select case when count(*) = ${value("rows_max")} then max(scanned.id) end as last_id from scanned
      ) as edge
      left join own on true
      order by own.count desc, own.last_seen desc`);
  type Row = GroupRow & { error_group: string | null; known_queue: string | null };
  return prepare<Row>(db.orm.with(grouped).select().from(grouped), "group_dead_letters");
}

const words = (list: string) => (list === "" ? [] : list.split(","));

/** Counting what matches, and grouping dead letters by their error. */
export function createInspection(db: Db) {
  const countLive = prepareCount(db, "count_messages", live_rows, sql`message.queue_no`, sql`message.id`);
  const countPast = prepareCount(db, "count_archive", past_rows, sql`past.queue_no`, sql`past.id`);
  const group = prepareGroups(db);
  const counted_pages = createPages(counted_rows_max);
  const searched_pages = createPages(searched_rows_max);
  const grouped_pages = createPages(grouped_rows_max);

  return {
    /**
     * How many of the next rows match; `next` is where to go on counting, absent at the end. Throws `queue_not_found`.
     */
    async countMatching(queue_id: string, { after, ...query }: CountQuery): Promise<Count> {
      const in_archive = after.startsWith("a") || query.state === "acked";
      const is_deep = query.search !== null || query.error_group !== null;
      const pages = is_deep ? searched_pages : counted_pages;
      const values = { ...query, queue_id, after: after.replace(/^a/, "") };
      const count = (rows_max: number) => (in_archive ? countPast : countLive).execute({ ...values, rows_max });
      const [row] = await pages((rows_max) => db.run("count_messages", () => count(rows_max), true));
      if (row === undefined || row.known_queue === null) throw new BrokerError("queue_not_found");
      if (row.last_id !== null) return { count: row.count, next: (in_archive ? "a" : "") + row.last_id };
      const has_archive = !in_archive && ["expired", "all", "dead"].includes(query.state);
      return { count: row.count, ...(has_archive && { next: "a" }) };
    },

    /** The dead letters among the next rows by their error, the largest group first. Otherwise as countMatching. */
    async groupDeadLetters(queue_id: string, after: string): Promise<{ data: ErrorGroup[]; next?: string }> {
      const rows = await grouped_pages((rows_max) =>
        db.run("group_dead_letters", () => group.execute({ queue_id, after, rows_max }), true),
      );
      if (rows[0]?.known_queue == null) throw new BrokerError("queue_not_found");
      const data = rows.flatMap(({ error_group, sample_id, sample_error, ...row }) =>
        error_group === null
          ? []
          : [
              {
                error_group,
                error: row.error,
                count: row.count,
                first_seen: rfc3339(row.first_seen),
                last_seen: rfc3339(row.last_seen),
                reasons: words(row.reasons),
                source_queue_ids: words(row.source_queue_ids),
                sample: { id: sample_id, error: sample_error },
              },
            ],
      );
      const next = rows[0].last_id;
      return { data, ...(next !== null && { next }) };
    },
  };
}
