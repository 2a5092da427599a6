import { expect, setDefaultTimeout, test } from "bun:test";
import { createQueue, is_embedded, openService, type Service, until } from "./harness.ts";
import { type Delivered, verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

// Publishers and consumers on two servers of one database, with nacks, leases that run out and backends that are
// killed. The small dose is for the suite; PSQLQUEUE_TEST_LOAD is the number of messages, PSQLQUEUE_TEST_LOAD_KEYS of
// keys.

const messages_count = Number(process.env["PSQLQUEUE_TEST_LOAD"] ?? (is_embedded ? 400 : 1500));
const keys_count = Number(process.env["PSQLQUEUE_TEST_LOAD_KEYS"] ?? 40);
const publishers_count = 8;
const consumers_count = 16;
const deadline_ms = 1000;

type Published = { key: string; publisher: number; n: number };

/** What happened, and what was wrong with it. */
class Ledger {
  published = 0;
  acked = new Set<string>();
  inversions: string[] = [];
  overlaps: string[] = [];
  /** Per publisher and key: the number that must come next for the first time. */
  #next = new Map<string, number>();
  #seen = new Set<string>();
  /** Per key: what is under a lease, as far as its consumer knows, and until when. */
  #held = new Map<string, { body: string; until_ms: number }>();

  delivered({ body, ordering_key = "", lease_expires_at }: Delivered): void {
    const until_ms = Date.parse(lease_expires_at);
    const held = this.#held.get(ordering_key);
    if (held !== undefined && held.body !== body && held.until_ms > until_ms - deadline_ms + 1) {
      this.overlaps.push(`${ordering_key}: ${body} while ${held.body}`);
    }
    this.#held.set(ordering_key, { body, until_ms });
    if (this.#seen.has(body)) return;
    this.#seen.add(body);
    const { key, publisher, n } = JSON.parse(body) as Published;
    const series = `${publisher} ${key}`;
    const expected = this.#next.get(series) ?? 0;
    if (n !== expected) this.inversions.push(`${series}: ${n} instead of ${expected}`);
    this.#next.set(series, n + 1);
  }

  /** Before the request is sent: the next of the key may come before the answer. */
  letsGo({ ordering_key = "" }: Delivered): void {
    this.#held.delete(ordering_key);
  }
}

async function publishAll({ call }: Service, queue: string, publisher: number, ledger: Ledger): Promise<void> {
  const sent = new Map<string, number>();
  for (let i = 0; i < messages_count / publishers_count; i++) {
    const key = `k${(i * 7 + publisher * 13) % keys_count}`;
    const n = sent.get(key) ?? 0;
    sent.set(key, n + 1);
    const body = JSON.stringify({ key, publisher, n } satisfies Published);
    const message = { body, ordering_key: key, dedup_id: `${publisher}-${key}-${n}` };
    await until(async () => (await call("POST", `/v1/queues/${queue}/messages`, message)).status === 204);
    ledger.published += 1;
  }
}

async function consume(service: Service, queue: string, ledger: Ledger, isOver: () => boolean): Promise<void> {
  const { ack, nack } = verbsOf(service);
  while (!isOver()) {
    const answer = await service.call("GET", `/v1/queues/${queue}/messages?limit=5&wait_seconds=1`);
    const got: Delivered[] = answer.status === 200 ? answer.body.data : [];
    for (const message of got) ledger.delivered(message);
    for (const message of got) {
      const luck = Math.random();
      const { id, lease_token } = message;
      // Its consumer died.
      if (luck < 0.01) continue;
      ledger.letsGo(message);
      if (luck < 0.06) await nack(queue, id, { lease_token });
      else {
        // 503: nobody knows. It is repeatable.
        let { status } = await ack(queue, id, lease_token);
        while (status === 503) status = (await ack(queue, id, lease_token)).status;
        if (status === 204) ledger.acked.add(message.body);
      }
    }
  }
}

test("order and exclusion hold on two servers while leases run out and backends are killed", async () => {
  const first = await openService();
  const second = is_embedded ? first : await openService({ url: first.url });
  const servers = [first, second];
  const queue = await createQueue(first, { ack_deadline_seconds: deadline_ms / 1000 });
  const ledger = new Ledger();
  const total = publishers_count * Math.ceil(messages_count / publishers_count);
  let is_over = false;
  const serverOf = (n: number) => servers[n % 2] as Service;
  const consumers = Array.from({ length: consumers_count }, (_, n) =>
    consume(serverOf(n), queue, ledger, () => is_over),
  );
  const kills = is_embedded
    ? undefined
    : setInterval(() => {
        first.sql`select pg_terminate_backend(pid) from pg_stat_activity
          where application_name = 'psqlqueue' and datname = current_database() order by random() limit 1`.catch(
          () => {},
        );
      }, 200);
  const publishing = Array.from({ length: publishers_count }, (_, n) => publishAll(serverOf(n), queue, n, ledger));
  await Promise.all(publishing);
  clearInterval(kills);
  await until(() => ledger.acked.size === total, 60_000 + messages_count).catch(() => {});
  is_over = true;
  await Promise.all(consumers);
  const keys = await first.call("GET", `/v1/queues/${queue}/keys?limit=1000`);
  const stuck = keys.body.data.map(({ ordering_key }: Delivered) => ordering_key);
  const repair = await first.call("POST", `/v1/queues/${queue}/repair`);
  expect({
    published: ledger.published,
    acked: ledger.acked.size,
    inversions: ledger.inversions,
    overlaps: ledger.overlaps,
    stuck,
    repair: repair.body,
  }).toEqual({
    published: total,
    acked: total,
    inversions: [],
    overlaps: [],
    stuck: [],
    repair: { checked: 0, repaired: 0 },
  });
  await second.close();
  if (first !== second) await first.close();
}, 900_000);
