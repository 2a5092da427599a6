import type postgres from "postgres";
import { MigrationError } from "../errors.ts";

// The tables of the Go service psqlqueue 0.4.1 (schema version 2), by which its database is recognised.
const upstream_columns: Record<string, string[]> = {
  queues: [
    "ack_deadline_seconds",
    "created_at",
    "delivery_delay_seconds",
    "id",
    "message_retention_seconds",
    "updated_at",
  ],
  messages: [
    "attributes",
    "body",
    "created_at",
    "delivery_attempts",
    "expired_at",
    "id",
    "label",
    "queue_id",
    "scheduled_at",
    "updated_at",
  ],
  topics: ["created_at", "id"],
  subscriptions: ["created_at", "id", "message_filters", "queue_id", "topic_id"],
  schema_migrations: ["dirty", "version"],
};
const upstream_version = 2;

/** Are the tables of psqlqueue 0.4.1 in `public`? Tables of these names with other columns are somebody else's. */
async function isUpstream(client: postgres.ISql): Promise<boolean> {
  const rows = await client`
    select table_name as name, string_agg(column_name, ',' order by column_name collate "C") as columns
    from information_schema.columns
    where table_schema = 'public' and table_name in ('queues', 'messages', 'topics', 'subscriptions', 'schema_migrations')
    group by table_name`;
  const found = new Map(rows.map((row) => [row["name"] as string, row["columns"] as string]));
  return Object.entries(upstream_columns).every(([name, columns]) => found.get(name) === columns.join(","));
}

/** Throws MigrationError when the version says that the tables are not what 0.4.1 left behind. */
async function checkVersion(client: postgres.ISql): Promise<void> {
  const rows = await client`select version::text, dirty from public.schema_migrations`;
  const version = rows[0]?.["version"] as string | undefined;
  const then = "then run `psqlqueue migrate` again; nothing has been changed";
  if (rows.length === 1 && version !== undefined && rows[0]?.["dirty"] === true) {
    throw new MigrationError(
      `the tables of psqlqueue 0.4.1 are at version ${version}, marked dirty (a migration of the old program failed ` +
        `half-way): repair them with the old program's tools so that dirty is false, ${then}`,
    );
  }
  if (rows.length !== 1 || version !== String(upstream_version)) {
    throw new MigrationError(
      `the tables of the old psqlqueue are at version ${version ?? "(none)"}, and only version ${upstream_version} ` +
        `(psqlqueue 0.4.1) can be adopted: run the \`migrate\` command of psqlqueue 0.4.1 first, ${then}`,
    );
  }
}

// A body that begins like one of ours in a form of its own (see sealing.ts of the broker) is one that was sent.
const body = `case
  when starts_with(old.body, chr(1) || 'psqlqueue' || chr(1)) then chr(1) || 'psqlqueue' || chr(1) || '0:' || old.body
  else old.body
end`;

const steps = [
  `insert into psqlqueue.queues
     (id, ack_deadline_seconds, message_retention_seconds, delivery_delay_seconds, created_at, updated_at)
   select id, ack_deadline_seconds, message_retention_seconds, delivery_delay_seconds, created_at, updated_at
   from public.queues
   order by created_at, id`,
  // A delay that has not passed and no delivery yet: delayed. With deliveries: under a lease, which has no token.
  `insert into psqlqueue.messages
     (visible_at, expires_at, created_at, queue_no, delivery_attempts, id, label, attributes, body)
   select old.scheduled_at, old.expired_at, old.created_at, queue.no, old.delivery_attempts, old.id, old.label,
     nullif(old.attributes, 'null'::jsonb), ${body}
   from public.messages as old
   join psqlqueue.queues as queue on queue.id = old.queue_id
   where old.expired_at > now()
   order by old.scheduled_at, old.id`,
  // The old service acked by writing the same clock reading into both columns. How long the archive keeps them counts
  // from the adoption: they have been kept so far, and a client may still come back to them.
  `insert into psqlqueue.archived_messages
     (archived_at, expires_at, created_at, queue_no, delivery_attempts, priority, id, outcome, label, attributes, body)
   select old.expired_at, now() + queue.message_retention_seconds * interval '1 second', old.created_at, queue.no,
     old.delivery_attempts, 0, old.id, case when old.expired_at = old.updated_at then 'acked' else 'expired' end,
     old.label, nullif(old.attributes, 'null'::jsonb), ${body}
   from public.messages as old
   join psqlqueue.queues as queue on queue.id = old.queue_id
   where old.expired_at <= now()
   order by old.expired_at, old.id`,
  `insert into psqlqueue.topics (id, created_at) select id, created_at from public.topics`,
  `insert into psqlqueue.subscriptions (id, topic_id, queue_no, message_filters, created_at)
   select old.id, old.topic_id, queue.no, nullif(old.message_filters, 'null'::jsonb), old.created_at
   from public.subscriptions as old
   join psqlqueue.queues as queue on queue.id = old.queue_id`,
  // schema_migrations stays: the old program's migrate then finds nothing to do, and its server fails at once instead
  // of starting on empty tables.
  `drop table public.subscriptions, public.topics, public.messages, public.queues`,
];

