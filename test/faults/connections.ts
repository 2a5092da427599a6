// F4 to F6: the network between server and database, and between client and server.

import type { FaultProxy } from "../faultProxy.ts";
import type { Cluster } from "../postgres.ts";
import type { Scenario } from "./scenario.ts";
import type { ServerProcess } from "./servers.ts";
import { type Stage, waitUntil } from "./stage.ts";

export type Behind = {
  cluster: Cluster;
  proxies: FaultProxy[];
  servers: ServerProcess[];
  ports: number[];
  url: string;
};

/** Two servers, each with a proxy of its own before the database. */
export async function serversBehind(stage: Stage): Promise<Behind> {
  const { url, cluster } = await stage.database();
  const proxies = [await stage.proxy(cluster.port), await stage.proxy(cluster.port)];
  const servers: ServerProcess[] = [];
  for (const proxy of proxies) {
    const own = new URL(url);
    own.port = String(proxy.port);
    servers.push(await stage.server({ PSQLQUEUE_DATABASE_URL: own.href }));
  }
  return { cluster, proxies, servers, ports: servers.map(({ port }) => port), url };
}

/** So long that consumers have acked what the lost answer told of, before it is known to be lost. */
const hold_ms = 200;

/** Cuts one connection after each of `count` requests, of the kinds by turns, `mean_ms` apart; half of them late. */
export async function cutAll(
  stage: Stage,
  proxies: FaultProxy[],
  count: number,
  mean_ms: number,
  kinds: { name: string; matches: (chunk: Buffer) => boolean }[],
): Promise<void> {
  for (let n = 0; n < count; n++) {
    const proxy = stage.random.pick(proxies);
    const kind = kinds[n % kinds.length];
    const before = proxy.cutCount();
    const { matches } = kind ?? { matches: () => true };
    proxy.cutAfterRequest(1, matches, stage.random.chance(0.5) ? hold_ms : 0);
    await waitUntil(`a cut of ${kind?.name}`, 20_000, () => proxy.cutCount() > before);
    stage.fault(`answer of ${kind?.name} cut`);
    await Bun.sleep(stage.random.exponential(mean_ms));
  }
}

/** A statement is told by what it carries: bodies of ours, ids of messages, or neither. */
export const statements = [
  { name: "a publish", matches: (chunk: Buffer) => chunk.includes("filler") },
  { name: "a settle", matches: (chunk: Buffer) => !chunk.includes("filler") && /01[0-9A-Z]{24}/.test(`${chunk}`) },
  { name: "any statement", matches: () => true },
];

/** The database has done the work, and the server cannot know. */
export const unknownCommits: Scenario = {
  id: "F4",
  title: "connections cut between the request to PostgreSQL and its answer",
  quick_dose: 0.03,
  async perform(stage) {
    const { proxies, ports, url } = await serversBehind(stage);
    const options = { ports, url, messages: 60_000 };
    await stage.play(options, () => cutAll(stage, proxies, stage.dose(1000, 30), 40, statements));
  },
};

/** The same with a cap and priorities, whose places must all be free again at the end. */
export const governedQueues: Scenario = {
  id: "F18",
  title: "the same on a queue with a cap and priorities",
  quick_dose: null,
  async perform(stage) {
    const { proxies, ports, url } = await serversBehind(stage);
    const options = { ports, url, messages: 30_000, in_flight_max: 150 };
    await stage.play(options, () => cutAll(stage, proxies, stage.dose(500, 50), 40, statements));
  },
};

/** Silence without an end of the connection, slowness, and resets. */
export const badNetwork: Scenario = {
  id: "F5",
  title: "silence, slowness and resets before PostgreSQL",
  quick_dose: null,
  async perform(stage) {
    const { random } = stage;
    const { proxies, ports, url } = await serversBehind(stage);
    const onBoth = (act: (proxy: FaultProxy) => Promise<void>) => Promise.all(proxies.map(act));
    await stage.play({ ports, url, messages: 40_000, drain_ms_max: 60_000 }, async (load) => {
      for (let left = stage.dose(10); left > 0; left--) {
        stage.fault("8 s of silence");
        await onBoth((proxy) => proxy.setMode("silent"));
        await Bun.sleep(8000);
        await onBoth((proxy) => proxy.heal());
        const before = load.acknowledged();
        await waitUntil("I11 publishes succeed after the silence", 15_000, () => load.acknowledged() > before);
        await Bun.sleep(1000);
      }
      for (let left = stage.dose(2); left > 0; left--) {
        stage.fault("10 s of 100 to 300 ms of latency");
        const end_ms = performance.now() + 10_000;
        while (performance.now() < end_ms) {
          await onBoth((proxy) => proxy.setMode({ latency_ms: random.between(100, 300) }));
          await Bun.sleep(200);
        }
        await onBoth((proxy) => proxy.heal());
      }
      for (let left = stage.dose(200, 5); left > 0; left--) {
        stage.fault("reset of all connections of one server");
        const proxy = random.pick(proxies);
        await proxy.setMode("reset");
        await proxy.setMode("pass");
        await Bun.sleep(random.exponential(100));
      }
    });
  },
};

/** The server has done the work, and the client cannot know. */
export const lostAnswers: Scenario = {
  id: "F6",
  title: "answers to clients cut",
  quick_dose: null,
  async perform(stage) {
    const { url } = await stage.database();
    const env = { PSQLQUEUE_DATABASE_URL: url };
    const servers = [await stage.server(env), await stage.server(env)];
    const proxies = [await stage.proxy(servers[0]?.port ?? 0), await stage.proxy(servers[1]?.port ?? 0)];
    const begins = (text: string) => (chunk: Buffer) => chunk.subarray(0, text.length).toString("latin1") === text;
    const kinds = [
      { name: "a publish", matches: begins("POST ") },
      { name: "a receive", matches: begins("GET ") },
      { name: "a settle", matches: begins("PUT ") },
    ];
    const ports = proxies.map(({ port }) => port);
    await stage.play({ ports, url, messages: 40_000 }, () => cutAll(stage, proxies, stage.dose(1500, 30), 30, kinds));
  },
};
