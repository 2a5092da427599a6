import type { Config } from "../config.ts";
import type { Log } from "../log.ts";
import { commit, version } from "../version.ts";
import { createCollector } from "./collector.ts";
import type { ListenerName } from "./listeners.ts";
import { newHolder } from "./part.ts";
import type { Line, Order, Ports, Report, Told } from "./workerMessages.ts";
import { type Ending, startProcess, type WorkerProcess } from "./workerProcess.ts";

// The workers of a server. A worker is
//
//   starting → up        it serves
//            → gone      it could not start, or was told to stop
//   up       → gone      it crashed, or was told to stop
//   gone     → starting  after a pause, when it had been up and the server does not stop
//
// One that is up leads: it does what one process does for all. When it is gone, another one does.

/** Pauses before a worker that ended is started again: each time twice as long, until one has lived for a while. */
const pause_ms_min = 100;
const pause_ms_max = 5000;
/** The longest pause while no other worker serves, or is about to: with the start itself, less than a second. */
const alone_ms_max = 200;
const lived_ms_min = 5000;

type Failure = Extract<Report, { kind: "failed" }>;
type Worker = {
  number: number;
  state: "starting" | "up" | "gone";
  up_at_ms: number;
  /** It wants to hear what becomes ready elsewhere. */
  is_wanting: boolean;
  /** What it was told last: whether others want that. */
  is_wanted: boolean;
  process: WorkerProcess;
  send(order: Order): void;
  /** Why it could not start. */
  failure: Failure | undefined;
  /** true: it is up; false: it is gone without having been. */
  started: PromiseWithResolvers<boolean>;
  ended: PromiseWithResolvers<Ending>;
};

export type CrewOptions = {
  config: Config;
  /** The settings as they were given, for the workers to read. */
  values: Record<string, string | undefined>;
  addresses: Record<ListenerName, string>;
  log: Log;
};

export type Crew = {
  /** Starts the workers of these numbers. Resolves to what the first that failed has said; undefined: all are up. */
  start(numbers: number[]): Promise<Failure | undefined>;
  /** What the first worker has to say at the start of the server. */
  lines: Line[];
  pids(): number[];
  signal(name: NodeJS.Signals): void;
  /** Stops all, and kills what is left after `ms_max`. Resolves to whether each ended as it should. */
  stop(ms_max: number): Promise<boolean>;
};

const endingOf = ({ code, signal }: Ending) => (signal === null ? { exit_code: code } : { signal });

