import { sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import type { OnListening } from "../../db/listen.ts";
import { leaders } from "../../db/schema.ts";
import { value } from "../statement.ts";
import type { Siblings } from "./siblings.ts";

const channel = "psqlqueue";
/** Between two notifications: one carries all queues of that time. */
const debounce_ms = 10;
/** PostgreSQL takes 8000 bytes. */
const payload_bytes_max = 7500;
const peer_seconds = 30;
/** Servers that one remembers. One is enough to send notifications for. */
const peers_max = 1000;
/** First character of a payload that is no list of queues; no queue's name begins so. The rest names the server. */
const hello = "+";
const hello_back = "=";
const goodbye = "!";
/** Peers are rows beside the leaders of jobs. */
const peer_prefix = "server:";

/** A server of several processes says how many at the end of its name. */
const processesOf = (holder: string) => Number(/:(\d{1,3})$/.exec(holder)?.[1] ?? 1);

export type Notifier = {
  /** Something in this queue became ready here. Cheap while no other server and no sibling is known. */
  note(queue_id: string, label?: string | null, at?: string): void;
  /** A sibling has noted that: the other servers are told, by the process that knows them. */
  pass(queue_id: string): void;
  /**
   * Listens to the other servers, tells whether it hears them, and says hello to them whenever it does: each knows the
   * other from then on. Answers how to end it.
   */
  listen(onQueue: (queue_id: string) => void, onListening: OnListening): Promise<() => Promise<void>>;
  /** Does this process know another server? */
  hasPeers(): boolean;
  /** How many other processes publish to the same database, as far as this one knows. */
  others(): number;
  /** A sibling tells how many processes of other servers there are. */
  setOthers(count: number): void;
  /** Tells the other servers that this one lives, and looks for them. Called every 10 s or so. */
  announce(): Promise<void>;
  /** Says that this server is going. */
  retire(): Promise<void>;
};

/**
 * Wake-ups across servers. Never inside a publishing transaction: NOTIFY takes a lock of the whole database at commit.
 * So one notification per 10 ms at most, by itself, after the commit; what it says is a hint and is not trusted. A
 * server that is alone sends none. Of the processes of one server, `siblings`, one announces and listens, and sends
 * what the others note.
 */
export function createNotifier(db: Db, holder: string, siblings?: Siblings): Notifier {
  const queue_ids = new Set<string>();
  /** The other servers, and when they are no longer believed to be there. */
  const peers = new Map<string, number>();
  let others = 0;
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
      peers: sql<string | null>`(
        select string_agg(peer.holder, ',') from ${leaders} as peer
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

  const tell = (word: string) => db.run("notify", () => send.execute({ payload: `${word}${holder}` }));

  function meet(peer: string): void {
    if (peer === holder || (peers.size >= peers_max && !peers.has(peer))) return;
    peers.set(peer, performance.now() + peer_seconds * 1000);
  }

  function countOthers(): void {
    let count = 0;
    for (const peer of peers.keys()) count += processesOf(peer);
    // Told again while there are some: siblings that forgot, or were not there, learn it.
    if (count !== others || count > 0) siblings?.tellOthers(count);
    others = count;
  }

  function pass(queue_id: string): void {
    if (peers.size === 0) return;
    queue_ids.add(queue_id);
    timer ??= setTimeout(flush, debounce_ms);
  }

  /** What another server says of itself; true when the payload was that. */
  function hear(payload: string): boolean {
    const word = payload[0] ?? "";
    const peer = payload.slice(1);
    if (![hello, hello_back, goodbye].includes(word)) return false;
    if (word === goodbye) peers.delete(peer);
    else meet(peer);
    countOthers();
    // A lost word costs what is left until the next announcement.
    if (word === hello && peer !== holder) tell(hello_back).catch(() => {});
    return true;
  }

  return {
    note(queue_id, label = null, at) {
      siblings?.tellReady({ queue_id, label, at: at ?? null });
      pass(queue_id);
    },
    pass,
    listen: (onQueue, onListening) =>
      db.listen(
        channel,
        (payload) => {
          if (hear(payload)) return;
          for (const queue_id of payload.split("\n")) if (queue_id !== "") onQueue(queue_id);
        },
        (is_listening, error) => {
          if (is_listening) tell(hello).catch(() => {});
          onListening(is_listening, error);
        },
      ),
    hasPeers: () => peers.size > 0,
    others: () => others + (siblings?.count ?? 0),
    setOthers(count) {
      others = count;
    },
    async announce() {
      const [row] = await db.run("announce", () => announce.execute({ job, holder }), true);
      for (const [peer, until_ms] of peers) if (until_ms < performance.now()) peers.delete(peer);
      for (const peer of row?.peers?.split(",") ?? []) meet(peer);
      countOthers();
    },
    async retire() {
      clearTimeout(timer);
      await Promise.all([db.run("retire", () => retire.execute({ job })), tell(goodbye)]);
    },
  };
}
