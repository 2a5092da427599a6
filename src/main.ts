import { statSync } from "node:fs";
import path from "node:path";
import { type CommandLine, type Options, UsageError } from "./commandLine/command.ts";
import { readCommandLine } from "./commandLine/commandLine.ts";
import { isWorker } from "./commands/workerProcess.ts";
import { type Config, ConfigError, findUnknown, readConfig, settings } from "./config.ts";
import { type Dotenv, readDotenv } from "./dotenv.ts";
import { createLog, describeError, type Log, logObserver } from "./log.ts";
import { addObserver } from "./observe.ts";
import { stopSignals } from "./terminal/signals.ts";
import { commit, version } from "./version.ts";

// Each command is loaded when it is asked for: a server has nothing of the clients, and a client nothing of the server.

/** Ends at the first signal through `stop`, at the second at once. */
function onSignals(log: Log, has_reload: boolean, stop: () => void): void {
  let signals = 0;
  for (const signal of stopSignals()) {
    // With TLS it says that there are new certificates.
    if (signal === "SIGHUP" && has_reload) continue;
    process.on(signal, () => {
      // Of a terminal that is closed both the system and the shell tell us; nobody is in a hurry.
      if (signal === "SIGHUP" && signals > 0) return;
      signals += 1;
      if (signals > 1) process.exit(1);
      log("info", "server shutting down gracefully, press Ctrl+C again to force");
      stop();
    });
  }
}

/** The settings as they were given. */
type Values = Record<string, string | undefined>;

async function runServer(config: Config, log: Log, _: Options, values: Values): Promise<number> {
  const { ListenError } = await import("./commands/listeners.ts");
  const stopped = Promise.withResolvers<undefined>();
  // Before anything is opened: as the first process of a container a signal without a handler is ignored.
  onSignals(log, config.PSQLQUEUE_TLS_CERT !== "", () => stopped.resolve(undefined));
  try {
    if (config.workers > 1) {
      const { runWorkers } = await import("./commands/workers.ts");
      return await runWorkers({ config, values, log, stopped: stopped.promise });
    }
    const { startServer } = await import("./commands/server.ts");
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
    log("error", `${error.listener} server listen error`, { error: error.message });
    return 1;
  }
}

/** One of the processes of a server. It says nothing of its own end: the server has told it to. */
async function serveAsWorker(): Promise<number> {
  const { runWorker } = await import("./commands/worker.ts");
  return await runWorker((has_reload, stop) => onSignals(() => {}, has_reload, stop));
}

async function runMigrate(config: Config, log: Log, { from }: Options): Promise<number> {
  const { runMigration } = await import("./commands/migrate.ts");
  for (const signal of stopSignals()) process.on(signal, () => process.exit(1));
  log("info", "migration process started");
  log("info", "migration process finished", await runMigration(config, from as string | undefined));
  return 0;
}

async function runHealthcheck(config: Config): Promise<number> {
  const { problemOfServer } = await import("./commands/healthcheck.ts");
  const problem = await problemOfServer(config, 5000);
  if (problem === undefined) return 0;
  console.error(problem);
  return 1;
}

const servers: Record<string, (config: Config, log: Log, options: Options, values: Values) => Promise<number>> = {
  server: runServer,
  migrate: runMigrate,
  healthcheck: runHealthcheck,
};

/** Says what was not understood; never a value. */
function warnOfSettings(log: Log, dotenv: Dotenv | undefined): string[] {
  for (const { line, reason } of dotenv?.warnings ?? []) {
    log("warn", "a line of .env is not understood", { file: dotenv?.file, line, reason });
  }
  for (const name of Object.keys(dotenv?.values ?? {})) {
    if (process.env[name] !== "" || !(name in settings)) continue;
    const remedy = `unset ${name} in the environment for the value of .env to count`;
    log("warn", "a setting of .env is not used: it is empty in the environment", { setting: name, remedy });
  }
  const sources = [
    { source: "the environment", given: process.env },
    ...(dotenv === undefined ? [] : [{ source: dotenv.file, given: dotenv.values }]),
  ];
  return sources.flatMap(({ source, given }) =>
    findUnknown(given).map(({ name, nearest }) => {
      const remedy =
        nearest === undefined ? "`psqlqueue server --help` lists what there is" : `write ${nearest} if that is meant`;
      log("warn", "a setting that does not exist", { setting: name, from: source, remedy });
      return name;
    }),
  );
}

/**
 * From source, Bun itself reads `.env` files of the working directory before we do, and expands `$word` in them.
 * bunfig.toml tells it not to, where that is the working directory; the binary is built so.
 */
function warnOfBun(log: Log): void {
  if (Bun.isStandaloneExecutable || process.execArgv.some((option) => option.startsWith("--no-env-file"))) return;
  const directory = process.cwd();
  if (directory === path.resolve(import.meta.dir, "..")) return;
  const mode = process.env["NODE_ENV"] ?? "development";
  const names = [".env", ".env.local", `.env.${mode}`, `.env.${mode}.local`];
  const files = names.filter((name) => statSync(path.join(directory, name), { throwIfNoEntry: false })?.isFile());
  if (files.length === 0) return;
  const remedy = "start with `bun --no-env-file`, or use the binary";
  log("warn", "Bun has read the files .env of this directory in its own way before", { directory, files, remedy });
}

/** Runs what is no client: settings from the environment and `.env`, a log on standard output. */
async function serve(run: (typeof servers)[string], options: Options): Promise<number> {
  let log = createLog("info");
  try {
    const dotenv = readDotenv(process.cwd());
    const values = { ...dotenv?.values, ...process.env };
    // Known before the rest is checked: what a value that cannot be used comes from may be logged first.
    const level = settings.PSQLQUEUE_LOG_LEVEL.read(values["PSQLQUEUE_LOG_LEVEL"]?.trim() ?? "") ?? "info";
    log = createLog(level);
    addObserver(logObserver(log, level));
    if (dotenv !== undefined) log("info", "Found .env", { file: dotenv.file });
    warnOfBun(log);
    const unknown_names = warnOfSettings(log, dotenv);
    const config = readConfig(values, { dotenv_file: dotenv?.file, unknown_names });
    return await run(config, log, options, values);
  } catch (error) {
    if (error instanceof ConfigError) process.stderr.write(`psqlqueue: ${error.message}\n`);
    log("error", "cli app failed", { error: describeError(error) });
    return 1;
  }
}

async function main(argv: string[]): Promise<number> {
  let line: CommandLine;
  try {
    line = readCommandLine(argv);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    process.stderr.write(`psqlqueue: ${error.message}\n\n${error.usage}`);
    return 2;
  }
  if (line.kind === "version") {
    console.log(`psqlqueue ${version} (${commit})`);
    return 0;
  }
  if (line.kind === "help") {
    process.stdout.write(line.text);
    return 0;
  }
  const server = servers[line.command.path];
  if (server === runServer && isWorker()) return await serveAsWorker();
  if (server !== undefined) return await serve(server, line.options);
  const { runClient } = await import("./commands/client.ts");
  return await runClient(line.command.path, line.arguments, line.options);
}

process.exit(await main(Bun.argv.slice(2)));
