// What our patch mends in postgres.js: a session that ended in the middle of an answer must not be felt by the next.

import { afterAll, describe, expect, test } from "bun:test";
import postgres from "postgres";
import { until } from "./harness.ts";
import { sharedCluster } from "./postgres.ts";

const cluster = await sharedCluster();
const url = await cluster.createDatabase();
const admin = postgres(url, { max: 1, onnotice() {} });
const application_name = "driver under test";
// One connection, so that the next query meets what the last one left behind.
const sql = postgres(url, { max: 1, backoff: () => 0, connection: { application_name } });
afterAll(() => Promise.all([sql.end({ timeout: 1 }), admin.end({ timeout: 1 })]));

const codeOf = (query: PromiseLike<unknown>) =>
  Promise.resolve(query).then(
    () => "no error",
    (error: { code: string }) => error.code,
  );

/** Three rows have left when the statement stops at the fourth. */
const stuck = () => sql`select n, case when n > 3 then pg_sleep(60) end from generate_series(1, 10) as n`;

async function whileStuck(act: (pid: number) => Promise<unknown>): Promise<string> {
  const code = codeOf(stuck());
  let pid: number | undefined;
  await until(async () => {
    const rows = await admin`
      select pid from pg_stat_activity
      where application_name = ${application_name} and state = 'active' and wait_event = 'PgSleep'`;
    pid = rows[0]?.["pid"];
    return pid !== undefined;
  });
  await act(pid as number);
  return await code;
}

describe("the query after one that", () => {
  test.each([
    ["failed half-way", () => codeOf(sql`select 1 / (4 - n) as x from generate_series(1, 10) as n`), ["22012"]],
    ["was cancelled half-way", () => whileStuck((pid) => admin`select pg_cancel_backend(${pid})`), ["57014"]],
    [
      "was killed half-way",
      () => whileStuck((pid) => admin`select pg_terminate_backend(${pid})`),
      ["57P01", "CONNECTION_CLOSED"],
    ],
  ])("%s is answered, with its own rows", async (_, spoil, codes) => {
    for (let i = 0; i < 3; i++) {
      expect(await spoil()).toBeOneOf(codes);
      expect([...(await sql`select ${i}::int as i`)]).toEqual([{ i }]);
      expect([...(await sql`select 1 as one`)]).toEqual([{ one: 1 }]);
    }
  });
});
