// The gauges of how much each queue holds.

/** A queue's depth as a scrape shows it. */
export type Depth = {
  queue_id: string;
  ready: number;
  leased: number;
  delayed: number;
  backing_off: number;
  oldest_ready_age_seconds: number;
};

/** The name of the queues that have no series of their own, together. */
export const other_queue = "_other";

/** What is said of a gauge that is not of this server alone. */
export const whole = " Describes the whole database and is the same on every server: use max(), not sum().";
const states = ["ready", "leased", "delayed", "backing_off"] as const;

/** Adds the row of what is counted together, which is also that of a queue of its name. */
export function withOthers(rows: Depth[], others: Omit<Depth, "queue_id"> | undefined): Depth[] {
  if (others === undefined) return rows;
  const sum: Depth = { queue_id: other_queue, ...others };
  for (const row of rows.filter(({ queue_id }) => queue_id === other_queue)) {
    for (const state of states) sum[state] += row[state];
    sum.oldest_ready_age_seconds = Math.max(sum.oldest_ready_age_seconds, row.oldest_ready_age_seconds);
  }
  return [...rows.filter(({ queue_id }) => queue_id !== other_queue), sum];
}

/**
 * The depths of all queues as Prometheus reads them. Written here, because thousands of lines that are different each
 * time cost the library more than the database that counts them.
 */
export function renderDepths(rows: Depth[]): string {
  const depths: string[] = [];
  const ages: string[] = [];
  for (const row of rows) {
    const queue = JSON.stringify(row.queue_id);
    for (const state of states) depths.push(`psqlqueue_queue_messages{queue=${queue},state="${state}"} ${row[state]}`);
    ages.push(`psqlqueue_queue_oldest_ready_age_seconds{queue=${queue}} ${row.oldest_ready_age_seconds}`);
  }
  return [
    `# HELP psqlqueue_queue_messages Messages by state; large numbers are estimates.${whole}`,
    "# TYPE psqlqueue_queue_messages gauge",
    ...depths,
    `\n# HELP psqlqueue_queue_oldest_ready_age_seconds How long the oldest ready message has been ready.${whole}`,
    "# TYPE psqlqueue_queue_oldest_ready_age_seconds gauge",
    ...ages,
    "",
  ].join("\n");
}
