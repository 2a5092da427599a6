import { type SQL, sql } from "drizzle-orm";
import type { Db, Prepared } from "../../db/db.ts";
import { archived_messages, messages, tasks } from "../../db/schema.ts";
import { is_held } from "../heldRows.ts";
import { column, prepare, value } from "../statement.ts";
import { type Filter, isNamed, matches } from "./filter.ts";
import { live_state, type State } from "./seen.ts";

// Deleting and freeing everything that matches a filter: a scan along the primary key in pages, whose position moves
// in the statement that changes the rows. A deletion goes on in the archive, where a message ends up that was acked.
//
//   delete:  "" → last id → "a" (archive) → "a" + last id → completed
//   nack:    "" → last id → completed

export type Matching = Filter & { action: "delete" | "nack"; state: State | "dead" | "all" };

/** `is_end`: of the table that it went through; `is_last`: of the task. */
export type MatchingStep = { count: number; is_end: boolean; is_last: boolean; now: string };

type Change = {
  name: string;
  table: SQL;
  /** Changes the rows of `pick` and returns one row for each. */
  change: SQL;
  state: SQL;
  /** May the row be changed at all? */
  where: SQL;
  locks: SQL;
  after: SQL;
  prefix: SQL;
};

function prepareStep(db: Db, { name, table, change, state, where, locks, after, prefix }: Change) {
  const option = (member: keyof Matching) => sql`(task.options ->> ${member}::text)`;
  const task = db.orm.$with("task", {}).as(sql`
    select task.* from ${tasks} as task where task.id = ${value("id")} and task.state = 'running' for update of task`);
  const page = db.orm.$with("page", {}).as(sql`
    select message.*
    from task
    cross join lateral (
      select message.tableoid as part, message.ctid as tid, message.*
      from ${table} as message
      where message.queue_no = task.queue_no and message.id > ${after}
        and ${isNamed(sql`message.id`, option("message_id"))}
      order by message.id
      limit ${value("limit")}::bigint
      ${locks}
    ) as message`);
  const pick = db.orm.$with("pick", {}).as(sql`
    select message.part, message.tid
    from page as message
    cross join task
    where ${where}
      and (${option("state")} = 'all' or ${option("state")} = 'dead' and message.dead is not null
        or ${option("state")} = ${state})
      and ${matches(sql`message`, option)}`);
  const changed = db.orm.$with("changed", {}).as(change);
  const done = db.orm.$with("done", {}).as(sql`
    select (select count(*) from changed)::int as count, (select max(page.id) from page) as last_id,
      (select count(*) from page) < ${value("limit")}::bigint as is_end`);
  const noted = db.orm.$with("noted", {}).as(sql`
    update ${tasks} as task
    set moved = task.moved + done.count,
      position = case
        when done.is_end and ${value("has_archive")}::text::boolean then ${value("archive_position")}::text
        else coalesce(${prefix} || done.last_id, task.position)
      end,
      state = case when done.is_end and not ${value("has_archive")}::text::boolean then 'completed' else task.state end,
      finished_at = case when done.is_end and not ${value("has_archive")}::text::boolean then now() end
    from done
    where task.id = ${value("id")} and task.state = 'running'`);
  const answer = db.orm
    .$with("answer", {
      count: column<number>("count"),
      is_end: column<boolean>("is_end"),
      is_last: column<boolean>("is_last"),
      now: column<string>("now"),
    })
    .as(sql`
      select done.count, done.is_end, done.is_end and not ${value("has_archive")}::text::boolean as is_last, now() as now
      from done, task`);
  return prepare<MatchingStep>(db.orm.with(task, page, pick, changed, done, noted, answer).select().from(answer), name);
}

/** One step of a task that changes what matches a filter: each message once, however often it is interrupted. */
export function prepareMatching(db: Db): Record<"remove" | "free" | "forget", Prepared<MatchingStep[]>> {
  const live = {
    table: sql`${messages}`,
    state: live_state,
    // What is locked is being settled.
    locks: sql`for update skip locked`,
    after: sql`task.position`,
    prefix: sql`''`,
  };
  return {
    remove: prepareStep(db, {
      ...live,
      name: "delete_matching",
      // Whoever holds a live lease may still ack.
      where: sql`not ${is_held}`,
      change: sql`delete from ${messages} as message using pick where message.ctid = pick.tid returning message.id`,
    }),
    free: prepareStep(db, {
      ...live,
      name: "nack_matching",
      // An ordered one has a place of its own among those of its key.
      where: sql`message.visible_at > now() and message.expires_at > now() and message.ordering_seq is null`,
      change: sql`
        update ${messages} as message
        set visible_at = now(), lease_token = null, leased_at = null, lease_expires_at = null,
          events = case
            when message.lease_token is null then message.events
            else psqlqueue.add_event(message.events, 'nacked', message.delivery_attempts, null)
          end
        from pick
        where message.ctid = pick.tid
        returning message.id`,
    }),
    forget: prepareStep(db, {
      name: "forget_matching",
      table: sql`${archived_messages}`,
      state: sql`message.outcome`,
      locks: sql``,
      after: sql`substr(task.position, 2)`,
      prefix: sql`'a'`,
      where: sql`message.expires_at > now()`,
      change: sql`
        delete from ${archived_messages} as message
        using pick
        where message.tableoid = pick.part and message.ctid = pick.tid
        returning message.id`,
    }),
  };
}
