import { asc, eq, sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { topics } from "../../db/schema.ts";
import { BrokerError } from "../../errors.ts";
import { rfc3339, value } from "../statement.ts";
import { everything, isVisible, type Visible, visibleValues } from "./visible.ts";

export type Topic = { id: string; created_at: string };

const present = (row: Topic): Topic => ({ ...row, created_at: rfc3339(row.created_at) });

/** What can be done with topics. Every call may run concurrently with any other. */
export function createTopics(db: Db) {
  const { orm } = db;
  const create = orm
    .insert(topics)
    .values({ id: value("id") })
    .onConflictDoNothing()
    .returning()
    .prepare("create_topic");
  const get = orm
    .select()
    .from(topics)
    .where(eq(topics.id, value("id")))
    .prepare("get_topic");
  const list = orm
    .select()
    .from(topics)
    .where(sql`${isVisible(topics.id, "topic")}`)
    .orderBy(asc(topics.id))
    .limit(value("limit"))
    .offset(value("offset"))
    .prepare("list_topics");
  const remove = orm
    .delete(topics)
    .where(eq(topics.id, value("id")))
    .returning({ id: topics.id })
    .prepare("delete_topic");

  return {
    /** Throws `topic_exists`. */
    async createTopic(id: string): Promise<Topic> {
      const [row] = await db.run("create_topic", () => create.execute({ id }));
      if (row === undefined) throw new BrokerError("topic_exists");
      return present(row);
    },

    /** Throws `topic_not_found`. */
    async getTopic(id: string): Promise<Topic> {
      const [row] = await db.run("get_topic", () => get.execute({ id }), true);
      if (row === undefined) throw new BrokerError("topic_not_found");
      return present(row);
    },

    /** Ascending by id. */
    async listTopics(limit: number, offset: number, visible: Visible = everything): Promise<Topic[]> {
      const rows = await db.run(
        "list_topics",
        () => list.execute({ limit, offset, ...visibleValues(visible, "topic") }),
        true,
      );
      return rows.map(present);
    },

    /** With its subscriptions; the queues and their messages stay. Throws `topic_not_found`. */
    async deleteTopic(id: string): Promise<void> {
      const rows = await db.run("delete_topic", () => remove.execute({ id }));
      if (rows.length === 0) throw new BrokerError("topic_not_found");
    },
  };
}
