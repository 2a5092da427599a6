import { asc, eq, sql } from "drizzle-orm";
import type { Db, Prepared } from "../../db/db.ts";
import { queues, subscriptions, topics } from "../../db/schema.ts";
import { BrokerError, type DatabaseError, type ErrorName } from "../../errors.ts";
import { column, prepare, rfc3339, value } from "../statement.ts";
import { everything, isVisible, type Visible, visibleValues } from "./visible.ts";

/** Attribute name → values that pass; null passes nothing. */
export type MessageFilters = Record<string, string[] | null>;

export type Subscription = {
  id: string;
  topic_id: string;
  queue_id: string;
  message_filters: MessageFilters | null;
  created_at: string;
};

type Created = { refusal: ErrorName | null; created_at: string | null; message_filters: string | null };

const fields = {
  id: subscriptions.id,
  topic_id: subscriptions.topic_id,
  queue_id: queues.id,
  message_filters: subscriptions.message_filters,
  created_at: subscriptions.created_at,
};

const present = (row: Subscription): Subscription => ({ ...row, created_at: rfc3339(row.created_at) });

function prepareCreate(db: Db): Prepared<Created[]> {
  const known = db.orm.$with("known", {}).as(sql`
    select
      (select topic.id from ${topics} as topic where topic.id = ${value("topic_id")}) as topic_id,
      (select queue.no from ${queues} as queue where queue.id = ${value("queue_id")}) as queue_no`);
  const stored = db.orm.$with("stored", {}).as(sql`
    insert into ${subscriptions} (id, topic_id, queue_no, message_filters)
    select ${value("id")}, known.topic_id, known.queue_no, ${value("message_filters")}::text::jsonb
    from known
    where known.topic_id is not null and known.queue_no is not null
    on conflict do nothing
    returning created_at, message_filters`);
  const answer = db.orm
    .$with("answer", {
      refusal: column<ErrorName | null>("refusal"),
      created_at: column<string | null>("created_at"),
      message_filters: column<string | null>("message_filters"),
    })
    .as(sql`
      select
        case
          when stored.created_at is not null then null
          when exists (
            select from ${subscriptions} as taken
            where taken.id = ${value("id")} or (taken.topic_id = known.topic_id and taken.queue_no = known.queue_no)
          ) then 'subscription_exists'
          when known.topic_id is null then 'topic_not_found'
          when known.queue_no is null then 'queue_not_found'
          -- Somebody else's commit came between our look and our insert.
          else 'subscription_exists'
        end as refusal, stored.created_at, stored.message_filters
      from known
      left join stored on true`);
  return prepare<Created>(db.orm.with(known, stored, answer).select().from(answer), "create_subscription");
}

/** What can be done with subscriptions. Every call may run concurrently with any other. */
export function createSubscriptions(db: Db) {
  const { orm } = db;
  const create = prepareCreate(db);
  const get = orm
    .select(fields)
    .from(subscriptions)
    .innerJoin(queues, eq(queues.no, subscriptions.queue_no))
    .where(eq(subscriptions.id, value("id")))
    .prepare("get_subscription");
  const list = orm
    .select(fields)
    .from(subscriptions)
    .innerJoin(queues, eq(queues.no, subscriptions.queue_no))
    .where(sql`${isVisible(subscriptions.topic_id, "topic")} and ${isVisible(queues.id, "queue")}`)
    .orderBy(asc(subscriptions.id))
    .limit(value("limit"))
    .offset(value("offset"))
    .prepare("list_subscriptions");
  const remove = orm
    .delete(subscriptions)
    .where(eq(subscriptions.id, value("id")))
    .returning({ id: subscriptions.id })
    .prepare("delete_subscription");

  return {
    /**
     * Throws `subscription_exists` (same id, or same topic and queue), then `topic_not_found`, then `queue_not_found`.
     */
    async createSubscription(given: Omit<Subscription, "created_at">): Promise<Subscription> {
      const message_filters = given.message_filters === null ? null : JSON.stringify(given.message_filters);
      const values = { ...given, message_filters };
      const rows = await db
        .run("create_subscription", () => create.execute(values))
        .catch((error: DatabaseError) => {
          // The topic or the queue was deleted while the row was being written.
          if (error.code !== "23503") throw error;
          const is_topic = error.constraint?.includes("topic") ?? false;
          throw new BrokerError(is_topic ? "topic_not_found" : "queue_not_found");
        });
      const [row] = rows;
      if (row?.created_at == null) throw new BrokerError(row?.refusal ?? "subscription_exists");
      return { ...given, created_at: rfc3339(row.created_at) };
    },

    /** Throws `subscription_not_found`. */
    async getSubscription(id: string): Promise<Subscription> {
      const [row] = await db.run("get_subscription", () => get.execute({ id }), true);
      if (row === undefined) throw new BrokerError("subscription_not_found");
      return present(row);
    },

    /** Ascending by id. */
    async listSubscriptions(
      limit: number,
      offset: number,
      topic_visible: Visible = everything,
      queue_visible: Visible = everything,
    ): Promise<Subscription[]> {
      const rows = await db.run(
        "list_subscriptions",
        () =>
          list.execute({
            limit,
            offset,
            ...visibleValues(topic_visible, "topic"),
            ...visibleValues(queue_visible, "queue"),
          }),
        true,
      );
      return rows.map(present);
    },

    /** Throws `subscription_not_found`. */
    async deleteSubscription(id: string): Promise<void> {
      const rows = await db.run("delete_subscription", () => remove.execute({ id }));
      if (rows.length === 0) throw new BrokerError("subscription_not_found");
    },
  };
}
