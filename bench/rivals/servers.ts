// The servers that the clients work with: each private, in a directory of its own, ended with the run. Nothing is
// installed: a server that is not there is a row that is not there.

import { readFileSync } from "node:fs";
import path from "node:path";
import postgres from "postgres";
import { startCluster } from "../../test/postgres.ts";
import { atEnd } from "../children.ts";
import { createQueue } from "../queues.ts";
import { openSubject } from "../subject.ts";

/** A server that runs. */
export type Server = {
  /** What a client must know to connect. */
  place: Record<string, string>;
  /** The processes whose CPU, with that of their children, is the server's. */
  pids: number[];
  version: string;
  /** How it was started, for the conditions. */
  setting: string;
};

/** What is not on this machine. The message says what to install. */
export class MissingError extends Error {
  override readonly name = "MissingError";
}

/** PostgreSQL's settings that say whether a commit is on disk before it is answered, as the server has them. */
async function settingOf(database_url: string): Promise<string> {
  const sql = postgres(database_url, { max: 1, onnotice: () => {} });
  try {
    const rows = await sql<{ name: string; setting: string }[]>`
      select name, current_setting(name) as setting
      from unnest(array['server_version', 'fsync', 'synchronous_commit', 'full_page_writes', 'shared_buffers']) as name`;
    return rows.map(({ name, setting }) => `${name} ${setting}`).join(", ");
  } finally {
    await sql.end();
  }
}

/** Our server, as `bench/run.ts` starts it. */
export async function startPsqlqueue(): Promise<Server> {
  const unknown = { url: undefined, database_url: undefined, server_pid: undefined, binary: undefined };
  const subject = await openSubject({ ...unknown, is_embedded: false, workers: 1 });
  const { server_pid = 0, postmaster_pid = 0, database_url = "" } = subject;
  const { version } = await Bun.file(path.join(import.meta.dir, "../../package.json")).json();
  return {
    place: { url: subject.url, queue: await createQueue(subject, "rivals") },
    pids: [server_pid, postmaster_pid],
    version,
    setting: await settingOf(database_url),
  };
}

/** A PostgreSQL for a library, with the settings of ours. */
export async function startPostgres(library: string): Promise<Server> {
  const cluster = await startCluster({ settings: { shared_buffers: "256MB" } });
  atEnd(() => cluster.remove());
  const url = await cluster.createDatabase("bench");
  const [postmaster] = readFileSync(path.join(cluster.data_directory, "postmaster.pid"), "utf8").split("\n");
  const manifest = path.join(import.meta.dir, "../../node_modules", library, "package.json");
  const { version } = await Bun.file(manifest).json();
  return { place: { url }, pids: [Number(postmaster)], version, setting: await settingOf(url) };
}
