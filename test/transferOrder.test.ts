// What an export keeps of the order of messages, and of what is done with them by order and priority.

import { afterEach, expect, setDefaultTimeout, test } from "bun:test";
import { openService, type Service, serviceForFile, uniqueId } from "./harness.ts";
import { exportText, importText } from "./transferring.ts";
import { verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const source = await serviceForFile({ receive_limit_max: 100 });
const { put, take, nack } = verbsOf(source);

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

/** A queue whose dead-letter queue stands before it, or behind it, by the names. */
async function pair(is_dead_first: boolean, own: Record<string, unknown> = {}) {
  const name = uniqueId();
  const dead = await make(source, `${name}-${is_dead_first ? "a" : "z"}`);
  const settings = { dead_queue_id: dead, message_max_deliveries: 2, ...own };
  return { dead, queue: await make(source, `${name}-m`, settings) };
}

test.each([true, false])(
  "a key that a dead message blocks is blocked on the other side; dead-letter queue first: %p",
  async (is_dead_first) => {
    const { queue, dead } = await pair(is_dead_first, { on_dead: "block" });
    for (const body of ["1", "2", "3"]) await put(queue, { body, ordering_key: "k" });
    await put(queue, { body: "free", ordering_key: "j" });
    await nack(queue, (await take(queue)).id, { dead_letter: true });
    const text = await exportText(source, [queue, dead]);
    const { target, receive, bodies, ack } = await openTarget();
    expect((await importText(target, text)).imported.message).toBe(4);
    expect(await bodies(queue)).toEqual(["free"]);
    const keysOf = async (service: Service) => {
      const { body } = await service.call("GET", `/v1/queues/${queue}/keys?state=blocked`);
      return body.data.map(({ ordering_key, dead_message_id, blocked_since }: Record<string, unknown>) => ({
        ordering_key,
        dead_message_id,
        blocked_since,
      }));
    };
    expect(await keysOf(target)).toEqual(await keysOf(source));
    expect(await keysOf(target)).toHaveLength(1);
    // The same, once more: nothing changes.
    await importText(target, text);
    expect(await bodies(queue)).toEqual([]);
    expect((await target.call("POST", `/v1/queues/${dead}/redrive?wait=true`, { limit: 9 })).body).toEqual({
      moved: 1,
    });
    for (const body of ["1", "2", "3"]) {
      const [own, ...others] = await receive(queue, "?limit=9");
      expect([own?.body, ...others]).toEqual([body]);
      await ack(queue, own?.id ?? "", own?.lease_token);
    }
  },
);

test.each([true, false])(
  "a dead message comes back to its place before younger ones; dead-letter queue first: %p",
  async (is_dead_first) => {
    const { queue, dead } = await pair(is_dead_first);
    for (const body of ["1", "2", "3"]) await put(queue, { body, ordering_key: "k" });
    const one = await take(queue);
    await nack(queue, one.id, { dead_letter: true });
    await put(queue, { body: "4", ordering_key: "k" });
    const text = await exportText(source, [queue, dead]);
    const { target, receive } = await openTarget();
    await importText(target, text);
    await target.call("POST", `/v1/queues/${dead}/redrive?wait=true`, { limit: 9 });
    const found = await receive(queue, "?limit=9&max_per_key=9");
    expect(found.map(({ body }) => body)).toEqual(["1", "2", "3", "4"]);
  },
);

test("a queue that moves its dead messages, where the exported one blocked by them, is not blocked", async () => {
  const { queue, dead } = await pair(true, { on_dead: "block" });
  for (const body of ["1", "2"]) await put(queue, { body, ordering_key: "k" });
  await nack(queue, (await take(queue)).id, { dead_letter: true });
  const text = await exportText(source, [queue, dead]);
  const { target, bodies } = await openTarget();
  await make(target, dead);
  await make(target, queue, { dead_queue_id: dead, message_max_deliveries: 2 });
  await importText(target, text);
  expect(await bodies(queue)).toEqual(["2"]);
});

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
