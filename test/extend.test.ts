import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createQueue, serviceForFile } from "./harness.ts";
import { refused, verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile({ receive_limit_max: 100 });
const { call, elapse } = service;
const { put, receive, take, ack, nack, extend, look, secondsUntil, stats } = verbsOf(service);

const lost = refused(11, "lease lost");
const invalid = (details: string) => refused(3, "request validation failed", details);
const representation = { prefer: "return=representation" };

async function taken(settings: Record<string, unknown> = {}) {
  const queue = await createQueue(service, { ack_deadline_seconds: 30, ...settings });
  await put(queue);
  return { queue, ...(await take(queue)) };
}

describe("extend", () => {
  test("sets the end of the lease so many seconds from now: later, or sooner", async () => {
    const { queue, id, lease_token } = await taken();
    expect((await extend(queue, id, 100, lease_token)).status).toBe(204);
    expect(await secondsUntil((await look(queue, id)).body.lease_expires_at)).toBeWithin(95, 100.01);
    expect((await extend(queue, id, 10, lease_token)).status).toBe(204);
    expect(await secondsUntil((await look(queue, id)).body.lease_expires_at)).toBeWithin(5, 10.01);
    await elapse(9);
    expect(await receive(queue)).toEqual([]);
    await elapse(2);
    expect(await take(queue)).toMatchObject({ id, delivery_attempts: 2 });
  });

  test("answers the new end when asked to", async () => {
    const { queue, id, lease_token } = await taken();
    const answer = await extend(queue, id, 60, lease_token, representation);
    expect({ status: answer.status, members: Object.keys(answer.body) }).toEqual({
      status: 200,
      members: ["lease_expires_at"],
    });
    expect(answer.headers.get("preference-applied")).toBe("return=representation");
    expect(answer.body.lease_expires_at).toBe((await look(queue, id)).body.lease_expires_at);
    expect(answer.body.lease_expires_at).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
  });

  test("by 0 gives the message back: at once, counted, no failure, the token spent", async () => {
    const dead = await createQueue(service);
    const { queue, id, lease_token } = await taken({
      dead_queue_id: dead,
      message_max_deliveries: 1,
      retry_policy: { min_seconds: 100 },
    });
    expect((await extend(queue, id, 0, lease_token)).status).toBe(204);
    expect((await look(queue, id)).body).toMatchObject({ id, state: "ready", delivery_attempts: 1 });
    expect((await ack(queue, id, lease_token)).body).toEqual(lost);
    // At its maximum it is dead at its next lease.
    expect(await receive(queue)).toEqual([]);
    expect((await take(dead)).dead).toMatchObject({ source_queue_id: queue, reason: "max_deliveries", attempts: 1 });
  });

  test("by 0 answers when the message is visible again", async () => {
    const { queue, id, lease_token } = await taken();
    const answer = await extend(queue, id, 0, lease_token, representation);
    expect(await secondsUntil(answer.body.lease_expires_at)).toBeWithin(-5, 0.01);
  });

  test("needs a whole number of seconds from 0 to 43200", async () => {
    const { queue, id, lease_token } = await taken({ max_lease_seconds: 0 });
    const path = `/v1/queues/${queue}/messages/${id}/extend`;
    const put_ = (body: unknown) => call("PUT", path, body);
    expect((await put_({ lease_token })).body).toEqual(invalid("ack_deadline_seconds: cannot be blank."));
    expect((await extend(queue, id, 43_201, lease_token)).body).toEqual(
      invalid("ack_deadline_seconds: must be no greater than 43200."),
    );
    for (const wrong of [-1, 1.5, "1", true]) {
      expect((await put_({ lease_token, ack_deadline_seconds: wrong })).body).toEqual(
        refused(2, "malformed request body"),
      );
    }
    expect((await extend(queue, id, 43_200, lease_token)).status).toBe(204);
  });

  test("never makes a lease longer than the queue's longest, counted from delivery", async () => {
    const { queue, id, lease_token } = await taken({ max_lease_seconds: 100 });
    expect((await extend(queue, id, 90, lease_token)).status).toBe(204);
    await elapse(40);
    const refusal = await extend(queue, id, 70, lease_token);
    expect(refusal.status).toBe(400);
    expect(refusal.body).toEqual(invalid("ack_deadline_seconds: must be no greater than 59."));
    expect((await extend(queue, id, 59, lease_token)).status).toBe(204);
    await elapse(61);
    const late = await extend(queue, id, 1, lease_token);
    expect(late.body).toEqual(invalid("ack_deadline_seconds: must be no greater than 0."));
    // What is left never keeps a consumer from giving it back.
    expect((await extend(queue, id, 0, lease_token)).status).toBe(204);
  });

  test("the first lease is the queue's own, however short the longest one is", async () => {
    const { queue, id, lease_token } = await taken({ ack_deadline_seconds: 300, max_lease_seconds: 10 });
    expect(await secondsUntil((await look(queue, id)).body.lease_expires_at)).toBeWithin(290, 300.01);
    expect((await extend(queue, id, 20, lease_token)).body.code).toBe(3);
    expect((await extend(queue, id, 9, lease_token)).status).toBe(204);
  });

  test("0 as the longest lease bounds nothing", async () => {
    const { queue, id, lease_token } = await taken({ max_lease_seconds: 0 });
    for (let i = 0; i < 3; i++) {
      expect((await extend(queue, id, 43_200, lease_token)).status).toBe(204);
      await elapse(43_100);
    }
    expect((await ack(queue, id, lease_token)).status).toBe(204);
  });

  test("needs a token, unless the queue allows to go without", async () => {
    const { queue, id } = await taken();
    const refusal = await extend(queue, id, 10);
    expect({ status: refusal.status, body: refusal.body }).toEqual({
      status: 400,
      body: invalid("lease_token: cannot be blank."),
    });
    const open = await taken({ allow_tokenless_extend: true });
    expect((await extend(open.queue, open.id, 100)).status).toBe(204);
    expect(await secondsUntil((await look(open.queue, open.id)).body.lease_expires_at)).toBeWithin(95, 100.01);
    expect((await extend(open.queue, open.id, 100, "1")).body).toEqual(lost);
    await elapse(101);
    // Without a token only what is live can be extended.
    expect((await extend(open.queue, open.id, 100)).body).toEqual(lost);
    expect((await extend(open.queue, open.id, 100, open.lease_token)).status).toBe(204);
    expect((await extend(open.queue, open.id, 0)).status).toBe(204);
    expect((await extend(open.queue, open.id, 10)).body).toEqual(lost);
  });

  test("adds the backoff of the retry policy behind the new end", async () => {
    const { queue, id, lease_token } = await taken({ retry_policy: { min_seconds: 50, jitter: "none" } });
    expect((await extend(queue, id, 20, lease_token)).status).toBe(204);
    await elapse(21);
    expect((await look(queue, id)).body.state).toBe("backing_off");
    await elapse(48);
    expect(await receive(queue)).toEqual([]);
    await elapse(2);
    expect(await take(queue)).toMatchObject({ id });
  });

  test("races with another extend, a nack and the next delivery leave one holder", async () => {
    for (let round = 0; round < 10; round++) {
      const { queue, id, lease_token } = await taken({ ack_deadline_seconds: 1 });
      await elapse(2);
      const [extended, nacked, second] = await Promise.all([
        extend(queue, id, 30, lease_token),
        nack(queue, id, { lease_token, visibility_timeout_seconds: 100 }),
        receive(queue),
      ]);
      const { state } = (await look(queue, id)).body;
      // The one that came last decides, and those whose token it took must know.
      const outcome = { extended: extended.status, nacked: nacked.status, again: second.length, state };
      expect([
        { extended: 204, nacked: 204, again: 0, state: "backing_off" },
        { extended: 409, nacked: 204, again: 0, state: "backing_off" },
        { extended: 409, nacked: 409, again: 1, state: "leased" },
      ]).toContainEqual(outcome);
    }
  });
});

describe("a receive with its own ack_deadline_seconds", () => {
  test("replaces the queue's for this call", async () => {
    const queue = await createQueue(service, { ack_deadline_seconds: 30 });
    await Promise.all([put(queue), put(queue)]);
    const long = await take(queue, "?limit=1&ack_deadline_seconds=500");
    const own = await take(queue, "?limit=1");
    expect(await secondsUntil(long.lease_expires_at)).toBeWithin(495, 500.01);
    expect(await secondsUntil(own.lease_expires_at)).toBeWithin(25, 30.01);
    await elapse(31);
    expect(await receive(queue)).toMatchObject([{ id: own.id }]);
  });

  test("of 0 delivers without hiding; the token counts until the next delivery, strictly not at all", async () => {
    const queue = await createQueue(service);
    await put(queue);
    const first = await take(queue, "?limit=1&ack_deadline_seconds=0");
    const second = await take(queue, "?limit=1&ack_deadline_seconds=0");
    expect([second.id, second.delivery_attempts]).toEqual([first.id, 2]);
    expect((await stats(queue)).ready).toBe(1);
    expect((await ack(queue, first.id, first.lease_token)).body).toEqual(lost);
    expect((await ack(queue, first.id, second.lease_token)).status).toBe(204);

    const strict = await createQueue(service, { strict_leases: true });
    await put(strict);
    const { id, lease_token } = await take(strict, "?limit=1&ack_deadline_seconds=0");
    expect((await ack(strict, id, lease_token)).body).toEqual(lost);
  });

  test("is refused above 43200, and above the queue's longest lease; nothing is leased then", async () => {
    const queue = await createQueue(service, { max_lease_seconds: 60 });
    await put(queue);
    const ask = (seconds: number | string) =>
      call("GET", `/v1/queues/${queue}/messages?ack_deadline_seconds=${seconds}`);
    const bound = (max: number) => invalid(`ack_deadline_seconds: must be no greater than ${max}.`);
    expect((await ask(43_201)).body).toEqual(bound(43_200));
    expect((await ask(61)).body).toEqual(bound(60));
    expect((await ask("x")).body).toEqual(invalid("ack_deadline_seconds: must be in a valid format."));
    expect((await stats(queue)).ready).toBe(1);
    expect((await ask(60)).body.data).toHaveLength(1);
    const unbounded = await createQueue(service, { max_lease_seconds: 0 });
    await put(unbounded);
    expect(await receive(unbounded, "?ack_deadline_seconds=43200")).toHaveLength(1);
  });

  test("under a deadline of 0, expired messages do not come back either", async () => {
    const queue = await createQueue(service, { message_retention_seconds: 10, strict_leases: true });
    await Promise.all(Array.from({ length: 30 }, () => put(queue)));
    await elapse(11);
    const id = await put(queue);
    expect(await receive(queue, "?limit=10&ack_deadline_seconds=0")).toMatchObject([{ id, delivery_attempts: 1 }]);
  });
});
