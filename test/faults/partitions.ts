// F14: the network itself is cut, between machines of their own: without RST, FIN or any other word, and also one way
// only.

import { createNetwork, type Network, type Place, whyNoNetwork } from "./namespaces.ts";
import type { Scenario } from "./scenario.ts";
import { migratedDatabase, type Stage, waitUntil } from "./stage.ts";

const cut_ms = 5000;
/** Until a server answers again when the network does: its watchdog of 10 s, and 5 s. */
const healthy_ms_max = 15_000;

type Direction = "both ways" | "there" | "back";

/** By turns: every direction of both networks. */
const cuts: { far: "the database" | "clients"; direction: Direction }[] = [
  { far: "the database", direction: "both ways" },
  { far: "clients", direction: "both ways" },
  { far: "the database", direction: "there" },
  { far: "clients", direction: "there" },
  { far: "the database", direction: "back" },
  { far: "clients", direction: "back" },
];

const texts: Record<Direction, (far: string) => string> = {
  "both ways": (far) => `nothing between servers and ${far} for 5 s`,
  there: (far) => `what servers send to ${far} lost for 5 s`,
  back: (far) => `what ${far} ${far === "clients" ? "send" : "sends"} to servers lost for 5 s`,
};

function cut(network: Network, servers: Place[], far: Place, direction: Direction): void {
  for (const server of servers) {
    if (direction !== "back") network.drop(server, far);
    if (direction !== "there") network.drop(far, server);
  }
}

/** Answers how long it took. */
async function waitUntilHealthy({ client }: Stage, ports: number[]): Promise<number> {
  const started_ms = performance.now();
  const isHealthy = async (port: number) => (await client.call(port, "GET", "/v1/healthz")).status === 200;
  await waitUntil("I11 servers are healthy when the network is", healthy_ms_max, async () =>
    (await Promise.all(ports.map(isHealthy))).every(Boolean),
  );
  const took_ms = performance.now() - started_ms;
  if (took_ms > healthy_ms_max) throw new Error(`I11 servers are healthy only after ${Math.round(took_ms)} ms`);
  return took_ms;
}

/** The client, two servers and PostgreSQL on machines of their own. */
export const partitions: Scenario = {
  id: "F14",
  title: "partitions by network namespaces",
  quick_dose: null,
  skipped: () => whyNoNetwork() || undefined,
  async perform(stage) {
    const network = createNetwork();
    stage.atEnd(network.remove);
    const database = network.place("database");
    const places = [network.place("one"), network.place("two")];
    const cluster = await stage.cluster({ machine: database });
    const url = await migratedDatabase(cluster, stage.program());
    const env = { PSQLQUEUE_DATABASE_URL: url };
    const ports: number[] = [];
    let longest_ms = 0;
    for (const place of places) ports.push((await stage.server(env, undefined, place)).port);
    await stage.play({ ports, url, messages: 20_000, rate_max: 500 }, async () => {
      const count = stage.dose(10, cuts.length);
      for (let n = 0; n < count; n++) {
        await Bun.sleep(stage.random.exponential(1000));
        const { far, direction } = cuts[n % cuts.length] as (typeof cuts)[number];
        // All servers, or one of them: clients ask the other one then.
        const servers = stage.random.chance(0.5) ? places : [stage.random.pick(places)];
        stage.fault(texts[direction](far));
        cut(network, servers, far === "clients" ? network.home : database, direction);
        await Bun.sleep(cut_ms);
        network.heal();
        longest_ms = Math.max(longest_ms, await waitUntilHealthy(stage, ports));
      }
    });
    stage.note(`all servers healthy at the latest ${Math.round(longest_ms)} ms after the network was`);
  },
};
