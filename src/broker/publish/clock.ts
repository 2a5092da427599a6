import { sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { column } from "../statement.ts";

/** The time of the database, which decides what is due and what has expired; ours may be off by hours. */
export type Clock = {
  /** Milliseconds since 1970, as far as they are known: exact to a round trip once `refresh` has resolved. */
  now_ms(): number;
  /** Asks the database for its time, unless that was done a moment ago. Without an answer what is known stays. */
  refresh(): Promise<void>;
  /** Asks in any case. Rejects with DatabaseError. */
  measure(): Promise<void>;
};

/** How long an answer counts. Since then our monotonic clock runs on, which nobody sets. */
const fresh_ms_max = 10_000;
/** The quickest of so many answers is the most exact, and one as quick as this is exact enough. */
const samples = 3;
const exact_ms = 2;

/** The clock of a database; callers that ask at once share one statement. */
export function createClock(db: Db): Clock {
  const asked = db.orm
    .$with("asked", { now_ms: column<number>("now_ms") })
    .as(sql`select (extract(epoch from clock_timestamp()) * 1000)::float8 as now_ms`);
  const ask = db.orm.with(asked).select().from(asked).prepare("read_clock");
  let known: { now_ms: number; at_ms: number } | undefined;
  let asking: Promise<void> | undefined;

  async function measure(): Promise<void> {
    let best_ms = Number.POSITIVE_INFINITY;
    let found = known;
    for (let i = 0; i < samples && best_ms > exact_ms; i++) {
      const asked_ms = performance.now();
      const [row] = await db.run("read_clock", () => ask.execute(), true);
      const at_ms = performance.now();
      if (row === undefined || at_ms - asked_ms > best_ms) continue;
      best_ms = at_ms - asked_ms;
      found = { now_ms: row.now_ms + best_ms / 2, at_ms };
    }
    known = found;
  }

  return {
    now_ms: () => (known === undefined ? Date.now() : known.now_ms + performance.now() - known.at_ms),
    async refresh() {
      if (known !== undefined && performance.now() - known.at_ms < fresh_ms_max) return;
      asking ??= measure()
        .catch(() => {
          // The statement that follows tells that the database is away.
        })
        .finally(() => {
          asking = undefined;
        });
      await asking;
    },
    measure,
  };
}
