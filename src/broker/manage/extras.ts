import { asc, eq, sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { queues } from "../../db/schema.ts";
import { BrokerError } from "../../errors.ts";
import { value } from "../statement.ts";

const sources_page = 1000;

/** What an edge keeps of a queue, by name; null: it goes. */
export type Extras = Record<string, string | null>;

/** The extras with the change `extras` (JSON text, or null for none) applied. */
export const changedExtras = sql`case
  when ${value("extras")}::text is null then ${queues}.extras
  else jsonb_strip_nulls(coalesce(${queues}.extras, '{}') || ${value("extras")}::text::jsonb)
end`;

/** Queues by what is known of them besides their settings. Every call may run concurrently with any other. */
export function createExtras(db: Db) {
  const { orm } = db;
  const change = orm
    .update(queues)
    .set({ extras: changedExtras })
    .where(
      sql`${queues.id} = ${value("id")} and (
        ${value("guard_name")}::text is null
        or ${queues}.extras ->> ${value("guard_name")}::text is not distinct from ${value("guard_value")}::text
      )`,
    )
    .returning({ id: queues.id })
    .prepare("change_extras");
  const find = orm
    .select({ no: queues.no })
    .from(queues)
    .where(eq(queues.id, value("id")))
    .prepare("find_queue");
  const search = orm
    .select({ id: queues.id })
    .from(queues)
    // Along the index of ids: `like` would not use it with a parameter.
    .where(
      sql`${queues.id} >= ${value("prefix")} and ${queues.id} > ${value("after")}
        and starts_with(${queues.id}, ${value("prefix")})`,
    )
    .orderBy(asc(queues.id))
    .limit(value("limit"))
    .prepare("search_queues");
  const sources = orm
    .select({ id: queues.id })
    .from(queues)
    .where(
      sql`${queues.dead_queue_no} = (select dead.no from ${queues} as dead where dead.id = ${value("id")})
        and ${queues.id} > ${value("after")}`,
    )
    .orderBy(asc(queues.id))
    .limit(value("limit"))
    .prepare("list_dead_letter_sources");

  async function assertQueue(id: string): Promise<void> {
    const [row] = await db.run("find_queue", () => find.execute({ id }), true);
    if (row === undefined) throw new BrokerError("queue_not_found");
  }

  async function listDeadLetterSources(id: string, after: string, limit: number): Promise<string[]> {
    const rows = await db.run("list_dead_letter_sources", () => sources.execute({ id, after, limit }), true);
    if (rows.length === 0) await assertQueue(id);
    return rows.map((row) => row.id);
  }

  return {
    /**
     * Changes what an edge keeps of a queue. With `guard` only while that extra has that value; answers whether it was
     * so. Throws `queue_not_found`.
     */
    async changeExtras(
      id: string,
      extras: Extras,
      guard?: { name: string; value: string | undefined },
    ): Promise<boolean> {
      const values = {
        id,
        extras: JSON.stringify(extras),
        guard_name: guard?.name ?? null,
        guard_value: guard?.value ?? null,
      };
      const [row] = await db.run("change_extras", () => change.execute(values), true);
      if (row === undefined) await assertQueue(id);
      return row !== undefined;
    },

    /** Ids of queues that begin with `prefix`, ascending, after `after`. */
    async searchQueues(prefix: string, after: string, limit: number): Promise<string[]> {
      const rows = await db.run("search_queues", () => search.execute({ prefix, after, limit }), true);
      return rows.map(({ id }) => id);
    },

    /** Ids of the queues whose dead-letter queue this one is, ascending. Throws `queue_not_found`. */
    listDeadLetterSources,

    /** Are all of them so? Of what becomes one meanwhile nobody knows. Throws `queue_not_found`. */
    async everyDeadLetterSource(id: string, isSo: (source: string) => boolean): Promise<boolean> {
      for (let after = ""; ; ) {
        const found = await listDeadLetterSources(id, after, sources_page);
        if (!found.every(isSo)) return false;
        if (found.length < sources_page) return true;
        after = found.at(-1) ?? "";
      }
    },
  };
}
