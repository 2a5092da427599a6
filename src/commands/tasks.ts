import type { RedriveInput, Task } from "../../client/src/client.ts";
import { progressForPeople } from "../terminal/progress.ts";
import type { Context, Runner } from "./context.ts";
import { take } from "./topics.ts";

const headings = ["id", "kind", "queue_id", "state", "moved", "failed", "total_estimate", "created_at", "finished_at"];

/** Shows how far it is; answers 1 when it did not complete, or was not waited for. */
async function watchTask({ client, out, signals }: Context, id: string): Promise<number> {
  const { stopping } = signals();
  const progress = progressForPeople();
  let last: Task | undefined;
  for await (const task of client.tasks.watch(id, stopping)) {
    last = task;
    const done = task.moved + task.failed;
    const share = task.total_estimate === 0 ? undefined : done / task.total_estimate;
    progress.show(share, `${done} of ${task.total_estimate} messages of ${task.queue_id}`);
    if (out.is_json) await out.item("", task);
  }
  progress.end();
  if (last === undefined) return 1;
  const { state, moved, failed, error } = last;
  const reason = error === null ? "" : `: ${error}`;
  if (!out.is_json) await out.done(`task ${id} is ${state}: ${moved} messages moved, ${failed} not${reason}`);
  return state === "completed" ? 0 : 1;
}

type RedriveOptions = {
  to?: string;
  label?: string;
  reason?: NonNullable<RedriveInput["reason"]>;
  source?: string;
  limit?: number;
  rate?: number;
  delay?: number;
  keep_attempts?: boolean;
  watch?: boolean;
};

/** `redrive` */
export const redrive: Runner = {
  async run(context: Context, [queue = ""]: string[], options: RedriveOptions) {
    const started = await context.client.queue(queue).redrive({
      destination_queue_id: options.to,
      label: options.label,
      reason: options.reason,
      source_queue_id: options.source,
      limit: options.limit,
      rate_per_second: options.rate,
      delay_seconds: options.delay,
      reset_attempts: options.keep_attempts ? false : undefined,
    });
    if (options.watch) return await watchTask(context, started.task_id);
    await context.out.item(started.task_id, started);
    return 0;
  },
};

/** `task list` */
export const list: Runner = {
  async run({ client, out }: Context, _: string[], options: { limit?: number }) {
    await out.rows(await take<Task>(client.tasks.all(), options), headings);
    return 0;
  },
};

/** `task watch` */
export const watch: Runner = {
  async run(context: Context, [id = ""]: string[]) {
    return await watchTask(context, id);
  },
};

/** `task cancel` */
export const cancel: Runner = {
  async run({ client, out }: Context, [id = ""]: string[]) {
    await client.tasks.cancel(id);
    await out.done(`task ${id} cancelled, or it had ended`);
    return 0;
  },
};
