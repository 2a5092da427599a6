// F22: PgBouncer before the database, in each of its modes.

import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import postgres from "postgres";
import { sessionSettings } from "../../src/db/session.ts";
import { freePort } from "../postgres.ts";
import type { Scenario } from "./scenario.ts";
import { createServer } from "./servers.ts";
import { type Stage, waitUntil } from "./stage.ts";

const missing = "pgbouncer is not installed (Debian: apt-get install --no-install-recommends pgbouncer)";
/** The default of a server. */
const statement_timeout_ms = 5000;

const find = () => Bun.which("pgbouncer", { PATH: `${process.env["PATH"] ?? ""}:/usr/sbin:/usr/local/sbin` });

/** "1.18" → 18 */
function minorVersion(): number {
  const output = Bun.spawnSync([find() ?? "", "--version"]).stdout.toString();
  return Number(/PgBouncer 1\.(\d+)/.exec(output)?.[1] ?? 0);
}

type Pooler = { url: string; start(): Promise<void>; kill(): Promise<void> };

/** What the refusal of a server says: parameters that the pooler passes over, set by the database instead. */
async function setDefaults(url: string): Promise<string[]> {
  const direct = postgres(url, { max: 1, onnotice() {} });
  const { application_name: _, ...settings } = sessionSettings(statement_timeout_ms);
  for (const [name, value] of Object.entries(settings)) {
    await direct.unsafe(`alter database ${new URL(url).pathname.slice(1)} set ${name} = '${value}'`);
  }
  await direct.end({ timeout: 1 });
  return Object.keys(settings);
}

/** One before the database of `url`; it does not run yet. */
async function createPooler(stage: Stage, url: string, mode: "session" | "transaction"): Promise<Pooler> {
  const ignored = await setDefaults(url);
  const { port: server_port, username } = new URL(url);
  const port = await freePort();
  // Root may not run it, and its user must come to its files.
  const place = mkdtempSync("/tmp/psqlqueue-faults-pooler-");
  chmodSync(place, 0o755);
  const file = path.join(place, "pgbouncer.ini");
  const text = [
    `[databases]`,
    `* = host=127.0.0.1 port=${server_port} user=${username}`,
    `[pgbouncer]`,
    `listen_addr = 127.0.0.1`,
    `listen_port = ${port}`,
    `unix_socket_dir =`,
    `auth_type = any`,
    `pool_mode = ${mode}`,
    `default_pool_size = 40`,
    `max_client_conn = 200`,
    `ignore_startup_parameters = ${ignored.filter((name) => name !== "TimeZone").join(",")}`,
    ...(minorVersion() >= 21 ? ["max_prepared_statements = 200"] : []),
  ];
  writeFileSync(file, text.join("\n"));
  const is_root = process.getuid?.() === 0;
  const command = [find() ?? "", "-q", ...(is_root ? ["-u", "nobody"] : []), file];
  let running: Bun.Subprocess | undefined;
  const kill = async () => {
    running?.kill("SIGKILL");
    await running?.exited;
    running = undefined;
  };
  stage.atEnd(async () => {
    await kill();
    rmSync(place, { recursive: true, force: true });
  });
  const pooled = new URL(url);
  pooled.port = String(port);
  const answers = async () => {
    const sql = postgres(pooled.href, { max: 1, onnotice() {}, connect_timeout: 2 });
    return await sql`select 1`
      .then(
        () => true,
        () => false,
      )
      .finally(() => sql.end({ timeout: 1 }));
  };
  return {
    url: pooled.href,
    kill,
    async start() {
      running = Bun.spawn(command, { stdin: "ignore", stdout: "ignore", stderr: "ignore" });
      await waitUntil("PgBouncer answers", 10_000, answers);
    },
  };
}

/** Without prepared statements a server says at its start what to do; with what it says, it works. */
async function urlInTransactions(stage: Stage, pooler: Pooler): Promise<string> {
  if (minorVersion() >= 21) return pooler.url;
  const said: string[] = [];
  const env = { PSQLQUEUE_DATABASE_URL: pooler.url };
  const options = { program: stage.program(), env, onProblem: (problem: string) => void said.push(problem) };
  const refused = await createServer(options);
  await refused.start().catch(() => {});
  await refused.kill();
  const is_told = said.some((problem) => problem.includes("?prepare=false"));
  if (!is_told) stage.history.problems.push(`a server was not told what to do: ${said}`);
  return `${pooler.url}?prepare=false`;
}

const behind = (id: string, mode: "session" | "transaction"): Scenario => ({
  id,
  title: `PgBouncer in ${mode} mode, killed and started again`,
  quick_dose: null,
  skipped: () => (find() === null ? missing : undefined),
  async perform(stage) {
    const { url } = await stage.database();
    const pooler = await createPooler(stage, url, mode);
    await pooler.start();
    const env = { PSQLQUEUE_DATABASE_URL: mode === "session" ? pooler.url : await urlInTransactions(stage, pooler) };
    const ports = [(await stage.server(env)).port, (await stage.server(env)).port];
    await stage.play({ ports, url, messages: 15_000 }, async (load) => {
      for (let left = stage.dose(10, 2); left > 0; left--) {
        await Bun.sleep(stage.random.exponential(1500));
        stage.fault("SIGKILL of PgBouncer, started again a second later");
        await pooler.kill();
        await Bun.sleep(1000);
        await pooler.start();
        const before = load.acknowledged();
        await waitUntil("I11 publishes succeed behind the new PgBouncer", 15_000, () => load.acknowledged() > before);
      }
    });
  },
});

/** A session for each connection: as if nobody stood between. */
export const pooledSessions = behind("F22", "session");
/** A session for each transaction: receives poll, and statements are planned anew where they cannot be prepared. */
export const pooledTransactions = behind("F23", "transaction");
