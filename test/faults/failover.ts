// F10: a primary with two synchronous standbys loses its machine, again and again.

import postgres from "postgres";
import { type Cluster, followed, startCluster, startStandby } from "../postgres.ts";
import type { Scenario } from "./scenario.ts";
import { migratedDatabase, type Stage, waitUntil } from "./stage.ts";

const names = ["one", "two", "three"];
/** Enough of the log for a standby that is copied while the load goes on. */
const settings = { wal_keep_size: "512MB" };

type Node = { name: string; cluster: Cluster };

/** Asks one node, also one that has no standby to wait for. */
export async function ask<Row extends object>(url: string, statement: string): Promise<Row[]> {
  const sql = postgres(url, { max: 1, onnotice() {}, connection: { synchronous_commit: "local" } });
  try {
    return await sql.unsafe<Row[]>(statement);
  } finally {
    await sql.end({ timeout: 1 });
  }
}

/** Has at least `count` standbys, one of which every commit waits for. */
async function waitForStandbys(cluster: Cluster, count: number): Promise<void> {
  await waitUntil(`${count} standbys follow`, 60_000, async () => {
    const rows = await ask(
      cluster.url,
      "select from pg_stat_replication where state = 'streaming' and sync_state = 'quorum'",
    );
    return rows.length >= count;
  });
}

/** The one of two that has received more; what was acknowledged is on it. */
async function mostAdvanced(nodes: Node[]): Promise<Node> {
  const received: { node: Node; bytes: number }[] = [];
  for (const node of nodes) {
    const text = "select pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0')::float8 as bytes";
    const [row] = await ask<{ bytes: number }>(node.cluster.url, text);
    received.push({ node, bytes: row?.bytes ?? 0 });
  }
  const [best] = received.sort((a, b) => b.bytes - a.bytes);
  if (best === undefined) throw new Error("there is no standby");
  return best.node;
}

async function failOver(stage: Stage, nodes: Node[], primary: Node): Promise<Node> {
  stage.fault("SIGKILL of the primary, promotion of a standby, the old primary rebuilt as another");
  await primary.cluster.kill();
  const standbys = nodes.filter((node) => node !== primary);
  const chosen = await mostAdvanced(standbys);
  await ask(chosen.cluster.url, "select pg_promote()");
  for (const node of standbys) {
    if (node === chosen) continue;
    await ask(node.cluster.url, `alter system set primary_conninfo = '${followed(chosen.cluster, node.name)}'`);
    await ask(node.cluster.url, "select pg_reload_conf()");
  }
  await waitForStandbys(chosen.cluster, 1);
  const { port } = primary.cluster;
  await primary.cluster.remove();
  primary.cluster = await startStandby(chosen.cluster, primary.name, { settings, port });
  await waitForStandbys(chosen.cluster, 2);
  return chosen;
}

/** The primary is killed and never comes back as one. The servers know all three hosts. */
export const failovers: Scenario = {
  id: "F10",
  title: "failover to a synchronous standby",
  quick_dose: null,
  async perform(stage) {
    const nodes: Node[] = [{ name: names[0] as string, cluster: await startCluster({ settings }) }];
    stage.atEnd(async () => {
      for (const { cluster } of nodes) await cluster.remove();
    });
    let primary = nodes[0] as Node;
    const database = new URL(await migratedDatabase(primary.cluster, stage.program())).pathname;
    await ask(primary.cluster.url, `alter system set synchronous_standby_names = 'ANY 1 (${names.join(", ")})'`);
    await ask(primary.cluster.url, "select pg_reload_conf()");
    for (const name of names.slice(1)) {
      nodes.push({ name, cluster: await startStandby(primary.cluster, name, { settings }) });
    }
    await waitForStandbys(primary.cluster, 2);
    const hosts = nodes.map(({ cluster }) => `127.0.0.1:${cluster.port}`).join();
    const env = { PSQLQUEUE_DATABASE_URL: `postgres://postgres@${hosts}${database}` };
    const ports = [(await stage.server(env)).port, (await stage.server(env)).port];
    await stage.play({ ports, url: null, messages: 30_000, drain_ms_max: 60_000 }, async () => {
      for (let left = stage.dose(6, 2); left > 0; left--) {
        await Bun.sleep(stage.random.exponential(2000));
        primary = await failOver(stage, nodes, primary);
      }
    });
    // Asked of the last primary: what is left there.
    const url = new URL(primary.cluster.url);
    url.pathname = database;
    const sql = postgres(url.href, { max: 1, onnotice() {} });
    const [row] = await sql<{ n: number }[]>`select count(*)::int as n from psqlqueue.messages`;
    if (row?.n !== 0) stage.history.problems.push(`I10 ${row?.n} messages are stored after all were acked`);
    await sql.end({ timeout: 1 });
  },
};
