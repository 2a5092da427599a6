// Three nodes of PostgreSQL kept by Patroni, and its etcd, made with deploy/patroni/patroni.yml. Each on a machine of
// its own as far as the network goes, where that is possible.

import { closeSync, copyFileSync, existsSync, openSync } from "node:fs";
import path from "node:path";
import { asServerUser, freePort, serverDirectory } from "../postgres.ts";
import { isAlive, signalAll } from "../processes.ts";
import { ask } from "./failover.ts";
import type { Network, Place } from "./namespaces.ts";
import { processesOf } from "./pressure.ts";
import { tellGuard } from "./servers.ts";
import { type Stage, waitUntil } from "./stage.ts";

/** Packages of Debian and the programs that are needed of them. */
const packages = { patroni: ["patroni", "patronictl"], "etcd-server": ["etcd"] };
const config = path.resolve(import.meta.dir, "../../deploy/patroni/patroni.yml");
const password = "of-the-tests";
const names = ["one", "two", "three"];
/** Of a lease in etcd, an election, a crash recovery and a rewind. */
const change_ms_max = 120_000;

export type Member = {
  name: string;
  place: Place | undefined;
  address: string;
  port: number;
  /** As a superuser, of the database that is always there. */
  url: string;
  /** Its Patroni; PostgreSQL follows. */
  start(): void;
  /** kill -9 of its Patroni and of its PostgreSQL. */
  kill(): Promise<void>;
  /** Stops all its processes in their steps, and lets them go on. */
  pause(): void;
  resume(): void;
  /** What this node says of the cluster; undefined when it says nothing. */
  view(): Promise<{ name: string; role: string; state: string }[] | undefined>;
  /** What Patroni has written, for when it does not start. */
  log(): Promise<string>;
  patronictl(...args: string[]): Promise<void>;
};

export type PatroniCluster = {
  members: Member[];
  etcd: Place | undefined;
  /** Waits until another than `former` leads, as the others see it. */
  waitForLeader(former?: Member): Promise<Member>;
  /** Waits until all others follow the leader, and one of them is known as the one that may take over. */
  waitUntilWhole(): Promise<{ leader: Member; synchronous: Member }>;
};

/** Which packages are missing; undefined: none. */
export function missingPackages(): string | undefined {
  const missing = Object.entries(packages).filter(([, programs]) => programs.some((one) => Bun.which(one) === null));
  if (missing.length === 0) return undefined;
  const list = missing.map(([name]) => name).join(" ");
  return `not installed: ${list}. On Debian: apt-get install --no-install-recommends ${list}`;
}

/**
 * Up to 3.0.2 a leader that had slept beyond its lease wrote its name over that of the new one, by the newer interface
 * of etcd (github.com/patroni/patroni/pull/2689): two leaders, and acknowledged writes on the wrong one.
 */
function etcdInterface(): "ETCD" | "ETCD3" {
  const version = /\d+\.\d+\.\d+/.exec(Bun.spawnSync(["patroni", "--version"]).stdout.toString())?.[0] ?? "0.0.0";
  return version.localeCompare("3.0.3", "en", { numeric: true }) < 0 ? "ETCD" : "ETCD3";
}

/** A process that writes into a file, and is killed when ours is gone. */
function launch(command: string[], directory: string, env: Record<string, string>) {
  const log = openSync(path.join(directory, "patroni.log"), "a");
  const child = Bun.spawn(command, {
    ...{ cwd: directory, env: { PATH: process.env["PATH"] ?? "", HOME: directory, LC_ALL: "C.UTF-8", ...env } },
    ...{ stdin: "ignore", stdout: log, stderr: log, detached: true },
  });
  closeSync(log);
  child.unref();
  tellGuard("+", child.pid);
  const end = async () => {
    child.kill("SIGKILL");
    await child.exited;
    tellGuard("-", child.pid);
  };
  return { pid: child.pid, end };
}

async function startEtcd(stage: Stage, place: Place | undefined): Promise<string> {
  const { place: home, guard } = await serverDirectory();
  stage.atEnd(guard.release);
  const address = place?.address ?? "127.0.0.1";
  const [clients, peers] = [`http://${address}:${await freePort()}`, `http://127.0.0.1:${await freePort()}`];
  const flags = {
    name: "etcd",
    "data-dir": path.join(home.directory, "etcd"),
    "listen-client-urls": clients,
    "advertise-client-urls": clients,
    "listen-peer-urls": peers,
    "initial-advertise-peer-urls": peers,
    "initial-cluster": `etcd=${peers}`,
    "enable-v2": "true",
  };
  const command = ["etcd", ...Object.entries(flags).map(([name, value]) => `--${name}=${value}`)];
  const child = launch(asServerUser(place, command), home.directory, {});
  stage.atEnd(child.end);
  await waitUntil("etcd is healthy", 30_000, async () => {
    const reply = await fetch(`${clients}/health`, { signal: AbortSignal.timeout(2000) }).catch(() => undefined);
    return reply?.ok === true;
  });
  return clients;
}

