import { DatabaseError } from "../errors.ts";

/** query_canceled: what the statement timeout answers. A lock that others hold has a code of its own. */
const canceled = "57014";
/** So much smaller is a page after one that took too long, and so much larger after one that leaves room for it. */
const shrink = 8;
const grow = 2;
/** The part of the time that a page may take which a larger one is expected to stay below. */
const room = 0.75;

/**
 * Runs `work` for a page of at most `limit` rows, and again for fewer while the database cancels it for its time: a
 * page of large bodies, or of rows that others have left dead ones before, may cost a thousand times what one usually
 * does. Throws what `work` throws otherwise, and when a single row takes too long.
 */
export type Pages = <T>(work: (limit: number) => Promise<T>) => Promise<T>;

/** Pages of one statement, which may be asked for concurrently. They begin with `rows_max` rows. */
export function createPages(rows_max: number): Pages {
  let rows = rows_max;
  /** What the last one that was canceled had taken. */
  let too_long_ms = Number.POSITIVE_INFINITY;
  return async (work) => {
    for (;;) {
      const limit = rows;
      const began_ms = performance.now();
      try {
        const result = await work(limit);
        const took_ms = performance.now() - began_ms;
        if (took_ms * grow < too_long_ms * room) rows = Math.min(rows_max, Math.max(rows, limit * grow));
        return result;
      } catch (error) {
        if (limit === 1 || !(error instanceof DatabaseError && error.code === canceled)) throw error;
        too_long_ms = performance.now() - began_ms;
        rows = Math.min(rows, Math.ceil(limit / shrink));
      }
    }
  };
}