async function lockTables(transaction: postgres.ISql): Promise<void> {
  try {
    await transaction`set local lock_timeout = '3s'`;
    await transaction`lock table public.queues, public.messages, public.topics, public.subscriptions
      in access exclusive mode`;
  } catch (cause) {
    throw new MigrationError(
      "the tables of psqlqueue 0.4.1 are in use: stop its servers (and whatever else reads them), then run " +
        "`psqlqueue migrate` again; nothing has been changed",
      { cause },
    );
  }
}

async function checkIds(transaction: postgres.ISql): Promise<void> {
  const [foreign] = await transaction`
    select id from public.messages where id !~ '^[0-7][0-9A-HJKMNP-TV-Z]{25}$' limit 1`;
  if (foreign === undefined) return;
  throw new MigrationError(
    `the message id ${JSON.stringify(foreign["id"])} in public.messages is not a ULID, so the old service did not ` +
      "write it: correct or delete that row, then run `psqlqueue migrate` again; nothing has been changed",
  );
}

/**
 * Throws MigrationError when the tables of the old service are there and cannot be adopted. To be called before
 * anything is changed: a refusal must not leave our own tables behind, on which a server would start empty.
 */
export async function checkV04(client: postgres.Sql): Promise<void> {
  if (!(await isUpstream(client))) return;
  await checkVersion(client);
  await client.begin(async (transaction) => {
    await lockTables(transaction);
    await checkIds(transaction);
  });
}

/**
 * Carries everything of a psqlqueue 0.4.1 database in schema `public` over, in one transaction: killed at any moment,
 * it happened or it did not. Undefined when there is nothing to adopt. Throws MigrationError when the tables are those
 * of the old service but not in a state that can be adopted, or are in use; then nothing has changed.
 */
export async function importV04(client: postgres.Sql): Promise<{ queues: number; messages: number } | undefined> {
  if (!(await isUpstream(client))) return undefined;
  await checkVersion(client);
  return await client.begin(async (transaction) => {
    await lockTables(transaction);
    await checkIds(transaction);
    const [taken] = await transaction`
      select old.kind, old.id
      from (
        select 'queue' as kind, id from public.queues as queue
        where exists (select from psqlqueue.queues as ours where ours.id = queue.id collate "C")
        union all
        select 'topic', id from public.topics as topic
        where exists (select from psqlqueue.topics as ours where ours.id = topic.id collate "C")
        union all
        select 'subscription', id from public.subscriptions as subscription
        where exists (select from psqlqueue.subscriptions as ours where ours.id = subscription.id collate "C")
      ) as old
      limit 1`;
    if (taken !== undefined) {
      throw new MigrationError(
        `the ${taken["kind"]} ${JSON.stringify(taken["id"])} exists both in public (psqlqueue 0.4.1) and in schema ` +
          "psqlqueue: delete or rename one of them, then run `psqlqueue migrate` again; nothing has been changed",
      );
    }
    const counts: number[] = [];
    try {
      for (const step of steps) counts.push((await transaction.unsafe(step)).count ?? 0);
    } catch (cause) {
      // The old service had no upper length; its index held a little more than ours, which knows queue and time too.
      if ((cause as { code?: string }).code !== "54000") throw cause;
      throw new MigrationError(
        "a label in public.messages is too long for an index (`select id from public.messages order by " +
          "octet_length(label) desc` shows it first): shorten it or delete that row, then run `psqlqueue migrate` " +
          "again; nothing has been changed",
      );
    }
    return { queues: counts[0] ?? 0, messages: (counts[1] ?? 0) + (counts[2] ?? 0) };
  });
}
