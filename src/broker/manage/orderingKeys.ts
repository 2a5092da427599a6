import { sql } from "drizzle-orm";
import type { Db, Prepared } from "../../db/db.ts";
import { ordering_keys } from "../../db/orderingSchema.ts";
import { messages, queues } from "../../db/schema.ts";
import { BrokerError } from "../../errors.ts";
import type { OnReady } from "../onReady.ts";
import { createPages } from "../pages.ts";
import { column, prepare, rfc3339, value } from "../statement.ts";
import type { RepairFair } from "./fairKeys.ts";

/** Keys that one statement looks at. */
const page_keys = 500;

/** What a key can be, by its first message. */
export const key_states = ["ready", "leased", "waiting", "blocked"] as const;
export type KeyState = (typeof key_states)[number];

/** An ordering key with unfinished messages, or one that a dead message blocks. */
export type OrderingKey = {
  ordering_key: string;
  /** Of a queue that orders by key and label. */
  label?: string | null;
  state: KeyState;
  /** Unfinished messages; exact up to `pending_max`. */
  pending: number;
  head_id: string | null;
  blocked_since: string | null;
  dead_message_id: string | null;
};

/** Messages of one key that are counted at most. */
const pending_max = 100_000;

type RepairRow = {
  last_group: string | null;
  checked: number | null;
  queue_id: string | null;
  label: string | null;
  ready_at: string;
};

export type Repair = (
  queue_no: number,
  after: string,
) => Promise<{ last_group: string | null; checked: number; repaired: number }>;

/** Gives keys of one queue their heads back, a page after `after`; on a healthy queue it changes nothing. */
export function createRepair(db: Db, onReady: OnReady): Repair {
  const repaired = db.orm
    .$with("repaired", {
      last_group: column<string | null>("last_group"),
      checked: column<number | null>("checked"),
      queue_id: column<string | null>("queue_id"),
      label: column<string | null>("label"),
      ready_at: column<string>("ready_at"),
    })
    .as(sql`
      select page.*
      from psqlqueue.repair_keys(${value("queue_no")}::int, ${value("after")}::text, ${value("limit")}::int) as page`);
  const statement = prepare<RepairRow>(db.orm.with(repaired).select().from(repaired), "repair_keys");

  const pages = createPages(page_keys);
  return async (queue_no, after) => {
    const rows = await pages((limit) =>
      db.run("repair_keys", () => statement.execute({ queue_no, after, limit }), true),
    );
    const heads = rows.filter(({ queue_id }) => queue_id !== null);
    for (const { queue_id, label, ready_at } of heads) onReady(queue_id as string, label, ready_at);
    const page = rows.find(({ checked }) => checked !== null);
    return { last_group: page?.last_group ?? null, checked: page?.checked ?? 0, repaired: heads.length };
  };
}

type KeyRow = OrderingKey & { known_queue: string };

/** A page of the keys of a queue, by key. */
function prepareList(db: Db): Prepared<(KeyRow | (Omit<KeyRow, "ordering_key"> & { ordering_key: null }))[]> {
  const listed = db.orm
    .$with("listed", {
      known_queue: column<string>("known_queue"),
      ordering_key: column<string>("ordering_key"),
      label: column<string | null>("label"),
      state: column<KeyState>("state"),
      pending: column<number>("pending"),
      head_id: column<string | null>("head_id"),
      blocked_since: column<string | null>("blocked_since"),
      dead_message_id: column<string | null>("dead_message_id"),
    })
    .as(sql`
      select queue.id as known_queue, own.*
      from (select * from ${queues} where id = ${value("queue_id")}) as queue
      left join lateral (
        select coalesce(head.ordering_key, dead.ordering_key, key.ordering_group) as ordering_key,
          coalesce(head.label, dead.label) as label, state.state, counted.pending, head.id as head_id, key.blocked_since,
          key.dead_id as dead_message_id
        from ${ordering_keys} as key
        left join lateral (
          select message.id, message.ordering_key, message.label, message.visible_at, message.lease_token,
            message.lease_expires_at
          from ${messages} as message
          where message.queue_no + 0 = queue.no and message.ordering_group = key.ordering_group
            and message.ordering_seq >= key.floor_seq
            and (message.expires_at > now() or message.lease_expires_at > now())
          order by message.ordering_seq
          limit 1
        ) as head on true
        left join lateral (
          select message.ordering_key, message.label
          from ${messages} as message
          where message.queue_no = key.dead_queue_no and message.id = key.dead_id
          limit 1
        ) as dead on true
        cross join lateral (
          select count(*)::int as pending
          from (
            select message.id
            from ${messages} as message
            where message.queue_no + 0 = queue.no and message.ordering_group = key.ordering_group
              and message.ordering_seq >= key.floor_seq
              and (message.expires_at > now() or message.lease_expires_at > now())
            order by message.ordering_seq
            limit ${pending_max}
          ) as unfinished
        ) as counted
        cross join lateral (
          select case
            when key.blocked_seq is not null then 'blocked'
            when head.visible_at <= now() then 'ready'
            when head.lease_token is not null and head.lease_expires_at > now() then 'leased'
            else 'waiting'
          end as state
        ) as state
        where key.queue_no = queue.no and (head.id is not null or key.blocked_seq is not null)
          and (${value("state")}::text is null or state.state = ${value("state")}::text)
          and (${value("state")}::text is distinct from 'blocked' or key.blocked_seq is not null)
        order by key.ordering_group
        limit ${value("limit")}
        offset ${value("offset")}
      ) as own on true
      order by own.ordering_key`);
  return prepare<KeyRow>(db.orm.with(listed).select().from(listed), "list_ordering_keys");
}

