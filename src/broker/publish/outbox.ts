import { type SQL, sql } from "drizzle-orm";
import type { Db, Prepared } from "../../db/db.ts";
import { deduplications, topic_deduplications } from "../../db/dedupSchema.ts";
import { stale_keys } from "../../db/orderingSchema.ts";
import { outbox } from "../../db/outboxSchema.ts";
import { messages, publish_batches, queues, topics } from "../../db/schema.ts";
import type { OnReady } from "../onReady.ts";
import { column, prepare, value } from "../statement.ts";
import { heldKey, scoped, takesOldKeys, takesOldTopicKeys } from "./dedup.ts";
import { enteredKeys, placed } from "./ordered.ts";
import { type Sealing, sealed } from "./sealing.ts";
import { ending, fairKeyOf } from "./storing.ts";

const channel = "psqlqueue_outbox";
const chunk_rows = 500;
const chunk_bytes = 8_388_608;
/** Between two tries while another server moves. */
const turn_ms = 20;

/** `is_turn` false: another server moves at the moment. One row without messages when there are none. */
type Moved = {
  is_turn: boolean;
  /** Users have acked messages with ordering keys, which wait for their next head. */
  has_stale_keys: boolean;
  /** Messages of queues that encrypt, from a time when they did not: they stay until they are sealed. */
  has_unsealed: boolean;
  is_last: boolean;
  queue_id: string | null;
  label: string | null;
  count: number;
  now: string;
};

/** Must this row of the outbox be sealed before it is moved? */
const is_unsealed = sql`(
  coalesce((select queue.encrypt from ${queues} as queue where queue.no = row.queue_no), false)
    and not starts_with(row.body, ${sealed})
)`;

/**
 * Moves committed rows of the outbox to their queues; rows of transactions still open are not seen, and wait. One
 * server at a time: of two, the younger rows could be there before the older ones.
 */
