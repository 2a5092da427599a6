import { expect, setDefaultTimeout, test } from "bun:test";
import { whenSent } from "../src/web/answer.ts";
import { Connection } from "../src/web/connection.ts";
import type { Exchange } from "../src/web/exchange.ts";
import type { Wire } from "../src/web/port.ts";
import { createRequest, RequestHeaders } from "../src/web/request.ts";
import { sendResponse } from "../src/web/send.ts";
import { textResponse } from "../src/web/textResponse.ts";
import { until } from "./harness.ts";

setDefaultTimeout(90_000);

const handler_ms = 200;

/**
 * A connection without a socket, the requests that arrive on it, and those that took too long. `is_slow`: its client
 * takes nothing of what is written, until `unsent_bytes` is set.
 */
function connect(is_slow = false) {
  const requests: Exchange[] = [];
  const late: Exchange[] = [];
  const wire = {
    remote_address: "",
    is_encrypted: false,
    unsent_bytes: 0,
    write(data: string | Uint8Array) {
      if (is_slow) wire.unsent_bytes += data.length;
    },
    end() {},
    destroy() {},
    pause() {},
    resume() {},
  };
  const options = {
    onRequest: (exchange: Exchange) => void requests.push(exchange),
    createRequest: ({ method, headers }: { method: string; headers: string[] }, source: Connection) =>
      createRequest(method, new RequestHeaders(headers), source, {
        url: "http://localhost/",
        problem: undefined,
        askForBody: undefined,
      }),
    onBroken() {},
    onError() {},
    onLate: (exchange: Exchange) => void late.push(exchange),
    idle_seconds_max: 60,
    header_seconds_max: 60,
    body_rate_min: 0,
    rate_window_ms: 60_000,
    handler_seconds_max: handler_ms / 1000,
  };
  return { connection: new Connection(wire satisfies Wire, options, () => {}), wire, requests, late };
}

test("a handler has its whole time from the end of the upload, whenever that was looked after", async () => {
  const { connection, requests, late } = connect();
  connection.onData(Buffer.from("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na"));
  const body = requests[0]?.request.read(2);
  const looked_ms = performance.now();
  connection.check(looked_ms);
  await until(() => performance.now() - looked_ms > handler_ms / 2);

  const whole_ms = performance.now();
  connection.onData(Buffer.from("b"));
  expect(await body).toEqual(Buffer.from("ab"));
  connection.check(whole_ms + handler_ms - 1);
  expect(late).toEqual([]);
  connection.check(performance.now() + handler_ms + 1);
  expect(late).toEqual(requests);
});

test("what an answer holds is held until the client's system has it", async () => {
  const { connection, requests, wire } = connect(true);
  connection.onData(Buffer.from("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
  const [own] = requests as [Exchange];
  const response = textResponse(200, "messages", { "content-type": "text/plain" });
  let sent = 0;
  whenSent(own.request as unknown as Request, response, () => void sent++);
  const done = sendResponse(own, response);
  await Bun.sleep(1);
  expect(sent).toBe(0);
  wire.unsent_bytes = 0;
  connection.onDrain();
  await done;
  expect(sent).toBe(1);
});
