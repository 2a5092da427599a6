// Who is compared, and what is not the same about each.

import type { ClientName } from "./clients.ts";
import { type Server, startNats, startPostgres, startPsqlqueue, startRabbitmq } from "./servers.ts";

/** A queue that runs, with the client that is measured. */
export type Rival = {
  name: string;
  client: ClientName;
  server: Server;
  /** For the table: what a power cut takes of what was confirmed, as its documentation says. */
  loses: string;
  /** What is not the same as with the others. */
  notes: string[];
};

const nothing = "nothing confirmed";

/** Two rows share a server, which the first of them starts. */
function shared<Started>(start: () => Promise<Started>): () => Promise<Started> {
  let started: Promise<Started> | undefined;
  return () => {
    started ??= start();
    return started;
  };
}

const psqlqueue = shared(startPsqlqueue);
const rabbitmq = shared(startRabbitmq);

async function ours(name: string, own: "plain" | "client", note: string): Promise<Rival> {
  const server = await psqlqueue();
  const { url = "", [own]: queue = "" } = server.place;
  const client = own === "plain" ? "psqlqueue-http" : "psqlqueue-client";
  return { name, client, server: { ...server, place: { url, queue } }, loses: nothing, notes: [note] };
}

const library = async (name: "pg-boss" | "graphile-worker", own: Pick<Rival, "loses" | "notes">): Promise<Rival> => ({
  name,
  client: name,
  server: await startPostgres(name),
  loses: own.loses,
  notes: [
    "a library: there is no hop to a server of its own, and its work is its client's and PostgreSQL's",
    ...own.notes,
  ],
});

async function rabbitmqOf(queue_type: "quorum" | "classic", note: string): Promise<Rival> {
  const server = await rabbitmq();
  return {
    name: `RabbitMQ, ${queue_type}`,
    client: "rabbitmq",
    server: { ...server, place: { ...server.place, queue_type, queue: `bench-${queue_type}` } },
    loses: "acks under way",
    notes: [
      note,
      "persistent messages, publisher confirms, prefetch 10; a channel for each publisher and consumer, on two connections",
      "nothing confirms an ack: a message counts when its ack is written, and comes again when that ack is lost",
    ],
  };
}

async function nats(): Promise<Rival> {
  const { is_synced, ...server } = await startNats();
  const { version } = server;
  return {
    name: "NATS JetStream",
    client: "nats",
    server,
    loses: is_synced ? nothing : "the last 60 s",
    notes: [
      is_synced
        ? "a flush for each message and each ack; no replica"
        : `not the promise of the others: ${version} confirms before it flushes, flushes once in 60 s, and knows no sync_interval (2.10 does)`,
      "a work queue in a file, read through one durable consumer, 10 messages pulled ahead; acks are confirmed (ackAck)",
    ],
  };
}

const starts = {
  psqlqueue: () =>
    ours(
      "psqlqueue, plain sockets",
      "plain",
      "its client is that of bench/run.ts, leaner than a library: what compares with the others is the row of its client",
    ),
  "psqlqueue-client": () =>
    ours("psqlqueue, its client", "client", "the published client, fetch over HTTP; same server as above"),
  "pg-boss": () =>
    library("pg-boss", {
      loses: nothing,
      notes: [
        "its default pool of 10 connections",
        "send; a loop of fetch (10 jobs; again 10 ms after an empty one) and complete for each, where work() polls every 2 s unless told otherwise",
        "completed jobs stay in its table",
      ],
    }),
  "graphile-worker": () =>
    library("graphile-worker", {
      loses: "acks under way",
      notes: [
        "addJob on its default pool of 10 connections; one runner of 64 jobs at a time on 66 connections, as it advises, with a local queue of 640 and a task that does nothing",
        "a worker takes its next job before the completion of the last one is committed: a message counts when its completion is handed to the pool, and runs again when that is lost",
      ],
    }),
  "rabbitmq-quorum": () =>
    rabbitmqOf("quorum", "one node: its log is flushed before a confirm, but there is no second replica"),
  "rabbitmq-classic": () =>
    rabbitmqOf("classic", "flushed before a confirm, once for all that came within an interval"),
  nats,
} satisfies Record<string, () => Promise<Rival>>;

/** What `--only` takes. */
export type RivalName = keyof typeof starts;

/** All of them, in the order of the table. */
export const rival_names = Object.keys(starts) as RivalName[];

/** Starts what a row needs. Throws MissingError where it is not on this machine. */
export function startRival(name: RivalName): Promise<Rival> {
  return starts[name]();
}
