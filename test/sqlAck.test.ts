import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import type postgres from "postgres";
import { createMigratedDatabase, createQueue, openService } from "./harness.ts";
import { type Delivered, rollBack, verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

// Transactions of one's own need sessions of one's own, so this is for PostgreSQL only.
const service = await openService({ url: await createMigratedDatabase() });
afterAll(() => service.close());
const { sql } = service;
const { put, take, receive, ack, look, update } = verbsOf(service);

type Session = postgres.Sql | postgres.TransactionSql;

describe("psqlqueue.ack", () => {
  const sqlAck = async (session: Session, queue: string, id: string, token: string | null) =>
    (await session`select psqlqueue.ack(${queue}, ${id}, ${token}) as is_acked`)[0]?.["is_acked"];

  test("commits and rolls back with the work of the consumer", async () => {
    const queue = await createQueue(service);
    await sql`create table work (id text primary key)`;
    const id = await put(queue);
    const { lease_token } = await take(queue);
    await rollBack(sql, async (session) => {
      await session`insert into work values (${id})`;
      expect(await sqlAck(session, queue, id, lease_token)).toBe(true);
    });
    expect((await look(queue, id)).body.state).toBe("leased");
    await sql.begin(async (session) => {
      await session`insert into work values (${id})`;
      expect(await sqlAck(session, queue, id, lease_token)).toBe(true);
    });
    expect((await look(queue, id)).body.state).toBe("acked");
    expect([...(await sql`select id from work`)]).toEqual([{ id }]);
    // Repeatable, here and over HTTP.
    expect(await sqlAck(sql, queue, id, lease_token)).toBe(true);
    expect((await ack(queue, id, lease_token)).status).toBe(204);
    await sql`drop table work`;
  });

  test("is false for a token that is not current, and changes nothing", async () => {
    const queue = await createQueue(service, { ack_deadline_seconds: 30, message_retention_seconds: 100 });
    const id = await put(queue);
    const first = await take(queue);
    await service.elapse(31);
    const second = await take(queue);
    const others = [first.lease_token, "", "x", "-1", "1", "9223372036854775808", "1".repeat(90), null];
    for (const token of others) expect(await sqlAck(sql, queue, id, token)).toBe(false);
    expect((await look(queue, id)).body.state).toBe("leased");
    // Late is fine, expired is not: as over HTTP.
    await service.elapse(31);
    await rollBack(sql, async (session) => expect(await sqlAck(session, queue, id, second.lease_token)).toBe(true));
    await update(queue, { strict_leases: true, message_retention_seconds: 100 });
    expect(await sqlAck(sql, queue, id, second.lease_token)).toBe(false);
    await update(queue, { strict_leases: false, message_retention_seconds: 100 });
    await service.elapse(50);
    expect(await sqlAck(sql, queue, id, second.lease_token)).toBe(false);
  });

  test("knows every token that a server makes", async () => {
    const queue = await createQueue(service);
    const id = await put(queue);
    for (const token of ["9223372036854775807", "9000000000000000000", "8999999999999999999", "1"]) {
      await take(queue, "?ack_deadline_seconds=0");
      await sql`update psqlqueue.messages set lease_token = ${token}::text::bigint where id = ${id}`;
      await rollBack(sql, async (session) => expect(await sqlAck(session, queue, id, token)).toBe(true));
    }
  });

  test("keeps no row on a queue without an archive", async () => {
    const queue = await createQueue(service, { archive_retention_seconds: 0 });
    const id = await put(queue);
    const { lease_token } = await take(queue);
    expect(await sqlAck(sql, queue, id, lease_token)).toBe(true);
    expect(await sqlAck(sql, queue, id, lease_token)).toBe(false);
  });

  test("in a transaction that stays open it holds up that message, and no other of its batch", async () => {
    const impatient = await openService({ url: service.url, statement_timeout_ms: 1000 });
    const queue = await createQueue(impatient);
    for (let i = 0; i < 4; i++) await put(queue);
    const [held, ...others] = (await receive(queue, "?limit=4")) as [Delivered, ...Delivered[]];
    const settle = (verb: "ack" | "nack" | "extend", { id, lease_token }: Delivered) => {
      const body = { lease_token, ...(verb === "extend" && { ack_deadline_seconds: 20 }) };
      return impatient.call("PUT", `/v1/queues/${queue}/messages/${id}/${verb}`, body);
    };
    await rollBack(sql, async (session) => {
      expect(await sqlAck(session, queue, held.id, held.lease_token)).toBe(true);
      for (const [i, verb] of (["extend", "nack", "ack"] as const).entries()) {
        const together = [held, others[i] as Delivered].map((message) => settle(verb, message));
        const [refusal, answer] = await Promise.all(together);
        expect({ verb, status: answer?.status }).toEqual({ verb, status: 204 });
        expect(refusal).toMatchObject({ status: 503, body: { code: 19 } });
        expect(refusal?.body.details).toContain("locked by another transaction");
      }
    });
    expect((await settle("ack", held)).status).toBe(204);
    await impatient.close();
  });
});
