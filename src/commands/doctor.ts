import { access, constants, statfs } from "node:fs/promises";
import path from "node:path";
import { UnreachableError } from "../../client/src/client.ts";
import { createKeys } from "../broker/manage/keys.ts";
import { createTableHealth } from "../broker/observe/tableHealth.ts";
import { type Config, findUnknown, readConfig } from "../config.ts";
import { type Db, openPostgres } from "../db/db.ts";
import { diagnose } from "../db/diagnosis.ts";
import { checkMigrated } from "../db/migrate.ts";
import { checkSession } from "../db/session.ts";
import { readDotenv } from "../dotenv.ts";
import { describeError } from "../log.ts";
import { version } from "../version.ts";
import { readCertificates } from "./certificates.ts";
import type { Context, Runner } from "./context.ts";
import {
  clockFinding,
  diagnosisFindings,
  type Finding,
  healthFindings,
  ok,
  problem,
  signingKeysFinding,
  warning,
} from "./findings.ts";
import { problemOfServer } from "./healthcheck.ts";
import { checkListeners } from "./listeners.ts";
import { readServer } from "./store.ts";

const free_bytes_min = 1_073_741_824;

/** The settings that a server would have, started here. */
function readSettings(): { config: Config | undefined; findings: Finding[] } {
  const dotenv = readDotenv(process.cwd());
  const values = { ...dotenv?.values, ...process.env };
  const from = dotenv === undefined ? "the environment" : `the environment and ${dotenv.file}`;
  const unknown = findUnknown(values).map(({ name, nearest }) => {
    const remedy = nearest === undefined ? "`psqlqueue server --help` lists what there is" : `write ${nearest}`;
    return warning("settings", `${name} is no setting`, remedy);
  });
  const lines = (dotenv?.warnings ?? []).map(({ line, reason }) =>
    warning("settings", `line ${line} of ${dotenv?.file} is not understood: ${reason}`, "mend the line"),
  );
  const origin = { dotenv_file: dotenv?.file, unknown_names: [] };
  try {
    const config = readConfig(values, origin);
    return { config, findings: [ok("settings", `read from ${from}`), ...unknown, ...lines] };
  } catch (error) {
    const remedy = `change it in ${from}, then look again`;
    return {
      config: undefined,
      findings: [problem("settings", (error as Error).message, remedy), ...unknown, ...lines],
    };
  }
}

async function checkPorts(config: Config): Promise<Finding> {
  const { PSQLQUEUE_SERVER_PORT: port, PSQLQUEUE_METRICS_PORT: metrics_port } = config;
  const ports = `${port} and ${metrics_port}`;
  try {
    readCertificates(config);
  } catch (error) {
    return problem("certificates", (error as Error).message, "correct it, then look again");
  }
  if ((await problemOfServer(config, 2000)) === undefined)
    return ok("ports", `a server of these settings answers on ${port}`);
  try {
    await checkListeners(config);
    return ok("ports", `${ports} are free`);
  } catch (error) {
    // The cause behind it is the runtime's, and says no more.
    const [what = "", remedy = "choose another"] = (error as Error).message.split("; ", 2);
    return problem("ports", what, remedy);
  }
}

/** The embedded database is one process's own, so only its directory is looked at. */
async function checkDirectory(config: Config): Promise<Finding[]> {
  const directory = path.resolve(config.PSQLQUEUE_DATA_DIR);
  const existing = await access(directory).then(
    () => directory,
    () => path.dirname(directory),
  );
  const shown = existing === directory ? directory : `${directory}, which a server would make`;
  try {
    await access(existing, constants.W_OK);
    const { bavail, bsize } = await statfs(existing);
    const free_bytes = bavail * bsize;
    const what = `embedded, in ${shown}; ${Math.floor(free_bytes / 1_048_576)} MB are free`;
    const remedy = "make room: on a full disk only what makes room works";
    return [free_bytes < free_bytes_min ? warning("database", what, remedy) : ok("database", what)];
  } catch (error) {
    const remedy = "let this user write there, or set PSQLQUEUE_DATA_DIR or PSQLQUEUE_DATABASE_URL";
    return [problem("database", `embedded, in ${shown}: ${(error as Error).message}`, remedy)];
  }
}

