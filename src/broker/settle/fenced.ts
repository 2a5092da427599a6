import { type SQL, sql } from "drizzle-orm";
import { messages, queues } from "../../db/schema.ts";
import { value } from "../statement.ts";

// What ack, nack and extend have in common: finding the rows that their items name, fenced by token.

/** A bigint that no lease ever has: for tokens that are not of our making. */
const foreign_token = "-1";

/** Of a message with an ordering key: so that its ack goes straight to the statement that knows of keys. */
const ordered_prefix = "k";

/** The token of a message with an ordering key, as its consumer gets it. */
export const orderedToken = (token: string): string => ordered_prefix + token;

/** Does the token say that its message has an ordering key? */
export const isOrdered = (token: string | null): boolean => token?.startsWith(ordered_prefix) ?? false;

/** The token as the database keeps it: ours are positive decimal numbers below 2^63. */
export function storedToken(given: string | null): string | null {
  if (given === null) return null;
  const token = isOrdered(given) ? given.slice(ordered_prefix.length) : given;
  return /^[1-9]\d{0,18}$/.test(token) && BigInt(token) < 2n ** 63n ? token : foreign_token;
}

// n is the item's place in the call, from 1. `order by found.tid` gives all statements one lock order. A lease that
// must hold (strict_leases) is current only until its deadline.
/**
 * The rows of the items that may be settled, as `fenced`. Without a token an item is found by its id alone. `settings`:
 * the columns of the queue that `columns` and `where` need; carrying all fifty costs a tenth of a small statement.
 */
export const fenced = (options: { names: SQL; arrays: SQL; settings: SQL; columns: SQL; where?: SQL }) => sql`
  select found.tid, found.queue_no, found.token as found_token, given.*, ${options.columns}
  from unnest(
    ${value("queue_ids")}::text[], ${value("ids")}::text[], ${value("lease_tokens")}::text[]::bigint[] ${options.arrays}
  ) with ordinality as given (queue_id, id, lease_token, ${options.names} n)
  cross join lateral (
    select no, strict_leases, ${options.settings} from ${queues} as queue where queue.id = given.queue_id limit 1
  ) as queue
  cross join lateral (
    select message.ctid as tid, message.queue_no, message.lease_token as token, message.delivery_attempts,
      message.leased_at, message.expires_at
    from ${messages} as message
    where message.queue_no = queue.no and message.id = given.id
      and message.ordering_seq is null   -- those have statements of their own
      and (
        given.lease_token is null
        or message.lease_token = given.lease_token and (not queue.strict_leases or message.lease_expires_at > now())
      )
      ${options.where ?? sql``}
    limit 1
  ) as found
  order by found.tid`;

/**
 * The row is still the one that was found. By ctid alone, PostgreSQL before 18.1, 17.7, 16.11 and 15.15 goes on with
 * whatever a concurrent change made of the row: a message that was leased anew meanwhile would be acked with the old
 * token. A row that was changed is a miss, and asked again.
 */
export const is_unchanged = sql`message.ctid = fenced.tid
  -- Not "=": the planner would take it for a way to join, instead of the ctid.
  and message.queue_no is not distinct from fenced.queue_no and message.id is not distinct from fenced.id
  and message.lease_token is not distinct from fenced.found_token`;
