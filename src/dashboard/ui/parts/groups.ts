import { ask, query, queuePath } from "../api.ts";
import type { ErrorGroup } from "../shapes.ts";

/** Calls that one look at the groups makes: each groups ten thousand messages. */
const calls_max = 20;

export type Groups = { groups: ErrorGroup[]; is_complete: boolean; calls: number };

const joined = (a: string[], b: string[]) => [...new Set([...a, ...b])].slice(0, 10);

function merge(a: ErrorGroup, b: ErrorGroup): ErrorGroup {
  const latest = a.last_seen < b.last_seen ? b : a;
  return {
    ...latest,
    count: a.count + b.count,
    first_seen: [a.first_seen, b.first_seen].sort()[0] ?? a.first_seen,
    reasons: joined(a.reasons, b.reasons),
    source_queue_ids: joined(a.source_queue_ids, b.source_queue_ids),
  };
}

/** The dead letters of a queue by their error: added up over as many calls as it takes, up to a bound. */
export async function askGroups(queue_id: string, signal: AbortSignal): Promise<Groups> {
  const known = new Map<string, ErrorGroup>();
  let after: string | undefined;
  let calls = 0;
  do {
    const path = `${queuePath(queue_id, "messages", "groups")}${query({ after })}`;
    const page = await ask<{ data: ErrorGroup[]; next?: string }>("GET", path, undefined, signal);
    for (const group of page.data) {
      const before = known.get(group.error_group);
      known.set(group.error_group, before === undefined ? group : merge(before, group));
    }
    after = page.next;
    calls += 1;
  } while (after !== undefined && calls < calls_max);
  const groups = [...known.values()].sort((a, b) => b.count - a.count || (a.last_seen < b.last_seen ? 1 : -1));
  return { groups, is_complete: after === undefined, calls };
}
