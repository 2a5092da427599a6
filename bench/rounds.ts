/** Two sides measured in turn, and the median of the rounds' ratios: what the machine does meanwhile hits both. */
export type Compared = { a: number; b: number; ratio: number };

/** The middle value; of an even number of values the mean of the two. */
export function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  const [low = 0, high = 0] = [sorted[half - 1], sorted[half]];
  return sorted.length % 2 === 1 ? high : (low + high) / 2;
}

/** Measures A B, B A, A B … `rounds` times. The ratio is that of B to A. */
export async function compare(
  rounds: number,
  measureA: () => Promise<number>,
  measureB: () => Promise<number>,
): Promise<Compared> {
  const as: number[] = [];
  const bs: number[] = [];
  for (let round = 0; round < rounds; round++) {
    // The order changes, so that what one leaves behind does not always meet the other.
    if (round % 2 === 1) bs.push(await measureB());
    as.push(await measureA());
    if (round % 2 === 0) bs.push(await measureB());
  }
  return { a: median(as), b: median(bs), ratio: median(bs.map((b, i) => b / (as[i] ?? b))) };
}
