import { sql } from "drizzle-orm";
import type { Db } from "../db/db.ts";
import type { OnListening } from "../db/listen.ts";
import { leaders } from "../db/schema.ts";
import { value } from "./sql.ts";

const channel = "psqlqueue";
/** Between two notifications: one carries all queues of that time. */
const debounce_ms = 10;
/** PostgreSQL takes 8000 bytes. */
const payload_bytes_max = 7500;
const peer_seconds = 30;
/** Peers are rows beside the leaders of jobs. */
const peer_prefix = "server:";

export type Notifier = {
  /** Something in this queue became ready here. Cheap while no other server is known. */
  note(queue_id: string): void;
  /** Listens to the other servers, and tells whether it hears them; answers how to end it. */
  listen(onQueue: (queue_id: string) => void, onListening: OnListening): Promise<() => Promise<void>>;
  /** Tells the other servers that this one lives, and looks for them. Called every 10 s or so. */
  announce(): Promise<void>;
  /** Says that this server is gone. */
  retire(): Promise<void>;
};

/**
 * Wake-ups across servers. Never inside a publishing transaction: NOTIFY takes a lock of the whole database at commit.
 * So one notification per 10 ms at most, by itself, after the commit; what it says is a hint and is not trusted. A
 * server that is alone sends none.
 */
export function createNotifier(db: Db, holder: string): Notifier {
  const queue_ids = new Set<string>();
  let has_peers = false;
  let timer: ReturnType<typeof setTimeout> | undefined;

  const send = db.orm
    .select({ sent: sql<string>`pg_notify(${channel}, ${value("payload")}::text)::text`.as("sent") })
    .from(sql`(values (1)) as one`)
    .prepare("notify");
  const announce = db.orm
    .insert(leaders)
    .values({ job: value("job"), holder: value("holder"), until: sql`now() + ${peer_seconds} * interval '1 second'` })
    .onConflictDoUpdate({ target: leaders.job, set: { until: sql`excluded.until` } })
    .returning({
      peers: sql<number>`(
        select count(*)::int from ${leaders} as peer
        where peer.job >= ${peer_prefix} and peer.job < ${`${peer_prefix}~`} and peer.until > now()
          and peer.job <> ${value("job")}
      )`.as("peers"),
    })
    .prepare("announce");
  const retire = db.orm
    .delete(leaders)
    .where(
      sql`${leaders.job} = ${value("job")} or
        ${leaders.job} >= ${peer_prefix} and ${leaders.job} < ${`${peer_prefix}~`} and ${leaders.until} < now()`,
    )
    .prepare("retire");
  const job = `${peer_prefix}${holder}`;

  function flush(): void {
    timer = undefined;
    let payload = "";
    for (const queue_id of queue_ids) {
      if (payload.length + queue_id.length + 1 > payload_bytes_max) break;
      payload += `${queue_id}\n`;
      queue_ids.delete(queue_id);
    }
    if (queue_ids.size > 0) timer = setTimeout(flush, debounce_ms);
    // A lost hint costs a poll interval, nothing else.
    db.run("notify", () => send.execute({ payload })).catch(() => {});
  }

  return {
    note(queue_id) {
      if (!has_peers) return;
      queue_ids.add(queue_id);
      timer ??= setTimeout(flush, debounce_ms);
    },
    listen: (onQueue, onListening) =>
      db.listen(
        channel,
        (payload) => {
          for (const queue_id of payload.split("\n")) if (queue_id !== "") onQueue(queue_id);
        },
        onListening,
      ),
    async announce() {
      const [row] = await db.run("announce", () => announce.execute({ job, holder }), true);
      has_peers = (row?.peers ?? 0) > 0;
    },
    async retire() {
      clearTimeout(timer);
      await db.run("retire", () => retire.execute({ job }));
    },
  };
}
