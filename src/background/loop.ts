import { observe } from "../observe.ts";

/** A background job: does what is due and says in how many milliseconds it wants to run again. */
export type Job = { name: string; run(): Promise<number> };

const failed_delay_ms = 5000;

/**
 * Runs a job again and again, each time after the delay that it asked for, give or take a tenth so that servers spread
 * out. A failure is observed and tried again after 5 s. The answer stops it and resolves when a run under way has
 * ended.
 */
export function startLoop(job: Job, first_delay_ms = 0): () => Promise<void> {
  let is_stopped = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let running: Promise<void> = Promise.resolve();

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
    let delay_ms = failed_delay_ms;
    try {
      delay_ms = await job.run();
    } catch (error) {
      observe({ kind: "job", job: job.name, error });
    }
    schedule(delay_ms);
  }

  schedule(first_delay_ms);
  return () => {
    is_stopped = true;
    clearTimeout(timer);
    return running;
  };
}
