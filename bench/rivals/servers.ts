// The servers that the clients work with: each private, in a directory of its own, ended with the run. Nothing is
// installed: a server that is not there is a row that is not there.

import { existsSync, globSync, mkdirSync, readFileSync } from "node:fs";
import path from "node:path";
import postgres from "postgres";
import { freePort, startCluster } from "../../test/postgres.ts";
import { atEnd, endAtEnd, temporaryDirectory, waitForText } from "../children.ts";
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

const start_ms_max = 60_000;

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
    // A queue for each client: one would take the messages of the other.
    place: {
      url: subject.url,
      plain: await createQueue(subject, "plain"),
      client: await createQueue(subject, "client"),
    },
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

const rabbitmq_folder = "/usr/lib/rabbitmq/bin";

/** RabbitMQ of Debian's package, with a port mapper of its own: the usual one would stay when the server is gone. */
export async function startRabbitmq(): Promise<Server> {
  const program = path.join(rabbitmq_folder, "rabbitmq-server");
  const epmd = Bun.which("epmd");
  if (!existsSync(program) || epmd === null) throw new MissingError("Debian's package rabbitmq-server");
  const directory = temporaryDirectory();
  const [port, distribution_port, epmd_port] = [await freePort(), await freePort(), await freePort()];
  const mapper = Bun.spawn([epmd, "-port", String(epmd_port), "-address", "127.0.0.1"], {
    stdin: "ignore",
    stdout: "ignore",
    stderr: "inherit",
  });
  endAtEnd(mapper);
  await Bun.write(path.join(directory, "rabbitmq.conf"), `listeners.tcp.local = 127.0.0.1:${port}\n`);
  await Bun.write(path.join(directory, "enabled_plugins"), "[].\n");
  for (const folder of ["data", "log"]) mkdirSync(path.join(directory, folder));
  const server = Bun.spawn([program], {
    cwd: directory,
    env: {
      PATH: process.env["PATH"] ?? "",
      HOME: directory,
      // The Erlang machine itself instead of a shell above it: what is ended and measured is the server.
      RUNNING_UNDER_SYSTEMD: "true",
      ERL_EPMD_PORT: String(epmd_port),
      ERL_EPMD_ADDRESS: "127.0.0.1",
      RABBITMQ_NODENAME: "bench@localhost",
      RABBITMQ_DIST_PORT: String(distribution_port),
      RABBITMQ_CONFIG_FILE: path.join(directory, "rabbitmq.conf"),
      RABBITMQ_ENABLED_PLUGINS_FILE: path.join(directory, "enabled_plugins"),
      RABBITMQ_CONF_ENV_FILE: "/dev/null",
      RABBITMQ_MNESIA_BASE: path.join(directory, "data"),
      RABBITMQ_LOG_BASE: path.join(directory, "log"),
      RABBITMQ_LOGS: "-",
    },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
  });
  endAtEnd(server);
  await waitForText(server.stdout, /Server startup complete/, start_ms_max);
  const [folder = ""] = globSync("/usr/lib/rabbitmq/lib/rabbitmq_server-*");
  return {
    place: { url: `amqp://guest:guest@127.0.0.1:${port}` },
    pids: [server.pid, mapper.pid],
    version: folder.split("-").at(-1) ?? "",
    setting: "one node, no plugins",
  };
}

/** NATS with JetStream, and a flush for each message where this version knows that setting. */
export async function startNats(): Promise<Server & { is_synced: boolean }> {
  const program = Bun.which("nats-server");
  if (program === null) throw new MissingError("Debian's package nats-server");
  const directory = temporaryDirectory();
  const file = path.join(directory, "nats.conf");
  const write = (more: string) =>
    Bun.write(file, `listen: "127.0.0.1:-1"\njetstream {\n  store_dir: "${directory}/data"\n${more}}\n`);
  await write("  sync_interval: always\n");
  const is_synced = Bun.spawnSync([program, "-t", "-c", file], { stdout: "ignore", stderr: "ignore" }).success;
  if (!is_synced) await write("");
  const server = Bun.spawn([program, "-c", file], { stdin: "ignore", stdout: "ignore", stderr: "pipe" });
  endAtEnd(server);
  const [, port] = await waitForText(server.stderr, /client connections on 127\.0\.0\.1:(\d+)/, start_ms_max);
  const { stdout } = Bun.spawnSync([program, "--version"]);
  const version = /v(\d\S*)/.exec(stdout.toString())?.[1] ?? "";
  const setting = `one server${is_synced ? ", sync_interval: always" : ""}`;
  return { place: { url: `nats://127.0.0.1:${port}` }, pids: [server.pid], version, setting, is_synced };
}