async function checkListen(db: Db): Promise<Finding> {
  let is_heard = false;
  let why = "";
  const stop = await db.listen(
    `psqlqueue_doctor_${process.pid}`,
    () => {},
    (is_listening, error) => {
      is_heard = is_listening;
      why = error?.message ?? "";
    },
  );
  await stop();
  if (is_heard) return ok("listen", "notifications arrive: servers wake each other's receives");
  const remedy = "connect to PostgreSQL itself, not to a pooler in transaction mode; until then servers poll";
  return warning("listen", `notifications do not arrive (${why})`, remedy);
}

/** Everything that is asked of a PostgreSQL server. */
async function checkDatabase(config: Config): Promise<Finding[]> {
  const server = readServer(config);
  const statement_timeout_ms = config.PSQLQUEUE_DATABASE_STATEMENT_TIMEOUT_MS;
  let is_migrated = false;
  const findings: Finding[] = [];
  try {
    const { is_newer } = await checkMigrated(server);
    is_migrated = true;
    const note = is_newer ? ", and by a newer version, which this one can live with" : "";
    findings.push(ok("database", `${server.shown} is reached, and migrated${note}`));
  } catch (error) {
    const [what = "", ...rest] = describeError(error).split(": ");
    const is_migration = (error as Error).name === "MigrationError";
    const remedy = is_migration ? rest.join(": ") : "see above";
    findings.push(problem("database", is_migration ? what : describeError(error), remedy || "see above"));
    if (!is_migration) return findings;
  }
  const db = openPostgres({ server, connections_max: 2, statement_timeout_ms });
  try {
    findings.push(...diagnosisFindings(await diagnose(db.client), config.PSQLQUEUE_DATABASE_MAX_CONNS));
    try {
      await checkSession(db.client, statement_timeout_ms);
      findings.push(ok("sessions", "they get our settings"));
    } catch (error) {
      const [what = "", ...remedy] = describeError(error).split(": ");
      findings.push(problem("sessions", what, remedy.join(": ")));
    }
    findings.push(await checkListen(db));
    findings.push(...healthFindings(await createTableHealth(db).getTableHealth()));
    if (is_migrated) {
      findings.push(signingKeysFinding(await createKeys(db, config.PSQLQUEUE_MASTER_KEY).findClosedKeys()));
    }
  } catch (error) {
    findings.push(problem("database", describeError(error), "look into PostgreSQL's log"));
  } finally {
    await db.close(1);
  }
  return findings;
}

/** The server that commands ask, which may be another one than that of the settings here. */
async function checkServer({ client, url, fetch }: Context, has_database: boolean): Promise<Finding[]> {
  try {
    const before_ms = Date.now();
    const info = await client.info();
    const middle_ms = (before_ms + Date.now()) / 2;
    const findings = [
      info.version === version
        ? ok("server", `${url} answers, version ${version}`)
        : warning("server", `${url} has version ${info.version}, this is ${version}`, "bring both to one version"),
    ];
    await client.health();
    const response = await fetch(`${url.replace(/\/+$/, "")}/v1/info`).catch(() => undefined);
    const date = Date.parse(response?.headers.get("date") ?? "");
    // Whole seconds.
    if (!Number.isNaN(date)) findings.push(clockFinding("server clock", date + 500 - middle_ms));
    if (!has_database) findings.push(...healthFindings(await client.maintenance()));
    return findings;
  } catch (error) {
    const is_away = error instanceof UnreachableError;
    const remedy = is_away ? "start one, `psqlqueue server`, or name another: --url, PSQLQUEUE_URL" : "see its log";
    return [problem("server", (error as Error).message, remedy)];
  }
}

const signs = { ok: "ok     ", warning: "warning", problem: "PROBLEM" };

/** `doctor` */
export const doctor: Runner = {
  async run(context: Context) {
    const { out } = context;
    const { config, findings } = readSettings();
    if (config !== undefined) {
      findings.push(await checkPorts(config));
      findings.push(...(config.database_url === "" ? await checkDirectory(config) : await checkDatabase(config)));
    }
    const has_database = config !== undefined && config.database_url !== "";
    findings.push(...(await checkServer(context, has_database)));
    for (const finding of findings) {
      const { check, state, what, remedy } = finding;
      const line = `${signs[state]}  ${check}: ${what}`;
      await out.item(remedy === undefined ? line : `${line}\n         → ${remedy}`, finding);
    }
    return findings.some(({ state }) => state === "problem") ? 1 : 0;
  },
};
