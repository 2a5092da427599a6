import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { killChildren, type ServerChild, startServerChild } from "./child.ts";
import { createMigratedDatabase } from "./harness.ts";

setDefaultTimeout(90_000);

// Bodies of many megabytes: what a receive leases is bounded in bytes as well as in messages, so that a queue of large
// messages drains, little by little, and disturbs nobody.

afterAll(killChildren);

const megabyte = 1_048_576;
const total = 24;
const process_bytes_max = 1024 * megabyte;

/** The most memory that the process has while `work` runs. */
async function peakBytes(server: ServerChild, work: Promise<unknown>): Promise<number> {
  let peak = 0;
  let is_running = true;
  const watch = async () => {
    while (is_running) {
      const kilobytes = Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${server.pid}/status`, "utf8"))?.[1] ?? 0);
      peak = Math.max(peak, kilobytes * 1024);
      await Bun.sleep(20);
    }
  };
  const watching = watch();
  try {
    await work;
  } finally {
    is_running = false;
    await watching;
  }
  return peak;
}

async function send(server: ServerChild, method: string, path: string, body?: unknown) {
  const init = { method, ...(body !== undefined && { body: JSON.stringify(body) }) };
  const response = await fetch(`${server.url}/v1/queues${path}`, init);
  if (response.status >= 400) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
  return response;
}

async function receive(server: ServerChild, queue: string, query: string): Promise<{ id: string; body: string }[]> {
  const response = await send(server, "GET", `/${queue}/messages?${query}`);
  return ((await response.json()) as { data: { id: string; body: string }[] }).data;
}

describe.each(["PostgreSQL", "the embedded database"])("on %s", (name) => {
  test("many messages of 10 MiB and ten consumers that want ten each: all arrive, and memory stays bounded", async () => {
    const url = name === "PostgreSQL" ? await createMigratedDatabase() : "";
    const server = await startServerChild(url, { PSQLQUEUE_QUEUE_MAX_NUMBER_OF_MESSAGES: "1000" });
    const settings = { ack_deadline_seconds: 600, message_retention_seconds: 3600 };
    for (const id of ["large", "small"]) await send(server, "POST", "", { id, ...settings });
    const body = "x".repeat(10 * megabyte);
    for (let i = 0; i < total; i++) await send(server, "POST", "/large/messages", { body });

    const acked = new Set<string>();
    let slowest_ms = 0;
    let is_draining = true;
    const consume = async () => {
      while (acked.size < total) {
        const messages = await receive(server, "large", "limit=10&wait_seconds=1");
        for (const { id, body: received } of messages) {
          expect(received.length).toBe(body.length);
          expect(acked.has(id)).toBe(false);
          await send(server, "PUT", `/large/messages/${id}/ack`);
          acked.add(id);
        }
      }
    };
    const useAnother = async () => {
      while (is_draining) {
        const started_ms = performance.now();
        await send(server, "POST", "/small/messages", { body: "y" });
        slowest_ms = Math.max(slowest_ms, performance.now() - started_ms);
        await Bun.sleep(10);
      }
    };
    const another = useAnother();
    const drained = Promise.all(Array.from({ length: 10 }, consume)).finally(() => {
      is_draining = false;
    });
    const peak = await peakBytes(server, drained);
    await another;
    expect(acked.size).toBe(total);
    expect(peak).toBeLessThan(process_bytes_max);
    // Far below the deadline of a statement, although this machine also reads and parses 400 MiB meanwhile.
    expect(slowest_ms).toBeLessThan(5000);
    if (process.env["PSQLQUEUE_TEST_PRINT"]) console.log({ name, peak_mb: peak / megabyte, slowest_ms });
    server.signal("SIGTERM");
    await server.exited;
  }, 120_000);
});
