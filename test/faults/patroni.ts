// FP: the real thing. Patroni changes the leader: it is asked to, the leader is killed, cut off, or stands still.

import postgres from "postgres";
import { recoveriesOf } from "./check.ts";
import { ask } from "./failover.ts";
import { createNetwork, type Network, whyNoNetwork } from "./namespaces.ts";
import { type Member, missingPackages, type PatroniCluster, startPatroni } from "./patroniCluster.ts";
import type { Scenario } from "./scenario.ts";
import { migrate, type Stage } from "./stage.ts";

/** How long a former leader is left alone with its clients when another leads already. */
const alone_ms = 5000;

/** `next` is the node that will lead. */
type Fault = { name: string; begin(leader: Member, next: Member): Promise<void>; end(leader: Member): void };

function faultsOn(cluster: PatroniCluster, network: Network | undefined): Fault[] {
  const others = (one: Member) => cluster.members.filter((member) => member !== one);
  const faults: Fault[] = [
    {
      name: "switchover",
      begin: (leader, next) =>
        leader.patronictl("switchover", "psqlqueue", "--leader", leader.name, "--candidate", next.name, "--force"),
      end() {},
    },
    {
      name: "kill -9 of the leader's PostgreSQL and Patroni",
      begin: (leader) => leader.kill(),
      end: (leader) => leader.start(),
    },
    {
      name: "leader standing still (SIGSTOP) until another leads, and 5 s more",
      begin: async (leader) => leader.pause(),
      end: (leader) => leader.resume(),
    },
  ];
  if (network === undefined) return faults;
  const cutOff = (leader: Member, has_clients: boolean) => {
    const places = [cluster.etcd, ...others(leader).map(({ place }) => place), ...(has_clients ? [] : [network.home])];
    for (const place of places) {
      if (place === undefined || leader.place === undefined) continue;
      network.drop(leader.place, place);
      network.drop(place, leader.place);
    }
  };
  const partition = { end: () => network.heal() };
  return [
    ...faults,
    { ...partition, name: "leader cut off", begin: async (leader) => cutOff(leader, false) },
    {
      ...partition,
      name: "leader cut off from etcd and the standbys, and not from its clients",
      begin: async (leader) => cutOff(leader, true),
    },
  ];
}

async function createDatabase(stage: Stage, cluster: PatroniCluster): Promise<string> {
  const leader = await cluster.waitForLeader();
  await ask(leader.url, "create role psqlqueue login password 'of-the-tests'");
  await ask(leader.url, "create database psqlqueue owner psqlqueue");
  const hosts = cluster.members.map(({ address, port }) => `${address}:${port}`).join();
  const url = `postgres://psqlqueue:of-the-tests@${hosts}/psqlqueue?target_session_attrs=read-write`;
  await migrate(url, urlOf(leader), stage.program());
  return url;
}

function urlOf(leader: Member): string {
  const url = new URL(leader.url);
  url.pathname = "/psqlqueue";
  return url.href;
}

/** How long no publish was acknowledged, by what was done. */
function noteRecoveries({ history, note }: Stage): void {
  const of_faults = Map.groupBy(recoveriesOf(history), ({ name }) => name);
  for (const [name, all] of of_faults) {
    note(`time to recover, ${name}: ${all.map(({ ms }) => `${(ms / 1000).toFixed(1)} s`).join(", ")}`);
  }
}

/** Servers know the three hosts and nothing of Patroni. */
export const patroniFailovers: Scenario = {
  id: "FP",
  title: "failovers by Patroni",
  quick_dose: null,
  skipped: missingPackages,
  async perform(stage) {
    const network = whyNoNetwork() === "" ? createNetwork() : undefined;
    if (network) stage.atEnd(network.remove);
    else stage.note(`no leader was cut off: ${whyNoNetwork()}`);
    const cluster = await startPatroni(stage, network);
    const env = { PSQLQUEUE_DATABASE_URL: await createDatabase(stage, cluster) };
    const ports = [(await stage.server(env)).port, (await stage.server(env)).port];
    const options = { ports, url: null, messages: 20_000, rate_max: 300, drain_ms_max: 60_000 };
    await stage.play(options, async () => {
      for (let left = stage.dose(2, 1); left > 0; left--) {
        for (const { name, begin, end } of faultsOn(cluster, network)) {
          const { leader, synchronous } = await cluster.waitUntilWhole();
          await Bun.sleep(stage.random.exponential(2000));
          stage.fault(name);
          await begin(leader, synchronous);
          await cluster.waitForLeader(leader);
          await Bun.sleep(alone_ms);
          end(leader);
        }
      }
      await cluster.waitUntilWhole();
    });
    noteRecoveries(stage);
    const sql = postgres(urlOf(await cluster.waitForLeader()), { max: 1, onnotice() {} });
    const [row] = await sql<{ n: number }[]>`select count(*)::int as n from psqlqueue.messages`;
    if (row?.n !== 0) stage.history.problems.push(`I10 ${row?.n} messages are stored after all were acked`);
    await sql.end({ timeout: 1 });
  },
};
