// The load generator: a child process, so that its CPU is its own. One job at a time comes over IPC, one result goes
// back. It ends when its parent is gone.

import {
  createTally,
  noteAnswer,
  noteError,
  noteLate,
  noteReceived,
  noteUnanswered,
  type Result,
  resultOf,
} from "./tally.ts";
import { type Connection, connect } from "./wire.ts";
import { createRequests, RECEIVE, type Workload } from "./workload.ts";

/** What to send, and for how long. */
export type Job = {
  url: string;
  connections: number;
  workload: Workload;
  /** Before the measured part; its requests count nowhere. */
  warmup_ms: number;
  /** Length of the measured part. */
  duration_ms: number;
  /** Requests per second on a fixed schedule, whatever the server does; undefined: one follows each answer. */
  rate?: number;
  /** Ends the measured part earlier, after this many published, received or settled messages (by `after`). */
  messages_max?: number;
};

/** What the generator says to its parent. */
export type Report = { event: "measuring" } | { event: "done"; result: Result } | { event: "failed"; error: string };

const drain_ms_max = 3000;
const lost_max = 1000;
/** An idle loop looks this often whether a request is due; a timer alone would be a millisecond late. */
const nap_ms = 0.03;
const nap = new Int32Array(new SharedArrayBuffer(4));

function createRun(job: Job) {
  return {
    job,
    requests: createRequests(job.workload, new URL(job.url).host),
    connections: [] as Connection[],
    idle: [] as Connection[],
    busy: 0,
    lost: 0,
    tally: createTally(),
    is_measuring: false,
    is_over: false,
    finished: Promise.withResolvers<void>(),
    // The schedule of an open loop: request n is due at start + n × interval. 0: a closed loop.
    interval_ms: job.rate === undefined ? 0 : 1000 / job.rate,
    due_ms: Number.POSITIVE_INFINITY,
    due_until_ms: Number.POSITIVE_INFINITY,
    is_turning: false,
  };
}

type Run = ReturnType<typeof createRun>;

function hasEnough({ job, tally }: Run): boolean {
  const { kind, after } = job.workload;
  const done = kind === "publish" ? tally.published : after === "leave" ? tally.received : tally.settled;
  return job.messages_max !== undefined && done >= job.messages_max;
}

function send(run: Run, connection: Connection, intended_ms: number): void {
  connection.is_busy = true;
  connection.intended_ms = intended_ms;
  run.busy += 1;
  run.requests.next(connection);
}

/** The schedule is at its end, and all of it answered. While it has no end yet it cannot be. */
const isThrough = ({ due_ms, due_until_ms, busy, is_measuring }: Run) =>
  is_measuring && due_ms >= due_until_ms && busy === 0;

/** Open loop: sends what is due on idle connections. What was due before the end is sent after it too. */
function pump(run: Run, now: number): void {
  while (run.due_ms <= now && run.due_ms < run.due_until_ms) {
    const connection = run.idle.pop();
    if (connection === undefined) return;
    noteLate(run.tally, now - run.due_ms);
    send(run, connection, run.due_ms);
    run.due_ms += run.interval_ms;
  }
  if (isThrough(run)) run.finished.resolve();
  else if (run.idle.length > 0 && !run.is_turning) {
    run.is_turning = true;
    setImmediate(turn, run);
  }
}

/** Waits for the next due time while a connection is idle; answers are heard between the naps. */
function turn(run: Run): void {
  run.is_turning = false;
  if (run.is_over) return;
  const wait_ms = run.due_ms - performance.now();
  if (wait_ms > 2 || run.due_ms >= run.due_until_ms) {
    if (isThrough(run)) run.finished.resolve();
    run.is_turning = true;
    setTimeout(turn, 1, run);
    return;
  }
  if (wait_ms > 0) Atomics.wait(nap, 0, 0, Math.min(nap_ms, wait_ms));
  pump(run, performance.now());
}

function onAnswer(run: Run, connection: Connection, status: number, text: string): void {
  const now = performance.now();
  connection.is_busy = false;
  run.busy -= 1;
  if (run.is_over) return;
  noteAnswer(run.tally, connection.kind, connection.count, status, now - connection.intended_ms);
  if (connection.kind === RECEIVE && status === 200) noteReceived(run.tally, run.requests.received(connection, text));
  if (run.is_measuring && hasEnough(run)) run.finished.resolve();
  else proceed(run, connection, now);
}

function proceed(run: Run, connection: Connection, now: number): void {
  if (run.interval_ms === 0) send(run, connection, now);
  else {
    run.idle.push(connection);
    pump(run, now);
  }
}

function onLost(run: Run, connection: Connection): void {
  if (run.is_over) return;
  if (connection.is_busy) run.busy -= 1;
  else run.idle = run.idle.filter((own) => own !== connection);
  connection.is_busy = false;
  noteError(run.tally, "lost");
  run.lost += 1;
  if (run.lost > lost_max) run.finished.reject(new Error(`more than ${lost_max} connections were lost`));
  else setTimeout(() => open(run, connection.index).catch(run.finished.reject), 10);
}

async function open(run: Run, index: number): Promise<void> {
  const { hostname, port } = new URL(run.job.url);
  const connection = await connect(hostname, Number(port || 80), index, {
    onAnswer: (own, status, text) => onAnswer(run, own, status, text),
    onLost: (own) => onLost(run, own),
  });
  run.connections[index] = connection;
  if (run.is_over) connection.close();
  else proceed(run, connection, performance.now());
}

function close(run: Run): void {
  run.is_over = true;
  for (const connection of run.connections) connection?.close();
}

async function execute(job: Job, onMeasuring: () => void): Promise<Result> {
  const run = createRun(job);
  const { finished } = run;
  finished.promise.catch(() => {});
  const is_open_loop = run.interval_ms > 0;
  try {
    for (let i = 0; i < job.connections; i++) await open(run, i);
    if (is_open_loop) {
      run.due_ms = performance.now();
      pump(run, run.due_ms);
    }
    await Promise.race([Bun.sleep(job.warmup_ms), finished.promise]);
    run.tally = createTally(run.tally.left + run.tally.published - run.tally.received);
    run.is_measuring = true;
    onMeasuring();
    if (is_open_loop) run.due_until_ms = performance.now() + job.duration_ms;
    await Promise.race([Bun.sleep(job.duration_ms + (is_open_loop ? drain_ms_max : 0)), finished.promise]);
    const ended_ms = performance.now();
    if (!is_open_loop) return resultOf(run.tally, ended_ms);
    const unanswered = run.connections.filter((own) => own.is_busy).map((own) => own.intended_ms);
    for (let at = run.due_ms; at < run.due_until_ms; at += run.interval_ms) unanswered.push(at);
    noteUnanswered(
      run.tally,
      unanswered.map((intended_ms) => ended_ms - intended_ms),
    );
    return resultOf(run.tally, Math.min(ended_ms, run.due_until_ms));
  } finally {
    close(run);
  }
}

if (import.meta.main) {
  const report = (message: Report) => process.send?.(message);
  process.on("disconnect", () => process.exit(0));
  // Ctrl-C reaches the whole group; the parent decides.
  process.on("SIGINT", () => {});
  process.on("message", (message) => {
    execute(message as Job, () => report({ event: "measuring" })).then(
      (result) => report({ event: "done", result }),
      (error) => report({ event: "failed", error: String(error) }),
    );
  });
}
