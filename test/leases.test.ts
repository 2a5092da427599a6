import { describe, expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { createQueue, serviceForFile, uniqueId } from "./harness.ts";
import { refused, verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ receive_limit_max: 100 });
const { call, elapse } = service;
const { put, receive, take, ack, nack, extend, look, remove, secondsUntil } = verbsOf(service);

/** A message in the state of its row: where it is asked for, and the tokens of its two deliveries. */
type Case = { queue: string; id: string; current: string; former: string };

const columns = [
  "ack current",
  "ack other",
  "ack none",
  "nack current",
  "nack other",
  "nack none",
  "extend current",
  "extend other",
] as const;
type Column = (typeof columns)[number];

const garbage = ["", "nonsense", "-1", "0", "18446744073709551616", "9223372036854775807", `1${"0".repeat(80)}`, "é"];

/** `count` messages of one queue under their second delivery. */
async function leasedTwice(queue: string, count: number): Promise<Case[]> {
  const batch = { messages: Array.from({ length: count }, () => ({ body: "x" })) };
  expect((await call("POST", `/v1/queues/${queue}/messages/batch`, batch)).status).toBe(201);
  const firsts = new Map((await receive(queue, "?limit=100")).map((one) => [one.id, one.lease_token]));
  const items = [...firsts].map(([id, lease_token]) => ({ id, lease_token }));
  await call("POST", `/v1/queues/${queue}/nack`, { items, visibility_timeout_seconds: 0 });
  const seconds = await receive(queue, "?limit=100");
  expect(seconds).toHaveLength(count);
  return seconds.map(({ id, lease_token }) => ({
    queue,
    id,
    current: lease_token,
    former: firsts.get(id) ?? "",
  }));
}

type Row = {
  state: string;
  settings?: Record<string, unknown>;
  reach(cases: Case[], queue: string): Promise<unknown>;
  /** Statuses in the order of the columns. */
  expected: number[];
  strict?: number[];
};

const each = (cases: Case[], change: (one: Case) => Promise<unknown>) => Promise.all(cases.map(change));
const ended = [409, 409, 204, 409, 409, 204, 409, 409];
const absent = [404, 404, 404, 404, 404, 404, 404, 404];

const rows: Row[] = [
  {
    state: "under a live lease",
    reach: async () => {},
    expected: [204, 409, 204, 204, 409, 204, 204, 409],
  },
  {
    state: "past its deadline, not delivered again",
    reach: () => elapse(31),
    expected: [204, 409, 204, 204, 409, 204, 204, 409],
    strict: [409, 409, 204, 409, 409, 204, 409, 409],
  },
  {
    state: "ready after a nack",
    reach: (cases) => each(cases, ({ queue, id, current }) => nack(queue, id, { lease_token: current })),
    expected: ended,
  },
  {
    state: "delayed by a nack",
    reach: (cases) =>
      each(cases, ({ queue, id, current }) =>
        nack(queue, id, { lease_token: current, visibility_timeout_seconds: 60 }),
      ),
    expected: ended,
  },
  {
    state: "backing off after a nack",
    settings: { retry_policy: { min_seconds: 60 } },
    reach: (cases) => each(cases, ({ queue, id, current }) => nack(queue, id, { lease_token: current })),
    expected: ended,
  },
  {
    state: "released",
    reach: (cases) => each(cases, ({ queue, id, current }) => extend(queue, id, 0, current)),
    expected: ended,
  },
  {
    state: "acked with its token",
    reach: (cases) => each(cases, ({ queue, id, current }) => ack(queue, id, current)),
    expected: [204, 409, 204, 409, 409, 204, 409, 409],
  },
  {
    state: "acked without a token",
    reach: (cases) => each(cases, ({ queue, id }) => ack(queue, id)),
    expected: ended,
  },
  {
    state: "expired, lease over",
    settings: { message_retention_seconds: 100 },
    reach: () => elapse(101),
    expected: ended,
  },
  {
    state: "expired and archived",
    settings: { message_retention_seconds: 100 },
    reach: async () => {
      await elapse(101);
      await service.broker.sweepExpired();
    },
    expected: ended,
  },
  {
    state: "purged",
    reach: (_, queue) => call("PUT", `/v1/queues/${queue}/purge`),
    expected: absent,
  },
  {
    state: "deleted",
    reach: (cases) => each(cases, ({ queue, id, current }) => remove(queue, id, `?lease_token=${current}`)),
    expected: absent,
  },
  {
    state: "acked and cleaned up",
    reach: async (cases, queue) => {
      await each(cases, (one) => ack(queue, one.id, one.current));
      await call("PUT", `/v1/queues/${queue}/cleanup`);
    },
    expected: absent,
  },
  {
    state: "acked longer ago than the archive keeps",
    settings: { archive_retention_seconds: 5 },
    reach: async (cases, queue) => {
      await each(cases, (one) => ack(queue, one.id, one.current));
      await elapse(6);
    },
    expected: absent,
  },
  {
    state: "acked on a queue without an archive",
    settings: { archive_retention_seconds: 0 },
    reach: (cases) => each(cases, ({ queue, id, current }) => ack(queue, id, current)),
    expected: absent,
  },
  {
    state: "dead-lettered",
    settings: { dead_queue_id: await createQueue(service), message_max_deliveries: 9 },
    reach: (cases) =>
      each(cases, ({ queue, id, current }) => nack(queue, id, { lease_token: current, dead_letter: true })),
    expected: absent,
  },
  {
    state: "of another queue",
    reach: async (cases) => {
      const other = await createQueue(service);
      for (const one of cases) one.queue = other;
    },
    expected: absent,
  },
  {
    state: "unknown",
    reach: async (cases) => {
      for (const one of cases) one.id = "01JZZZZZZZZZZZZZZZZZZZZZZZ";
    },
    expected: absent,
  },
];

