// A server whose clock is an hour off, and one whose clock is set back.

import { afterEach, expect, setDefaultTimeout, test } from "bun:test";
import { createIds } from "../src/broker/publish/ids.ts";
import { createQueue, is_embedded, openService, type Service } from "./harness.ts";

setDefaultTimeout(90_000);

const hour_ms = 3_600_000;
const realNow = Date.now;
afterEach(() => {
  Date.now = realNow;
});

/** Runs `work` with a clock that is `ms` off. Nothing else of this process runs meanwhile, but what it waits for. */
async function shifted<T>(ms: number, work: () => Promise<T>): Promise<T> {
  Date.now = () => realNow() + ms;
  try {
    return await work();
  } finally {
    Date.now = realNow;
  }
}

async function withService(work: (service: Service) => Promise<void>): Promise<void> {
  const service = await openService();
  try {
    await work(service);
  } finally {
    await service.close();
  }
}

test("deliver_at and expires_at are judged by the database's clock", () =>
  withService(async (service) => {
    const queue = await createQueue(service);
    const at = (seconds: number) => new Date(realNow() + seconds * 1000).toISOString();
    const publish = (message: Record<string, unknown>) =>
      service.call("POST", `/v1/queues/${queue}/messages`, { body: "x", ...message });
    const year = 31_536_000;
    for (const off_ms of [-hour_ms, hour_ms, -400 * 24 * hour_ms]) {
      await shifted(off_ms, async () => {
        expect((await publish({ expires_at: at(60) })).status).toBe(204);
        expect((await publish({ expires_at: at(-60) })).body.details).toBe("expires_at: must be in the future.");
        expect((await publish({ deliver_at: at(year - 60) })).status).toBe(204);
        expect((await publish({ deliver_at: at(year + 60) })).body.code).toBe(3);
        const batch = { messages: [{ body: "x", expires_at: at(-60) }] };
        const refused = await service.call("POST", `/v1/queues/${queue}/messages/batch`, batch);
        expect(refused.body.details).toBe("messages[0].expires_at: must be in the future.");
      });
    }
  }));

test.if(!is_embedded)(
  "messages of two servers with different clocks are delivered again in the order of their publication",
  () =>
    withService(async (service) => {
      const other = await openService({ url: service.url });
      const queue = await createQueue(service);
      await Promise.all([service.broker.clock.measure(), shifted(hour_ms, other.broker.clock.measure)]);
      const bodies = Array.from({ length: 40 }, (_, i) => String(i));
      for (const [i, body] of bodies.entries()) {
        const publish = () => (i % 2 === 0 ? service : other).call("POST", `/v1/queues/${queue}/messages`, { body });
        expect((await (i % 2 === 0 ? publish() : shifted(hour_ms, publish))).status).toBe(204);
        await Bun.sleep(3);
      }
      const leased = await service.broker.receive({
        queue_id: queue,
        label: undefined,
        limit: bodies.length,
        lease_seconds: 30,
        wait_ms: 0,
        wait_ms_max: 0,
      });
      expect(leased.map(({ body }) => body)).toEqual(bodies);
      await service.elapse(31);
      const again: string[] = [];
      while (again.length < bodies.length) {
        const { body } = await service.call("GET", `/v1/queues/${queue}/messages`);
        again.push(...body.data.map((message: { body: string }) => message.body));
      }
      expect(again).toEqual(bodies);
      await other.close();
    }),
);

test("ids rise while the clock is set back, and stay different", () => {
  let now_ms = realNow();
  const ids = createIds(() => now_ms);
  const made = Array.from({ length: 3000 }, (_, i) => {
    if (i === 1000) now_ms -= hour_ms;
    if (i === 2000) now_ms += 2 * hour_ms;
    return i % 2 === 0 ? ids.nextId() : ids.nextFanOutId();
  });
  expect(made.toSorted()).toEqual(made);
  expect(new Set(made).size).toBe(made.length);
});
