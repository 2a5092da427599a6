import { and, eq, lte, sql } from "drizzle-orm";
import type { Db } from "../db/db.ts";
import { deleted_queues, leaders, messages, publish_batches, queues } from "../db/schema.ts";
import type { NoteMessages } from "../observe.ts";
import type { Housekeeping } from "./housekeeping.ts";
import { type Place, prepareFindOverdue } from "./overdue.ts";
import { type Removals, removalOfQueue } from "./removal.ts";
import type { Settle } from "./settle.ts";
import { column, value } from "./sql.ts";

/** Seconds after which another server takes a job over from one that went silent. */
const leader_seconds = 30;
/** How long the guard against double publishing must outlive a statement: far longer than any of them runs. */
const batch_guard_minutes = 10;
const page_rows = 5000;
const dead_rows = 1000;
const archive_days_ahead = 2;
/** A publish that saw a queue before its deletion has committed long before this. */
const deleted_queue_seconds = 60;

/** How long one deleted queue may hold up the next in a run; the next run goes on. */
const removal_ms_max = 2000;

/** What background jobs do. Nothing's correctness depends on them having run; every call may be repeated. */
export function createUpkeep(
  db: Db,
  housekeeping: Housekeeping,
  removals: Removals,
  settle: Settle,
  note: NoteMessages,
) {
  const { orm } = db;
  const findOverdue = prepareFindOverdue(db);
  const lead = orm
    .insert(leaders)
    .values({
      job: value("job"),
      holder: value("holder"),
      until: sql`now() + ${leader_seconds} * interval '1 second'`,
    })
    .onConflictDoUpdate({
      target: leaders.job,
      set: { holder: sql`excluded.holder`, until: sql`excluded.until` },
      setWhere: sql`${leaders.holder} = excluded.holder or ${leaders.until} <= now()`,
    })
    .returning({ job: leaders.job })
    .prepare("lead");
  const resign = orm
    .delete(leaders)
    .where(and(eq(leaders.job, value("job")), eq(leaders.holder, value("holder"))))
    .prepare("resign");
  const archive = orm
    .select({ dropped: sql<number>`psqlqueue.keep_archive(${archive_days_ahead})`.as("dropped") })
    .from(sql`(values (1)) as one`)
    .prepare("keep_archive");

  const oldest = orm
    .$with("oldest", {
      no: column<number>("no"),
      queue_id: column<string>("queue_id"),
      is_dead_on_expiry: column<boolean>("is_dead_on_expiry"),
    })
    .as(sql`
    select queue.no, queue.id as queue_id,
      queue.dead_letter_on_expiry and queue.dead_queue_no is not null as is_dead_on_expiry
    from ${queues} as queue
    cross join lateral (
      select message.expires_at from ${messages} as message where message.queue_no = queue.no order by message.id limit 1
    ) as first
    where first.expires_at <= now()`);
  const findExpired = orm.with(oldest).select().from(oldest).prepare("find_queues_with_expired");
  const unclaimed = orm.$with("unclaimed", { id: column<string>("id") }).as(sql`
    select message.id
    from ${messages} as message
    where message.queue_no = ${value("no")} and message.id > ${value("after")} and message.expires_at <= now()
      and coalesce(message.lease_expires_at <= now(), true)
    order by message.id
    limit ${dead_rows}`);
  const findUnclaimed = orm.with(unclaimed).select().from(unclaimed).prepare("find_expired_unclaimed");

  // Messages whose last lease ran out since the last look, so that an idle queue dead-letters too: bounded by time, not
  // by backlog.
  const exhausted = orm.$with("exhausted", { queue_id: column<string>("queue_id"), id: column<string>("id") }).as(sql`
      select queue.id as queue_id, message.id
      from ${queues} as queue
      cross join lateral (
        select message.id
        from ${messages} as message
        where message.queue_no + 0 = queue.no and message.priority = 0
          and message.visible_at > now() - ${value("seconds")}::int * interval '1 second' and message.visible_at <= now()
          and message.delivery_attempts >= queue.message_max_deliveries and message.lease_token is not null
        order by message.visible_at, message.id collate "POSIX"
        limit ${page_rows}
      ) as message
      where queue.message_max_deliveries is not null`);
  const findExhausted = orm.with(exhausted).select().from(exhausted).prepare("find_exhausted");

  // Kept for the longest window of any queue; how long a key counts is decided when it is met.
  const sweepKeys = (["deduplications", "topic_deduplications"] as const).map((table) => {
    const name = sql.identifier(table);
    const gone = orm.$with("gone", {}).as(sql`
      delete from psqlqueue.${name} as seen
      where seen.ctid = any (array(
        select old.ctid
        from psqlqueue.${name} as old
        where old.created_at < now() - (
          select greatest(300, coalesce(max(queue.dedup_window_seconds), 0)) from ${queues} as queue
        ) * interval '1 second'
        order by old.created_at
        limit ${page_rows}
      ))
      returning 1`);
    const counted = orm
      .$with("counted", { count: column<number>("count") })
      .as(sql`select count(*)::int as count from gone`);
    return {
      name: `sweep_${table}`,
      statement: orm.with(gone, counted).select().from(counted).prepare(`sweep_${table}`),
    };
  });

  const doomed = orm
    .select({ no: deleted_queues.no })
    .from(deleted_queues)
    .where(lte(deleted_queues.deleted_at, sql`now() - ${deleted_queue_seconds} * interval '1 second'`))
    .prepare("list_deleted_queues");
  const forget = orm
    .delete(deleted_queues)
    .where(eq(deleted_queues.no, value("no")))
    .prepare("forget_deleted_queue");

  const count = { count: column<number>("count") };
  // Ids rise with time, so the old ones are at the start of the key: the page ends the walk.
  const swept = orm.$with("swept", {}).as(sql`
    with page as materialized (
      select batch.id, batch.created_at from ${publish_batches} as batch order by batch.id limit ${page_rows}
    )
    delete from ${publish_batches} as batch
    using page
    where batch.id = page.id and page.created_at < now() - ${batch_guard_minutes} * interval '1 minute'
    returning batch.id`);
  const sweptCount = orm.$with("swept_count", count).as(sql`select count(*)::int as count from swept`);
  const sweepBatches = orm.with(swept, sweptCount).select().from(sweptCount).prepare("sweep_batches");

  // Only what no day's partition took; the days themselves are dropped whole.
  const late = orm.$with("late", {}).as(sql`
    delete from only psqlqueue.archived_messages_default as past
    where past.ctid = any (array(
      select old.ctid from only psqlqueue.archived_messages_default as old
      where old.expires_at <= now()
      order by old.expires_at
      limit ${page_rows}
    ))
    returning past.id`);
  const lateCount = orm.$with("late_count", count).as(sql`select count(*)::int as count from late`);
  const sweepLate = orm.with(late, lateCount).select().from(lateCount).prepare("sweep_archive_default");

  const untilEmpty = async (name: string, statement: { execute(): PromiseLike<{ count: number }[]> }) => {
    let total = 0;
    for (;;) {
      const [row] = await db.run(name, () => statement.execute(), true);
      total += row?.count ?? 0;
      if ((row?.count ?? 0) < page_rows) return total;
    }
  };

  // A token would not do: its lease may have been extended since the look.
  const withoutToken = ({ id }: { id: string }) => ({ id, lease_token: null });

  async function deadLetterExpired(no: number, queue_id: string): Promise<number> {
    let total = 0;
    for (let after = ""; ; ) {
      const rows = await db.run("find_expired_unclaimed", () => findUnclaimed.execute({ no, after }), true);
      if (rows.length > 0) total += await settle.deadLetter(queue_id, rows.map(withoutToken), "expired");
      if (rows.length < dead_rows) return total;
      after = rows.at(-1)?.id ?? "";
    }
  }

  return {
    /** Takes or keeps a job for `leader_seconds`; false while another server has it. */
    async lead(job: string, holder: string): Promise<boolean> {
      return (await db.run("lead", () => lead.execute({ job, holder }), true)).length > 0;
    },

    /** Lets another server take the job at once. */
    async resign(job: string, holder: string): Promise<void> {
      await db.run("resign", () => resign.execute({ job, holder }));
    },

    /** Makes the archive's next days and drops those in which everything has expired. */
    async keepArchive(): Promise<{ days_dropped: number; rows: number }> {
      const [row] = await db.run("keep_archive", () => archive.execute());
      return { days_dropped: row?.dropped ?? 0, rows: await untilEmpty("sweep_archive_default", sweepLate) };
    },

    /** Moves expired messages to the archive, or to the dead-letter queue where the queue says so. */
    async sweepExpired(): Promise<number> {
      let total = 0;
      const found = await db.run("find_queues_with_expired", () => findExpired.execute(), true);
      for (const { no, queue_id, is_dead_on_expiry } of found) {
        if (is_dead_on_expiry) total += await deadLetterExpired(no, queue_id);
        else {
          const count = await housekeeping.expireOldest(no);
          if (count > 0) note("expired", queue_id, count);
          total += count;
        }
      }
      return total;
    },

    /**
     * One page of the walk round the whole table, from `from` on: ends and dead-letters what the other sweeps do not
     * see. `next` is undefined at the end of the table.
     */
    async sweepOverdue(from: Place | undefined): Promise<{ count: number; next: Place | undefined }> {
      const rows = await db.run("find_overdue", () => findOverdue.execute(from ?? { queue_no: 0, id: "" }), true);
      let count = 0;
      const overdue = rows.flatMap(({ id, queue_id, verdict }) =>
        id === null
          ? []
          : [{ id, lease_token: null, verdict, group: `${verdict}\n${queue_id}`, queue_id: queue_id ?? "" }],
      );
      for (const own of Map.groupBy(overdue, ({ group }) => group).values()) {
        const { verdict, queue_id } = own[0] as (typeof own)[number];
        if (verdict === "expired") count += await settle.expire(queue_id, own);
        else count += await settle.deadLetter(queue_id, own, verdict === "dead" ? "max_deliveries" : "expired");
      }
      const [edge] = rows;
      const next = edge?.last_id == null ? undefined : { queue_no: edge.last_queue_no ?? 0, id: edge.last_id };
      return { count, next };
    },

    /**
     * Dead-letters messages whose last lease ended within `seconds`, and of which nobody has heard since. Answers how
     * many.
     */
    async sweepExhausted(seconds: number): Promise<number> {
      const rows = await db.run("find_exhausted", () => findExhausted.execute({ seconds }), true);
      const by_queue = Map.groupBy(rows, (row) => row.queue_id);
      let total = 0;
      for (const [queue_id, own] of by_queue) {
        total += await settle.deadLetter(queue_id, own.map(withoutToken), "max_deliveries");
      }
      return total;
    },

    /** Forgets client keys that no queue's window holds any more. */
    async sweepDeduplications(): Promise<number> {
      let total = 0;
      for (const { name, statement } of sweepKeys) total += await untilEmpty(name, statement);
      return total;
    },

    /** Forgets publish statements that nobody can repeat any more. */
    sweepBatches: () => untilEmpty("sweep_batches", sweepBatches),

    /** Removes what is left of deleted queues. */
    async sweepDeletedQueues(): Promise<number> {
      const rows = await db.run("list_deleted_queues", () => doomed.execute(), true);
      for (const { no } of rows) {
        const { is_done } = await removals.proceed(removalOfQueue(no), removal_ms_max);
        if (is_done) await db.run("forget_deleted_queue", () => forget.execute({ no }), true);
      }
      return rows.length;
    },
  };
}
