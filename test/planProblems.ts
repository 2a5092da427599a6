const lasting_tables =
  "messages|archived_messages\\w*|deduplications|topic_deduplications|publish_batches|outbox|ordering_keys|stale_keys";

/** Walks whose end is a limit and whose order is the index's: a prefix is all they can give, and enough. */
const ordered_walks = [
  "first.expires_at <= now()", // the oldest message of each queue
  'insert into "psqlqueue"."tasks"', // an estimate that stops at its cap
  "tablesample", // a bounded sample
  "order by row.id desc limit 1",
  "order by message.priority desc", // from one priority to the next
];

/** What is wrong with a plan; each problem is a line of it. */
export function problemsOf(statement: string, plan: string[]): string[] {
  const is_ordered_walk = ordered_walks.some((text) => statement.includes(text));
  const problems: string[] = [];
  for (const [i, line] of plan.entries()) {
    const on_lasting = new RegExp(`on (${lasting_tables})\\b`).test(line);
    if (/Seq Scan/.test(line) && on_lasting) problems.push(line);
    if (/Bitmap (Heap|Index) Scan/.test(line) && on_lasting) problems.push(line);
    // With what a function has answered: as many rows as the call has keys.
    const is_of_call = /Cond: .*entered/.test(plan[i + 1] ?? "");
    if (/(Hash|Merge) (Semi |Anti |Left |Right )?Join/.test(line) && !is_of_call) {
      const below = plan.slice(i + 1, i + 12).join("\n");
      if (new RegExp(`on (${lasting_tables})\\b`).test(below)) problems.push(line);
    }
    const condition = /Index Cond: (.*)$/.exec(line)?.[1];
    const owner = plan.slice(0, i).findLast((above) => /Scan/.test(above)) ?? "";
    if (condition !== undefined && /on messages\b/.test(owner) && !is_ordered_walk) {
      if (!/visible_at|\bid\b|ordering_group|slot_key/.test(condition)) problems.push(`${owner.trim()}: ${condition}`);
    }
  }
  return problems;
}
