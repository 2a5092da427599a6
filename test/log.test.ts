import { expect, setDefaultTimeout, test } from "bun:test";
import { createLog, logObserver } from "../src/log.ts";
import { until } from "./harness.ts";

setDefaultTimeout(90_000);

test("a database that comes and goes is told once as away, with its cause, and once as back, when it stays", async () => {
  const lines: Record<string, unknown>[] = [];
  const observe = logObserver(
    createLog("info", (line) => lines.push(JSON.parse(line))),
    "info",
  );
  const reason = "publish: unavailable (25006)";
  const down = { time: expect.any(String), level: "ERROR", msg: "database not reachable", reason };
  const effect = "requests are answered 503 until it is back";
  for (let i = 0; i < 50; i++) {
    observe({ kind: "database_up", is_up: false, reason });
    observe({ kind: "database_up", is_up: true });
  }
  expect(lines).toEqual([{ ...down, effect }]);
  await until(() => lines.length > 1);
  expect(lines.slice(1)).toEqual([
    { time: expect.any(String), level: "INFO", msg: "database reachable again", after_ms: expect.any(Number) },
  ]);
  observe({ kind: "database_up", is_up: false, reason });
  expect(lines.slice(2)).toEqual([{ ...down, effect }]);
});

test("a secret that a client put into an address is not logged, and the rest of the address is", () => {
  const lines: string[] = [];
  const observe = logObserver(
    createLog("debug", (line) => lines.push(line)),
    "debug",
  );
  const key = `pq_${"a".repeat(12)}_${"S".repeat(43)}`;
  const query = `limit=2&lease_token=SSS&Key=SSS&search=pq_x&X-Amz-Signature=SSS&ordering_key=k&token=SSS`;
  const request = new Request(`http://x/v1/queues/${key}?${query}`, {
    headers: { referer: `http://x/?api_key=SSS#SS` },
  });
  const seen = { id: "1", ip: () => "", route: "/v1/queues/:queue_id", latency_ms: 1, status: 401, response_bytes: 0 };
  observe({ kind: "request", request, ...seen });
  observe({
    kind: "audit",
    key_id: null,
    action: "peek",
    target: `GET /v1/queues/${key}`,
    status: 401,
    request_id: "1",
  });
  expect(lines.join("\n")).not.toContain("SSS");
  const [logged] = lines.map((line) => JSON.parse(line));
  expect(logged.request).toMatchObject({
    path: "/v1/queues/pq_aaaaaaaaaaaa_***",
    query: "limit=2&lease_token=***&Key=***&search=pq_x&X-Amz-Signature=***&ordering_key=k&token=***",
    params: { queue_id: "pq_aaaaaaaaaaaa_***" },
  });
});
