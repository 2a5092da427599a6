import { type SQL, sql } from "drizzle-orm";
import type { Db, Prepared } from "../../db/db.ts";
import { archived_messages, messages, queues } from "../../db/schema.ts";
import { BrokerError, invalid } from "../../errors.ts";
import type { OnReady } from "../onReady.ts";
import { storedToken } from "../settle/fenced.ts";
import type { Settle } from "../settle/settle.ts";
import { column, prepare, rfc3339, value } from "../statement.ts";
import { type Filter, isNamed, matches } from "./filter.ts";
import type { SeenMessage, State } from "./seen.ts";

type Row = {
  id: string | null;
  label: string | null;
  body: string;
  attributes: string | null;
  delivery_attempts: number;
  created_at: string;
  lease_expires_at: string | null;
  expires_at: string | null;
  dead: string | null;
  last_error: string | null;
  state: State;
  visible_at: string | null;
  events?: string | null;
  body_bytes?: number;
  is_cut?: boolean;
  ordering_key: string | null;
  priority: number;
  fairness_key: string | null;
  weight: number | null;
};

export type PeekQuery = Filter & {
  state: State | "dead" | "all";
  /** The id to go on after; "" to start. */
  after: string;
  limit: number;
  has_body: boolean;
  /** Longer bodies are cut. */
  body_characters_max: number;
};

export type Change = { deliver_at?: string; label?: string; attributes?: string; priority?: number };

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

/** Of a message that waits behind another of its ordering key: when it could be delivered if it did not. */
const due_at = sql`case
  when message.visible_at < 'infinity' then message.visible_at
  when message.lease_token is not null then message.lease_expires_at
  else message.due_at
end`;

/** The state of a row of the table of messages. */
export const live_state = sql`case
  when message.expires_at <= now() and coalesce(message.lease_expires_at <= now(), true) then 'expired'
  when message.lease_token is not null and message.lease_expires_at > now() then 'leased'
  when ${due_at} <= now() then 'ready'
  when message.delivery_attempts = 0 then 'delayed'
  else 'backing_off'
end`;

/** Live messages as one sees them. */
export const live_rows = sql`
  select message.id, message.label, message.body, message.attributes::text as attributes, message.delivery_attempts,
    message.created_at, case when message.visible_at > now() then message.lease_expires_at end as lease_expires_at,
    case when message.has_ttl then message.expires_at end as expires_at, message.dead::text as dead, message.last_error,
    ${live_state} as state, ${due_at} as visible_at, message.ordering_key, message.priority, message.fairness_key, message.weight,
    message.events::text as events
  from ${messages} as message`;

/** Archived ones. */
export const past_rows = sql`
  select past.id, past.label, past.body, past.attributes::text as attributes, past.delivery_attempts, past.created_at,
    null::timestamptz as lease_expires_at, null::timestamptz as expires_at, past.dead::text as dead, past.last_error,
    past.outcome as state, null::timestamptz as visible_at, past.ordering_key, past.priority,
    null::text as fairness_key, null::int as weight, past.events::text as events
  from ${archived_messages} as past`;

const shape = {
  id: column<string | null>("id"),
  label: column<string | null>("label"),
  body: column<string>("body"),
  attributes: column<string | null>("attributes"),
  delivery_attempts: column<number>("delivery_attempts"),
  created_at: column<string>("created_at"),
  lease_expires_at: column<string | null>("lease_expires_at"),
  expires_at: column<string | null>("expires_at"),
  dead: column<string | null>("dead"),
  last_error: column<string | null>("last_error"),
  state: column<State>("state"),
  visible_at: column<string | null>("visible_at"),
  ordering_key: column<string | null>("ordering_key"),
  priority: column<number>("priority"),
  fairness_key: column<string | null>("fairness_key"),
  weight: column<number | null>("weight"),
};

const cut_shape = { body_bytes: column<number>("body_bytes"), is_cut: column<boolean>("is_cut") };

const isLive = (state: State) => state !== "acked" && state !== "expired";

function present(row: Row & { id: string }, queue_id: string, has_body = true): SeenMessage {
  return {
    id: row.id,
    queue_id,
    label: row.label,
    ...(has_body && { body: row.body }),
    ...(has_body && row.is_cut && { body_bytes: row.body_bytes ?? 0 }),
    attributes: row.attributes === null ? null : JSON.parse(row.attributes),
    delivery_attempts: row.delivery_attempts,
    created_at: rfc3339(row.created_at),
    ...(row.lease_expires_at !== null && row.state === "leased" && { lease_expires_at: rfc3339(row.lease_expires_at) }),
    ...(row.ordering_key !== null && { ordering_key: row.ordering_key }),
    ...(row.priority !== 0 && { priority: row.priority }),
    ...(row.fairness_key !== null && { fairness_key: row.fairness_key }),
    ...(row.weight !== null && { weight: row.weight }),
    ...(row.expires_at !== null && { expires_at: rfc3339(row.expires_at) }),
    ...(row.dead !== null && { dead: JSON.parse(row.dead) }),
    ...(row.last_error !== null && { last_error: row.last_error }),
    state: row.state,
    ...(row.visible_at !== null && isLive(row.state) && { visible_at: rfc3339(row.visible_at) }),
    ...(row.events != null && { events: JSON.parse(row.events) }),
  };
}

