// The physical reference: the whole HTTP stack with a broker that does nothing. Prints its URL; ends with its standard
// input.
import type { Broker } from "../src/broker/broker.ts";
import { createApp } from "../src/http/app.ts";
import { refusal } from "../src/http/output.ts";
import { startListener } from "../src/web/listener.ts";

const published = { id: "01HZZZZZZZZZZZZZZZZZZZZZ01", deduplicated: false };
const nothing = {
  publish: async () => published,
  receive: async () => [],
  ack: async () => {},
  nack: async () => {},
};

const app = createApp(nothing as unknown as Broker, {
  body_bytes_max: 16_777_216,
  cors_origins: [],
  receive_limit_max: 10,
  wait_seconds_max: 0,
  version: "null",
});
const { port } = await startListener({
  hostname: "127.0.0.1",
  port: 0,
  fetch: async (request) => await app.fetch(request),
  refusal,
  idle_seconds_max: 120,
  header_seconds_max: 60,
  body_rate_min: 0,
  rate_window_ms: 10_000,
  handler_seconds_max: 60,
});
console.log(`http://127.0.0.1:${port}`);
for await (const _ of Bun.stdin.stream()) {
  // Until the parent closes it.
}
process.exit(0);
