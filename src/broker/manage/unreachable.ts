import { sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { queues, subscriptions, topics } from "../../db/schema.ts";
import { column } from "../statement.ts";

/** Something with an id that no path can name: one of psqlqueue 0.4.1, which allowed it. */
export type Unreachable = { kind: string; id: string };

/** Finds what has the id `.` or `..`, which clients take for a step in a path. */
export function createFindUnreachable(db: Db) {
  const found = db.orm.$with("found", { kind: column<string>("kind"), id: column<string>("id") }).as(sql`
    select 'queue' as kind, id from ${queues} where id in ('.', '..')
    union all
    select 'topic', id from ${topics} where id in ('.', '..')
    union all
    select 'subscription', id from ${subscriptions} where id in ('.', '..')`);
  const find = db.orm.with(found).select().from(found).prepare("find_unreachable");
  return (): Promise<Unreachable[]> => db.run("find_unreachable", () => find.execute(), true);
}