const found = (text: SQL) => sql`
  select queue.id as known_queue, one.*
  from (select id, no from ${queues} where id = ${value("queue_id")}) as queue
  left join lateral (${text}) as one on true`;

function prepareGet(db: Db): Prepared<(Row & { known_queue: string })[]> {
  const events = column<string | null>("events");
  const one = db.orm.$with("one", { ...shape, events, known_queue: column<string>("known_queue") }).as(
    found(sql`
      (${live_rows} where message.queue_no = queue.no and message.id = ${value("id")})
      union all
      (${past_rows} where past.queue_no = queue.no and past.id = ${value("id")} and past.expires_at > now())
      limit 1`),
  );
  return prepare<Row & { known_queue: string }>(db.orm.with(one).select().from(one), "get_message");
}

/** One page along the primary key of either table; what does not match is passed over, a bounded number of rows. */
function preparePeek(db: Db, name: string, rows: SQL, owner: SQL, key: SQL) {
  const page = db.orm.$with("page", { ...shape, ...cut_shape, last_id: column<string>("last_id") }).as(sql`
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
      )
      select matching.id, matching.label, left(matching.body, ${value("body_characters_max")}::int) as body,
        octet_length(matching.body) as body_bytes, char_length(matching.body) > ${value("body_characters_max")}::int as is_cut,
        matching.attributes, matching.delivery_attempts, matching.created_at, matching.lease_expires_at,
        matching.expires_at, matching.dead, matching.last_error, matching.state, matching.visible_at,
        matching.ordering_key, matching.priority, matching.fairness_key, matching.weight, edge.last_id
      from (
        select case when count(*) = ${value("scanned_rows_max")} then max(scanned.id) end as last_id from scanned
      ) as edge
      left join matching on true
      order by matching.id`);
  return prepare<Row & { last_id: string | null }>(db.orm.with(page).select().from(page), name);
}

