import { type SQL, sql } from "drizzle-orm";
import type { Db, Prepared } from "../../db/db.ts";
import { archived_messages, messages, queues } from "../../db/schema.ts";
import { BrokerError, invalid } from "../../errors.ts";
import { is_held } from "../heldRows.ts";
import type { OnReady } from "../onReady.ts";
import { too_large } from "../publish/outgoing.ts";
import { magic, sealed } from "../publish/sealing.ts";
import { storedToken } from "../settle/fenced.ts";
import type { Settle } from "../settle/settle.ts";
import { column, prepare, value } from "../statement.ts";
import { isLive, live_rows, type Open, past_rows, present, type SeenMessage, type SeenRow, shape } from "./seen.ts";

export type Change = { deliver_at?: string; label?: string; attributes?: string; priority?: number };

const found = (text: SQL) => sql`
  select queue.id as known_queue, one.*
  from (select id, no from ${queues} where id = ${value("queue_id")}) as queue
  left join lateral (${text}) as one on true`;

function prepareGet(db: Db): Prepared<(SeenRow & { known_queue: string })[]> {
  const events = column<string | null>("events");
  const one = db.orm.$with("one", { ...shape, events, known_queue: column<string>("known_queue") }).as(
    found(sql`
      (${live_rows} where message.queue_no = queue.no and message.id = ${value("id")})
      union all
      (${past_rows} where past.queue_no = queue.no and past.id = ${value("id")})
      limit 1`),
  );
  return prepare<SeenRow & { known_queue: string }>(db.orm.with(one).select().from(one), "get_message");
}

/** Bytes of what was sent, of a row of `message` with this label and these attributes. */
const bytesWith = (label: SQL, attributes: SQL) => sql`(
  case
    -- Base64 of the body, a nonce and a tag.
    when starts_with(message.body, ${sealed}) then (
      select length(own.text) * 3 / 4 - length(own.text) + length(rtrim(own.text, '=')) - 28
      from (select split_part(substr(message.body, length(${sealed}) + 1), ':', 2) as text) as own)
    when starts_with(message.body, ${magic}) then octet_length(message.body) - octet_length(${sealed})
    else octet_length(message.body)
  end
  + coalesce(octet_length(${label}), 0)
  -- Without the spaces that the text of jsonb has.
  + coalesce(octet_length((${attributes})::text)
    - greatest(0, 2 * (select count(*) from jsonb_object_keys(${attributes})) - 1), 0)
)`;

/** Looking at messages, and changing or deleting single ones, without leasing them. */
export function createMessages(db: Db, onReady: OnReady, settle: Settle, open: Open) {
  const get = prepareGet(db);

  const label = sql`case when ${value("sets_label")}::text::boolean then ${value("label")}::text else message.label end`;
  const attributes = sql`case
    when ${value("sets_attributes")}::text::boolean then ${value("attributes")}::text::jsonb else message.attributes
  end`;
  // What was larger before may become smaller.
  const is_too_large = (queue: SQL) => sql`
    coalesce(case
      when ${queue}.max_message_bytes is not null then ${bytesWith(label, attributes)} > greatest(
        ${queue}.max_message_bytes, ${bytesWith(sql`message.label`, sql`message.attributes`)})
    end, false)`;
  // Its new place would be behind or before messages of another order, and its old one empty.
  const is_out_of_order = (queue: SQL) => sql`(
    message.ordering_seq is not null and ${queue}.ordering_scope = 'key_label' and ${label} is distinct from message.label
  )`;
  // Rows never become ready in the past: receives do not scan what lies before their hint, and a label has a hint of
  // its own. So a message that changes its label comes after the others with that label.
  const changed = db.orm
    .$with("changed", { label: column<string | null>("label"), ready_at: column<string>("ready_at") })
    .as(sql`
    update ${messages} as message
    set
      label = ${label},
      attributes = ${attributes},
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
      and message.id = ${value("id")} and not ${is_held} and message.expires_at > now()
      and (
        select (message.ordering_seq is null or ${value("deliver_at")}::text is null or queue.allow_delayed_ordering)
          and (coalesce(${value("priority")}::int, 0) = 0 or queue.priority_enabled)
          and not ${is_too_large(sql`queue`)}
          and not ${is_out_of_order(sql`queue`)}
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

  const refusal = db.orm
    .$with("refusal", {
      is_too_large: column<boolean>("is_too_large"),
      is_out_of_order: column<boolean>("is_out_of_order"),
    })
    .as(sql`
    select ${is_too_large(sql`queue`)} as is_too_large, ${is_out_of_order(sql`queue`)} as is_out_of_order
    from ${queues} as queue
    cross join lateral (
      select * from ${messages} as message where message.queue_no = queue.no and message.id = ${value("id")} limit 1
    ) as message
    where queue.id = ${value("queue_id")}`);
  const why = db.orm.with(refusal).select().from(refusal).prepare("explain_unchanged");

  const queue_no = sql`(select queue.no from ${queues} as queue where queue.id = ${value("queue_id")})`;
  const removed = db.orm.$with("removed", {}).as(sql`
    delete from ${messages} as message
    where message.queue_no = ${queue_no} and message.id = ${value("id")} and message.ordering_seq is null
      and (not ${is_held} or message.lease_token = ${value("lease_token")}::text::bigint)
    returning message.id`);
  const forgotten = db.orm.$with("forgotten", {}).as(sql`
    delete from ${archived_messages} as past
    where past.queue_no = ${queue_no} and past.id = ${value("id")} and past.expires_at > now()
    returning past.id`);
  const gone = db.orm
    .$with("gone", { count: column<number>("count") })
    .as(sql`select ((select count(*) from removed) + (select count(*) from forgotten))::int as count`);
  const remove = db.orm.with(removed, forgotten, gone).select().from(gone).prepare("delete_message");

  async function look(queue_id: string, id: string): Promise<SeenMessage> {
    const [row] = await db.run("get_message", () => get.execute({ queue_id, id }), true);
    if (row === undefined) throw new BrokerError("queue_not_found");
    if (row.id === null) throw new BrokerError("message_not_found");
    return present(row as SeenRow & { id: string }, queue_id, open, Number.POSITIVE_INFINITY);
  }

  return {
    /** One message with its state; never its lease token. Throws `queue_not_found`, `message_not_found`. */
    getMessage: look,

    /** Changes a message that nobody holds. Repeatable. Throws as getMessage, `payload_too_large`, `lease_lost`. */
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
      if (is_refused) {
        const [row] = await db.run("explain_unchanged", () => why.execute(values), true);
        if (row?.is_out_of_order) throw invalid("label", "keeps_order");
        if (row?.is_too_large) throw new BrokerError("payload_too_large", too_large);
      }
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
  };
}
