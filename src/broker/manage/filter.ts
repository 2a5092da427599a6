import { type SQL, sql } from "drizzle-orm";
import { sealed } from "../publish/sealing.ts";

/** Characters of a body that a search reads: bounded, whatever was published. */
const searched_characters = sql.raw("16384");

/** What a message must be like; null members do not count. */
export type Filter = {
  label: string | null;
  /** Is part of the id, the body, an attribute or the last error, in any case. Encrypted bodies are not searched. */
  search: string | null;
  /** The key of a group of errors (see errorGroup). */
  error_group: string | null;
  reason: string | null;
  source_queue_id: string | null;
  message_id: string | null;
  ordering_key: string | null;
};

/** Everything matches. */
export const no_filter: Filter = {
  label: null,
  search: null,
  error_group: null,
  reason: null,
  source_queue_id: null,
  message_id: null,
  ordering_key: null,
};

/**
 * An error with its numbers and ids folded, so that errors which differ in nothing else are one. The first line counts,
 * of a bounded length.
 */
export const foldError = (error: SQL): SQL => sql`
  regexp_replace(regexp_replace(regexp_replace(
    left(split_part(coalesce(${error}, ''), chr(10), 1), 300),
    '[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}', '<id>', 'g'),
    '[A-Za-z0-9_]*[0-9][A-Za-z0-9_]{11,}|[A-Za-z0-9_]{11,}[0-9][A-Za-z0-9_]*|0x[0-9a-fA-F]+', '<id>', 'g'),
    '[0-9]+([.,:][0-9]+)*', '#', 'g')`;

/** The key of the group of an error: 32 hexadecimal digits. */
export const errorGroup = (error: SQL): SQL => sql`md5(${foldError(error)})`;

/** Bounds of a scan by id: of one message, when the filter names it, so that no other row is read. Null: none. */
export const isNamed = (key: SQL, message_id: SQL): SQL =>
  sql`${key} >= coalesce(${message_id}, '') and ${key} <= coalesce(${message_id}, '~')`;

/** Does the row match? `member` is the text of each member of the filter, null where it does not count. */
export const matches = (row: SQL, member: (name: keyof Filter) => SQL): SQL => {
  const contains = (text: SQL) => sql`strpos(lower(${text}), lower(${member("search")})) > 0`;
  return sql`(${member("label")} is null or ${row}.label = ${member("label")})
    and (${member("ordering_key")} is null or ${row}.ordering_key = ${member("ordering_key")})
    and (${member("reason")} is null or ${row}.dead::jsonb ->> 'reason' = ${member("reason")})
    and (${member("source_queue_id")} is null or ${row}.dead::jsonb ->> 'source_queue_id' = ${member("source_queue_id")})
    and (${member("error_group")} is null or ${errorGroup(sql`${row}.last_error`)} = ${member("error_group")})
    and (${member("search")} is null
      or ${contains(sql`${row}.id`)}
      or not starts_with(${row}.body, ${sealed}) and ${contains(sql`left(${row}.body, ${searched_characters})`)}
      or ${contains(sql`${row}.attributes::text`)}
      or ${contains(sql`${row}.last_error`)})`;
};
