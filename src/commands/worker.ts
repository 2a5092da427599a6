import { ConfigError, readConfig } from "../config.ts";
import { createLog, describeError, type Log, logObserver } from "../log.ts";
import { addObserver } from "../observe.ts";
import { commit, version } from "../version.ts";
import { createLink } from "./link.ts";
import { ListenError } from "./listeners.ts";
import { type RunningServer, startServer } from "./server.ts";
import { shareOf } from "./share.ts";
import type { Line, Order, Report, Start } from "./workerMessages.ts";

const send = (report: Report): void => void process.send?.(report);

/** What a server without workers would say of an error at its start, and how it would end. */
function describeStartFailure(error: unknown): Report {
  const message = describeError(error);
  if (error instanceof ListenError) {
    const line: Line = {
      level: "error",
      message: `${error.listener} server listen error`,
      details: { error: message },
    };
    return { kind: "failed", line, stderr: undefined };
  }
  const stderr = error instanceof ConfigError ? `psqlqueue: ${message}\n` : undefined;
  return { kind: "failed", line: { level: "error", message: "cli app failed", details: { error: message } }, stderr };
}

/** Receives orders: the first is the start, and each of the others is given to what it is for. */
function receiveOrders() {
  const started = Promise.withResolvers<Start>();
  const stopped = Promise.withResolvers<undefined>();
  const link = started.promise.then(({ workers }) => createLink(workers, send));
  process.on("message", async (order: Order) => {
    if (order.kind === "start") started.resolve(order);
    else if (order.kind === "stop") stopped.resolve(undefined);
    else if (order.kind === "lead") (await link).lead();
    else if (order.kind === "told") (await link).told(order.told);
    else if (order.kind === "wanted") (await link).setWanted(order.is_wanted);
    else if (order.kind === "count") (await link).count(order.id);
    else (await link).counted(order.id, order.numbers);
  });
  send({ kind: "loaded" });
  return { started: started.promise, stopped, link };
}

/** A worker of another version would not understand the server, nor its siblings the worker. */
function assertSameProgram(program: string): void {
  const own = `${version} ${commit}`;
  if (own === program) return;
  throw new Error(`this program is ${own} by now, and the server was started as ${program}: restart the server`);
}

/** The observer and the log of one worker: each line says which one it is. */
function openLog({ values, number }: Start): Log {
  const level = readConfig(values).PSQLQUEUE_LOG_LEVEL;
  const log = createLog(level, undefined, { worker: number });
  addObserver(logObserver(log, level));
  return log;
}

/**
 * Runs one of the processes of a server until it is told to stop, or `onSignals` calls, or the server is gone: then
 * nobody would end it later, and it ends at once. Answers its exit code.
 */
export async function runWorker(onSignals: (has_reload: boolean, stop: () => void) => void): Promise<number> {
  const orphaned = new Promise<number>((resolve) => process.once("disconnect", () => resolve(1)));
  return await Promise.race([orphaned, work(onSignals)]);
}

async function work(onSignals: (has_reload: boolean, stop: () => void) => void): Promise<number> {
  const orders = receiveOrders();
  const start = await orders.started;
  const lines: Line[] = [];
  const say: Log = (level, message, details) => {
    if (start.is_first) lines.push({ level, message, details });
  };
  try {
    assertSameProgram(start.program);
    const log = openLog(start);
    const config = shareOf({ ...readConfig(start.values, start.origin), workers: start.workers });
    onSignals(config.PSQLQUEUE_TLS_CERT !== "", () => orders.stopped.resolve(undefined));
    const { holder, is_first, leads, addresses, ports } = start;
    const part = { holder, say, is_first, leads, addresses, ports, link: await orders.link };
    const server = await Promise.race([startServer(config, log, part), orders.stopped.promise]);
    if (server === undefined) return 0;
    send({ kind: "up", ports: portsOf(server), lines });
    await orders.stopped.promise;
    await server.stop();
    return 0;
  } catch (error) {
    send(describeStartFailure(error));
    return 1;
  }
}

const portsOf = ({ port, metrics_port, sqs_port }: RunningServer) => ({
  http: port,
  metrics: metrics_port,
  ...(sqs_port !== undefined && { sqs: sqs_port }),
});
