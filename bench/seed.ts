// Queues as a shop would have them, with messages, failures, dead letters and a day of history: for the pictures of the
// README, and for whoever works on the dashboard.

import type postgres from "postgres";

type Json = Record<string, unknown>;

/** Requests to a server. */
function verbsOf(url: string) {
  const call = async (method: string, path: string, body?: Json) => {
    const init = { method, ...(body !== undefined && { body: JSON.stringify(body) }) };
    const response = await fetch(`${url}/v1/${path}`, init);
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    return response.status === 204 ? undefined : ((await response.json()) as Json);
  };
  const receive = async (queue: string, limit: number) =>
    ((await call("GET", `queues/${queue}/messages?limit=${limit}`))?.["data"] ?? []) as { id: string }[];
  return { call, receive };
}

const base = { ack_deadline_seconds: 60, message_retention_seconds: 1_209_600 };

const order = (n: number) => ({
  order_id: `ord_${482_100 + n}`,
  customer: {
    id: 9000 + ((n * 37) % 800),
    name: ["Ada Lovelace", "Grace Hopper", "Alan Turing"][n % 3],
    is_new: n % 4 === 0,
  },
  currency: "EUR",
  total: Math.round(1990 + ((n * 7919) % 24_000)) / 100,
  lines: Array.from({ length: 1 + (n % 3) }, (_, i) => ({
    sku: `SKU-${1000 + ((n * 13 + i * 7) % 90)}`,
    quantity: 1 + (i % 2),
  })),
  placed_at: new Date(Date.UTC(2026, 0, 31, 12, n % 60, n % 59)).toISOString(),
});

const messagesOf = (count: number, label?: string): Json[] =>
  Array.from({ length: count }, (_, n) => ({
    body: JSON.stringify(order(n)),
    ...(label !== undefined && { label }),
    attributes: { region: ["eu-west", "eu-north", "us-east"][n % 3], schema: "order.v3" },
  }));

const errors = [
  (n: number) => `payment gateway timeout after ${3000 + n * 17} ms for order ord_${482_100 + n}`,
  (n: number) => `duplicate key value violates unique constraint "invoices_pkey": (id)=(${70_000 + n})`,
  () => "card declined: insufficient_funds",
];

/** A day of counts with a tide, a rush and a failure. */
const history = (sql: postgres.Sql, queue: string, scale: number, depth: number) => sql`
  insert into psqlqueue.queue_minutes (queue_no, minute, published, delivered, acked, failed, ready, leased, hidden,
    oldest_ready_age_seconds)
  select no, date_trunc('minute', now()) - n * interval '1 minute', wave, (wave * 1.02)::int, (wave * 0.985)::int,
    (wave * 0.02 * (1 + 6 * (n between 18 and 26)::int))::int,
    (${depth}::int * (1 + 3 * exp(-power((n - 22) / 5.0, 2))))::int, (wave / 20), (wave / 35),
    (4 + 80 * exp(-power((n - 22) / 5.0, 2)))::int
  from psqlqueue.queues, generate_series(1, 1439) as n,
    lateral (select (${scale}::int * (1.4 + sin(n / 229.0) + 0.05 * sin(n / 2.1) + 0.04 * sin(n * 1.7)))::int as wave) as tide
  where id = ${queue}
  on conflict (queue_no, minute) do update set published = excluded.published, delivered = excluded.delivered,
    acked = excluded.acked, failed = excluded.failed, ready = excluded.ready, leased = excluded.leased,
    hidden = excluded.hidden, oldest_ready_age_seconds = excluded.oldest_ready_age_seconds`;

/** Publishes, fails, buries: what a running shop leaves behind. */
export async function seed(url: string, sql: postgres.Sql): Promise<void> {
  const { call, receive } = verbsOf(url);
  const make = (id: string, settings: Json = {}) => call("POST", "queues", { id, ...base, ...settings });
  const publish = (queue: string, messages: Json[]) => call("POST", `queues/${queue}/messages/batch`, { messages });
  await make("payments.dead");
  await make("payments", { dead_queue_id: "payments.dead", message_max_deliveries: 3 });
  await make("orders", { dead_queue_id: "payments.dead", message_max_deliveries: 5 });
  for (const id of ["emails", "invoices", "search-index", "thumbnails", "webhooks.outgoing"]) await make(id);
  await make("reports.nightly", { delivery_delay_seconds: 3600 });
  for (const id of ["orders.placed", "payments.settled"]) await call("POST", "topics", { id });
  const subscriptions = [
    ["orders.placed", "invoices", {}],
    ["orders.placed", "emails", {}],
    ["orders.placed", "search-index", { message_filters: { region: ["eu-west", "eu-north"] } }],
    ["payments.settled", "emails", {}],
  ] as const;
  for (const [topic_id, queue_id, rest] of subscriptions) {
    await call("POST", "subscriptions", { id: `${topic_id}.${queue_id}`, topic_id, queue_id, ...rest });
  }
  await publish("orders", messagesOf(180, "placed"));
  await publish("emails", messagesOf(42));
  await publish("search-index", messagesOf(1000));
  await publish("thumbnails", messagesOf(12));
  await publish("reports.nightly", messagesOf(9));
  await publish("payments", messagesOf(200, "card"));
  await receive("orders", 7);
  for (let dead = 0; dead < 150; ) {
    const taken = await receive("payments", 10);
    const items = taken.map(({ id }, i) => ({
      ...{ id, dead_letter: true },
      error: errors[(dead + i) % 7 < 4 ? 0 : (dead + i) % 7 < 6 ? 1 : 2]?.(dead + i),
    }));
    await call("POST", "queues/payments/nack", { items });
    dead += taken.length;
  }
  const retried = await receive("payments", 4);
  const items = retried.map(({ id }) => ({ id, visibility_timeout_seconds: 600, error: errors[0]?.(7) }));
  await call("POST", "queues/payments/nack", { items });
  await call("PUT", "queues/webhooks.outgoing/pause", {});
  const scales: [string, number, number][] = [
    ["orders", 900, 160],
    ["payments", 620, 60],
    ["emails", 380, 40],
    ["search-index", 1500, 900],
    ["invoices", 410, 20],
    ["thumbnails", 140, 10],
  ];
  for (const [queue, scale, depth] of scales) {
    await history(sql, queue, scale, depth);
    await sql`insert into psqlqueue.rates (queue_id, minute, published, acked)
      select ${queue}, date_trunc('minute', now()) - n * interval '1 minute', ${Math.round(scale * 1.3)}, ${Math.round(scale * 1.28)}
      from generate_series(-1, 1) as n on conflict do nothing`;
  }
}
