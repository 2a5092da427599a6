import { expect, test } from "bun:test";
import { createLog, logObserver } from "../src/log.ts";
import { until } from "./harness.ts";

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
