import { sql } from "drizzle-orm";
import type { Db, Prepared } from "../../db/db.ts";
import { messages } from "../../db/schema.ts";
import { column, prepare, type Tally, value } from "../statement.ts";
import { archive, keptOf } from "./archiving.ts";
import { fenced, is_unchanged } from "./fenced.ts";
import { notesDone } from "./nack.ts";

/**
 * Ends messages: deletes, and archives unless the queue keeps no archive. Without `archives` it only deletes: for a
 * full disk, on which consumers must still be able to make room.
 */
export function prepareAck(db: Db, name: string, archives: boolean): Prepared<Tally[]> {
  const settings = sql`archive_retention_seconds, message_retention_seconds`;
  const kept = sql`coalesce(queue.archive_retention_seconds, queue.message_retention_seconds) as kept_seconds`;
  // An expired message whose lease is over has ended already: no token can still ack it. Only what ends it as expired
  // may.
  const where = sql`and case
    when ${value("outcome")}::text = 'expired' then
      message.expires_at <= now() and (given.lease_token is not null or coalesce(message.lease_expires_at <= now(), true))
    else given.lease_token is null or message.expires_at > now() or message.lease_expires_at > now()
  end`;
  const found = db.orm.$with("fenced", {}).as(fenced({ names: sql``, arrays: sql``, settings, columns: kept, where }));
  const gone = db.orm.$with("gone", {}).as(sql`
    delete from ${messages} as message
    using fenced
    where ${is_unchanged}
    returning ${keptOf("message")}, fenced.n, fenced.kept_seconds, fenced.lease_token as used_token`);
  // The token that did it stays: a repeated ack with it is a success, with another one a lost lease.
  const archived = db.orm.$with("archived", {}).as(
    archive({
      outcome: sql`${value("outcome")}`,
      used_token: sql`gone.used_token`,
      where: archives ? sql`true` : sql`false`,
    }),
  );
  const answer = db.orm
    .$with("answer", { now: column<string>("now"), count: column<number>("count"), ns: column<string>("ns") })
    .as(sql`select now() as now, count(*)::int as count, string_agg(gone.n::text, ',') as ns from gone`);
  // Of an ack that is sent again nothing else tells what its first run did, where there is no archive.
  const noted = notesDone(db, sql`select gone.n from gone where gone.kept_seconds <= 0`);
  const steps = archives ? [found, gone, archived, noted] : [found, gone, archived];
  return prepare<Tally>(
    db.orm
      .with(...steps, answer)
      .select()
      .from(answer),
    name,
  );
}
