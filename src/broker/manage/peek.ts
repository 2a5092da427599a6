import { eq, type SQL, sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { queues } from "../../db/schema.ts";
import { BrokerError } from "../../errors.ts";
import { createPages } from "../pages.ts";
import { magic } from "../publish/sealing.ts";
import { column, prepare, value } from "../statement.ts";
import { type Filter, isNamed, matches } from "./filter.ts";
import { live_rows, type Open, past_rows, present, type SeenMessage, type SeenRow, type State, shape } from "./seen.ts";

export type PeekQuery = Filter & {
  state: State | "dead" | "all";
  /** The id to go on after; "" to start. */
  after: string;
  limit: number;
  has_body: boolean;
  /** Longer bodies are cut. */
  body_characters_max: number;
};

export type Peeked = {
  data: SeenMessage[];
  next?: string;
  /** The bound on rows ended the page, not its limit. */
  stopped_early?: true;
};

/** Rows that one peek looks at, at most: a rare state in a large queue takes several calls. */
const scanned_rows_max = 5000;
/** The same of a search, which reads the bodies. */
const searched_rows_max = 1000;

/** Bytes of bodies that one peek opens; one at least. */
const opened_bytes_max = 8_388_608;

const cut_shape = { body_bytes: column<number>("body_bytes"), is_cut: column<boolean>("is_cut") };

const is_shown = sql`(shown.nth = 1 or coalesce(shown.whole_bytes, 0) <= ${opened_bytes_max}::bigint)`;

/** One page along the primary key of either table; what does not match is passed over, a bounded number of rows. */
function preparePeek(db: Db, name: string, rows: SQL, owner: SQL, key: SQL) {
  const columns = {
    ...shape,
    ...cut_shape,
    last_id: column<string>("last_id"),
    has_ended: column<boolean>("has_ended"),
  };
  const page = db.orm.$with("page", columns).as(sql`
      with scanned as materialized (
        ${rows}
        where ${key} > ${value("after")} and ${isNamed(key, sql`${value("message_id")}::text`)}
          and ${owner} = (select queue.no from ${queues} as queue where queue.id = ${value("queue_id")})
        order by ${key}
        limit ${value("scanned_rows_max")}
      ), matching as (
        select scanned.*
        from scanned
        where (${value("state")}::text = 'all'
            or ${value("state")}::text = 'dead' and scanned.dead is not null
            or scanned.state = ${value("state")}::text)
          and ${matches(sql`scanned`, (member) => sql`${value(member)}::text`)}
        order by scanned.id
        limit ${value("limit")}
      ), measured as (
        -- What is not stored as it was sent must be read whole before it can be cut.
        select matching.*, ${value("has_body")}::text::boolean and starts_with(matching.body, ${magic}) as is_whole
        from matching
      ), shown as (
        select measured.*, row_number() over (order by measured.id) as nth,
          sum(octet_length(measured.body)) filter (where measured.is_whole) over (order by measured.id) as whole_bytes
        from measured
      )
      select shown.id, shown.label,
        case when shown.is_whole then shown.body else left(shown.body, ${value("body_characters_max")}::int) end as body,
        octet_length(shown.body) as body_bytes,
        not shown.is_whole and char_length(shown.body) > ${value("body_characters_max")}::int as is_cut,
        shown.attributes, shown.delivery_attempts, shown.created_at, shown.lease_expires_at,
        shown.expires_at, shown.dead, shown.last_error, shown.state, shown.visible_at,
        shown.ordering_key, shown.priority, shown.fairness_key, shown.weight, edge.last_id, edge.has_ended
      from (
        select case when count(*) = ${value("scanned_rows_max")} then max(scanned.id) end as last_id,
          not exists (select from shown where not ${is_shown}) as has_ended
        from scanned
      ) as edge
      left join shown on ${is_shown}
      order by shown.id`);
  return prepare<PageRow>(db.orm.with(page).select().from(page), name);
}

/** `has_ended`: nothing was left out for the bytes of its bodies. */
type PageRow = SeenRow & { last_id: string | null; has_ended: boolean };

/** Looking at many messages without leasing them. */
export function createPeek(db: Db, open: Open) {
  const peekLive = preparePeek(db, "peek", live_rows, sql`message.queue_no`, sql`message.id`);
  const peekPast = preparePeek(db, "peek_archive", past_rows, sql`past.queue_no`, sql`past.id`);
  const exists = db.orm
    .select({ id: queues.id })
    .from(queues)
    .where(eq(queues.id, value("queue_id")))
    .prepare("queue_exists");
  const scanned_pages = createPages(scanned_rows_max);
  const searched_pages = createPages(searched_rows_max);

  return {
    /**
     * Messages that match, by id, from `after` on: never leases, counts or reorders, and looks at a bounded number of
     * rows. `next` is where to go on; absent at the end. Throws `queue_not_found`.
     */
    async peek(queue_id: string, query: PeekQuery): Promise<Peeked> {
      // "a…" goes on in the archive; ids start with a digit.
      const in_archive = query.after.startsWith("a") || query.state === "acked";
      const statement = in_archive ? peekPast : peekLive;
      const pages = query.search === null ? scanned_pages : searched_pages;
      const values = {
        ...query,
        has_body: String(query.has_body),
        queue_id,
        after: query.after.replace(/^a/, ""),
      };
      const rows = await pages((scanned_rows_max) =>
        db.run("peek", () => statement.execute({ ...values, scanned_rows_max }), true),
      );
      const matching = rows.filter((row) => row.id !== null) as (PageRow & { id: string })[];
      const characters_max = query.has_body ? query.body_characters_max : undefined;
      const data = matching.map((row) => present(row, queue_id, open, characters_max));
      const is_full = matching.length === query.limit || rows[0]?.has_ended === false;
      const reached = is_full ? matching.at(-1)?.id : (rows[0]?.last_id ?? undefined);
      if (data.length === 0 && (await db.run("queue_exists", () => exists.execute({ queue_id }), true)).length === 0) {
        throw new BrokerError("queue_not_found");
      }
      const stopped = !is_full && reached !== undefined && { stopped_early: true as const };
      if (reached !== undefined) return { data, next: (in_archive ? "a" : "") + reached, ...stopped };
      // The archive comes after the live ones, where it can hold the state.
      const has_more = !in_archive && (query.state === "expired" || query.state === "all" || query.state === "dead");
      return has_more ? { data, next: "a" } : { data };
    },
  };
}
