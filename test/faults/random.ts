// What chance decides, a seed decides: the same seed plays the same faults and the same load again, as far as the
// machine's own timing lets it.

export type Random = {
  /** From 0 to below 1. */
  next(): number;
  /** A whole number from 0 to below `n`. */
  below(n: number): number;
  chance(probability: number): boolean;
  between(low: number, high: number): number;
  /** Of an exponential distribution with this mean: the pauses between events that know nothing of each other. */
  exponential(mean: number): number;
  pick<T>(items: readonly T[]): T;
  /** Numbers of its own, so that one user of chance does not disturb another. */
  fork(name: string): Random;
};

/** Numbers that follow from a seed (mulberry32). */
export function createRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
  const below = (n: number) => Math.floor(next() * n);
  return {
    next,
    below,
    chance: (probability) => next() < probability,
    between: (low, high) => low + next() * (high - low),
    exponential: (mean) => -Math.log(1 - next()) * mean,
    pick(items) {
      const item = items[below(items.length)];
      if (item === undefined) throw new Error("nothing to pick from");
      return item;
    },
    fork: (name) => createRandom(Bun.hash.xxHash32(name, seed >>> 0)),
  };
}
