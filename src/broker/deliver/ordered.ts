import { sql } from "drizzle-orm";
import type { Db, Prepared } from "../../db/db.ts";
import { messages, queues } from "../../db/schema.ts";
import { randomTokens } from "../publish/ids.ts";
import { orderedToken, storedToken } from "../settle/fenced.ts";
import { column, prepare, value } from "../statement.ts";
import type { LeasedMessage } from "./lease.ts";

// Messages with an ordering key. The head of a key is leased like any other message, because it is the only one of its
// key that is visible. A consumer that takes several of a key gets those that follow the head by a second statement.

type FollowerRow = Omit<LeasedMessage, "now"> & { head_n: string };

function prepareFollowers(db: Db): Prepared<FollowerRow[]> {
  const follower = db.orm
    .$with("follower", {
      head_n: column<string>("head_n"),
      id: column<string>("id"),
      label: column<string | null>("label"),
      body: column<string>("body"),
      attributes: column<string | null>("attributes"),
      delivery_attempts: column<number>("delivery_attempts"),
      created_at: column<string>("created_at"),
      lease_token: column<string>("lease_token"),
      lease_expires_at: column<string>("lease_expires_at"),
      bytes: column<number>("bytes"),
      ready_at: column<string>("ready_at"),
      dead: column<string | null>("dead"),
      last_error: column<string | null>("last_error"),
      expires_at: column<string | null>("expires_at"),
      ordering_key: column<string | null>("ordering_key"),
      ordering_seq: column<string | null>("ordering_seq"),
      first_leased_at: column<string>("first_leased_at"),
      extras: column<string | null>("extras"),
    })
    .as(sql`
      -- As the message was before this statement: what is read of it here does not change, but for its first lease.
      select leased.*, message.ordering_seq::text as ordering_seq, message.extras::text as extras,
        coalesce(message.first_leased_at, message.leased_at, now()) as first_leased_at
      from psqlqueue.lease_followers(
        ${value("queue_id")}::text, ${value("ids")}::text[], ${value("lease_tokens")}::text[]::bigint[],
        ${value("new_tokens")}::text[]::bigint[], ${value("label")}::text, ${value("key_max")}::int, ${value("limit")}::int,
        ${value("bytes_max")}::bigint
      ) as leased
      cross join lateral (
        select * from ${messages} as message
        where message.id = leased.id
          and message.queue_no = (select queue.no from ${queues} as queue where queue.id = ${value("queue_id")}::text)
        limit 1
      ) as message
      order by leased.head_n, leased.nth`);
  return prepare<FollowerRow>(db.orm.with(follower).select().from(follower), "lease_followers");
}

type Head = { id: string; lease_token: string; now: string };
export type Followers = (
  asked: { queue_id: string; label: string | undefined; key_max: number; limit: number; bytes_max: number },
  heads: Head[],
) => Promise<Map<string, LeasedMessage[]>>;

/**
 * Leases further messages of the keys whose heads have just been leased: those that follow without a gap, `key_max` of
 * a key with its head (0: any number), `limit` in all. Answers them by the id of their head, in order.
 */
export function createFollowers(db: Db): Followers {
  const statement = prepareFollowers(db);
  return async (asked, heads) => {
    const values = {
      ...asked,
      label: asked.label ?? null,
      ids: heads.map(({ id }) => id),
      lease_tokens: heads.map(({ lease_token }) => storedToken(lease_token)),
      new_tokens: randomTokens(asked.limit),
    };
    const rows = await db.run("lease_followers", () => statement.execute(values));
    const followers = new Map<string, LeasedMessage[]>();
    for (const { head_n, ...row } of rows) {
      const { id, now } = heads[Number(head_n) - 1] as Head;
      const message = { ...row, lease_token: orderedToken(row.lease_token), now };
      followers.set(id, [...(followers.get(id) ?? []), message]);
    }
    return followers;
  };
}
