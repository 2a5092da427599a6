import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createQueue, serviceForFile } from "./harness.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile();
const { call } = service;

const publish = (queue: string, body: unknown) => call("POST", `/v1/queues/${queue}/messages`, body);
const receive = async (queue: string, query = "") =>
  (await call("GET", `/v1/queues/${queue}/messages${query}`)).body.data;
const settle = (queue: string, id: string, verb: string, body?: unknown) =>
  call("PUT", `/v1/queues/${queue}/messages/${id}/${verb}`, body);

async function publishAndReceive(queue: string) {
  await publish(queue, { body: "x" });
  const [message] = await receive(queue);
  return message;
}

describe("receive", () => {
  test("hides what it returns until the ack deadline, then delivers it again with the same id", async () => {
    const queue = await createQueue(service, { ack_deadline_seconds: 30 });
    const first = await publishAndReceive(queue);
    expect(first.delivery_attempts).toBe(1);
    expect(await receive(queue)).toEqual([]);
    await service.elapse(29);
    expect(await receive(queue)).toEqual([]);
    await service.elapse(2);
    const [second] = await receive(queue);
    expect(second).toMatchObject({ id: first.id, delivery_attempts: 2 });
  });

  test("answers in the order in which messages became visible, then of publication", async () => {
    const queue = await createQueue(service);
    for (const body of ["a", "b", "c"]) await publish(queue, { body });
    const [a, b] = await receive(queue, "?limit=2");
    await settle(queue, b.id, "nack");
    await settle(queue, a.id, "nack");
    const bodies = (await receive(queue)).map((message: { body: string }) => message.body);
    expect(bodies).toEqual(["c", "b", "a"]);
  });

  test("never delivers an expired message, and goes on to the next one", async () => {
    const queue = await createQueue(service, { message_retention_seconds: 60 });
    for (let i = 0; i < 12; i++) await publish(queue, { body: `old ${i}` });
    await service.elapse(61);
    await publish(queue, { body: "new" });
    const messages = await receive(queue);
    expect(messages).toHaveLength(1);
    expect(messages[0]).toMatchObject({ body: "new", delivery_attempts: 1 });
    const [row] = await service.sql`
      select count(*)::int as count from psqlqueue.archived_messages where outcome = 'expired' and queue_no =
        (select no from psqlqueue.queues where id = ${queue})`;
    expect(row).toEqual({ count: 12 });
  });

  test("a message that expires under a live lease can still be acked", async () => {
    const queue = await createQueue(service, { message_retention_seconds: 10, ack_deadline_seconds: 100 });
    const message = await publishAndReceive(queue);
    await service.elapse(20);
    expect((await settle(queue, message.id, "ack")).status).toBe(204);
    const rows = await service.sql`select outcome from psqlqueue.archived_messages where id = ${message.id}`;
    expect([...rows]).toEqual([{ outcome: "acked" }]);
  });

  test("delays obey the queue's setting at publish", async () => {
    const queue = await createQueue(service, { delivery_delay_seconds: 60 });
    await publish(queue, { body: "later" });
    expect(await receive(queue)).toEqual([]);
    await service.elapse(61);
    expect(await receive(queue)).toHaveLength(1);
  });
});

describe("ack", () => {
  test("ends a message in every state, again and again, while the archive holds it", async () => {
    const queue = await createQueue(service);
    const message = await publishAndReceive(queue);
    expect((await settle(queue, message.id, "ack")).status).toBe(204);
    expect((await settle(queue, message.id, "ack")).status).toBe(204);
    expect((await settle(queue, message.id, "nack", { visibility_timeout_seconds: 0 })).status).toBe(204);
    expect(await receive(queue)).toEqual([]);
    await service.elapse(3601);
    expect((await settle(queue, message.id, "ack")).body).toEqual({ code: 6, message: "message not found" });
  });

  test("deletes at once on a queue without an archive", async () => {
    const queue = await createQueue(service, { archive_retention_seconds: 0 });
    const message = await publishAndReceive(queue);
    expect((await settle(queue, message.id, "ack")).status).toBe(204);
    expect((await settle(queue, message.id, "ack")).status).toBe(404);
  });

  test("of a message of another queue, and on an unknown queue, is refused", async () => {
    const [queue, other] = [await createQueue(service), await createQueue(service)];
    const message = await publishAndReceive(queue);
    expect((await settle(other, message.id, "ack")).body.code).toBe(6);
    expect((await settle("nowhere", message.id, "ack")).body.code).toBe(5);
    expect((await settle(queue, message.id, "ack")).status).toBe(204);
  });
});

