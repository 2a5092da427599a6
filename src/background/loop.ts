import { observe } from "../observe.ts";

/** A background job: does what is due and says in how many milliseconds it wants to run again. */
export type Job = {
  name: string;
  /** One server of a database does it for all of them; otherwise each does it for itself. */
  is_shared: boolean;
  run(): Promise<number>;
  /** Is given what runs the job at once instead of after its delay; during a run: once more after it. */
  onStart?(wake: () => void): void;
};

/** After a failure; doubled with each that follows, up to the maximum. */
const failed_delay_ms = 1000;
const failed_delay_ms_max = 60_000;
/** How often a server that does not lead asks itself whether it does by now. */
const follower_delay_ms = 1000;

/**
 * Runs a job again and again, each time after the delay that it asked for, give or take a tenth so that servers spread
 * out. A failure is observed, holds up no other job, and is tried again after a while. The answer stops it and resolves
 * when a run under way has ended.
 */
export function startLoop(job: Job, isLeader: () => boolean, first_delay_ms = 0): () => Promise<void> {
  let is_stopped = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let running: Promise<void> = Promise.resolve();
  let failures = 0;
  let is_running = false;
  let is_woken = false;

  const schedule = (delay_ms: number) => {
    if (is_stopped) return;
    timer = setTimeout(
      () => {
        running = runOnce();
      },
      delay_ms * (0.9 + 0.2 * Math.random()),
    );
  };

  async function runOnce(): Promise<void> {
    if (job.is_shared && !isLeader()) return schedule(follower_delay_ms);
    is_running = true;
    is_woken = false;
    try {
      const delay_ms = await job.run();
      failures = 0;
      schedule(is_woken ? 0 : delay_ms);
    } catch (error) {
      observe({ kind: "job", job: job.name, error });
      schedule(Math.min(failed_delay_ms_max, failed_delay_ms * 2 ** failures));
      failures += 1;
    } finally {
      is_running = false;
    }
  }

  function wake(): void {
    is_woken = true;
    // One that has failed keeps its distance.
    if (is_running || failures > 0) return;
    clearTimeout(timer);
    schedule(0);
  }

  schedule(first_delay_ms);
  job.onStart?.(wake);
  return () => {
    is_stopped = true;
    clearTimeout(timer);
    return running;
  };
}