/** Looking at messages, and changing or deleting single ones, without leasing them. */
export function createMessages(db: Db, onReady: OnReady, settle: Settle) {
  const get = prepareGet(db);
  const peekLive = preparePeek(db, "peek", live_rows, sql`message.queue_no`, sql`message.id`);
  const peekPast = preparePeek(db, "peek_archive", past_rows, sql`past.queue_no`, sql`past.id`);

  const isLeased = sql`message.lease_token is not null and message.lease_expires_at > now()`;
  // Rows never become ready in the past: receives do not scan what lies before their hint, and a label has a hint of
  // its own. So a message that changes its label comes after the others with that label.
  const changed = db.orm
    .$with("changed", { label: column<string | null>("label"), ready_at: column<string>("ready_at") })
    .as(sql`
    update ${messages} as message
    set
      label = case when ${value("sets_label")}::text::boolean then ${value("label")}::text else message.label end,
      attributes = case
        when ${value("sets_attributes")}::text::boolean then ${value("attributes")}::text::jsonb else message.attributes
      end,
      priority = coalesce(${value("priority")}::int, message.priority),
      due_at = case
        when message.ordering_seq is null then null
        when ${value("deliver_at")}::text is not null then greatest(now(), ${value("deliver_at")}::text::timestamptz)
        else message.due_at
      end,
      visible_at = case
        when message.ordering_seq is not null and ${value("deliver_at")}::text is not null then message.visible_at
        when ${value("deliver_at")}::text is not null then greatest(now(), ${value("deliver_at")}::text::timestamptz)
        when ${value("sets_label")}::text::boolean and ${value("label")}::text is distinct from message.label
          then greatest(now(), message.visible_at)
        else message.visible_at
      end
    where message.queue_no = (select queue.no from ${queues} as queue where queue.id = ${value("queue_id")})
      and message.id = ${value("id")} and not (${isLeased}) and message.expires_at > now()
      and (
        select (message.ordering_seq is null or ${value("deliver_at")}::text is null or queue.allow_delayed_ordering)
          and (coalesce(${value("priority")}::int, 0) = 0 or queue.priority_enabled)
        from ${queues} as queue where queue.no = message.queue_no)
    returning message.label, message.visible_at as ready_at`);
  const head = db.orm
    .$with("head", {
      queue_id: column<string>("queue_id"),
      label: column<string | null>("label"),
      ready_at: column<string>("ready_at"),
    })
    .as(sql`
      select head.*
      from psqlqueue.refresh_keys_of(array[${value("queue_id")}::text], array[${value("id")}::text]) as head`);
  const refresh = db.orm.with(head).select().from(head).prepare("refresh_keys_of");
  const change = db.orm.with(changed).select().from(changed).prepare("change_message");

  const queue_no = sql`(select queue.no from ${queues} as queue where queue.id = ${value("queue_id")})`;
  const removed = db.orm.$with("removed", {}).as(sql`
    delete from ${messages} as message
    where message.queue_no = ${queue_no} and message.id = ${value("id")} and message.ordering_seq is null
      and (not (${isLeased}) or message.lease_token = ${value("lease_token")}::text::bigint)
    returning message.id`);
  const forgotten = db.orm.$with("forgotten", {}).as(sql`
    delete from ${archived_messages} as past
    where past.queue_no = ${queue_no} and past.id = ${value("id")}
    returning past.id`);
  const gone = db.orm
    .$with("gone", { count: column<number>("count") })
    .as(sql`select ((select count(*) from removed) + (select count(*) from forgotten))::int as count`);
  const remove = db.orm.with(removed, forgotten, gone).select().from(gone).prepare("delete_message");

  async function look(queue_id: string, id: string): Promise<SeenMessage> {
    const [row] = await db.run("get_message", () => get.execute({ queue_id, id }), true);
    if (row === undefined) throw new BrokerError("queue_not_found");
    if (row.id === null) throw new BrokerError("message_not_found");
    return present(row as Row & { id: string }, queue_id);
  }

  return {
    /** One message with its state; never its lease token. Throws `queue_not_found`, `message_not_found`. */
    getMessage: look,

    /** Changes a message that nobody holds. Repeatable. Throws as getMessage, and `lease_lost` when it is leased. */
    async changeMessage(queue_id: string, id: string, wanted: Change): Promise<SeenMessage> {
      const values = {
        queue_id,
        id,
        label: wanted.label ?? null,
        sets_label: String(wanted.label !== undefined),
        attributes: wanted.attributes ?? null,
        sets_attributes: String(wanted.attributes !== undefined),
        deliver_at: wanted.deliver_at ?? null,
        priority: wanted.priority ?? null,
      };
      const rows = await db.run("change_message", () => change.execute(values), true);
      const before = await look(queue_id, id);
      const is_ordered = before.ordering_key !== undefined;
      if (!is_ordered) for (const row of rows) onReady(queue_id, row.label, row.ready_at);
      else if (rows.length > 0) {
        const heads = await db.run("refresh_keys_of", () => refresh.execute({ queue_id, id }), true);
        for (const own of heads) onReady(own.queue_id, own.label, own.ready_at);
      }
      const seen = is_ordered ? await look(queue_id, id) : before;
      if (rows.length > 0) return seen;
      const is_refused = isLive(seen.state) && seen.state !== "leased";
      const is_delayed = is_ordered && wanted.deliver_at !== undefined;
      if (is_refused && is_delayed) throw invalid("deliver_at", "not_together", "ordering_key");
      if (is_refused && (wanted.priority ?? 0) !== 0) throw invalid("priority", "not_enabled");
      throw new BrokerError(isLive(seen.state) ? "lease_lost" : "message_not_found");
    },

    /** Deletes a message, or its archived row. Throws as getMessage, and `lease_lost` when somebody else holds it. */
    async deleteMessage(queue_id: string, id: string, lease_token: string | null): Promise<void> {
      const values = { queue_id, id, lease_token: storedToken(lease_token) };
      const [row] = await db.run("delete_message", () => remove.execute(values));
      if ((row?.count ?? 0) > 0) return;
      if (await settle.deleteOrdered({ queue_id, id, lease_token })) return;
      await look(queue_id, id);
      throw new BrokerError("lease_lost");
    },

    /**
     * Messages that match, by id, from `after` on: never leases, counts or reorders, and looks at a bounded number of
     * rows. `next` is where to go on; absent at the end. Throws `queue_not_found`.
     */
    async peek(queue_id: string, query: PeekQuery): Promise<Peeked> {
      // "a…" goes on in the archive; ids start with a digit.
      const in_archive = query.after.startsWith("a") || query.state === "acked";
      const statement = in_archive ? peekPast : peekLive;
      const { has_body, ...asked } = query;
      const rows_max = query.search === null ? scanned_rows_max : searched_rows_max;
      const values = { ...asked, queue_id, after: query.after.replace(/^a/, ""), scanned_rows_max: rows_max };
      const rows = await db.run("peek", () => statement.execute(values), true);
      const matching = rows.filter((row) => row.id !== null) as (Row & { id: string; last_id: string | null })[];
      const data = matching.map((row) => present(row, queue_id, has_body));
      const is_full = matching.length === query.limit;
      const reached = is_full ? matching.at(-1)?.id : (rows[0]?.last_id ?? undefined);
      if (data.length === 0) await assertQueue(queue_id);
      const stopped = !is_full && reached !== undefined && { stopped_early: true as const };
      if (reached !== undefined) return { data, next: (in_archive ? "a" : "") + reached, ...stopped };
      // The archive comes after the live ones, where it can hold the state.
      const has_more = !in_archive && (query.state === "expired" || query.state === "all" || query.state === "dead");
      return has_more ? { data, next: "a" } : { data };
    },
  };

  async function assertQueue(queue_id: string): Promise<void> {
    const [row] = await db.run("get_message", () => get.execute({ queue_id, id: "" }), true);
    if (row === undefined) throw new BrokerError("queue_not_found");
  }
}