describe("cleanup and purge", () => {
  test("cleanup removes acked and expired messages, and leaves a live lease alone", async () => {
    const queue = await createQueue(service, { message_retention_seconds: 100, ack_deadline_seconds: 1000 });
    const acked = await publishAndReceive(queue);
    await settle(queue, acked.id, "ack");
    const leased = await publishAndReceive(queue);
    await publish(queue, { body: "expires" });
    await service.elapse(101);
    expect((await call("PUT", `/v1/queues/${queue}/cleanup`)).status).toBe(204);
    expect((await settle(queue, acked.id, "ack")).status).toBe(404);
    expect((await settle(queue, leased.id, "ack")).status).toBe(204);
    const [row] = await service.sql`
      select count(*)::int as count from psqlqueue.messages as message
      join psqlqueue.queues as queue on queue.no = message.queue_no where queue.id = ${queue}`;
    expect(row).toEqual({ count: 0 });
  });

  test("purge removes more messages than one page, whatever their state", async () => {
    const queue = await createQueue(service);
    await Promise.all(Array.from({ length: 2500 }, (_, i) => publish(queue, { body: String(i) })));
    const [leased] = await receive(queue);
    expect((await call("PUT", `/v1/queues/${queue}/purge`)).status).toBe(204);
    expect(await receive(queue)).toEqual([]);
    expect((await settle(queue, leased.id, "ack")).body.code).toBe(6);
  });

  test("cleanup removes an expired message whose lease is over, though its retry would still wait", async () => {
    const retry_policy = { min_seconds: 1000, max_seconds: 1000, jitter: "none" };
    const queue = await createQueue(service, { message_retention_seconds: 60, retry_policy });
    const { id } = await publishAndReceive(queue);
    await service.elapse(61);
    expect((await call("PUT", `/v1/queues/${queue}/cleanup`)).status).toBe(204);
    expect((await settle(queue, id, "ack")).body.code).toBe(6);
  });

  test("a deleted queue is gone with its messages, and a new one of the same name is empty", async () => {
    const queue = await createQueue(service);
    const message = await publishAndReceive(queue);
    await publish(queue, { body: "y" });
    expect((await call("DELETE", `/v1/queues/${queue}`)).status).toBe(204);
    expect((await publish(queue, { body: "z" })).body.code).toBe(5);
    expect((await call("GET", `/v1/queues/${queue}/messages`)).body.code).toBe(5);
    const settings = { id: queue, ack_deadline_seconds: 1, message_retention_seconds: 100 };
    expect((await call("POST", "/v1/queues", settings)).status).toBe(201);
    expect(await receive(queue)).toEqual([]);
    expect((await settle(queue, message.id, "ack")).body.code).toBe(6);
  });
});

describe("under concurrency", () => {
  test("no message whose ack answered 204 is delivered again, with nacks and consumers at the same time", async () => {
    const queue = await createQueue(service, { ack_deadline_seconds: 30 });
    await Promise.all(Array.from({ length: 300 }, (_, i) => publish(queue, { body: String(i) })));
    const ids: string[] = [];
    while (ids.length < 300) ids.push(...(await receive(queue)).map((message: { id: string }) => message.id));

    const acked = new Map<string, number>();
    const delivered: { id: string; at: number }[] = [];
    let is_done = false;
    const consumers = Array.from({ length: 4 }, async () => {
      while (!is_done) {
        const asked_at = performance.now();
        for (const { id } of await receive(queue)) delivered.push({ id, at: asked_at });
      }
    });
    await Promise.all(
      ids.flatMap((id) => [
        settle(queue, id, "ack").then((answer) => {
          expect(answer.status).toBe(204);
          acked.set(id, performance.now());
        }),
        settle(queue, id, "nack").then((answer) => expect(answer.status).toBe(204)),
      ]),
    );
    is_done = true;
    await Promise.all(consumers);
    expect(acked.size).toBe(300);
    // A receive that was sent after the answer of the ack must not have seen the message.
    const revived = delivered.filter(({ id, at }) => at > (acked.get(id) ?? Number.POSITIVE_INFINITY));
    expect(revived).toEqual([]);
    await service.elapse(31);
    expect(await receive(queue)).toEqual([]);
  });

  test("50 consumers get each of 10,000 messages exactly once while leases hold", async () => {
    const queue = await createQueue(service, { ack_deadline_seconds: 600 });
    const total = 10_000;
    await Promise.all(Array.from({ length: total }, (_, i) => publish(queue, { body: String(i) })));
    const seen: string[] = [];
    const consumer = async () => {
      for (;;) {
        const messages = await receive(queue);
        if (messages.length === 0) return;
        for (const message of messages) seen.push(message.body);
      }
    };
    await Promise.all(Array.from({ length: 50 }, consumer));
    expect(seen.length).toBe(total);
    expect(new Set(seen).size).toBe(total);
  }, 120_000);
});
