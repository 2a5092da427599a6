import { sql } from "drizzle-orm";
import type { Db, Prepared } from "../../db/db.ts";
import { messages } from "../../db/schema.ts";
import { column, prepare, value } from "../statement.ts";
import { fenced, is_unchanged } from "./fenced.ts";

/** Gives back what nobody saw, as if it had not been delivered; hidden for some seconds where that is asked for. */
export function prepareRelease(db: Db): Prepared<{ label: string | null; ready_at: string }[]> {
  const none = sql`null as nothing`;
  const found = db.orm.$with("fenced", {}).as(fenced({ names: sql``, arrays: sql``, settings: none, columns: none }));
  const released = db.orm
    .$with("released", { label: column<string | null>("label"), ready_at: column<string>("ready_at") })
    .as(sql`
      update ${messages} as message
      set lease_token = null, leased_at = null, lease_expires_at = null,
        visible_at = now() + ${value("hidden_seconds")}::int * interval '1 second',
        delivery_attempts = greatest(0, message.delivery_attempts - 1)
      from fenced
      where ${is_unchanged}
      returning message.label, message.visible_at as ready_at`);
  return prepare<{ label: string | null; ready_at: string }>(
    db.orm.with(found, released).select().from(released),
    "unlease",
  );
}
