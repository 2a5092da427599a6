import { sql } from "drizzle-orm";
import type { Db, Prepared } from "../../db/db.ts";
import { ordering_keys } from "../../db/orderingSchema.ts";
import { queues } from "../../db/schema.ts";
import type { NoteMessages } from "../../observe.ts";
import type { OnReady } from "../onReady.ts";
import { column, prepare, type Tally, value } from "../statement.ts";
import type { DeadReason } from "./deadLetter.ts";
import { notesDone } from "./nack.ts";

// Ending and letting go of messages with an ordering key. Functions of the database, because the key's lock must be
// taken in a statement of its own, before the one that looks at its messages (see ordering_keys).

/** A head that is to be seen now or later, in a row without `n`. */
type Head = { queue_id: string; label: string | null; ready_at: string };
type Ended = Head & { n: string | null };
/** Of a row with `n`, `queue_id` is where a dead message went, and `ready_at` is now. */
type LetGo = Omit<Head, "queue_id"> & { n: number | null; queue_id: string | null };
export type ExtendedRow = Head & {
  n: number | null;
  lease_expires_at: string;
  seconds_left: number | null;
  /** Its lease has run out, and another message of the key has been delivered since. */
  is_lost: boolean;
};

const head = {
  queue_id: column<string>("queue_id"),
  label: column<string | null>("label"),
  ready_at: column<string>("ready_at"),
};
const ids = sql`${value("queue_ids")}::text[], ${value("ids")}::text[], ${value("lease_tokens")}::text[]::bigint[]`;

function prepareEnd(db: Db): Prepared<Ended[]> {
  const ended = db.orm.$with("ended", { n: column<string | null>("n"), ...head }).as(sql`
    select done.* from psqlqueue.settle_ordered(${ids}, ${value("outcome")}::text, ${value("archives")}::text::boolean) as done`);
  // As of other acks, where there is no archive.
  const noted = notesDone(
    db,
    sql`
      select done.n
      from ended as done
      cross join lateral (
        select coalesce(archive_retention_seconds, message_retention_seconds) as kept_seconds
        from ${queues} as queue
        where queue.id = (${value("queue_ids")}::text[])[done.n::int]
        limit 1
      ) as queue
      where queue.kept_seconds <= 0`,
  );
  return prepare<Ended>(db.orm.with(ended, noted).select().from(ended), "end_ordered");
}

function prepareLetGo(db: Db): Prepared<LetGo[]> {
  const gone = db.orm
    .$with("gone", { ...head, n: column<number | null>("n"), queue_id: column<string | null>("queue_id") })
    .as(sql`
      select done.*
      from psqlqueue.let_go_ordered(
        ${value("mode")}::text, ${value("reason")}::text, ${value("batch_id")}::text, ${value("places")}::int[], ${ids},
        ${value("seconds")}::int[], ${value("errors")}::text[], ${value("dead_letters")}::text[]::boolean[]
      ) as done`);
  return prepare<LetGo>(db.orm.with(gone).select().from(gone), "let_go_ordered");
}

function prepareExtend(db: Db): Prepared<ExtendedRow[]> {
  const extended = db.orm
    .$with("extended", {
      n: column<number | null>("n"),
      lease_expires_at: column<string>("lease_expires_at"),
      seconds_left: column<number | null>("seconds_left"),
      is_lost: column<boolean>("is_lost"),
      ...head,
    })
    .as(sql`
      select done.*
      from psqlqueue.extend_ordered(${value("places")}::int[], ${ids}, ${value("seconds")}::int[]) as done`);
  return prepare<ExtendedRow>(db.orm.with(extended).select().from(extended), "extend_ordered");
}

type SlotRow = Pick<ExtendedRow, "lease_expires_at" | "seconds_left" | "is_lost"> & { n: number };

function prepareExtendSlots(db: Db): Prepared<SlotRow[]> {
  const extended = db.orm
    .$with("extended", {
      n: column<number>("n"),
      lease_expires_at: column<string>("lease_expires_at"),
      seconds_left: column<number | null>("seconds_left"),
      is_lost: column<boolean>("is_lost"),
    })
    .as(sql`
      select done.*
      from psqlqueue.extend_slots(${value("places")}::int[], ${ids}, ${value("seconds")}::int[]) as done`);
  return prepare<SlotRow>(db.orm.with(extended).select().from(extended), "extend_slots");
}

