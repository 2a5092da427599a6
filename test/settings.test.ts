import { describe, expect, setDefaultTimeout, test } from "bun:test";
import postgres from "postgres";
import { createMigratedDatabase, createQueue, openService, type Service, uniqueId } from "./harness.ts";
import { verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

// A database, a role or a session may carry other settings than PostgreSQL's defaults. Everything works as with those.
const odd: [name: string, value: string][] = [
  ["DateStyle", "German"],
  ["DateStyle", "SQL, DMY"],
  ["DateStyle", "Postgres, DMY"],
  ["TimeZone", "Asia/Kathmandu"],
  ["IntervalStyle", "iso_8601"],
  ["extra_float_digits", "-15"],
  ["bytea_output", "escape"],
  ["default_transaction_isolation", "serializable"],
  ["default_transaction_isolation", "repeatable read"],
  ["default_transaction_deferrable", "on"],
  ["synchronous_commit", "off"],
  ["idle_session_timeout", "1"],
  ["statement_timeout", "1"],
  ["lock_timeout", "1"],
  ["idle_in_transaction_session_timeout", "1"],
  ["array_nulls", "off"],
  ["standard_conforming_strings", "off"],
  ["backslash_quote", "off"],
  ["transform_null_equals", "on"],
  ["xmloption", "document"],
  ["row_security", "off"],
  ["search_path", ""],
  ["client_min_messages", "error"],
  ["enable_indexscan", "off"],
  ["enable_nestloop", "off"],
  ["enable_tidscan", "off"],
  ["enable_sort", "off"],
  ["enable_seqscan", "on"],
  ["plan_cache_mode", "force_custom_plan"],
  ["jit", "on"],
  ["work_mem", "64kB"],
  ["join_collapse_limit", "1"],
  ["from_collapse_limit", "1"],
  ["escape_string_warning", "off"],
  ["quote_all_identifiers", "on"],
  ["lc_numeric", "C"],
  ["gin_fuzzy_search_limit", "1"],
  ["default_toast_compression", "lz4"],
  ["check_function_bodies", "off"],
];

const rfc3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/;

/** A walk through what people do, and the shapes of what comes back. */
async function walk(service: Service): Promise<void> {
  const { call } = service;
  const { put, take, receive, ack, nack } = verbsOf(service);
  const dead = await createQueue(service);
  const queue = await createQueue(service, {
    dead_queue_id: dead,
    message_max_deliveries: 2,
    retry_policy: { min_seconds: 1, jitter: "equal" },
  });
  const created = await call("GET", `/v1/queues/${queue}`);
  expect(created.body.created_at).toMatch(rfc3339);
  const attributes = { "a\\'b": 'c"\\' };
  await put(queue, { body: "it's \\ a \u00e9", label: null, attributes, dedup_id: "k" });
  await put(queue, { body: "later", delay_seconds: 60, ttl_seconds: 600 });
  const first = await take(queue, "?limit=10");
  expect(first).toMatchObject({ body: "it's \\ a \u00e9", label: null, attributes, delivery_attempts: 1 });
  expect(first.lease_expires_at).toMatch(rfc3339);
  const extend = { ack_deadline_seconds: 60, lease_token: first.lease_token };
  expect((await call("PUT", `/v1/queues/${queue}/messages/${first.id}/extend`, extend)).status).toBe(204);
  expect((await nack(queue, first.id, { lease_token: first.lease_token, dead_letter: true, error: "\\" })).status).toBe(
    204,
  );
  const [moved] = await receive(dead);
  expect(moved).toMatchObject({ id: first.id, dead: { error: "\\", dead_at: expect.stringMatching(rfc3339) } });
  expect((await ack(dead, first.id, moved?.lease_token)).status).toBe(204);
  const topic = uniqueId("t");
  await call("POST", "/v1/topics", { id: topic });
  const filters = { message_filters: { kind: ["a"] } };
  await call("POST", "/v1/subscriptions", { id: uniqueId("s"), topic_id: topic, queue_id: dead, ...filters });
  const fanned = await call("POST", `/v1/topics/${topic}/messages`, { body: "x", attributes: { kind: "a" } });
  expect(fanned.headers.get("x-delivered-queues")).toBe("1");
  expect((await call("GET", `/v1/queues/${queue}/stats`)).body).toMatchObject({ delayed: 1, ready: 0 });
  expect((await call("PUT", `/v1/queues/${queue}/purge`)).status).toBe(204);
}

describe("with another default in the database", () => {
  test.each(odd)("%s = %s", async (name, value) => {
    const url = await createMigratedDatabase();
    const database = new URL(url).pathname.slice(1);
    const admin = postgres(url, { max: 1, onnotice() {}, connection: { statement_timeout: "0" } as object });
    await admin.unsafe(`alter database "${database}" set ${name} = '${value}'`);
    await admin.end({ timeout: 1 });
    const service = await openService({ url });
    try {
      await walk(service);
      // In somebody's own session its settings are theirs.
      const sql = postgres(url, {
        max: 1,
        onnotice() {},
        connection: { statement_timeout: "0", idle_session_timeout: "0" } as object,
      });
      const queue = await createQueue(service);
      const options = { deliver_at: "2020-01-02T03:04:05Z", dedup_id: "k" };
      await sql`select psqlqueue.publish(${queue}, ${"a \\ 'b'"}, null, ${JSON.stringify({ "\\": "x" })}::text::jsonb,
        ${JSON.stringify(options)}::text::jsonb)`;
      await service.broker.moveOutbox();
      const { body, attributes, label, id, lease_token } = (await verbsOf(service).take(queue)) as never as Record<
        string,
        string
      >;
      expect({ body, attributes, label }).toEqual({
        body: "a \\ 'b'",
        attributes: { "\\": "x" } as never,
        label: null as never,
      });
      const [row] = await sql`select psqlqueue.ack(${queue}, ${id ?? ""}, ${lease_token ?? ""}) as is_acked`;
      expect(row).toEqual({ is_acked: true });
      await sql.end({ timeout: 1 });
    } finally {
      await service.close();
    }
  });
});
