import { type Name, type SQL, sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { deduplications } from "../../db/dedupSchema.ts";
import { archived_messages, messages, queues } from "../../db/schema.ts";
import { BrokerError } from "../../errors.ts";
import { createPages } from "../pages.ts";
import { column, value } from "../statement.ts";
import type { Repair } from "./orderingKeys.ts";

// Bulk removal (purge, cleanup, what a deleted queue leaves) in bounded pages, each a statement of its own. One giant
// delete would hold back vacuum for everybody and run into the statement timeout.
//
// A removal is data: it can be kept in a task's row and gone on with by another server after a restart. It goes through
// its phases in order, each a scan by key: `position` is `phase:last key`, "" at the start.
//
//   purge, delete:  keys → messages → ordering → archive → done
//   cleanup:        expired → ordering → archive → done
//
// Messages are removed without the locks of their ordering keys: what is then missing a head gets one afterwards.

const page_rows = 1000;
/** Sorts after every message id and after every deduplication key. */
const last_key = "~";

export type RemovalKind = "purge" | "cleanup" | "delete";
type Phase = "keys" | "messages" | "expired" | "ordering" | "archive";

/** What is to be removed. The bounds are those of the moment at which it was asked for: what comes later stays. */
export type Removal = {
  kind: RemovalKind;
  /** The number and not the name: a queue of the same name that is made later is another one. */
  queue_no: number;
  /** The highest message id at the call. */
  to: string;
  /** The time of the call, by the database's clock. */
  until: string;
  position: string;
};

/** `removed`: rows that this call removed. `position` is where to go on; done when `is_done`. */
export type Progress = { removed: number; position: string; is_done: boolean };

const phases: Record<RemovalKind, Phase[]> = {
  purge: ["keys", "messages", "ordering", "archive"],
  delete: ["keys", "messages", "ordering", "archive"],
  cleanup: ["expired", "ordering", "archive"],
};

/** Takes the next page of a scan along `key`, and removes those of its rows that the condition allows. */
function createRemoval(db: Db, phase: Exclude<Phase, "ordering">, table: SQL, key: Name, condition: SQL) {
  const name = `remove_${phase}`;
  const after = sql`row.queue_no = ${value("queue_no")}::int and row.${key} > ${value("after")}::text`;
  const page = db.orm.$with("page", {}).as(sql`
    select row.${key} as id
    from ${table} as row
    where ${after} and row.${key} <= ${value("to")}::text
    order by row.${key}
    limit ${value("limit")}`);
  // By range and not by ctid: a row that is leased meanwhile must go too.
  const gone = db.orm.$with("gone", {}).as(sql`
    delete from ${table} as row
    where ${after} and row.${key} <= (select max(page.id) from page) and ${condition}
    returning 1`);
  const answer = db.orm
    .$with("answer", {
      last_id: column<string | null>("last_id"),
      is_last: column<boolean>("is_last"),
      count: column<number>("count"),
    })
    .as(sql`
      select max(page.id) as last_id, count(*) < ${value("limit")}::int as is_last,
        (select count(*) from gone)::int as count
      from page`);
  const statement = db.orm.with(page, gone, answer).select().from(answer).prepare(name);
  const pages = createPages(page_rows);
  return async (values: Record<string, unknown>) => {
    const [taken] = await pages((limit) => db.run(name, () => statement.execute({ ...values, limit }), true));
    return taken;
  };
}

export type Removals = {
  /** Gives every ordering key of a queue its first message back. Repeatable. */
  repairKeys(queue_no: number): Promise<void>;
  /** A purge or cleanup of what the queue holds now. Throws `queue_not_found`. */
  plan(kind: "purge" | "cleanup", queue_id: string): Promise<Removal>;
  /**
   * Removes page after page until nothing is left, or for `ms_max` milliseconds and one page, or `pages_max` pages of
   * 1000 rows at most. Repeatable.
   */
  proceed(removal: Removal, ms_max: number, pages_max?: number): Promise<Progress>;
};

/** Everything that a queue number holds, also of a queue that is gone. */
export const removalOfQueue = (queue_no: number): Removal => ({
  kind: "delete",
  queue_no,
  to: last_key,
  until: "infinity",
  position: "",
});

/** Removals on one database. Every call may run concurrently with any other, also with one for the same queue. */
export function createRemovals(db: Db, repair: Repair): Removals {
  const until = sql`${value("until")}::timestamptz`;
  const newest = (table: SQL) =>
    sql`(select row.id from ${table} as row where row.queue_no = ${queues.no} order by row.id desc limit 1)`;
  const find = db.orm
    .select({
      no: queues.no,
      now: sql<string>`now()`.as("now"),
      // Scalar sub-selects: each reads one entry at the end of an index. greatest() passes over nulls.
      highest_id: sql<string | null>`greatest(${newest(sql`${messages}`)}, ${newest(sql`${archived_messages}`)})`.as(
        "highest_id",
      ),
    })
    .from(queues)
    .where(sql`${queues.id} = ${value("queue_id")}`)
    .prepare("find_queue");

  const id = sql.identifier("id");
  // Ids of servers with different clocks do not tell what came later, so the database's time decides as well. A dead
  // letter came into this queue when it died.
  const is_older = sql`coalesce((row.dead ->> 'dead_at')::timestamptz, row.created_at) <= ${until}`;
  const is_kept = sql`row.created_at <= ${until} and row.id <= ${value("bound")}::text`;
  const removeBy: Record<Exclude<Phase, "ordering">, ReturnType<typeof createRemoval>> = {
    keys: createRemoval(db, "keys", sql`${deduplications}`, sql.identifier("key"), sql`row.created_at <= ${until}`),
    messages: createRemoval(db, "messages", sql`${messages}`, id, is_older),
    // Whoever holds a live lease may still ack, so those rows stay.
    expired: createRemoval(
      db,
      "expired",
      sql`${messages}`,
      id,
      sql`row.expires_at <= least(now(), ${until}) and coalesce(row.lease_expires_at <= now(), true)`,
    ),
    archive: createRemoval(
      db,
      "archive",
      sql`${archived_messages}`,
      id,
      sql`case when ${value("is_cleanup")}::text::boolean then row.archived_at <= ${until} else ${is_kept} end`,
    ),
  };

  async function removePage(removal: Removal, phase: Phase, after: string) {
    if (phase === "ordering") {
      const { last_group } = await repair(removal.queue_no, after);
      return { last_id: last_group, is_last: last_group === null, count: 0 };
    }
    // Only messages end at the highest id: what ended since the call may stand anywhere in the archive.
    const to = phase === "messages" ? removal.to : last_key;
    return await removeBy[phase]({
      queue_no: removal.queue_no,
      after,
      to,
      until: removal.until,
      ...(phase === "archive" && { bound: removal.to, is_cleanup: String(removal.kind === "cleanup") }),
    });
  }

  return {
    async repairKeys(queue_no) {
      for (let after: string | null = ""; after !== null; ) after = (await repair(queue_no, after)).last_group;
    },

    async plan(kind, queue_id) {
      const [queue] = await db.run("find_queue", () => find.execute({ queue_id }), true);
      if (queue === undefined) throw new BrokerError("queue_not_found");
      return { kind, queue_no: queue.no, to: queue.highest_id ?? "", until: queue.now, position: "" };
    },

    async proceed(removal, ms_max, pages_max = Number.POSITIVE_INFINITY) {
      const end_ms = performance.now() + ms_max;
      const order = phases[removal.kind];
      const [name, ...rest] = removal.position.split(":");
      let at = Math.max(0, order.indexOf(name as Phase));
      let after = rest.join(":");
      let removed = 0;
      for (let pages = 1; ; pages++) {
        const phase = order[at] as Phase;
        const page = await removePage(removal, phase, after);
        removed += page?.count ?? 0;
        if (page?.last_id == null || page.is_last) {
          at += 1;
          after = "";
        } else {
          after = page.last_id;
        }
        const is_done = at === order.length;
        const position = `${order[Math.min(at, order.length - 1)]}:${after}`;
        if (is_done || pages >= pages_max || performance.now() >= end_ms) return { removed, position, is_done };
      }
    },
  };
}