function prepareMove(db: Db): Prepared<Moved[]> {
  const turn = db.orm
    .$with("turn", {})
    .as(sql`select pg_try_advisory_xact_lock(hashtextextended('psqlqueue:outbox', 0)) as is_mine`);
  // Changes nothing: it has the lock that switching encryption on waits for (await_publishes).
  const locked = db.orm.$with("locked", {}).as(sql`delete from ${publish_batches} where false`);
  const page = db.orm.$with("page", {}).as(sql`
    select waiting.seq, waiting.is_unsealed,
      sum(octet_length(waiting.body)) over (order by waiting.seq rows unbounded preceding) as bytes
    from (
      select row.seq, row.body, ${is_unsealed} as is_unsealed from ${outbox} as row
      where (select turn.is_mine from turn)
      order by row.seq
      limit ${value("limit")}
    ) as waiting`);
  const taken = db.orm.$with("taken", {}).as(sql`
    delete from ${outbox} as row
    where row.seq = any (array(
      select page.seq from page
      where not page.is_unsealed
        and (page.bytes <= ${value("bytes_max")}::bigint or page.seq = (select min(seq) from page))
    ))
    returning row.*`);
  const own = (key: SQL) => scoped(key, sql`taken.ordering_key`);
  const item = db.orm.$with("item", {}).as(sql`
    select taken.*, queue.id as queue_id, queue.message_retention_seconds, queue.fair_by, keyed.key,
      psqlqueue.ordering_group(queue.ordering_scope, taken.ordering_key, taken.label) as ordering_group,
      case
        when taken.deliver_at is not null then greatest(now(), taken.deliver_at)
        else now() + coalesce(taken.delay_seconds, queue.delivery_delay_seconds) * interval '1 second'
      end as due_at, row_number() over (partition by taken.queue_no, keyed.key order by taken.seq) as nth
    from taken
    left join lateral (select * from ${queues} as queue where queue.no = taken.queue_no limit 1) as queue on true
    cross join lateral (
      select case
        -- Decided once for all copies.
        when taken.topic_id is not null then null
        when queue.dedup_window_seconds > 0 and (taken.dedup_key is not null or queue.content_dedup) then coalesce(
          case when taken.dedup_key is null then ${heldKey(own(sql`taken.body_hash`))} end,
          -- Before 0.6 there were no keys of contents.
          ${own(sql`coalesce(taken.dedup_key, taken.content_key, taken.body_hash)`)})
      end as key
    ) as keyed`);
  const claimed = db.orm.$with("claimed", {}).as(sql`
    insert into ${deduplications} as seen (queue_no, key, message_id, body_hash, created_at)
    select item.queue_no, item.key, item.id, item.body_hash, now()
    from item
    where item.key is not null and item.nth = 1 and item.queue_id is not null
    order by item.queue_no, item.key
    ${takesOldKeys}`);
  // As over HTTP, see fanOutStatements.ts: once per topic, all copies or none.
  const claimed_topic = db.orm.$with("claimed_topic", {}).as(sql`
    insert into ${topic_deduplications} as seen (topic_id, key, created_at, delivered_queues, id)
    select distinct on (taken.topic_id, taken.dedup_key)
      taken.topic_id, taken.dedup_key, now(), taken.topic_queues, taken.publication_id
    from taken
    cross join lateral (select topic.id from ${topics} as topic where topic.id = taken.topic_id limit 1) as topic
    where taken.dedup_key is not null
    order by taken.topic_id, taken.dedup_key, taken.seq
    ${takesOldTopicKeys}`);
  const is_fresh_of_topic = sql`
    item.publication_id in (select claimed_topic.id from claimed_topic)
    -- The first copies were on an earlier page.
    or item.publication_id = (
      select seen.id from ${topic_deduplications} as seen
      where seen.topic_id = item.topic_id and seen.key = item.dedup_key
      limit 1
    )
    -- With a topic its ids are gone.
    or (select topic.id from ${topics} as topic where topic.id = item.topic_id limit 1) is null`;
  const fresh = db.orm.$with("fresh", {}).as(sql`
    select item.*
    from item
    where item.queue_id is not null and case
      when item.topic_id is not null and item.dedup_key is not null then ${is_fresh_of_topic}
      else item.key is null or item.id in (select claimed.message_id from claimed)
    end`);
  const entered = db.orm
    .$with("entered", {})
    .as(enteredKeys(sql`select fresh.queue_no, fresh.ordering_group from fresh`));
  const stored = db.orm.$with("stored", {}).as(sql`
    insert into ${messages} (
      queue_no, id, body, label, attributes, priority, visible_at, expires_at, has_ttl, created_at, ordering_seq, due_at,
      ordering_key, ordering_group, fairness_key, weight, fair_key)
    select fresh.queue_no, fresh.id, fresh.body, fresh.label, fresh.attributes, fresh.priority,
      case
        when fresh.ordering_group is null then fresh.due_at
        when fresh.is_head then least(fresh.due_at, ${ending})
        else 'infinity'
      end,
      ${ending}, fresh.expires_at is not null or fresh.ttl_seconds is not null, now(),
      case when fresh.ordering_group is not null then nextval('psqlqueue.ordering_seq') end,
      case when fresh.ordering_group is not null then fresh.due_at end, fresh.ordering_key, fresh.ordering_group,
      fresh.fairness_key, fresh.weight, ${fairKeyOf(sql`fresh`)}
    from (${placed(sql`fresh`, sql`fresh.seq`)}) as fresh`);
  const answer = db.orm
    .$with("answer", {
      is_turn: column<boolean>("is_turn"),
      has_stale_keys: column<boolean>("has_stale_keys"),
      has_unsealed: column<boolean>("has_unsealed"),
      is_last: column<boolean>("is_last"),
      queue_id: column<string | null>("queue_id"),
      label: column<string | null>("label"),
      count: column<number>("count"),
      now: column<string>("now"),
    })
    .as(sql`
      select (select turn.is_mine from turn) as is_turn,
        (select stale.seq from ${stale_keys} as stale order by stale.seq limit 1) is not null as has_stale_keys,
        coalesce((select bool_or(page.is_unsealed) from page), false) as has_unsealed,
        (select count(*) from page) < ${value("limit")}::int
          and (select count(*) from page) = (select count(*) from taken) as is_last,
        own.queue_id, own.label, coalesce(own.count, 0) as count, now() as now
      from (values (1)) as one
      left join (
        select item.queue_id, item.label, count(*)::int as count from item group by item.queue_id, item.label
      ) as own on true`);
  return prepare<Moved>(
    db.orm
      .with(turn, locked, page, taken, item, claimed, claimed_topic, fresh, entered, stored, answer)
      .select()
      .from(answer),
    "move_outbox",
  );
}

type StaleRow = { queue_id: string | null; label: string | null; ready_at: string };

function prepareRefresh(db: Db): Prepared<StaleRow[]> {
  const head = db.orm
    .$with("head", {
      queue_id: column<string | null>("queue_id"),
      label: column<string | null>("label"),
      ready_at: column<string>("ready_at"),
    })
    .as(sql`select head.* from psqlqueue.refresh_stale_keys(${chunk_rows}) as head`);
  return prepare<StaleRow>(db.orm.with(head).select().from(head), "refresh_stale_keys");
}

type UnsealedRow = { seq: string; queue_id: string; body: string };

