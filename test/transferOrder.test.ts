// What an export keeps of the order of messages, and of what is done with them by their priority.

import { afterEach, expect, setDefaultTimeout, test } from "bun:test";
import { openService, type Service, serviceForFile, uniqueId } from "./harness.ts";
import { exportText, importText } from "./transferring.ts";
import { verbsOf } from "./verbs.ts";

setDefaultTimeout(30_000);

const source = await serviceForFile({ receive_limit_max: 100 });
const { put } = verbsOf(source);

let opened: Service | undefined;
/** A service on another database, closed after the test. */
async function openTarget() {
  opened = await openService({ receive_limit_max: 100 });
  return { target: opened, ...verbsOf(opened) };
}
afterEach(async () => {
  await opened?.close();
  opened = undefined;
});

async function make(service: Service, id: string, own: Record<string, unknown> = {}): Promise<string> {
  const settings = { ack_deadline_seconds: 30, message_retention_seconds: 3600, ...own };
  const { status } = await service.call("POST", "/v1/queues", { id, ...settings });
  expect(status).toBe(201);
  return id;
}

test("messages with a priority are delivered by a queue that is there and knows none", async () => {
  const queue = await make(source, uniqueId(), { priority_enabled: true });
  await put(queue, { body: "p5", priority: 5 });
  await put(queue, { body: "p0" });
  const text = await exportText(source, [queue]);
  const { target, receive, stats } = await openTarget();
  await make(target, queue);
  await importText(target, text);
  expect(await stats(queue)).toMatchObject({ ready: 2 });
  const found = await receive(queue, "?limit=9");
  expect(found.map(({ body }) => body).sort()).toEqual(["p0", "p5"]);
});