/** The workers of one server; none is started yet. */
export function createCrew({ config, values, addresses, log }: CrewOptions): Crew {
  const holder = newHolder(config.workers);
  const workers = new Map<number, Worker>();
  const pauses = new Map<number, { ms: number; timer: ReturnType<typeof setTimeout> }>();
  const collector = createCollector();
  /** The last of what is told once, for workers that start later. */
  const kept = new Map<Told["about"], Told>();
  const lines: Line[] = [];
  let ports: Ports = {};
  let leader: Worker | undefined;
  let is_stopping = false;

  const living = () => [...workers.values()].filter(({ state }) => state !== "gone");
  const othersOf = (worker: Worker) => living().filter((own) => own !== worker && own.state === "up");

  function begin(worker: Worker): void {
    // The first one finds out which ports there are, and is told to lead before it listens.
    const is_first = leader === undefined && Object.keys(ports).length === 0;
    if (is_first) leader = worker;
    worker.send({
      kind: "start",
      program: `${version} ${commit}`,
      number: worker.number,
      workers: config.workers,
      values,
      origin: config.origin,
      holder,
      addresses,
      ports,
      is_first,
      leads: leader === worker,
    });
  }

  function rise(worker: Worker, report: Extract<Report, { kind: "up" }>): void {
    worker.state = "up";
    worker.up_at_ms = performance.now();
    ports = { ...report.ports, ...ports };
    lines.push(...report.lines);
    for (const told of kept.values()) worker.send({ kind: "told", told });
    tellWanted();
    if (leader === undefined) lead(worker);
    worker.started.resolve(true);
    if (!pauses.has(worker.number)) return;
    log("info", "worker started again", { worker: worker.number, pid: worker.process.pid });
  }

  function lead(worker: Worker | undefined): void {
    leader = worker;
    worker?.send({ kind: "lead" });
  }

  function pass(worker: Worker, told: Told): void {
    if (told.about === "others" || told.about === "listening") kept.set(told.about, told);
    for (const other of othersOf(worker)) {
      if (told.about !== "ready" || other.is_wanting) other.send({ kind: "told", told });
    }
  }

  /** Tells each worker whether another one wants to hear what becomes ready: where nobody does, nothing is sent. */
  function tellWanted(): void {
    for (const worker of living()) {
      const is_wanted = othersOf(worker).some(({ is_wanting }) => is_wanting);
      if (worker.state !== "up" || is_wanted === worker.is_wanted) continue;
      worker.is_wanted = is_wanted;
      worker.send({ kind: "wanted", is_wanted });
    }
  }

  async function collect(worker: Worker, { id, own }: Extract<Report, { kind: "count" }>): Promise<void> {
    const numbers = await collector.collect(worker, own, othersOf(worker));
    worker.send({ kind: "counted", id, numbers });
  }

  function hear(worker: Worker, report: Report): void {
    if (report.kind === "loaded") begin(worker);
    else if (report.kind === "up") rise(worker, report);
    else if (report.kind === "failed") worker.failure = report;
    else if (report.kind === "tell") pass(worker, report.told);
    else if (report.kind === "want") {
      worker.is_wanting = report.is_wanting;
      tellWanted();
    } else if (report.kind === "counted") collector.answer(report.id, report.own);
    else void collect(worker, report);
  }

  function end(worker: Worker, ending: Ending): void {
    const was_up = worker.state === "up";
    worker.state = "gone";
    collector.end(worker.number);
    if (leader === worker) lead(othersOf(worker)[0]);
    tellWanted();
    worker.started.resolve(false);
    worker.ended.resolve(ending);
    // One that has never been up is waited for by the start of the server.
    if (!is_stopping && (was_up || pauses.has(worker.number))) startAgain(worker, ending, was_up);
  }

  function startAgain(worker: Worker, ending: Ending, was_up: boolean): void {
    const { number, failure } = worker;
    const has_lived = was_up && performance.now() - worker.up_at_ms >= lived_ms_min;
    const before_ms = has_lived ? undefined : pauses.get(number)?.ms;
    const ms_max = living().length === 0 ? alone_ms_max : pause_ms_max;
    const ms = before_ms === undefined ? pause_ms_min : Math.min(2 * before_ms, ms_max);
    log("error", was_up ? "worker ended" : "worker could not start", {
      worker: number,
      pid: worker.process.pid,
      ...endingOf(ending),
      ...failure?.line.details,
      effect: was_up ? "requests that it had are cut off; the other workers go on" : "the other workers go on",
      again_in_ms: ms,
    });
    pauses.set(number, { ms, timer: setTimeout(() => startOne(number), ms) });
    if (living().length === 0) hastenAll(ms);
  }

  /** Nobody serves: those that are in a longer pause need not wait for its end. */
  function hastenAll(in_ms: number): void {
    for (const [number, pause] of pauses) {
      if (workers.get(number)?.state !== "gone" || pause.ms <= in_ms) continue;
      clearTimeout(pause.timer);
      pause.timer = setTimeout(() => startOne(number), in_ms);
    }
  }

  function startOne(number: number): Worker {
    const child = startProcess(
      number,
      (report) => hear(worker, report),
      (ending) => end(worker, ending),
    );
    const worker: Worker = {
      number,
      state: "starting",
      up_at_ms: 0,
      is_wanting: false,
      is_wanted: false,
      process: child,
      send: child.send,
      failure: undefined,
      started: Promise.withResolvers(),
      ended: Promise.withResolvers(),
    };
    workers.set(number, worker);
    return worker;
  }

  /** What a worker has said that is gone without having been up. */
  async function failureOf(worker: Worker): Promise<Failure | undefined> {
    if (await worker.started.promise) return undefined;
    const details = { worker: worker.number, ...endingOf(await worker.ended.promise) };
    const line: Line = { level: "error", message: "a worker ended before it was up", details };
    return worker.failure ?? { kind: "failed", line, stderr: undefined };
  }

  return {
    lines,
    async start(numbers) {
      const failures = numbers.map(startOne).map(failureOf);
      const failed = failures.map(async (one) => (await one) ?? (await new Promise<never>(() => {})));
      return await Promise.race([...failed, Promise.all(failures).then((all) => all.find(Boolean))]);
    },
    pids: () => living().map(({ process }) => process.pid),
    signal(name) {
      for (const worker of living()) worker.process.signal(name);
    },
    async stop(ms_max) {
      is_stopping = true;
      for (const { timer } of pauses.values()) clearTimeout(timer);
      const all = living();
      for (const worker of all) worker.send({ kind: "stop" });
      const ended = Promise.all(all.map((worker) => worker.ended.promise));
      const kill = setTimeout(() => {
        for (const worker of living()) worker.process.signal("SIGKILL");
      }, ms_max);
      const endings = await ended;
      clearTimeout(kill);
      // A signal that was for all of us may have reached one that did not listen to it yet.
      return endings.every(({ code, signal }) => (signal === null ? code === 0 : signal !== "SIGKILL"));
    },
  };
}
