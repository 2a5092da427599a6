import type { Db } from "../../db/db.ts";
import { createPages } from "../pages.ts";

/** Rows that one page of a sweep removes at most. */
const page_rows = 5000;

/** Runs a statement that removes up to `limit` rows until it finds fewer; answers how many in all. */
export async function untilEmpty(
  db: Db,
  name: string,
  statement: { execute(values: { limit: number }): PromiseLike<{ count: number }[]> },
): Promise<number> {
  const pages = createPages(page_rows);
  let total = 0;
  for (;;) {
    const { count, is_last } = await pages(async (limit) => {
      const [row] = await db.run(name, () => statement.execute({ limit }), true);
      const count = row?.count ?? 0;
      return { count, is_last: count < limit };
    });
    total += count;
    if (is_last) return total;
  }
}