async function createMember(stage: Stage, name: string, place: Place | undefined, etcd: string): Promise<Member> {
  const { place: home, binaries, guard } = await serverDirectory();
  stage.atEnd(guard.release);
  const address = place?.address ?? "127.0.0.1";
  const [port, rest_port] = [await freePort(), await freePort()];
  const own_config = path.join(home.directory, "patroni.yml");
  copyFileSync(config, own_config);
  const env = {
    PATRONI_NAME: name,
    [`PATRONI_${etcdInterface()}_HOSTS`]: new URL(etcd).host,
    PATRONI_RESTAPI_LISTEN: `${address}:${rest_port}`,
    PATRONI_RESTAPI_CONNECT_ADDRESS: `${address}:${rest_port}`,
    PATRONI_RESTAPI_USERNAME: "patroni",
    PATRONI_RESTAPI_PASSWORD: password,
    PATRONI_POSTGRESQL_LISTEN: `${address}:${port}`,
    PATRONI_POSTGRESQL_CONNECT_ADDRESS: `${address}:${port}`,
    PATRONI_POSTGRESQL_DATA_DIR: home.data,
    PATRONI_POSTGRESQL_BIN_DIR: binaries.folder,
    PATRONI_SUPERUSER_USERNAME: "postgres",
    PATRONI_SUPERUSER_PASSWORD: password,
    PATRONI_REPLICATION_USERNAME: "replicator",
    PATRONI_REPLICATION_PASSWORD: password,
  };
  let patroni: ReturnType<typeof launch> | undefined;
  let paused: number[] = [];

  function postgresPids(): number[] {
    try {
      return processesOf(home.data);
    } catch {
      return [];
    }
  }

  const member: Member = {
    ...{ name, place, address, port },
    url: `postgres://postgres:${password}@${address}:${port}/postgres`,
    start() {
      patroni = launch(asServerUser(place, ["patroni", own_config]), home.directory, env);
    },
    async kill() {
      // Patroni first: it would start PostgreSQL again.
      const ended = patroni?.end();
      const pids = postgresPids();
      signalAll(pids, "SIGKILL");
      await ended;
      patroni = undefined;
      await waitUntil("PostgreSQL is gone", 30_000, () => pids.every((pid) => !isAlive(pid)));
    },
    pause() {
      paused = [...(patroni ? [patroni.pid] : []), ...postgresPids()];
      for (const pid of paused) tellGuard("+", pid);
      signalAll(paused, "SIGSTOP");
    },
    resume() {
      signalAll(paused, "SIGCONT");
      for (const pid of paused) if (pid !== patroni?.pid) tellGuard("-", pid);
      paused = [];
    },
    async view() {
      try {
        const signal = AbortSignal.timeout(2000);
        const reply = await fetch(`http://${address}:${rest_port}/cluster`, { signal });
        return ((await reply.json()) as { members: { name: string; role: string; state: string }[] }).members;
      } catch {
        return undefined;
      }
    },
    log: () =>
      Bun.file(path.join(home.directory, "patroni.log"))
        .text()
        .catch(() => "never started"),
    async patronictl(...args) {
      const command = asServerUser(place, ["patronictl", "-c", own_config, ...args]);
      const options = { cwd: home.directory, env: { ...process.env, ...env, LC_ALL: "C.UTF-8" } };
      const child = Bun.spawn(command, { ...options, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
      const [told, complaint] = await Promise.all([child.stdout, child.stderr].map((one) => new Response(one).text()));
      // It also tells of failures with exit code 0.
      const has_failed = (await child.exited) !== 0 || /failed|falling back/.test(`${told}`);
      if (has_failed) throw new Error(`patronictl ${args.join(" ")}: ${told} ${complaint}`);
    },
  };
  stage.atEnd(async () => {
    await member.kill();
    const log = path.join(home.directory, "patroni.log");
    if (existsSync(log)) copyFileSync(log, stage.file(`patroni-${name}.log`));
  });
  return member;
}

/** Starts them, and waits until two follow the third. They go with the stage. */
export async function startPatroni(stage: Stage, network: Network | undefined): Promise<PatroniCluster> {
  const etcd = network?.place("etcd");
  const etcd_url = await startEtcd(stage, etcd);
  const members: Member[] = [];
  for (const name of names) members.push(await createMember(stage, name, network?.place(name), etcd_url));

  async function leaderSeen(former?: Member): Promise<Member | undefined> {
    for (const member of members) {
      if (member === former) continue;
      const leader = (await member.view())?.find(({ role, state }) => role === "leader" && state === "running");
      if (leader !== undefined) return members.find(({ name }) => name === leader.name && name !== former?.name);
    }
    return undefined;
  }

  async function withLogs<T>(work: Promise<T>): Promise<T> {
    return await work.catch(async (cause) => {
      const logs = await Promise.all(members.map(async ({ name, log }) => `${name}: ${(await log()).slice(-3000)}`));
      throw new Error(`${cause instanceof Error ? cause.message : cause}\n${logs.join("\n")}`, { cause });
    });
  }

  const cluster: PatroniCluster = {
    members,
    etcd,
    async waitForLeader(former) {
      let leader: Member | undefined;
      const isThereOne = async () => {
        leader = await leaderSeen(former);
        return leader !== undefined;
      };
      await withLogs(waitUntil("there is a leader", change_ms_max, isThereOne));
      return leader as Member;
    },
    async waitUntilWhole() {
      const followers = "select from pg_stat_replication where state = 'streaming'";
      let leader: Member | undefined;
      let synchronous: Member | undefined;
      const isWhole = async () => {
        leader = await leaderSeen();
        if (leader === undefined) return false;
        // What etcd says: before, no other may be promoted.
        const named = (await leader.view())?.find(({ role }) => role === "sync_standby");
        synchronous = members.find(({ name }) => name === named?.name);
        const rows = await ask(leader.url, followers).catch(() => []);
        return rows.length === members.length - 1 && synchronous !== undefined;
      };
      await withLogs(waitUntil("all nodes follow the leader", change_ms_max, isWhole));
      return { leader: leader as Member, synchronous: synchronous as Member };
    },
  };
  // The first one makes the cluster, the others copy it.
  for (const member of members) {
    member.start();
    await cluster.waitForLeader();
  }
  await cluster.waitUntilWhole();
  return cluster;
}