const stored = async (id: string) => [
  ...(await service.sql`select * from psqlqueue.messages where id = ${id}`),
  ...(await service.sql`select * from psqlqueue.archived_messages where id = ${id}`),
];

function send({ queue, id }: Case, verb: string, lease_token: string | undefined) {
  if (verb === "ack") return ack(queue, id, lease_token);
  if (verb === "nack") return nack(queue, id, { lease_token, visibility_timeout_seconds: 0 });
  return extend(queue, id, 20, lease_token);
}

const refusals: Record<number, unknown> = { 409: refused(11, "lease lost"), 404: refused(6, "message not found") };

/** What a success must have made of a message that was in this state. */
const after = (verb: string, state: string): string => {
  if (state === "acked" || (state === "expired" && verb === "nack")) return state;
  return { ack: "acked", nack: "ready", extend: "leased" }[verb] ?? "";
};

async function expectCell(one: Case, column: Column, status: number, is_archived: boolean): Promise<void> {
  const [verb = "", kind = ""] = column.split(" ");
  const tokens = { current: [one.current], none: [undefined], other: [one.former, ...garbage] }[kind] ?? [];
  const before = await stored(one.id);
  const state = (await look(one.queue, one.id)).body.state;
  for (const token of tokens) {
    const answer = await send(one, verb, token);
    expect({ column, token, status: answer.status, body: answer.body }).toEqual({
      column,
      token,
      status,
      body: status === 204 ? undefined : refusals[status],
    });
  }
  if (status !== 204) expect(await stored(one.id)).toEqual(before);
  else expect((await look(one.queue, one.id)).body.state).toBe(is_archived ? state : after(verb, state));
}

describe("what each call answers to a message that is", () => {
  const cells = rows.flatMap((row) => [
    { ...row, strict_leases: false },
    { ...row, strict_leases: true, expected: row.strict ?? row.expected },
  ]);
  test.each(cells.map((row) => [`${row.state}${row.strict_leases ? ", with strict leases" : ""}`, row] as const))(
    "%s",
    async (_, { reach, expected, settings, strict_leases, state }) => {
      const queue = await createQueue(service, { ack_deadline_seconds: 30, strict_leases, ...settings });
      const cases = await leasedTwice(queue, columns.length);
      await reach(cases, queue);
      for (const [i, column] of columns.entries()) {
        await expectCell(cases[i] as Case, column, expected[i] as number, state === "expired and archived");
      }
    },
  );

  test("of an unknown queue: there is no queue", async () => {
    const one = { queue: uniqueId(), id: "01JZZZZZZZZZZZZZZZZZZZZZZZ", current: "1", former: "2" };
    for (const verb of ["ack", "nack", "extend"]) {
      expect((await send(one, verb, "1")).body).toEqual(refused(5, "queue not found"));
    }
  });
});

