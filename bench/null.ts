// The physical reference: the whole HTTP stack with a broker that does nothing. Prints its URL; ends with its standard
// input.
import type { Broker } from "../src/broker/broker.ts";
import { createApp } from "../src/http/app.ts";

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
app.listen({ port: 0, hostname: "127.0.0.1" });
console.log(`http://127.0.0.1:${app.server?.port}`);
for await (const _ of Bun.stdin.stream()) {
  // Until the parent closes it.
}
process.exit(0);