function prepareFindUnsealed(db: Db): Prepared<UnsealedRow[]> {
  const found = db.orm
    .$with("found", {
      seq: column<string>("seq"),
      queue_id: column<string>("queue_id"),
      body: column<string>("body"),
    })
    .as(sql`
      select own.seq::text as seq, own.queue_id, own.body
      from (
        select row.seq, row.body, queue.id as queue_id,
          sum(octet_length(row.body)) over (order by row.seq rows unbounded preceding) - octet_length(row.body) as before
        from (select row.seq from ${outbox} as row order by row.seq limit ${value("limit")}) as first
        join ${outbox} as row on row.seq = first.seq
        join ${queues} as queue on queue.no = row.queue_no
        where ${is_unsealed}
      ) as own
      where own.before < ${value("bytes_max")}::bigint
      order by own.seq`);
  return prepare<UnsealedRow>(db.orm.with(found).select().from(found), "find_unsealed");
}

function prepareSeal(db: Db): Prepared<unknown[]> {
  const sealing = db.orm.$with("sealing", { seq: column<string>("seq") }).as(sql`
    update ${outbox} as row
    set body = given.body, body_hash = given.body_hash, content_key = given.content_key
    from unnest(
      ${value("seqs")}::text[]::bigint[], ${value("bodies")}::text[], ${value("body_hashes")}::text[],
      ${value("content_keys")}::text[]
    ) as given (seq, body, body_hash, content_key)
    where row.seq = given.seq
    returning row.seq`);
  return db.orm.with(sealing).select().from(sealing).prepare("seal_outbox");
}

/** Messages that users published by SQL inside their own transactions. Servers may share the work. */
export function createOutbox(db: Db, onReady: OnReady, sealing: Sealing) {
  const findUnsealed = prepareFindUnsealed(db);
  const seal = prepareSeal(db);
  const move = prepareMove(db);
  const refresh = prepareRefresh(db);

  /** Gives the keys a new head whose message a user has acked. */
  async function refreshStale(): Promise<void> {
    for (;;) {
      const rows = await db.run("refresh_stale_keys", () => refresh.execute());
      for (const { queue_id, label, ready_at } of rows) if (queue_id !== null) onReady(queue_id, label, ready_at);
      if (rows.filter(({ queue_id }) => queue_id === null).length < chunk_rows) return;
    }
  }

  /**
   * Seals what was published to queues before they encrypted, and committed after it. Other servers may do the same at
   * once. Throws when there is no master key.
   */
  async function sealAll(): Promise<void> {
    const asked = { limit: chunk_rows, bytes_max: chunk_bytes };
    const rows = await db.run("find_unsealed", () => findUnsealed.execute(asked), true);
    if (!sealing.has_keys) throw new Error("messages for queues that encrypt wait for a server with a master key");
    for (const { queue_id } of rows) sealing.note(queue_id, true);
    const forms = rows.map(({ queue_id, body }) => sealing.formOf(queue_id, sealing.open(body), null));
    const values = {
      seqs: rows.map(({ seq }) => seq),
      bodies: forms.map(({ body }) => body),
      body_hashes: forms.map(({ body_hash }) => body_hash),
      content_keys: forms.map(({ content_key }) => content_key),
    };
    await db.run("seal_outbox", () => seal.execute(values), true);
  }

  /** Moves until nothing is left. */
  async function moveAll(): Promise<{ moved: number; dropped: number }> {
    let moved = 0;
    let dropped = 0;
    for (;;) {
      const rows = await db.run("move_outbox", () => move.execute({ limit: chunk_rows, bytes_max: chunk_bytes }));
      for (const { queue_id, label, count, now } of rows) {
        if (count === 0) continue;
        if (queue_id === null) dropped += count;
        else {
          moved += count;
          onReady(queue_id, label, now);
        }
      }
      if (rows[0]?.has_stale_keys) await refreshStale();
      if (rows[0]?.has_unsealed) await sealAll();
      // The server whose turn it is may have looked before the last commit.
      else if (rows[0]?.is_turn === false) await Bun.sleep(turn_ms);
      else if (rows[0]?.is_last ?? true) return { moved, dropped };
    }
  }

  let running: ReturnType<typeof moveAll> | undefined;
  let wanted: ReturnType<typeof moveAll> | undefined;
  const start = () => {
    running = moveAll().finally(() => {
      running = undefined;
    });
    return running;
  };

  return {
    /**
     * Moves what is committed, in order of the calls; answers how many, and how many had lost their queue. One move
     * runs at a time; all calls that come meanwhile are answered by the next.
     */
    moveOutbox(): Promise<{ moved: number; dropped: number }> {
      if (running === undefined) return start();
      wanted ??= running
        .catch(() => {})
        .then(() => {
          wanted = undefined;
          return start();
        });
      return wanted;
    },

    /** Calls when somebody's transaction with a publish commits. Rejects where LISTEN is not to be had. */
    listenToOutbox: (onCommit: () => void) => db.listen(channel, onCommit, onCommit),
  };
}