describe("a lease token", () => {
  test("is taken from the body, else the query, else the header", async () => {
    const queue = await createQueue(service);
    await put(queue);
    const { id, lease_token } = await take(queue);
    const send = (verb: string, body: string, where: string, header: string) => {
      const headers: Record<string, string> = header === "" ? {} : { "x-lease-token": header };
      const own = { ack_deadline_seconds: 20, ...(body !== "" && { lease_token: body }) };
      const query = where === "" ? "" : `?lease_token=${where}`;
      return call("PUT", `/v1/queues/${queue}/messages/${id}/${verb}${query}`, own, headers);
    };
    for (const verb of ["extend", "nack", "ack"]) {
      for (const [body, where, header] of [
        ["1", lease_token, lease_token],
        ["", "1", lease_token],
        ["", "", "1"],
      ] as const) {
        expect((await send(verb, body, where, header)).body).toEqual(refused(11, "lease lost"));
      }
    }
    expect((await send("extend", lease_token, "1", "1")).status).toBe(204);
    expect((await send("extend", "", lease_token, "1")).status).toBe(204);
    expect((await send("extend", "", "", lease_token)).status).toBe(204);
    expect((await send("ack", "", "", lease_token)).status).toBe(204);
  });

  test("is opaque, unguessable, new on every delivery, and shown to nobody but its consumer", async () => {
    const queue = await createQueue(service, { ack_deadline_seconds: 1 });
    await Promise.all(Array.from({ length: 100 }, () => put(queue)));
    const tokens: string[] = [];
    for (let round = 0; round < 10; round++) {
      tokens.push(...(await receive(queue, "?limit=100")).map((one) => one.lease_token));
      await elapse(2);
    }
    expect(tokens.filter((token) => !/^[A-Za-z0-9_-]{1,64}$/.test(token))).toEqual([]);
    expect(new Set(tokens).size).toBe(1000);
    // Each of the first 60 bits is a coin: 1000 tosses stay within six standard deviations.
    const ones = Array.from({ length: 60 }, (_, bit) => tokens.filter((token) => (BigInt(token) >> BigInt(bit)) & 1n));
    expect(ones.map((set) => set.length).filter((count) => Math.abs(count - 500) > 95)).toEqual([]);

    const { id, lease_token } = await take(queue, "?limit=1");
    const texts = [await look(queue, id), await call("GET", `/v1/queues/${queue}/messages/peek?state=all&limit=100`)];
    expect(texts.filter(({ text }) => text.includes(lease_token) || text.includes("lease_token"))).toEqual([]);
  });

  test("comes with the end of its lease, by the database's clock", async () => {
    const queue = await createQueue(service, { ack_deadline_seconds: 100 });
    await put(queue);
    const left = await secondsUntil((await take(queue)).lease_expires_at);
    expect(left).toBeGreaterThan(95);
    expect(left).toBeLessThanOrEqual(100);
  });
});

type Step = { worker: number; message: number; verb: "receive" | "ack" | "nack" | "extend"; token: number };
const step: fc.Arbitrary<Step> = fc.record({
  worker: fc.nat(5),
  message: fc.nat(3),
  verb: fc.constantFrom("receive", "receive", "ack", "ack", "nack", "extend"),
  // Which of the tokens seen so far, from the newest; 9 is foreign.
  token: fc.constantFrom(0, 0, 0, 1, 2, 9),
});

/** Runs the steps of each worker one after the other and the workers side by side. */
async function runHistory(queue: string, steps: Step[]) {
  const ids = [await put(queue), await put(queue), await put(queue), await put(queue)];
  const tokens = new Map<string, string[]>(ids.map((id) => [id, []]));
  const acks: { id: string; token: string; answered_ms: number }[] = [];
  const deliveries: { id: string; sent_ms: number }[] = [];
  const run = async ({ verb, message, token }: Step) => {
    const id = ids[message] as string;
    if (verb === "receive") {
      const sent_ms = performance.now();
      // Half of the leases are over at once, so tokens go stale by time too.
      for (const one of await receive(queue, `?limit=2&ack_deadline_seconds=${token % 2 === 0 ? 0 : 30}`)) {
        tokens.get(one.id)?.unshift(one.lease_token);
        deliveries.push({ id: one.id, sent_ms });
      }
      return;
    }
    const own = tokens.get(id)?.[token] ?? "4711";
    const one = { queue, id, current: own, former: "" };
    const { status } = await send(one, verb, own);
    expect([204, 409]).toContain(status);
    if (verb === "ack" && status === 204) acks.push({ id, token: own, answered_ms: performance.now() });
  };
  const workers = Map.groupBy(steps, ({ worker }) => worker);
  await Promise.all(
    [...workers.values()].map(async (own) => {
      for (const one of own) await run(one);
    }),
  );
  return { acks, deliveries };
}

test("at most one token of a message ever acks, and what was acked is never delivered again", async () => {
  let acked = 0;
  const property = fc.asyncProperty(
    fc.array(step, { minLength: 20, maxLength: 120, size: "max" }),
    fc.boolean(),
    async (steps, strict_leases) => {
      const queue = await createQueue(service, { ack_deadline_seconds: 30, strict_leases });
      const { acks, deliveries } = await runHistory(queue, steps);
      const winners = Map.groupBy(acks, ({ id }) => id);
      acked += winners.size;
      for (const [id, own] of winners) {
        expect(new Set(own.map(({ token }) => token)).size).toBe(1);
        const answered_ms = Math.min(...own.map((one) => one.answered_ms));
        expect(deliveries.filter((one) => one.id === id && one.sent_ms > answered_ms)).toEqual([]);
      }
    },
  );
  await fc.assert(property, { numRuns: 30 });
  expect(acked).toBeGreaterThan(20);
});
