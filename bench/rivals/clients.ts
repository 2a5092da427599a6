import type { Client } from "./client.ts";

const clients = {
  "psqlqueue-http": async (place) => (await import("./clients/psqlqueue.ts")).openPlain(place),
  "psqlqueue-client": async (place) => (await import("./clients/psqlqueue.ts")).openFetching(place),
  "pg-boss": async (place) => (await import("./clients/pgBoss.ts")).openPgBoss(place),
  "graphile-worker": async (place) => (await import("./clients/graphileWorker.ts")).openGraphileWorker(place),
  rabbitmq: async (place) => (await import("./clients/rabbitmq.ts")).openRabbitmq(place),
  nats: async (place) => (await import("./clients/nats.ts")).openNats(place),
} satisfies Record<string, (place: Record<string, string>) => Promise<Client>>;

/** A client's name. */
export type ClientName = keyof typeof clients;

/** Connects to what `place` says. Each process loads the code of one client only. */
export function openClient(name: ClientName, place: Record<string, string>): Promise<Client> {
  return clients[name](place);
}
