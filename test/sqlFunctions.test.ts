import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import type postgres from "postgres";
import { createMigratedDatabase, createQueue, openService, uniqueId, until } from "./harness.ts";
import { rollBack, verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

// Transactions of one's own need sessions of one's own, so this is for PostgreSQL only.
const service = await openService({ url: await createMigratedDatabase(), receive_limit_max: 1000 });
afterAll(() => service.close());
const { call, sql, broker } = service;
const { put, receive, take, look, bodies, update, secondsUntil } = verbsOf(service);

type Session = postgres.Sql | postgres.TransactionSql;
const idOf = async (query: postgres.PendingQuery<postgres.Row[]>): Promise<string> => (await query)[0]?.["id"];
const json = (value: unknown) => JSON.stringify(value);
const sqlPublish = (session: Session, queue: string, body: string, options: unknown = {}) =>
  idOf(session`select psqlqueue.publish(${queue}, ${body}, null, null, ${json(options)}::text::jsonb) as id`);

/** What the statement was refused with. */
async function refusal(query: Promise<unknown>) {
  try {
    await query;
  } catch (error) {
    const { code, message, detail } = error as { code: string; message: string; detail?: string };
    return { code, message, ...(detail && { detail }) };
  }
  throw new Error("it was not refused");
}

async function topicOf(...queues: string[]): Promise<string> {
  const id = uniqueId("t");
  await call("POST", "/v1/topics", { id });
  for (const queue_id of queues) await call("POST", "/v1/subscriptions", { id: uniqueId("s"), topic_id: id, queue_id });
  return id;
}

describe("a publish by SQL", () => {
  test("is there after the commit, under the id that the call gave, with all that was given", async () => {
    const queue = await createQueue(service, { delivery_delay_seconds: 0 });
    const id = await sql.begin(async (session) => {
      const options = { ttl_seconds: 100, delay_seconds: 0 };
      const own = await idOf(session`
        select psqlqueue.publish(${queue}, 'b', 'l', '{"k":"v"}', ${json(options)}::text::jsonb) as id`);
      expect((await broker.moveOutbox()).moved).toBe(0);
      expect((await look(queue, own)).status).toBe(404);
      return own;
    });
    expect(id).toMatch(/^[0-7][0-9A-HJKMNP-TV-Z]{25}$/);
    expect(await broker.moveOutbox()).toEqual({ moved: 1, dropped: 0 });
    const message = (await take(queue)) as unknown as { expires_at: string; created_at: string };
    expect(message).toMatchObject({ id, body: "b", label: "l", attributes: { k: "v" }, delivery_attempts: 1 });
    expect(await secondsUntil(message.expires_at)).toBeWithin(90, 100.01);
    expect(await secondsUntil(message.created_at)).toBeWithin(-10, 0.01);
  });

  test("is gone with a rollback", async () => {
    const queue = await createQueue(service);
    await rollBack(sql, async (session) => {
      await sqlPublish(session, queue, "x");
      await session`select psqlqueue.publish_batch(${queue}, '[{"body":"y"}]')`;
    });
    expect(await broker.moveOutbox()).toEqual({ moved: 0, dropped: 0 });
    expect(await receive(queue)).toEqual([]);
  });

  test("comes in the order of the calls, within a transaction and from one to the next", async () => {
    const queue = await createQueue(service);
    const expected: string[] = [];
    for (let round = 0; round < 5; round++) {
      await sql.begin(async (session) => {
        for (let i = 0; i < 10; i++)
          await sqlPublish(session, queue, expected[expected.push(`${round} ${i}`) - 1] ?? "");
        const batch = Array.from({ length: 20 }, (_, i) => ({ body: `${round} batch ${i}` }));
        await session`select psqlqueue.publish_batch(${queue}, ${json(batch)}::text::jsonb)`;
        expected.push(...batch.map(({ body }) => body));
      });
    }
    await broker.moveOutbox();
    expect(await bodies(queue, "?limit=1000")).toEqual(expected);
  });

  test("of a batch answers the ids in order, and takes every option per item", async () => {
    const queue = await createQueue(service);
    const batch = [
      { body: "a", label: "l" },
      { body: "b", attributes: { k: "v" } },
      { body: "c", delay_seconds: 60 },
    ];
    const rows = await sql`select psqlqueue.publish_batch(${queue}, ${json(batch)}::text::jsonb) as id`;
    await broker.moveOutbox();
    const [a, b, c] = rows.map((row) => row["id"] as string);
    expect(await receive(queue)).toMatchObject([
      { id: a as string, label: "l" },
      { id: b as string, attributes: { k: "v" } },
    ] as never);
    expect((await look(queue, c as string)).body.state).toBe("delayed");
  });

  test("to a topic goes to the subscriptions that the transaction sees, by their filters", async () => {
    const [all, some] = [await createQueue(service), await createQueue(service)];
    const topic = await topicOf(all);
    const message_filters = { k: ["v"] };
    const subscription = { id: uniqueId("s"), topic_id: topic, queue_id: some, message_filters };
    await call("POST", "/v1/subscriptions", subscription);
    const publish = async (attributes: string) =>
      (await sql`select psqlqueue.publish_topic(${topic}, 'x', 'l', ${attributes}::text::jsonb) as count`)[0]?.[
        "count"
      ];
    expect(await publish('{"k":"v"}')).toBe(2);
    expect(await publish('{"k":"w"}')).toBe(1);
    expect(await publish("null")).toBe(1);
    await broker.moveOutbox();
    expect(await receive(all)).toHaveLength(3);
    expect(await receive(some)).toMatchObject([{ body: "x", label: "l" }]);
    const [row] = await sql`select psqlqueue.publish_topic(${await topicOf()}, 'x') as count`;
    expect(row).toEqual({ count: 0 });
  });

  test("obeys delay, time of delivery and the queue's own delay, counted from the move", async () => {
    const queue = await createQueue(service, { delivery_delay_seconds: 300 });
    const at = new Date(Date.now() + 100_000).toISOString();
    const [delayed, dated, queues] = [
      await sqlPublish(sql, queue, "a", { delay_seconds: 60.0 }),
      await sqlPublish(sql, queue, "b", { deliver_at: at }),
      await sqlPublish(sql, queue, "c"),
    ];
    await broker.moveOutbox();
    for (const [id, seconds] of [[delayed, 60] as const, [dated, 100] as const, [queues, 300] as const]) {
      expect(await secondsUntil((await look(queue, id)).body.visible_at)).toBeWithin(seconds - 10, seconds + 1);
    }
  });
});

describe("it is refused in the words of the API:", () => {
  const validation = (detail: string) => ({ code: "PQ003", message: "request validation failed", detail });

  test("unknown and closed queues and topics", async () => {
    const queue = await createQueue(service);
    const topic = await topicOf(await createQueue(service), queue);
    await call("PUT", `/v1/queues/${queue}/pause`, { publish: true, consume: false });
    const no_queue = { code: "PQ005", message: "queue not found" };
    const closed = { code: "PQ017", message: "queue closed" };
    expect(await refusal(sqlPublish(sql, uniqueId(), "x"))).toEqual(no_queue);
    expect(await refusal(sql`select psqlqueue.publish_batch('none', '[{"body":"x"}]')`)).toEqual(no_queue);
    expect(await refusal(sql`select psqlqueue.publish_topic('none', 'x')`)).toEqual({
      code: "PQ008",
      message: "topic not found",
    });
    expect(await refusal(sqlPublish(sql, queue, "x"))).toEqual(closed);
    expect(await refusal(sql`select psqlqueue.publish_batch(${queue}, '[{"body":"x"}]')`)).toEqual(closed);
    expect(await refusal(sql`select psqlqueue.publish_topic(${topic}, 'x')`)).toEqual(closed);
    expect(await refusal(sql`select psqlqueue.ack('none', 'x', '1')`)).toEqual(no_queue);
    expect(await broker.moveOutbox()).toEqual({ moved: 0, dropped: 0 });
  });

  test("every option out of bounds", async () => {
    const queue = await createQueue(service);
    const ask = (options: unknown) => refusal(sqlPublish(sql, queue, "x", options));
    const far = "2999-01-01T00:00:00Z";
    for (const [options, detail] of [
      [{ delay_seconds: 31_536_001 }, "delay_seconds: must be no greater than 31536000."],
      [{ delay_seconds: -1 }, "delay_seconds: must be no less than 0."],
      [{ delay_seconds: "1" }, "delay_seconds: must be in a valid format."],
      [{ delay_seconds: 1.5 }, "delay_seconds: must be in a valid format."],
      [{ ttl_seconds: 0 }, "ttl_seconds: must be no less than 1."],
      [{ deliver_at: "tomorrow" }, "deliver_at: must be in a valid format."],
      [{ deliver_at: "2026-01-01T00:00:00" }, "deliver_at: must be in a valid format."],
      [{ deliver_at: far }, "deliver_at: must be no greater than a year from now."],
      [
        { deliver_at: "2001-01-01T00:00:00Z", delay_seconds: 1 },
        "delay_seconds: must not be given together with deliver_at.",
      ],
      [{ expires_at: "2001-01-01T00:00:00Z" }, "expires_at: must be in the future."],
      [{ expires_at: far, ttl_seconds: 1 }, "expires_at: must not be given together with ttl_seconds."],
      [{ dedup_id: "a b" }, "dedup_id: must be in a valid format."],
      [{ dedup_id: "x".repeat(129) }, "dedup_id: must be in a valid format."],
      [{ ordering_key: "" }, "ordering_key: cannot be blank."],
      [{ ordering_key: 5 }, "ordering_key: must be in a valid format."],
      [{ ordering_key: "é".repeat(129) }, "ordering_key: the length must be no more than 256."],
      [{ ordering_key: "k", delay_seconds: 5 }, "ordering_key: must not be given together with delay_seconds."],
      [{ priority: 3 }, "priority: is not enabled for this queue."],
      [[], "options: must be in a valid format."],
    ] as const) {
      expect(await ask(options)).toEqual(validation(detail));
    }
    const wrong = sql`select psqlqueue.publish(${queue}, '', ${"x".repeat(256)}, '[]')`;
    expect(await refusal(wrong)).toEqual(
      validation(
        "body: cannot be blank; label: the length must be no more than 255; attributes: must be in a valid format.",
      ),
    );
    expect(await refusal(sql`select psqlqueue.publish(${queue}, 'x', null, '{"n":1}')`)).toEqual(
      validation("attributes: must be in a valid format."),
    );
  });

  test("a list that is none, too long, or with a bad item", async () => {
    const queue = await createQueue(service);
    const ask = (messages: string | null) =>
      refusal(sql`select psqlqueue.publish_batch(${queue}, ${messages}::text::jsonb)`);
    const blank = validation("messages: cannot be blank.");
    for (const messages of ["[]", "{}", '"x"', "null", null]) expect(await ask(messages)).toEqual(blank);
    expect(await ask(json(new Array(1001).fill({ body: "x" })))).toEqual(
      validation("messages: the length must be no more than 1000."),
    );
    expect(await ask('[{"body":"x"},{"body":""}]')).toEqual(validation("messages[1].body: cannot be blank."));
    // Over HTTP neither is text what is none.
    for (const member of ['"body":5', '"body":{"a":1}', '"body":true']) {
      expect(await ask(`[{${member}}]`)).toEqual(validation("messages[0].body: must be in a valid format."));
    }
    for (const [member, value] of [
      ["label", '["a"]'],
      ["label", "7"],
      ["dedup_id", "5"],
      ["notify", '"abc"'],
      ["notify", "5"],
      ["deliver_at", '"2027-02-30T00:00:00Z"'],
      ["expires_at", '"2027-02-30T00:00:00Z"'],
    ]) {
      const problem = validation(`messages[0].${member}: must be in a valid format.`);
      expect(await ask(`[{"body":"x","${member}":${value}}]`)).toEqual(problem);
    }
    expect(await refusal(sql`select psqlqueue.publish(${queue}, 'x', options => '{"notify":"abc"}')`)).toEqual(
      validation("notify: must be in a valid format."),
    );
    expect(await broker.moveOutbox()).toEqual({ moved: 0, dropped: 0 });
  });
});

describe("rights", () => {
  test("a role may be let publish to some queues and topics only, and ack in some", async () => {
    const role = uniqueId("role").replaceAll("-", "_");
    const group = uniqueId("group").replaceAll("-", "_");
    await sql`create role ${sql(role)}`;
    await sql`create role ${sql(group)}`;
    const [mine, theirs] = [await createQueue(service), await createQueue(service)];
    const topic = await topicOf(mine);
    await sql`select psqlqueue.grant_publish(${role}, ${`${mine.slice(0, -1)}*`})`;
    await sql`select psqlqueue.grant_publish(${role}, ${mine})`;
    await sql`select psqlqueue.revoke_publish(${role}, ${`${mine.slice(0, -1)}*`})`;
    const as = async (statement: string) => {
      const query = sql.begin(async (session) => {
        await session`set local role ${sql(role)}`;
        await session.unsafe(`select psqlqueue.${statement}`);
      });
      return await query.then(
        () => "done",
        ({ message }: Error) => message,
      );
    };
    expect(await as(`publish('${mine}', 'x')`)).toBe("done");
    expect(await as(`publish_batch('${mine}', '[{"body":"y"}]')`)).toBe("done");
    for (const id of [theirs, "nowhere", `${mine}%`])
      expect([id, await as(`publish('${id}', 'x')`)]).toEqual([id, "forbidden"]);
    expect(await as(`publish_topic('${topic}', 'x')`)).toBe("forbidden");
    expect(await as(`ack('${mine}', 'i', '1')`)).toContain("permission denied");

    await sql`select psqlqueue.grant_ack(${group}, ${theirs})`;
    await sql`select psqlqueue.grant_publish(${group}, ${topic})`;
    await sql`grant ${sql(group)} to ${sql(role)}`;
    expect(await as(`publish_topic('${topic}', 'z')`)).toBe("done");
    expect(await as(`publish('${mine}', 'x')`)).toBe("done");
    expect(await as(`ack('${theirs}', 'i', '1')`)).toBe("done");
    expect(await as(`ack('${mine}', 'i', '1')`)).toBe("forbidden");

    await sql`select psqlqueue.revoke_publish(${role}, ${mine})`;
    await sql`select psqlqueue.revoke_publish(${group}, ${topic})`;
    expect(await as(`publish('${mine}', 'x')`)).toContain("permission denied");
    for (const name of [role, group]) {
      await sql`delete from psqlqueue.sql_rights where role = ${name}`;
      await sql`drop owned by ${sql(name)}`;
      await sql`drop role ${sql(name)}`;
    }
  });

  test("temporary tables and types of a caller stand before nothing of ours", async () => {
    const role = uniqueId("role").replaceAll("-", "_");
    await sql`create role ${sql(role)}`;
    const [mine, theirs] = [await createQueue(service), await createQueue(service)];
    await sql`select psqlqueue.grant_publish(${role}, ${mine})`;
    await sql`select psqlqueue.grant_ack(${role}, ${mine})`;
    // Whatever the functions look up by a name without a schema, in their bodies and in the types of their variables.
    const traps = [
      "create temp table pg_roles (rolname name, oid oid)",
      `create function pg_temp.spring(value anyelement) returns boolean language plpgsql as $$
      begin raise exception 'sprung as %', current_user; end $$`,
      ...["text", "jsonb", "bool", "int8", "name", "timestamptz"].map(
        (type) => `create domain pg_temp.${type} as pg_catalog.${type} check (pg_temp.spring(value))`,
      ),
    ];
    for (const statement of [
      `publish('${theirs}', 'x')`,
      `publish_batch('${theirs}', '[{"body":"y"}]')`,
      `publish_topic('${theirs}', 'x')`,
      `ack('${theirs}', 'i', '1')`,
    ]) {
      const query = sql.begin(async (session) => {
        await session`set local role ${sql(role)}`;
        for (const trap of traps) await session.unsafe(trap);
        await session.unsafe(`select psqlqueue.${statement}`);
      });
      expect([statement, await query.catch(({ message }: Error) => message)]).toEqual([statement, "forbidden"]);
    }
    await sql`delete from psqlqueue.sql_rights where role = ${role}`;
    await sql`drop owned by ${sql(role)}`;
    await sql`drop role ${sql(role)}`;
  });

  test("a role with EXECUTE and none on any table can publish and ack; one without cannot", async () => {
    const queue = await createQueue(service);
    const id = await put(queue);
    const { lease_token } = await take(queue);
    const [allowed, other] = [uniqueId("role"), uniqueId("role")].map((name) => name.replaceAll("-", "_"));
    for (const role of [allowed, other]) {
      await sql`create role ${sql(role as string)}`;
      await sql`grant usage on schema psqlqueue to ${sql(role as string)}`;
    }
    await sql`grant execute on function psqlqueue.publish, psqlqueue.publish_batch, psqlqueue.publish_topic, psqlqueue.ack
      to ${sql(allowed as string)}`;
    const topic = await topicOf(queue);
    await sql.begin(async (session) => {
      await session`set local role ${sql(allowed as string)}`;
      await sqlPublish(session, queue, "by a stranger");
      await session`select psqlqueue.publish_batch(${queue}, '[{"body":"batch"}]')`;
      await session`select psqlqueue.publish_topic(${topic}, 'topic')`;
      expect([...(await session`select psqlqueue.ack(${queue}, ${id}, ${lease_token}) as is_acked`)]).toEqual([
        { is_acked: true },
      ]);
    });
    await broker.moveOutbox();
    expect(await bodies(queue)).toEqual(["by a stranger", "batch", "topic"]);
    const denied = async (role: string, statement: string) => {
      const query = sql.begin(async (session) => {
        await session`set local role ${sql(role)}`;
        await session.unsafe(statement);
      });
      return (await refusal(query)).code;
    };
    for (const table of ["messages", "outbox", "queues", "deduplications"]) {
      expect(await denied(allowed as string, `select * from psqlqueue.${table}`)).toBe("42501");
    }
    for (const statement of [
      `publish('${queue}', 'x')`,
      `publish_topic('t', 'x')`,
      "ack('q', 'i', '1')",
      "make_id()",
    ]) {
      expect(await denied(other as string, `select psqlqueue.${statement}`)).toBe("42501");
    }
    expect(await denied(allowed as string, "select psqlqueue.make_id()")).toBe("42501");
    for (const role of [allowed, other]) {
      await sql`drop owned by ${sql(role as string)}`;
      await sql`drop role ${sql(role as string)}`;
    }
  });
});

describe("an open transaction", () => {
  test("delays nobody: publishes, receives, changes of the queue and other outbox rows go on", async () => {
    const queue = await createQueue(service);
    await sql.begin(async (session) => {
      await sqlPublish(session, queue, "late");
      const started_ms = performance.now();
      await sqlPublish(sql, queue, "early");
      expect(await broker.moveOutbox()).toEqual({ moved: 1, dropped: 0 });
      await put(queue, { body: "http", dedup_id: "1" });
      expect(await bodies(queue)).toEqual(["early", "http"]);
      expect((await update(queue, { max_lease_seconds: 100 })).status).toBe(200);
      expect((await call("PUT", `/v1/queues/${queue}/purge`)).status).toBe(204);
      expect(performance.now() - started_ms).toBeLessThan(3000);
    });
    await broker.moveOutbox();
    expect(await bodies(queue)).toEqual(["late"]);
  });

  test("whose queue is deleted meanwhile: the message is dropped, also when a new queue has the name", async () => {
    const queue = await createQueue(service);
    await sql.begin(async (session) => {
      await sqlPublish(session, queue, "x");
      expect((await call("DELETE", `/v1/queues/${queue}`)).status).toBe(204);
    });
    await call("POST", "/v1/queues", { id: queue, ack_deadline_seconds: 30, message_retention_seconds: 100 });
    expect(await broker.moveOutbox()).toEqual({ moved: 0, dropped: 1 });
    expect(await receive(queue)).toEqual([]);
  });
});

describe("the move", () => {
  test("decides on duplicates, among its rows and with what was published over HTTP", async () => {
    const queue = await createQueue(service);
    await put(queue, { body: "http", dedup_id: "1" });
    for (const [body, dedup_id] of [
      ["a", "1"],
      ["b", "2"],
      ["c", "2"],
      ["d", undefined],
    ]) {
      await sqlPublish(sql, queue, body ?? "", { dedup_id });
    }
    await broker.moveOutbox();
    expect((await put(queue, { body: "again", dedup_id: "2" })).length).toBe(26);
    expect(await bodies(queue)).toEqual(["http", "b", "d"]);
    const by_content = await createQueue(service, { content_dedup: true });
    for (let i = 0; i < 3; i++) await sqlPublish(sql, by_content, "same");
    await broker.moveOutbox();
    expect(await bodies(by_content)).toEqual(["same"]);
  });

  test("is done once, by however many servers at the same time", async () => {
    const queue = await createQueue(service);
    const batch = Array.from({ length: 1000 }, (_, i) => ({ body: String(i) }));
    for (let i = 0; i < 3; i++) await sql`select psqlqueue.publish_batch(${queue}, ${json(batch)}::text::jsonb)`;
    const moved = await Promise.all(Array.from({ length: 4 }, () => broker.moveOutbox()));
    expect(moved.reduce((sum, one) => sum + one.moved, 0)).toBe(3000);
    expect((await call("GET", `/v1/queues/${queue}/stats`)).body.ready).toBe(3000);
  });

  test("follows the commit at once where servers listen, unless the call says not to notify", async () => {
    const queue = await createQueue(service);
    let heard = 0;
    const end = await broker.listenToOutbox(() => {
      heard += 1;
    });
    await until(() => heard === 1);
    await sql.begin(async (session) => {
      await sqlPublish(session, queue, "a");
      await sqlPublish(session, queue, "b");
    });
    await until(() => heard === 2);
    await sqlPublish(sql, queue, "c", { notify: false });
    await sqlPublish(sql, queue, "d");
    await until(() => heard === 3);
    await broker.moveOutbox();
    expect([heard, await bodies(queue)]).toEqual([3, ["a", "b", "c", "d"]]);
    await end();
  });
});