/** Ordering keys of one database, as people look at them. */
export function createOrderingKeys(db: Db, repair: Repair, repairFair: RepairFair) {
  const list = prepareList(db);
  const findNo = db.orm
    .$with("found", { no: column<number>("no") })
    .as(sql`select queue.no from ${queues} as queue where queue.id = ${value("queue_id")}`);
  const find = db.orm.with(findNo).select().from(findNo).prepare("find_queue_of_keys");
  const next = db.orm.$with("next", { queue_no: column<number | null>("queue_no") }).as(sql`
    select min(key.queue_no) as queue_no from ${ordering_keys} as key where key.queue_no > ${value("queue_no")}::int`);
  const findNext = db.orm.with(next).select().from(next).prepare("find_next_ordered_queue");

  return {
    /** A page of the queue's keys with unfinished or dead messages, by key. Throws `queue_not_found`. */
    async listOrderingKeys(
      queue_id: string,
      query: { state: KeyState | undefined; limit: number; offset: number },
    ): Promise<OrderingKey[]> {
      const values = { queue_id, ...query, state: query.state ?? null };
      const rows = await db.run("list_ordering_keys", () => list.execute(values), true);
      if (rows.length === 0) throw new BrokerError("queue_not_found");
      return rows.flatMap(({ known_queue: _, ordering_key, label, ...row }) => {
        if (ordering_key === null) return [];
        const blocked_since = row.blocked_since === null ? null : rfc3339(row.blocked_since);
        return [{ ordering_key, ...(label !== null && { label }), ...row, blocked_since }];
      });
    },

    /** Looks at every key of a queue and mends those without their head or turns. Throws `queue_not_found`. */
    async repairQueue(queue_id: string): Promise<{ checked: number; repaired: number }> {
      const [queue] = await db.run("find_queue_of_keys", () => find.execute({ queue_id }), true);
      if (queue === undefined) throw new BrokerError("queue_not_found");
      const total = { checked: 0, repaired: 0 };
      for (let after: string | null = ""; after !== null; ) {
        const page = await repair(queue.no, after);
        total.checked += page.checked;
        total.repaired += page.repaired;
        after = page.last_group;
      }
      let after: string | null = null;
      do {
        const page = await repairFair(queue.no, after);
        total.checked += page.checked;
        total.repaired += page.repaired;
        after = page.last_key;
      } while (after !== null);
      return total;
    },

    /** The same for one page of all queues; `next` is undefined at the end. */
    async sweepOrderingKeys(from: KeyPlace | undefined): Promise<{ count: number; next: KeyPlace | undefined }> {
      const start = from ?? { queue_no: -1, after: null };
      let { queue_no, after } = start;
      if (after === null) {
        const [row] = await db.run("find_next_ordered_queue", () => findNext.execute({ queue_no }), true);
        if (row?.queue_no == null) return { count: 0, next: undefined };
        queue_no = row.queue_no;
        after = "";
      }
      const { last_group, repaired } = await repair(queue_no, after);
      return { count: repaired, next: { queue_no, after: last_group } };
    },
  };
}

/** Where a sweep of the keys stands: after a key of a queue; null: after its last. */
export type KeyPlace = { queue_no: number; after: string | null };
