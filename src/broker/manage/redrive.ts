import { sql } from "drizzle-orm";
import type { Db, Prepared } from "../../db/db.ts";
import { messages, queues, tasks } from "../../db/schema.ts";
import { column, prepare, value } from "../statement.ts";
import { type Filter, isNamed, matches } from "./filter.ts";

export type RedriveOptions = Filter & {
  /** null: each message's own source. */
  destination_queue_id: string | null;
  /** Its number at the call; null with the other. */
  destination_queue_no: number | null;
  limit: number | null;
  rate_per_second: number | null;
  delay_seconds: number;
  reset_attempts: boolean;
};

export type RedriveStep = {
  moved: number;
  failed: number;
  is_last: boolean;
  is_closed: boolean;
  queue_ids: string | null;
  now: string;
};

/**
 * One step of a redrive task: the position moves in the statement that moves the messages, so that each is moved
 * exactly once however often the task is interrupted.
 */
export function prepareRedrive(db: Db): Prepared<RedriveStep[]> {
  const option = (name: keyof RedriveOptions) => sql`task.options ->> ${name}::text`;
  const task = db.orm.$with("task", {}).as(sql`
    select task.*, open.moves, least(open.moves, ${value("moves_max")}::bigint) as moves_now
    from ${tasks} as task
    cross join lateral (
      select coalesce((${option("limit")})::bigint - task.moved, 9223372036854775807) as moves
    ) as open
    where task.id = ${value("id")} and task.state = 'running'
    for update of task`);
  const page = db.orm.$with("page", {}).as(sql`
    select message.ctid as tid, message.id, message.label, message.dead, message.lease_token, message.lease_expires_at,
      message.last_error, message.body, message.attributes, message.ordering_key, message.ordering_group
    from task
    cross join lateral (
      select message.ctid, message.*
      from ${messages} as message
      where message.queue_no = task.queue_no and message.id > task.position
        and ${isNamed(sql`message.id`, sql`(${option("message_id")})`)}
      order by message.id
      limit ${value("limit")}::bigint
      for update skip locked
    ) as message`);
  const pick = db.orm.$with("pick", {}).as(sql`
    select page.tid, page.id, page.dead, page.ordering_group, destination.no, destination.id as queue_id,
      destination.message_retention_seconds, destination.has_priorities,
      -- Where it goes another order may be kept.
      case
        when page.ordering_group is not null
          then psqlqueue.ordering_group(destination.ordering_scope, page.ordering_key, page.label)
      end as own_group,
      coalesce(destination.publish_paused, false) as is_closed
    from page
    cross join task
    left join lateral (
      select * from ${queues} as queue
      where queue.id = case
        -- By the number it had at the call: a queue of the same name that was made since is another one.
        when ${option("destination_queue_no")} is not null then (
          select named.id from ${queues} as named where named.no = (${option("destination_queue_no")})::int
        )
        else coalesce(${option("destination_queue_id")}, page.dead ->> 'source_queue_id')
      end
      limit 1
    ) as destination on true
    where (page.lease_token is null or page.lease_expires_at <= now())
      and ${matches(sql`page`, (name) => sql`(${option(name)})`)}
      -- Published here directly: it has no place to go back to.
      and (page.dead is not null or ${option("destination_queue_id")} is not null)
    order by page.id
    limit (select task.moves_now from task)`);
  // The ordering keys that the messages leave, come to, and keep blocked.
  const locked = db.orm.$with("locked", {}).as(sql`
    select keys.queue_nos, keys.groups, psqlqueue.lock_keys(keys.queue_nos, keys.groups) as heads
    from (
      select array_agg(key.queue_no) as queue_nos, array_agg(key.ordering_group) as groups
      from (
        select touched.queue_no, touched.ordering_group
        from (
          select task.queue_no, pick.ordering_group, pick.no from pick cross join task
          union
          select pick.no, pick.own_group, pick.no from pick
          union
          select source.no, pick.ordering_group, pick.no
          from pick
          cross join lateral (
            select queue.no from ${queues} as queue where queue.id = pick.dead ->> 'source_queue_id' limit 1
          ) as source
        ) as touched
        where touched.ordering_group is not null and touched.no is not null
        group by touched.queue_no, touched.ordering_group
        order by touched.queue_no, touched.ordering_group
      ) as key
    ) as keys
    where keys.queue_nos is not null`);
  const moved = db.orm.$with("moved", {}).as(sql`
    update ${messages} as message
    set queue_no = pick.no, lease_token = null, leased_at = null, lease_expires_at = null, dead = null, last_error = null,
      has_ttl = false, ordering_group = pick.own_group,
      -- A queue that knows no priorities would not look for it.
      priority = case when pick.has_priorities then message.priority else 0 end,
      visible_at = case
        when message.ordering_seq is null then now() + (${option("delay_seconds")})::int * interval '1 second'
        else 'infinity'
      end,
      due_at = case
        when message.ordering_seq is not null then now() + (${option("delay_seconds")})::int * interval '1 second'
      end,
      expires_at = now() + pick.message_retention_seconds * interval '1 second',
      events = psqlqueue.add_event(message.events, 'redriven', coalesce((pick.dead ->> 'attempts')::int, 0), null),
      delivery_attempts = case
        when (${option("reset_attempts")})::boolean then 0 else coalesce((pick.dead ->> 'attempts')::int, 0)
      end
    from pick, task
    where message.ctid = pick.tid and pick.no is not null and not (select coalesce(bool_or(pick.is_closed), false) from pick)
      and (pick.ordering_group is null or (select count(*) from locked) > 0)
    returning pick.queue_id, pick.no, message.ordering_group, message.ordering_seq`);
  const refreshed = db.orm.$with("refreshed", {}).as(sql`
    select head.queue_id
    from locked
    cross join (
      select array_agg(moved.no) as nos, array_agg(moved.ordering_group) as groups, array_agg(moved.ordering_seq) as seqs
      from moved
      where moved.ordering_group is not null
    ) as own
    cross join lateral psqlqueue.refresh_moved(
      locked.queue_nos, locked.groups, locked.heads, own.nos, own.groups, own.seqs) as head`);
  const done = db.orm.$with("done", {}).as(sql`
    select
      (select count(*) from moved)::int as moved,
      (select count(*) from pick where pick.no is null)::int as failed,
      task.moves <= (select count(*) from moved) or (
        (select count(*) from page) < ${value("limit")}::bigint and (select count(*) from pick) < task.moves_now
      ) as is_last,
      (select coalesce(bool_or(pick.is_closed), false) from pick) as is_closed,
      -- Not past what was left for another step.
      case
        when (select count(*) from pick) < task.moves_now then (select max(page.id) from page)
        else (select max(pick.id) from pick)
      end as position
    from task`);
  const noted = db.orm.$with("noted", {}).as(sql`
    update ${tasks} as task
    set moved = task.moved + done.moved, failed = task.failed + done.failed,
      position = case when done.is_closed then task.position else coalesce(done.position, task.position) end,
      state = case when done.is_closed then 'failed' when done.is_last then 'completed' else task.state end,
      error = case when done.is_closed then 'queue closed: publishing to the destination is paused' end,
      finished_at = case when done.is_closed or done.is_last then now() end
    from done
    where task.id = ${value("id")}`);
  const answer = db.orm
    .$with("answer", {
      moved: column<number>("moved"),
      failed: column<number>("failed"),
      is_last: column<boolean>("is_last"),
      is_closed: column<boolean>("is_closed"),
      queue_ids: column<string | null>("queue_ids"),
      now: column<string>("now"),
    })
    .as(sql`
      select done.moved, done.failed, done.is_last, done.is_closed, now() as now,
        (
          select string_agg(distinct ready.queue_id, ',')
          from (select moved.queue_id from moved union select refreshed.queue_id from refreshed) as ready
        ) as queue_ids
      from done`);
  return prepare<RedriveStep>(
    db.orm.with(task, page, pick, locked, moved, refreshed, done, noted, answer).select().from(answer),
    "redrive",
  );
}
