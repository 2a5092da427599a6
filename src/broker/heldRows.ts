import { sql } from "drizzle-orm";

// What statements ask about a row of the table of messages, under the name `message`.

/** Does somebody hold it, under a lease that lasts? */
export const is_held = sql`(message.lease_token is not null and message.lease_expires_at > now())`;

/** When it is due; if it waits behind another of its ordering key: when it could be delivered if it did not. */
export const due_at = sql`case
  when message.visible_at < 'infinity' then message.visible_at
  when message.lease_token is not null then message.lease_expires_at
  else message.due_at
end`;
