import { parseArgs } from "node:util";
import { runMigration } from "./commands/migrate.ts";
import { ListenError, startServer } from "./commands/server.ts";
import { type Config, ConfigError, describeSettings, loadEnvironment, readConfig } from "./config.ts";
import { createLog, describeError, type Log, logObserver } from "./log.ts";
import { addObserver } from "./observe.ts";
import { commit, version } from "./version.ts";

const usage = `psqlqueue ${version}: a durable message queue over HTTP

usage: psqlqueue COMMAND

commands:
  server, s     serves the API and the metrics until SIGINT or SIGTERM
  migrate, m    brings the database to this version; safe to run any number of times
    --from DIR  then carries the embedded database of that directory over to PSQLQUEUE_DATABASE_URL, which must be empty
  healthcheck   asks the local server whether it is well: exit 0, or 1
  help          this page; \`psqlqueue server --help\` lists the settings

options:
  --help, -h    this page
  --version     version and commit
`;

const server_usage = `usage: psqlqueue server

Serves the API and the metrics until SIGINT or SIGTERM. Settings come from the environment, or from a file .env found
from the working directory upwards; the environment wins.

`;

/** Ends at the first signal through \`stop\`, at the second at once. */
function onSignals(log: Log, stop: () => void): void {
  let signals = 0;
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.on(signal, () => {
      signals += 1;
      if (signals > 1) process.exit(1);
      log("info", "server shutting down gracefully, press Ctrl+C again to force");
      stop();
    });
  }
}

async function runServer(config: Config, log: Log): Promise<number> {
  const stopped = Promise.withResolvers<undefined>();
  // Before anything is opened: as the first process of a container a signal without a handler is ignored.
  onSignals(log, () => stopped.resolve(undefined));
  try {
    // A database that does not answer can hold up the start for long. A signal ends that too: nothing is served yet.
    const server = await Promise.race([startServer(config, log), stopped.promise]);
    if (server === undefined) {
      log("info", "server exiting");
      return 0;
    }
    const failure = await Promise.race([stopped.promise, server.failed]);
    if (failure !== undefined) {
      const remedy = "what was answered is safe: make room on its disk if it is full, and start again";
      log("error", "embedded database failed", { error: describeError(failure), remedy });
      await server.abort();
    } else await server.stop();
    log("info", "server exiting");
    return failure === undefined ? 0 : 1;
  } catch (error) {
    if (!(error instanceof ListenError)) throw error;
    log("error", `${error.listener} server listen error`, { error: describeError(error.cause) });
    return 1;
  }
}

async function runMigrate(config: Config, log: Log, options: Options): Promise<number> {
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => process.exit(1));
  log("info", "migration process started");
  log("info", "migration process finished", await runMigration(config, options.from));
  return 0;
}

async function runHealthcheck(config: Config): Promise<number> {
  const host = config.PSQLQUEUE_SERVER_HOST;
  const reachable =
    host === "0.0.0.0" ? "127.0.0.1" : host === "::" ? "[::1]" : host.includes(":") ? `[${host}]` : host;
  const url = `http://${reachable}:${config.PSQLQUEUE_SERVER_PORT}/v1/healthz`;
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(5000) });
    if (response.ok) return 0;
    console.error(`${url} answered ${response.status}: ${(await response.text()).slice(0, 500)}`);
  } catch (error) {
    console.error(`${url} did not answer: ${describeError(error)}`);
  }
  return 1;
}

type Options = { from?: string | undefined };
type Command = { run: (config: Config, log: Log, options: Options) => Promise<number>; options: readonly string[] };

const server: Command = { run: runServer, options: [] };
const migrate: Command = { run: runMigrate, options: ["from"] };
const healthcheck: Command = { run: runHealthcheck, options: [] };
const commands = new Map([
  ["server", server],
  ["s", server],
  ["migrate", migrate],
  ["m", migrate],
  ["healthcheck", healthcheck],
]);

/** Prints what is wrong with the command line, and how to do it right. */
function refuse(what: string): number {
  process.stderr.write(`psqlqueue: ${what}\n\n${usage}`);
  return 2;
}

type Line = { command?: Command | undefined; options: Options; is_help: boolean; is_version: boolean };

/** Throws a sentence for options that there are not. */
function readLine(argv: string[]): Line {
  const { values, positionals } = parseArgs({
    args: argv,
    allowPositionals: true,
    options: { help: { type: "boolean", short: "h" }, version: { type: "boolean" }, from: { type: "string" } },
  });
  const [name = "help", ...rest] = positionals;
  const is_version = values.version === true;
  if (name === "help") return { options: {}, is_help: true, is_version };
  const command = commands.get(name);
  if (command === undefined) throw new Error(`unknown command ${JSON.stringify(name)}`);
  if (rest.length > 0) throw new Error(`unexpected ${JSON.stringify(rest[0])} after ${name}`);
  if (values.from !== undefined && !command.options.includes("from")) throw new Error(`${name} has no option --from`);
  return { command, options: { from: values.from }, is_help: values.help === true, is_version };
}

async function main(argv: string[]): Promise<number> {
  let line: Line;
  try {
    line = readLine(argv);
  } catch (error) {
    return refuse((error as Error).message.split("\n")[0] ?? "");
  }
  const { command, options, is_help, is_version } = line;
  if (is_version) {
    console.log(`psqlqueue ${version} (${commit})`);
    return 0;
  }
  if (command === undefined || is_help) {
    process.stdout.write(command === server ? `${server_usage}${describeSettings()}\n` : usage);
    return 0;
  }
  let log = createLog("info");
  try {
    const { values, dotenv_file } = loadEnvironment(process.env, process.cwd());
    const config = readConfig(values);
    log = createLog(config.PSQLQUEUE_LOG_LEVEL);
    addObserver(logObserver(log, config.PSQLQUEUE_LOG_LEVEL));
    if (dotenv_file !== undefined) log("info", "Found .env", { file: dotenv_file });
    return await command.run(config, log, options);
  } catch (error) {
    if (error instanceof ConfigError) process.stderr.write(`psqlqueue: ${error.message}\n`);
    log("error", "cli app failed", { error: describeError(error) });
    return 1;
  }
}

process.exit(await main(Bun.argv.slice(2)));
