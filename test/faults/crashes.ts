// F0 to F3: nothing, killed servers, killed databases, killed connections.

import postgres from "postgres";
import type { Scenario } from "./scenario.ts";

/** Nothing is broken. */
export const control: Scenario = {
  id: "F0",
  title: "control",
  quick_dose: null,
  async perform(stage) {
    const { url } = await stage.database();
    const env = { PSQLQUEUE_DATABASE_URL: url };
    const servers = [await stage.server(env), await stage.server(env)];
    await stage.play({ ports: servers.map(({ port }) => port), url, messages: 50_000 }, async () => {});
  },
};

/** One of two servers at a time, every fifth time both. */
export const killedServers: Scenario = {
  id: "F1",
  title: "kill -9 of servers",
  quick_dose: 0.01,
  async perform(stage) {
    const { random } = stage;
    const { url } = await stage.database();
    const env = { PSQLQUEUE_DATABASE_URL: url };
    const servers = [await stage.server(env), await stage.server(env)];
    const ports = servers.map(({ port }) => port);
    await stage.play({ ports, url, messages: 120_000 }, async () => {
      const kills = stage.dose(60, 3);
      for (let n = 0; n < kills; n++) {
        await Bun.sleep(random.exponential(1500));
        const victims = n % 5 === 4 ? servers : [random.pick(servers)];
        stage.fault(victims.length === 2 ? "kill -9 of both servers" : "kill -9 of one of two servers");
        await Promise.all(victims.map((server) => server.kill()));
        await Promise.all(victims.map((server) => server.start()));
      }
    });
  },
};

/** The postmaster is killed and all its children are gone, or stops as if the power had failed, by turns. */
export const crashedDatabase: Scenario = {
  id: "F2",
  title: "crashes of PostgreSQL",
  quick_dose: 0.02,
  async perform(stage) {
    const { random } = stage;
    const { url, cluster } = await stage.database();
    const env = { PSQLQUEUE_DATABASE_URL: url };
    const servers = [await stage.server(env), await stage.server(env)];
    const ports = servers.map(({ port }) => port);
    await stage.play({ ports, url, messages: 60_000 }, async () => {
      const crashes = stage.dose(20, 2);
      for (let n = 0; n < crashes; n++) {
        await Bun.sleep(random.exponential(crashes < 3 ? 1000 : 4000));
        stage.fault(n % 2 === 0 ? "SIGKILL of the postmaster" : "immediate stop");
        await (n % 2 === 0 ? cluster.kill() : cluster.stop("immediate"));
        await cluster.start();
      }
    });
  },
};

/** Connections of the servers, at random, also those that listen. */
export const killedBackends: Scenario = {
  id: "F3",
  title: "killed backends",
  quick_dose: null,
  async perform(stage) {
    const { random } = stage;
    const { url } = await stage.database();
    const env = { PSQLQUEUE_DATABASE_URL: url };
    const servers = [await stage.server(env), await stage.server(env)];
    const admin = postgres(url, { max: 1, onnotice() {}, connection: { application_name: "faults" } });
    stage.atEnd(() => admin.end({ timeout: 1 }));
    const ports = servers.map(({ port }) => port);
    await stage.play({ ports, url, messages: 60_000 }, async () => {
      for (let left = stage.dose(600, 20); left > 0; ) {
        const backends = await admin<{ pid: number }[]>`select pid from pg_stat_activity
          where datname = current_database() and application_name = 'psqlqueue' order by pid`;
        if (backends.length > 0) {
          stage.fault("pg_terminate_backend");
          await admin`select pg_terminate_backend(${random.pick(backends).pid})`;
          left--;
        }
        await Bun.sleep(random.exponential(100));
      }
    });
    const [row] = await admin<{ n: number }[]>`select count(*)::int as n from pg_stat_activity
      where datname = current_database() and application_name = 'psqlqueue'`;
    stage.note(`${row?.n} backends of two servers at the end`);
    // Ten of a pool and one that listens, each.
    if ((row?.n ?? 0) > 24) stage.history.problems.push(`I12 ${row?.n} backends are left`);
  },
};