/** Which items' keys a transaction of somebody else has locked right now; see prepareFindHeld. */
function prepareFindHeldKeys(db: Db): Prepared<{ n: string }[]> {
  const held = db.orm.$with("held", { n: column<string>("n") }).as(sql`
    select given.n
    from unnest(${value("queue_ids")}::text[], ${value("ids")}::text[]) with ordinality as given (queue_id, id, n)
    cross join lateral (
      select keys.queue_nos[1] as queue_no, keys.groups[1] as ordering_group
      from psqlqueue.keys_of(array[given.queue_id], array[given.id], 'no', null) as keys
    ) as own
    cross join lateral (
      select 1 as there
      from ${ordering_keys} as key
      where key.queue_no = own.queue_no and key.ordering_group = own.ordering_group
      limit 1
    ) as there
    left join lateral (
      select 1 as free
      from ${ordering_keys} as key
      where key.queue_no = own.queue_no and key.ordering_group = own.ordering_group
      for update skip locked
    ) as own_key on true
    where own_key.free is null`);
  return prepare<{ n: string }>(db.orm.with(held).select().from(held), "find_held_keys");
}

/** The items of a call, as columns. */
export type Columns = { queue_ids: string[]; ids: string[]; lease_tokens: (string | null)[] };

const to_end = { reason: null, batch_id: null, seconds: [], errors: [], dead_letters: [] };

/** The statements for messages with an ordering key. What they make visible is reported to `onReady`. */
export function createOrdered(db: Db, onReady: OnReady, note: NoteMessages) {
  const end = prepareEnd(db);
  const letGo = prepareLetGo(db);
  const prolong = prepareExtend(db);
  const prolongSlots = prepareExtendSlots(db);
  const findHeldKeys = prepareFindHeldKeys(db);

  function report(rows: { n: unknown; queue_id: string | null; label: string | null; ready_at: string }[]): void {
    for (const { n, queue_id, label, ready_at } of rows) {
      if (n === null && queue_id !== null) onReady(queue_id, label, ready_at);
    }
  }

  async function runLetGo(values: Record<string, unknown>, queue_ids: string[], places: number[]) {
    const asked = { ...to_end, ...values, queue_ids, places };
    const rows = await db.run("let_go_ordered", () => letGo.execute(asked), true);
    report(rows);
    const queue_of = new Map(places.map((place, i) => [place, queue_ids[i] as string]));
    const done = rows.filter(({ n }) => n !== null);
    for (const { n, queue_id } of done) {
      if (queue_id !== null) note("dead_lettered", queue_of.get(n as number) as string, 1);
    }
    return done as (LetGo & { n: number })[];
  }

  return {
    /**
     * Ends messages: see prepareAck. `deleted`: leaves nothing, and spares what somebody else holds. `batch_id`: so
     * that what was done is known when it is sent again.
     */
    async end(
      columns: Columns,
      outcome: "acked" | "expired" | "deleted",
      archives: boolean,
      batch_id: string | null,
    ): Promise<Tally> {
      const values = { ...columns, outcome, archives: String(archives), batch_id: archives ? batch_id : null };
      // A second run would not find what the first has deleted, and nothing tells that it did.
      const rows = await db.run("end_ordered", () => end.execute(values), outcome !== "deleted");
      report(rows);
      const ns = rows.flatMap(({ n }) => (n === null ? [] : [n]));
      return { now: "", count: ns.length, ns: ns.join(",") };
    },

    /** Lets messages go, with the later ones of their lease; answers the places (from 1) of those it found. */
    letGo: (values: Columns & { mode: "nack" | "release" | "unlease" } & Record<string, unknown>, places: number[]) =>
      runLetGo(values, values.queue_ids, places),

    /** Moves messages to their dead-letter queues; answers how many. */
    async bury(columns: Columns, reason: DeadReason): Promise<number> {
      const places = columns.ids.map((_, i) => i + 1);
      const rows = await runLetGo({ ...columns, mode: "bury", reason }, columns.queue_ids, places);
      return rows.length;
    },

    /** Moves the end of leases: one row for each item that it found. */
    async extend(columns: Columns, places: number[], seconds: number[]) {
      const values = { ...columns, places, seconds };
      const rows = await db.run("extend_ordered", () => prolong.execute(values), true);
      report(rows);
      const done = rows.filter(({ n }) => n !== null) as SlotRow[];
      if (done.length === places.length) return done;
      // The others have no order, and hold places of a queue with a cap.
      return [...done, ...(await db.run("extend_slots", () => prolongSlots.execute(values), true))];
    },

    /** The places (from 0) of items whose keys are locked. */
    async placesHeld({ queue_ids, ids: message_ids }: Columns): Promise<Set<number>> {
      const values = { queue_ids, ids: message_ids };
      const rows = await db.run("find_held_keys", () => findHeldKeys.execute(values), true);
      return new Set(rows.map(({ n }) => Number(n) - 1));
    },
  };
}

export type Ordered = ReturnType<typeof createOrdered>;
