import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import postgres from "postgres";
import { sessionSettings } from "../src/db/session.ts";
import { createQueue, is_embedded, openService } from "./harness.ts";
import { problemsOf } from "./planProblems.ts";
import { verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

// What stands in functions of the database is planned as other statements are, and must depend as little on what the
// planner believes of the tables (see plans.test.ts). Their plans are told by auto_explain.

const service = await openService({ receive_limit_max: 100 });
const { call, sql, url } = service;
afterAll(() => service.close());

/** Statements and their plans, as they ran on a session of its own. */
async function plansOf(work: (session: postgres.Sql) => Promise<unknown>) {
  const told: string[] = [];
  const session = postgres(url, {
    max: 1,
    connection: sessionSettings(60_000) as Record<string, string>,
    onnotice: ({ message = "" }) => told.push(message),
  });
  await session.unsafe("load 'auto_explain'");
  for (const setting of ["log_nested_statements = on", "log_min_duration = 0", "log_level = notice"]) {
    await session.unsafe(`set auto_explain.${setting}`);
  }
  await work(session);
  await session.end();
  return told.flatMap((text) => {
    const [, statement, plan] =
      /Query Text: ([\s\S]*?)\n(?=[A-Z][A-Za-z ]+ (?:on|using)? ?.*\(cost=)([\s\S]*)/.exec(text) ?? [];
    return statement === undefined || plan === undefined ? [] : [{ statement, plan: plan.split("\n") }];
  });
}

const { publish, receive } = verbsOf(service);

/** Runs every function that touches messages, on messages of two queues. */
async function callFunctions(session: postgres.Sql, ordered: string, capped: string): Promise<void> {
  for (const queue of [ordered, capped]) {
    for (let i = 0; i < 8; i++) await publish(queue, { body: "x", ordering_key: `k${i % 2}`, label: "L" });
  }
  await publish(capped, { body: "x", priority: 5 });
  const leased = await receive(ordered, "?limit=2");
  const [ids, tokens] = [leased.map(({ id }) => id), leased.map(({ lease_token }) => lease_token.slice(1))];
  const queue_ids = ids.map(() => ordered);
  await session`select psqlqueue.lease_followers(${ordered}, ${ids}::text[], ${tokens}::text[]::bigint[],
    ${["1", "2", "3"]}::text[]::bigint[], null, 2, 3, 100000)`;
  const items = session`${queue_ids}::text[], ${ids}::text[], ${tokens}::text[]::bigint[]`;
  await session`select psqlqueue.extend_ordered('{1,2}', ${items}, '{50,60}')`;
  await session`select psqlqueue.let_go_ordered('nack', null, null, '{1,2}', ${items}, '{0,0}', '{e,e}', '{false,true}')`;
  await session`select psqlqueue.settle_ordered(${queue_ids}::text[], ${ids}::text[], '{null,null}', 'acked', true)`;
  await session`select psqlqueue.refresh_keys_of(${queue_ids}::text[], ${ids}::text[])`;
  await session`insert into psqlqueue.stale_keys (queue_no, ordering_group) values (1, 'k1')`;
  await session`select psqlqueue.refresh_stale_keys(10)`;
  await session`select psqlqueue.repair_keys(no, '', 10) from psqlqueue.queues where id = ${ordered}`;
  const numbers = ["11", "12", "13"];
  for (const label of [null, "L"]) {
    await session`select psqlqueue.lease_governed(${capped}, ${label}, 30, 2, ${numbers}::text[]::bigint[], 100000, true)`;
  }
  const [one] = await sql`select id from psqlqueue.messages where lease_token = 11 limit 1`;
  await session`select psqlqueue.extend_slots('{1}', ${[capped]}::text[], ${[one?.["id"] ?? ""]}::text[], '{11}', '{50}')`;
}

const fill = (rows: number) => sql`
  insert into psqlqueue.messages (visible_at, expires_at, created_at, queue_no, id, label, body)
  select now() - interval '1 hour' + n * interval '1 ms', now() + interval '1 day', now(), queue.no,
    '01' || lpad(n::text, 24, '0'), case when n % 3 = 0 then 'L' end, 'x'
  from generate_series(1, ${rows}) as n cross join psqlqueue.queues as queue`;

const states: [string, () => Promise<unknown>][] = [
  ["fresh", async () => {}],
  ["five rows, analyzed", async () => [await fill(5), await sql`analyze`]],
  ["a burst that nobody has analyzed", () => fill(20_000)],
  ["analyzed with a backlog", () => sql`analyze`],
];

describe("no plan in a function costs more with the tables", () => {
  test.each(is_embedded ? [] : states)(
    "%s",
    async (_, prepare) => {
      const dead = await createQueue(service);
      const settings = { dead_queue_id: dead, message_max_deliveries: 9, on_dead: "block" };
      const ordered = await createQueue(service, settings);
      const governed = { max_in_flight: 100, priority_enabled: true, rate_limit: { count: 100, per_seconds: 1 } };
      const capped = await createQueue(service, governed);
      await prepare();
      const plans = await plansOf((session) => callFunctions(session, ordered, capped));
      const own = plans.filter(({ statement }) => /psqlqueue\.(messages|ordering_keys)/.test(statement));
      expect(own.length).toBeGreaterThan(25);
      const bad = own.flatMap(({ statement, plan }) => {
        const problems = problemsOf(statement, plan);
        return problems.map((problem) => `${statement.replaceAll(/\s+/g, " ").slice(0, 100)}: ${problem.trim()}`);
      });
      expect([...new Set(bad)]).toEqual([]);
      for (const queue of [ordered, capped, dead]) await call("DELETE", `/v1/queues/${queue}?force=true`);
    },
    60_000,
  );
});
