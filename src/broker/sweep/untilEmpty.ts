import type { Db } from "../../db/db.ts";

/** Rows that one page of a sweep removes. */
export const page_rows = 5000;

/** Runs a statement that removes up to `page_rows` rows until it finds fewer; answers how many in all. */
export async function untilEmpty(
  db: Db,
  name: string,
  statement: { execute(): PromiseLike<{ count: number }[]> },
): Promise<number> {
  let total = 0;
  for (;;) {
    const [row] = await db.run(name, () => statement.execute(), true);
    total += row?.count ?? 0;
    if ((row?.count ?? 0) < page_rows) return total;
  }
}
