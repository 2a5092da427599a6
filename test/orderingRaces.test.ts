import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createQueue, is_embedded, serviceForFile, until } from "./harness.ts";
import { all, keyedVerbsOf } from "./keyed.ts";
import { type Delivered, verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

// Pairs of operations on one ordering key at the same time. In every second round both find the key locked, so that
// each has begun, and waits, before either can look: what an operation must not rely on is what it saw before its wait.

const service = await serviceForFile({ receive_limit_max: 100 });
const { call, sql, elapse } = service;
const { nack, put, receive, take } = verbsOf(service);
const { drain, end, keysOf, putAll, repair } = keyedVerbsOf(service);

const rounds = Number(process.env["PSQLQUEUE_TEST_RACES"] ?? (is_embedded ? 10 : 24));

type Pair = {
  settings?: object;
  /** What there is before; answers the head, leased. */
  prepare?: (queue: string) => Promise<Delivered | undefined>;
  first: (queue: string, head: Delivered) => Promise<unknown>;
  second: (queue: string, head: Delivered) => Promise<unknown>;
  /** What is left to be delivered, in order: one of these. */
  left: string[][];
};

const lease = async (queue: string) => {
  await putAll(queue, "k", "1", "2");
  return await take(queue, "?limit=1");
};
const expired = async (queue: string) => {
  await put(queue, { body: "1", ordering_key: "k", ttl_seconds: 5 });
  await putAll(queue, "k", "2");
  await elapse(6);
  return undefined;
};
const publishNext = (queue: string) => putAll(queue, "k", "3");
const receiveOne = async (queue: string) => await receive(queue, all);

const pairs: Record<string, Pair> = {
  "publish and receive": { first: publishNext, second: receiveOne, left: [["3"]] },
  "publish and publish": {
    first: publishNext,
    second: (queue) => putAll(queue, "k", "4"),
    left: [
      ["3", "4"],
      ["4", "3"],
    ],
  },
  "ack of the last and publish": {
    prepare: async (queue) => {
      await putAll(queue, "k", "1");
      return await take(queue, "?limit=1");
    },
    first: (_, head) => end(head),
    second: publishNext,
    left: [["3"]],
  },
  "ack and publish": { prepare: lease, first: (_, head) => end(head), second: publishNext, left: [["2", "3"]] },
  "nack and receive": {
    prepare: lease,
    first: (queue, { id, lease_token }) => nack(queue, id, { lease_token }),
    second: receiveOne,
    left: [["1", "2"]],
  },
  "expiry and receive": {
    prepare: expired,
    first: (queue) => call("PUT", `/v1/queues/${queue}/cleanup`),
    second: receiveOne,
    left: [["2"]],
  },
  "a dead letter and publish": {
    prepare: lease,
    first: (queue, { id, lease_token }) => nack(queue, id, { lease_token, dead_letter: true }),
    second: publishNext,
    left: [["2", "3"]],
  },
  "purge and publish": {
    prepare: lease,
    first: (queue) => call("PUT", `/v1/queues/${queue}/purge`),
    second: publishNext,
    left: [["3"], []],
  },
};

describe("at the same time", () => {
  test.each(Object.entries(pairs))(
    "%s leave a key with its head, and never two of it in flight",
    async (_, { prepare, first, second, left }) => {
      const dead = await createQueue(service);
      const settings = { ack_deadline_seconds: 600, dead_queue_id: dead, message_max_deliveries: 100 };
      for (let round = 0; round < rounds; round++) {
        const queue = await createQueue(service, settings);
        const head = (await prepare?.(queue)) as Delivered;
        const both = async () =>
          await Promise.all(
            round % 4 < 2 ? [first(queue, head), second(queue, head)] : [second(queue, head), first(queue, head)],
          );
        if (round % 2 === 0 || is_embedded || prepare === undefined) await both();
        else {
          let running: Promise<unknown> = Promise.resolve();
          await sql.begin(async (session) => {
            await session`select from psqlqueue.ordering_keys for update`;
            running = both();
            // At least one of them waits for the key; a receive does not.
            const waits = async () => (await sql`select from pg_locks where not granted`).length > 0;
            await until(waits, 500).catch(() => {});
          });
          await running;
        }
        const [{ count } = { count: 0 }] = await sql<{ count: number }[]>`
          select count(*)::int as count from psqlqueue.messages as message join psqlqueue.queues as queue on queue.no = queue_no
          where queue.id = ${queue} and ordering_key = 'k' and lease_token is not null and lease_expires_at > now()`;
        expect(count).toBeLessThanOrEqual(1);
        expect(await repair(queue)).toMatchObject({ repaired: 0 });
        await elapse(601);
        expect(left).toContainEqual(await drain(queue));
        expect(await keysOf(queue)).toEqual([]);
        await call("DELETE", `/v1/queues/${queue}`);
      }
    },
    300_000,
  );
});
