/** How many characters must be added, left out or replaced to make one text of the other. */
function distance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, i) => i);
  for (let i = 1; i <= from.length; i++) {
    const next = [i];
    for (let j = 1; j <= to.length; j++) {
      const replaced = (row[j - 1] ?? 0) + (from[i - 1] === to[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[to.length] ?? 0;
}

/** The name most like `given` that differs from it in at most `differences_max` characters, whatever their case. */
export function nearestOf(given: string, names: readonly string[], differences_max: number): string | undefined {
  const wanted = given.toLowerCase();
  let best: string | undefined;
  let best_distance = differences_max + 1;
  for (const name of names) {
    // Names are compared that can be near at all: the environment is not ours, and may be large.
    if (Math.abs(name.length - wanted.length) >= best_distance) continue;
    const found = distance(wanted, name.toLowerCase());
    if (found >= best_distance) continue;
    best = name;
    best_distance = found;
  }
  return best;
}
