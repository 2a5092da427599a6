// F9, F11, F12: no disk, no vacuum, no time.

import { appendFileSync, chmodSync, mkdtempSync, readFileSync, rmSync, statfsSync } from "node:fs";
import path from "node:path";
import postgres from "postgres";
import { type Cluster, startCluster } from "../postgres.ts";
import { childrenOf, signalAll } from "../processes.ts";
import type { Scenario } from "./scenario.ts";
import { scratchDirectory } from "./servers.ts";
import { migratedDatabase, waitUntil } from "./stage.ts";

const run = (command: string[]) => Bun.spawnSync(command, { stdout: "ignore", stderr: "pipe" });

let refusal: string | undefined;

/** Why no file system of a size of its own can be mounted; empty: one can. */
function whyNoMount(): string {
  if (refusal !== undefined) return refusal;
  const place = scratchDirectory("mount");
  const { exitCode, stderr } = run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place]);
  if (exitCode === 0) run(["umount", place]);
  refusal = exitCode === 0 ? "" : `no tmpfs can be mounted: ${stderr.toString().trim()}`;
  return refusal;
}

/** Fills what is free but for `left_bytes`, and again what becomes free, until the answer is called. */
function keepFull(place: string, left_bytes: number): () => void {
  const file = path.join(place, "ballast");
  const fill = () => {
    const { bavail, bsize } = statfsSync(place);
    for (let left = bavail * bsize - left_bytes; left > 0; left -= 65_536) {
      try {
        appendFileSync(file, Buffer.alloc(Math.min(left, 65_536)));
      } catch {
        // PostgreSQL was faster.
        return;
      }
    }
  };
  fill();
  const timer = setInterval(fill, 20);
  return () => {
    clearInterval(timer);
    rmSync(file);
  };
}

/** Tables and write-ahead log on a disk that is full for seconds. */
export const fullDisk: Scenario = {
  id: "F9",
  title: "PostgreSQL's disk full",
  quick_dose: null,
  skipped: () => whyNoMount() || undefined,
  async perform(stage) {
    // PostgreSQL's user must come to it.
    const place = mkdtempSync("/tmp/psqlqueue-faults-disk-");
    chmodSync(place, 0o755);
    run(["mount", "-t", "tmpfs", "-o", "size=300m,mode=755", "tmpfs", place]);
    const unmount = () => {
      run(["umount", "-l", place]);
      rmSync(place, { recursive: true, force: true });
    };
    process.once("exit", unmount);
    stage.atEnd(unmount);
    const settings = { max_wal_size: "64MB", min_wal_size: "32MB" };
    const cluster = await startCluster({ settings, parent: place });
    stage.atEnd(() => cluster.remove());
    const url = await migratedDatabase(cluster, stage.program());
    const env = { PSQLQUEUE_DATABASE_URL: url };
    const ports = [(await stage.server(env)).port, (await stage.server(env)).port];
    const admin = postgres(url, { max: 1, onnotice() {}, connect_timeout: 2 });
    stage.atEnd(() => admin.end({ timeout: 1 }));
    await stage.play({ ports, url, messages: 10_000, drain_ms_max: 60_000 }, async (load) => {
      for (let left = stage.dose(6, 2); left > 0; left--) {
        const is_log = left % 2 === 0;
        stage.fault(is_log ? "no room at all for 4 s" : "room for tables only of what is reserved, for 4 s");
        const makeRoom = keepFull(place, is_log ? 0 : 200_000);
        // What PostgreSQL has recycled is used up first: it must ask for new segments of its log.
        if (is_log) await admin`select pg_switch_wal()`.catch(() => {});
        await Bun.sleep(4000);
        makeRoom();
        // No-op unless it has ended in a panic.
        await cluster.start();
        const before = load.acknowledged();
        await waitUntil("I11 publishes succeed when there is room", 20_000, () => load.acknowledged() > before);
      }
    });
  },
};

/** Vacuum can remove nothing for a minute: dead rows stand before the live ones. */
export const pinnedSnapshot: Scenario = {
  id: "F11",
  title: "a pinned snapshot and long readers",
  quick_dose: null,
  async perform(stage) {
    const { url } = await stage.database();
    const env = { PSQLQUEUE_DATABASE_URL: url };
    const ports = [(await stage.server(env)).port, (await stage.server(env)).port];
    const admin = postgres(url, { max: 5, onnotice() {}, connection: { application_name: "faults" } });
    stage.atEnd(() => admin.end({ timeout: 1 }));
    const seconds = stage.dose(60, 6);
    const pin = (for_seconds: number) =>
      admin.begin("isolation level repeatable read", async (session) => {
        await session`select count(*) from psqlqueue.messages`;
        await session`select pg_sleep(${for_seconds})`;
      });
    const rates: number[] = [];
    await stage.play({ ports, url, messages: 120_000 }, async (load) => {
      stage.fault(`snapshot pinned for ${seconds} s, with 4 overlapping readers`);
      const readers = [pin(seconds)];
      let before = load.acked();
      for (let n = 0; n < 4; n++) {
        readers.push(pin(seconds / 2));
        await Bun.sleep((seconds * 1000) / 6);
        rates.push(Math.round((load.acked() - before) / (seconds / 6)));
        before = load.acked();
      }
      await Promise.all(readers);
    });
    stage.note(`acked a second, in parts of the time that it was pinned: ${rates.join(", ")}`);
  },
};

/** Every process of the server whose data is there. */
export function processesOf(data_directory: string): number[] {
  const postmaster = Number(readFileSync(path.join(data_directory, "postmaster.pid"), "utf8").split("\n")[0]);
  return [postmaster, ...childrenOf(postmaster)];
}

/** Stops every process of a cluster, as a machine that hangs does, for so long. */
export async function standStill(cluster: Cluster, ms: number): Promise<void> {
  const pids = processesOf(cluster.data_directory);
  signalAll(pids, "SIGSTOP");
  try {
    await Bun.sleep(ms);
  } finally {
    signalAll(pids, "SIGCONT");
  }
}

/** More is published than can be, and PostgreSQL stands still for seconds. */
export const overload: Scenario = {
  id: "F12",
  title: "overload and a PostgreSQL that stands still",
  quick_dose: null,
  skipped: () => (process.platform === "linux" ? undefined : "processes are found in /proc"),
  async perform(stage) {
    const { url, cluster } = await stage.database();
    const env = { PSQLQUEUE_DATABASE_URL: url };
    const ports = [(await stage.server(env)).port, (await stage.server(env)).port];
    const pressure = { rate_max: 10_000, backlog_max: 20_000, lanes: 16, drain_ms_max: 120_000 };
    await stage.play({ ports, url, messages: 60_000, ...pressure }, async () => {
      for (let left = stage.dose(4, 1); left > 0; left--) {
        await Bun.sleep(stage.random.exponential(2000));
        stage.fault("SIGSTOP of PostgreSQL for 5 s");
        await standStill(cluster, 5000);
      }
    });
  },
};
